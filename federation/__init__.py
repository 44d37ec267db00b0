"""Questions asked of many nodes at once, answered with what they cover.

Owns the SQL allow-list, the partial aggregates and their merge, the threshold, the columnar replica
and the executors. Promises that no node runs SQL text that was sent to it, that only partial
aggregates leave a node and that an offline node is named in the answer. Never writes to the node's
store and knows nothing of links: the node supplies them behind protocols.
"""

__all__: list[str] = []
