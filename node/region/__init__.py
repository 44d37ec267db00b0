"""Changes of the hierarchy while the region runs: configurations, certificates, rows that move.

Owns what is signed and by whom it may be, a node's table of epochs, the switch from one epoch to
the next, and the root's work of planning, deciding and seeing through. Promises that two nodes are
never in one epoch with different contents, and that no row goes before another node has it. Never
decides who may read what: the hierarchy in force does.
"""

from node.region.room import RegionGround, RegionRoom, lay_ground, parent_names

__all__ = ["RegionGround", "RegionRoom", "lay_ground", "parent_names"]
