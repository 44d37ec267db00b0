"""Compares a child's rows with its parent's copies by digest, and mends what differs.

Owns what a row's digest is, the search for differing rows, and the decision who is right. It
promises that traffic follows the number of differences and not of rows, that nothing clear travels
which replication would not send, that no version is ever lowered, and that every repair is audited.
It never decides where nobody can know: that goes to the report with its cause. DESIGN.md says how.
Import from its modules: they are named after what they do.
"""

__all__: list[str] = []
