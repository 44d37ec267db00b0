"""What a LinkEnd asks its driver to do, as frozen data.

Effects come out in order and are begun in order. Only LinkUp is waited for: what follows it finds
the peer's epoch on disk. SaveDelivered and SaveMark may be lost with the process: the peer's next
Hello repeats the one, its next mark the other. This file owns the words; what leads to which effect
is in link.py. It must never know how an effect is carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from replication.core.model import (
    Batch,
    Cursor,
    Goodbye,
    Hello,
    Lane,
    LogEntry,
    Mark,
    Receipt,
    Refusal,
)

__all__ = [
    "SEED",
    "ApplyBatch",
    "Close",
    "Effect",
    "LinkFrame",
    "LinkUp",
    "LogPart",
    "ReadLog",
    "SaveDelivered",
    "SaveMark",
    "Send",
]

SEED: Final = "?"
"""ReadLog.position: the peer is recovering and wants a snapshot to be begun."""

LinkFrame = Hello | Refusal | Batch | Receipt | Mark | Goodbye
"""The frames a LinkEnd understands; requests and answers are another machine's."""


@dataclass(frozen=True, slots=True)
class Send:
    """Put the frame on the stream, after every frame sent before it."""

    frame: LinkFrame


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read the numbered log of one lane after a sequence, filtered and transformed for this peer.

    Answer with `entries_read` exactly once, with entries in log order, about `bytes_max` bytes of
    rows (at least one entry if there is any), and `scanned_to`: the last sequence looked at. Where
    a snapshot of the rows stands in for a stretch of the log, `position` is where it goes on, or
    SEED where a recovering peer wants one; a store that cannot serve it now answers from the log.
    """

    lane: Lane
    after: int
    bytes_max: int
    position: str = ""


@dataclass(frozen=True, slots=True)
class LogPart:
    """What a store answers to ReadLog.

    In the midst of a snapshot `position` is where the next read goes on (at most 255 ASCII
    characters) and scanned_to stays at `after`; its last part has position "" and the sequence at
    which it was begun. `coalesced`: not every version of the stretch is in it.
    """

    entries: Sequence[LogEntry]
    scanned_to: int
    position: str = ""
    coalesced: bool = False


@dataclass(frozen=True, slots=True)
class ApplyBatch:
    """Apply the rows and save `cursor_after`, in one transaction.

    The transaction must compare the stored cursor of (peer, lane) first: unless it stands at
    `batch.previous` of the same stream (or, for previous 0, is of another stream or absent), it
    answers `batch_failed(lane, "BATCH_OUT_OF_ORDER")`. Otherwise answer `batch_applied` after the
    durable commit, or `batch_failed` with a stable code, exactly once.
    """

    batch: Batch
    cursor_after: Cursor


@dataclass(frozen=True, slots=True)
class SaveDelivered:
    """Persist how far the peer has durably confirmed; never backwards within a stream epoch.

    `cursor` is the peer's own but for covers_to, which may be beyond it by entries that were passed
    over. `receipt` is the signed proof of the peer's own cursor; None where only entries that are
    not for this peer were passed, or where its Hello says what a lost receipt said. A newer effect
    of the lane makes an older one needless, but for its receipt if both are of one batch number.
    """

    cursor: Cursor
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class SaveMark:
    """Persist the peer's freshness: of each home the last word, even an earlier time.

    It may wait a little, and a crash may lose it: the next mark says it again. A later mark must
    not be overtaken by an earlier one.
    """

    mark: Mark


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Both sides have said Hello and fit.

    Persist the peer's store epoch and incarnation before the next effect, then report the log's
    head, read from the store after this effect, by `log_advanced`.
    """

    peer_hello: Hello


@dataclass(frozen=True, slots=True)
class Close:
    """Close the stream; nothing follows. `code` is stable; `hint` is the operator's next step."""

    code: str
    reason: str
    hint: str = ""


Effect = Send | ReadLog | ApplyBatch | SaveDelivered | SaveMark | LinkUp | Close
