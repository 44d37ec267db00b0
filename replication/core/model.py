"""The words of replication as frozen data: versions, entries, batches, cursors, frames.

This file knows shapes only. What may follow what is in link.py; bytes are made in codec.py (rows)
and replication/wire.py (frames).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

__all__ = [
    "PROTOCOL_MAX",
    "PROTOCOL_MIN",
    "SCHEMA_MIN",
    "SCHEMA_VERSION",
    "AnswerPart",
    "Audience",
    "Batch",
    "Cancel",
    "Credit",
    "Cursor",
    "Form",
    "Frame",
    "Goodbye",
    "Hello",
    "Lane",
    "LogEntry",
    "Mark",
    "Operation",
    "Receipt",
    "Refusal",
    "Request",
    "RowChange",
    "StreamEpoch",
    "Value",
    "Version",
    "next_version",
]

PROTOCOL_MIN = 1
PROTOCOL_MAX = 2
"""2: letters (Form.SEALED) and snapshots (Cursor.position). A peer of 1 is sent neither."""
SCHEMA_MIN = 1
"""Oldest schema of a peer whose rows can be read here, and who can bear the rows of this one."""
SCHEMA_VERSION = 3
"""2: for whom a row was written, tables of consents and of people. 3: decisions over who is one
person. An older peer keeps the columns that it does not know, and rows of unknown tables wait in
its quarantine for its upgrade."""

Value = str | int | float | bool | None
"""A cell: what JSON has, without nesting. Dates are ISO text."""


class Lane(IntEnum):
    """A replication lane; smaller is served first. The numbers are those of the wire."""

    CONTROL = 1
    CARE = 2
    IDENTITY = 3
    BULK = 4


class Form(StrEnum):
    """How much of a row it is."""

    FULL = "full"
    DEIDENTIFIED = "deidentified"
    INDEX = "index"
    SEALED = "sealed"
    """A letter to the node `home_node` names: no rows, outside the tables, never transformed."""


class Operation(StrEnum):
    """What a change does. A delete is a version like any other, with its row kept as tombstone."""

    PUT = "put"
    DELETE = "delete"


class Audience(IntEnum):
    """Whom an entry of the log is for; it never travels."""

    EVERYBODY = 0
    HERE = 1
    """Readers inside this node alone."""
    BELOW = 2
    """Children too, never the parent: he gave back to a recovering node what it had lost."""
    ABOVE = 3
    """The parent too, never a child: a child gave it back."""

    @property
    def has_parent(self) -> bool:
        """Whether the parent is one of them."""
        return self in {Audience.EVERYBODY, Audience.ABOVE}

    @property
    def has_children(self) -> bool:
        """Whether children are among them."""
        return self in {Audience.EVERYBODY, Audience.BELOW}


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Version of one row: greater in author_epoch, or equal and greater in number, is newer."""

    author_epoch: int
    number: int


_NUMBERS_A_LIFE: Final = 1 << 20


def next_version(held: Version, store_epoch: int) -> Version:
    """The version of an amendment of a row that is held at `held`, in that life of the store.

    A life's numbers lie above those of every life before: a store that was put back may not know
    of a version that it gave away once, and no version may ever name two contents. Nobody amends
    one row a million times in one life; and no reader needs numbers to follow one another.
    """
    floor = (store_epoch - 1) * _NUMBERS_A_LIFE
    return Version(held.author_epoch, max(held.number, floor) + 1)


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row at one version.

    `values` holds the table's own columns, clear; columns this node does not know are kept and
    passed on. `recorded_at` is ISO 8601 UTC by the author's clock and decides nothing.
    """

    table: str
    row_id: str
    resident_id: str
    version: Version
    operation: Operation
    author_node: str
    home_node: str
    home_epoch: int
    schema_version: int
    recorded_at: str
    form: Form
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of a node's change log: the rows of one (transaction, lane, home_node, form).

    `sequence` is this node's own number for it (0 on the wire); `origin_*` name the transaction
    that first committed it. `origin_sequence` is 0 where withheld. `rows` is the encoded,
    unsealed list of row changes; sealing is the store's affair.
    """

    sequence: int
    origin_node: str
    origin_epoch: int
    origin_sequence: int
    lane: Lane
    home_node: str
    form: Form
    codec: int
    schema_version: int
    committed_at_ms: int
    row_count: int
    rows: bytes
    audience: Audience = Audience.EVERYBODY


@dataclass(frozen=True, slots=True, order=True)
class StreamEpoch:
    """One life of a (link, lane): the store epochs of both ends."""

    sender: int
    receiver: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a receiver has applied a lane of a link. number 0: nothing of this stream yet.

    `position` is the sender's own note on how far a snapshot has come that stands in for a stretch
    of its log ("": none under way); the receiver keeps it and says it again in its Hello.
    """

    lane: Lane
    stream_epoch: StreamEpoch
    number: int
    covers_to: int
    running_hash: bytes = b""
    position: str = ""

    def is_at(self, other: Cursor | None) -> bool:
        """Whether the other stands at the same batch of the same stream."""
        mine = self.stream_epoch, self.number
        return other is not None and mine == (other.stream_epoch, other.number)


@dataclass(frozen=True, slots=True)
class Batch:
    """A piece of the sender's log for one lane; covers (covers_from, covers_to].

    While a snapshot is under way covers_to stays where it is and `position` tells how far it came.
    """

    lane: Lane
    stream_epoch: StreamEpoch
    number: int
    previous: int
    covers_from: int
    covers_to: int
    coalesced: bool
    digest: bytes
    entries: tuple[LogEntry, ...]
    row_count: int
    body_bytes: int
    position: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receiver's cursor after a batch (refused == ""), or where it stands after refusing."""

    cursor: Cursor
    refused: str = ""
    signature: bytes = b""
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything of home h up to homes[h] (ms since 1970) lies at or below at_sequence."""

    homes: Mapping[str, int]
    at_sequence: int


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of each side."""

    node_id: str
    protocol_min: int
    protocol_max: int
    schema: int
    store_epoch: int
    store_incarnation: str
    peer_store_epoch_seen: int
    config_epoch: int
    cursors: tuple[Cursor, ...] = ()
    features: tuple[str, ...] = ()
    clock_ms: int = 0
    signing_certificate: bytes = b""
    schema_min: int = 0
    """0: of a release that did not say it, and bears every schema."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a link cannot be."""

    code: str
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A question over the link. `route`: node ids still to pass through, nearest first."""

    id: int
    route: tuple[str, ...]
    method: str
    remaining_ms: int
    manifest: bytes = b""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A piece of an answer; digest (last part only) is SHA-256 over all bodies in order."""

    id: int
    n: int
    last: bool
    status: str = ""
    reason: str = ""
    digest: bytes = b""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The asker no longer wants the answer."""

    id: int


@dataclass(frozen=True, slots=True)
class Credit:
    """The asker has room for `bytes` more of the answer."""

    id: int
    bytes: int = field(default=0)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """An orderly end."""

    reason: str = ""


Frame = Hello | Refusal | Batch | Receipt | Mark | Request | AnswerPart | Cancel | Credit | Goodbye
