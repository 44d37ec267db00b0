"""What the storage gives back, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from node.merging.fold import Group
from node.records.model import Bundle, NewIdentifier
from node.security.caller import Caller
from node.storage.specs import RECORD_TABLES
from replication.core.model import Value, Version

__all__ = [
    "ApplyOutcome",
    "AuditEntry",
    "BundleRequest",
    "BundleResult",
    "ColumnarChanges",
    "ColumnarRows",
    "Counts",
    "DataKey",
    "Page",
    "StoredRecord",
    "StoredResident",
]

_RECORDS: Final = frozenset(spec.name for spec in RECORD_TABLES)


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """A bundle, and who puts it."""

    caller: Caller
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class BundleResult:
    """The answer to a bundle: ids in its order, row versions made durable, identifiers included.

    `repeated`: the request had been answered before, and this is that answer.
    """

    resident_ids: tuple[str, ...]
    record_ids: tuple[str, ...]
    acknowledged: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class StoredResident:
    """A resident held in full. Dates are ISO; empty text is never stored: None is unknown."""

    resident_id: str
    version: Version
    author_node: str
    home_node: str
    home_epoch: int
    recorded_at: str
    name: str | None
    sex: str | None
    birth_date: str | None
    birth_year: int | None
    phone: str | None
    address: str | None
    deceased_on: str | None
    identifiers: tuple[NewIdentifier, ...]
    deleted: bool = False
    author_organization: str | None = None
    group: Group | None = None
    """Under which ids he is known; None: nobody asked, or he is in no group with others."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record held in full; `values` are the table's own columns."""

    table: str
    record_id: str
    resident_id: str
    version: Version
    author_node: str
    home_node: str
    home_epoch: int
    recorded_at: str
    deleted: bool
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Page:
    """Records of a timeline, newest first; an empty token: no further page."""

    records: tuple[StoredRecord, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class ApplyOutcome:
    """What became of a batch's rows: written, held already (or newer), set aside with a cause."""

    applied: int
    stale: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows held, retracted ones left out. `residents`: in full, and main-index entries."""

    residents: int
    rows: Mapping[str, int]

    @property
    def records(self) -> int:
        """Rows of the record tables together."""
        return sum(count for table, count in self.rows.items() if table in _RECORDS)


@dataclass(frozen=True, slots=True)
class ColumnarChanges:
    """Current rows of every dataset touched in a range of the log, each once.

    Rows carry row_id, resident_id, home, author, form, sex, birth_year and the dataset's own
    columns; never a direct identifier. `deleted` are row ids now retracted. Ask again from `up_to`
    until it is `head`.
    """

    up_to: int
    head: int
    rows: Mapping[str, tuple[Mapping[str, Value], ...]]
    deleted: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ColumnarRows:
    """Current rows of a dataset by row id, retracted ones left out; `seen`: all ids looked at."""

    seen: tuple[str, ...]
    rows: Mapping[str, tuple[Mapping[str, Value], ...]]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to whose data, when and why (after IHE ATNA). No clinical content.

    `grant_id`: of the broken glass that a read went through.
    """

    at: str
    principal: str
    kind: str
    node_id: str
    purpose: str
    action: str
    object_table: str
    object_id: str | None
    resident_id: str | None
    outcome: str
    row_count: int
    grant_id: str | None = None


@dataclass(frozen=True, slots=True)
class DataKey:
    """A wrapped data key, what it is for, and if it seals ("current") or only opens ("retired").

    `seals`: how often it has sealed, about.
    """

    key_id: str
    suite: str
    wrapped: bytes
    created_at: str
    state: str
    purpose: str = ""
    seals: int = 0
