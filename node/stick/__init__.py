"""Replication by stick: batches and receipts in sealed files, where no network reaches.

Owns the file and what an import makes of it. Promises the rules of the live link: the same stream
and numbers, the same refusals, the same signed receipts; a live link that comes back in between
does no harm, nor does a file that comes twice, late, cut short or altered. What goes into a file is
what the link would have sent (node/link_store.py).
"""

from node.stick.exporting import Exporter
from node.stick.importing import Imported, ImportedLane, Importer
from node.stick.room import StickRoom

__all__ = ["Exporter", "Imported", "ImportedLane", "Importer", "StickRoom"]
