"""Who is one person under several ids: merged, taken apart again, and told apart for good.

Owns what a steward decides over a pair of residents, as events that travel like records, and what
follows from them for reading. Promises that nothing is rewritten by a merge, so that an unmerge
gives back what was; and that all nodes which hold the same events read alike, in whatever order
they came. Never decides by itself: matching proposes (node/matching), a steward decides.
"""

__all__: list[str] = []
