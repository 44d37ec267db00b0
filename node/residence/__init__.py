"""Where residents live, and their moves from one home to another.

Owns the grants of moves, the hand-over of a history, the forwarding from an old home and the
proposals that its late edits become. Promises that one node owns a resident in every epoch, that
nothing any of his homes acknowledged is lost, and that every step survives the death of any node.
Decides by replication/core/residence.py and never talks to a node that is not its neighbour.
"""

__all__: list[str] = []
