"""The change log and the links: what moves every record, and nothing else moves any.

Owns the log's tables and numbering (changelog), the protocol of a link without I/O (core), its
frames (wire) and the running of one live stream (runner, channel). Promises that what a node
acknowledged reaches every node that policy names, in order, once in effect, through crashes,
partitions and restores; DESIGN.md says how and what shows it. Never looks into a row: it knows
nothing of health care, and nothing of node/, which supplies its stores behind protocols.
"""

__all__: list[str] = []
