"""The columnar replica: a node's records by column, for questions over many rows.

Derived from the change log and from nothing else: immutable Parquet segments clustered by home and
date, a manifest that says which of them count and the log sequence they stand at, and a small delta
in memory. A snapshot sees every row once, in its newest version. It never holds direct identifiers
or free text, never reads or writes outside its folder, and is thrown away and fed again rather than
repaired. Other processes may read the segments; none but the node writes.
"""

from __future__ import annotations

from federation.columnar.engine import ColumnarLimits
from federation.columnar.replica import ColumnarReplica
from federation.columnar.schema import COLUMN_NAMES
from federation.columnar.snapshot import Snapshot, SnapshotFiles
from federation.columnar.source import ColumnarChanges, ReplicaSource
from federation.columnar.views import SiteColumn

__all__ = [
    "COLUMN_NAMES",
    "ColumnarChanges",
    "ColumnarLimits",
    "ColumnarReplica",
    "ReplicaSource",
    "SiteColumn",
    "Snapshot",
    "SnapshotFiles",
]
