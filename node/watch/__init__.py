"""Looks after replication: how far behind each neighbour is, what does not mend itself, what waits.

Owns the figures of links and lanes, the alarms that stand, and the node's own attempts to let
changes out of the quarantine. Decides nothing about replication itself: it reads what the links
and the store say, and asks the store's own doors.
"""

from node.watch.alarms import Alarm, AlarmBook, AlarmKind
from node.watch.figures import Figures, LaneFigure, LinkFigure
from node.watch.room import WatchRoom

__all__ = [
    "Alarm",
    "AlarmBook",
    "AlarmKind",
    "Figures",
    "LaneFigure",
    "LinkFigure",
    "WatchRoom",
]
