"""What a node keeps: rows with their change log and audit, in one transaction, on either database.

Owns the schema, its migrations and every statement on it. It promises that what it acknowledged is
durable with its log entry and its audit row or not there at all, that every read is scoped to the
caller and audited in its own transaction, that cells named sealed are never written clear, and that
what leaves upward has the form that policy names. It never talks to a peer and decides no policy.
"""

from node.storage.answers import AnswerCounts, ResidentQuestion
from node.storage.audit import AuditBreak
from node.storage.data_keys import StoredKeys
from node.storage.engine import EngineLimits, check_durability, open_engine
from node.storage.migrations import migrate
from node.storage.model import (
    ApplyOutcome,
    AuditEntry,
    BundleRequest,
    BundleResult,
    ColumnarChanges,
    Counts,
    DataKey,
    Page,
    StoredRecord,
    StoredResident,
)
from node.storage.storage import LogState, Storage
from node.storage.tables import CHANGELOG, METADATA

__all__ = [
    "CHANGELOG",
    "METADATA",
    "AnswerCounts",
    "ApplyOutcome",
    "AuditBreak",
    "AuditEntry",
    "BundleRequest",
    "BundleResult",
    "ColumnarChanges",
    "Counts",
    "DataKey",
    "EngineLimits",
    "LogState",
    "Page",
    "ResidentQuestion",
    "Storage",
    "StoredKeys",
    "StoredRecord",
    "StoredResident",
    "check_durability",
    "migrate",
    "open_engine",
]
