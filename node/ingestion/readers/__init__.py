"""Readers: a content becomes units, one at a time, in bounded memory, and never raises for a unit.

What cannot be read as a unit comes as a unit with a trouble, so that read = accepted + quarantined
holds whatever the bytes are. Only a content that is not of its format at all raises. Knows nothing
of mappings, people or the database.
"""

from __future__ import annotations

from node.ingestion.readers.opening import Opened, open_reader

__all__ = ["Opened", "open_reader"]
