"""The words of transit: letters as their handlers see them, and what an author remembers."""

from __future__ import annotations

from dataclasses import dataclass

from hierarchy_config.model import NodeId
from replication.core.mailbox import Parcel, PostState
from replication.core.model import Lane, Version

__all__ = [
    "CODEC_OPEN",
    "CODEC_SEALED",
    "RECEIPT",
    "Letter",
    "Proof",
    "SentLetter",
    "Subject",
    "Unanswered",
]

CODEC_SEALED = 2
CODEC_OPEN = 3
RECEIPT = "receipt"
"""Kind of an addressee's receipt; it has no receipt of its own."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter that was opened, its sender proven. `written_at` is ISO by the sender's clock."""

    letter_id: str
    sender: NodeId
    to: NodeId
    kind: str
    lane: Lane
    written_at: str
    body: bytes
    attempt: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What a letter is about; stays at the author. `table` and `row_id` "": no single row."""

    table: str
    row_id: str
    resident_id: str
    version: Version


@dataclass(frozen=True, slots=True)
class Proof:
    """An addressee's receipt as it is kept: verified when it came, ms since 1970."""

    at_ms: int
    signature: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class SentLetter:
    """A letter in the outbox. `body` is None once it was confirmed."""

    letter_id: str
    to: NodeId
    kind: str
    lane: Lane
    written_at: str
    open_letter: bool
    parcel: Parcel
    key_id: str
    body: bytes | None
    subjects: tuple[Subject, ...] = ()
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Letters to one node that are in one state other than confirmed. Times are ms since 1970 UTC.

    `oldest_ms`, `newest_ms`: when the first and the last of them were written.
    """

    to: NodeId
    state: PostState
    count: int
    oldest_ms: int
    newest_ms: int
