"""Getting back what a store has lost, and keeping the log from growing without bound.

Owns when a recovery ends, how a lost node is made anew, and how far the log is pruned. Promises
that a recovery which was interrupted anywhere goes on, that nothing is pruned which is nowhere
else, and that whoever is left behind is seeded by a snapshot. What a snapshot holds is
node/storage/snapshot.py's, what a recovering node takes node/storage/apply.py's.
"""

from node.recovery.keeper import RecoveryKeeper
from node.recovery.rebuild import RebuiltNode, begin_rebuilt
from node.recovery.room import SeedingRoom

__all__ = ["RebuiltNode", "RecoveryKeeper", "SeedingRoom", "begin_rebuilt"]
