"""Backups of one node: made while it runs, kept encrypted elsewhere, put back into an empty folder.

Owns the format of a backup, the choice between a full and an incremental one, and the restore with
its new store epoch. It promises that an unfinished backup is never taken for one, that a backup is
restored whole or not at all, and that what was restored equals what was there at that moment, table
by table. It never opens a seal of the store's cells and never talks to a neighbour. DESIGN.md says
how. Import from its modules: they are named after what they do.
"""

__all__: list[str] = []
