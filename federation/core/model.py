"""The words of a federated question as frozen data: tables, requests, answers, manifests.

Shapes only, the twins of federation.proto. What they mean is in plan, merge, release and finish;
bytes are made in federation/wire.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from federation.core.coverage import Coverage

__all__ = [
    "EVERYBODY",
    "Answer",
    "Audience",
    "Basis",
    "Cell",
    "Column",
    "ColumnType",
    "ExecutorKind",
    "Explanation",
    "Freshness",
    "Manifest",
    "PartialAnswer",
    "PartialRequest",
    "QueryRequest",
    "SiteProgress",
    "SiteProgressState",
    "Table",
]

Cell = str | int | float | bool | None
"""A value of a column. Dates are ISO text; NaN and infinities are numbers like any other."""


class ColumnType(StrEnum):
    """The type of a column; the strings are those of the wire."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"


class Freshness(StrEnum):
    """Who may answer for a site."""

    LIVE = "live"
    REPLICA = "replica"
    BEST = "best"


class Basis(StrEnum):
    """Where a row counts: at the resident's current home, or at its author."""

    RESIDENCE = "residence"
    PROVIDER = "provider"


class ExecutorKind(StrEnum):
    """What runs the fan-out at the asking node."""

    DIRECT = "direct"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Column:
    """One column's values, each of `type` or None."""

    name: str
    type: ColumnType
    values: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if len({len(column.values) for column in self.columns}) > 1:
            raise ValueError("columns of a table differ in length")

    @property
    def row_count(self) -> int:
        """Rows; 0 without columns."""
        return len(self.columns[0].values) if self.columns else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: There is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def rows(self) -> Iterator[tuple[Cell, ...]]:
        """The rows in order."""
        return zip(*(column.values for column in self.columns), strict=True)


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """A question as asked. Zero and empty mean the node's defaults, as in the proto."""

    sql: str
    scope: str = ""
    freshness: Freshness = Freshness.BEST
    executor: ExecutorKind | None = None
    basis: Basis = Basis.RESIDENCE
    timeout_ms: int = 0
    cell_count_min: int = 0
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class PartialRequest:
    """The question as one site gets it; `site` answers for its whole subtree, itself included."""

    sql: str
    freshness: Freshness
    basis: Basis
    site: str


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """Partial aggregates of a subtree, and what they cover.

    `table` has the columns of `partials.partial_columns(plan)`; `suppressed_rows` are ascending
    row numbers whose partials are withheld (null) by a releasing node.
    """

    table: Table
    suppressed_rows: tuple[int, ...]
    coverage: Coverage


@dataclass(frozen=True, slots=True)
class Answer:
    """The final table with what it covers; `complete` is false if anything is missing."""

    query_id: str
    table: Table
    suppressed_rows: tuple[int, ...]
    coverage: Coverage
    executor: ExecutorKind
    elapsed_ms: int
    tasks: tuple[str, ...]
    complete: bool


class SiteProgressState(StrEnum):
    """How far a site is."""

    ASKED = "asked"
    ANSWERED = "answered"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class SiteProgress:
    """A step of one site, for the progress bar."""

    node_id: str
    state: SiteProgressState


@dataclass(frozen=True, slots=True)
class Explanation:
    """What asking would do, without doing it."""

    node_sql: str
    merge_steps: tuple[str, ...]
    sites: tuple[str, ...]
    privacy: tuple[str, ...]
    plan_digest: str


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom a site counts: residents who forbid one of the purposes to one of the recipients.

    In the words of consents, which only the node knows. On `day` (ISO) they are left out; without
    purposes nobody is.
    """

    purposes: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    day: str = ""


EVERYBODY = Audience()
"""Leaves nobody out."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who asks what, why and of whom; the asking node signs its encoding.

    `deadline_ms` is milliseconds since 1970 UTC by the asker's clock and decides nothing.
    `organization_id` is the organization that the asker acts for, empty for none.
    """

    query_id: str
    principal: str
    asking_node: str
    purpose: str
    scope: str
    cell_count_min: int
    sites_min: int
    deadline_ms: int
    plan_digest: str
    config_epoch: int
    organization_id: str = ""
