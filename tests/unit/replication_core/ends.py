"""A LinkEnd that is up, frames for it, and what to ask of its effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from replication.core.config import LinkConfig, PeerRole
from replication.core.effects import Close, Effect, LinkFrame, ReadLog, Send
from replication.core.hashing import batch_digest, running_hash
from replication.core.link import LinkEnd
from replication.core.model import (
    Batch,
    Cursor,
    Form,
    Hello,
    Lane,
    LogEntry,
    Receipt,
    StreamEpoch,
)

__all__ = [
    "HERE",
    "PEER",
    "batch",
    "close_code",
    "config",
    "entry",
    "hello",
    "only",
    "reads",
    "receipt_for",
    "sent",
    "up",
]

HERE = "141002001"
PEER = "141002001201"
T = TypeVar("T")


def config(**changes: Any) -> LinkConfig:
    """A parent's configuration for its child's link."""
    usual = LinkConfig(
        node_id=HERE,
        peer_id=PEER,
        peer_role=PeerRole.CHILD,
        store_epoch=1,
        store_incarnation="here-1",
    )
    return replace(usual, **changes)


def hello(**changes: Any) -> Hello:
    """The child's Hello."""
    usual = Hello(PEER, 1, 2, 1, 1, "peer-1", 0, 1)
    return replace(usual, **changes)


def up(head: int = 0, settings: LinkConfig | None = None, **changes: Any) -> LinkEnd:
    """An end that is up and knows its log's head."""
    end = LinkEnd(settings or config(), {}, {})
    end.start(0)
    end.receive(hello(**changes), 0)
    end.log_advanced(head, 0)
    return end


def entry(sequence: int, lane: Lane = Lane.BULK, size: int = 100) -> LogEntry:
    """An entry of the log with so many bytes of rows."""
    rows = b"r" * size
    return LogEntry(sequence, HERE, 1, sequence, lane, PEER, Form.FULL, 1, 1, 0, 1, rows)


def batch(
    number: int, lane: Lane = Lane.BULK, *, previous: int | None = None, covers_from: int = -1
) -> Batch:
    """The child's batch with this number; it covers one entry."""
    entries = (entry(0, lane),)
    after = number - 1 if covers_from < 0 else covers_from
    return Batch(
        lane=lane,
        stream_epoch=StreamEpoch(1, 1),
        number=number,
        previous=number - 1 if previous is None else previous,
        covers_from=after,
        covers_to=number,
        coalesced=False,
        digest=batch_digest(lane, entries, covers_from=after, covers_to=number),
        entries=entries,
        row_count=1,
        body_bytes=164,
    )


def receipt_for(made: Batch, before: bytes = b"") -> Receipt:
    """The honest receipt for a batch that follows the running hash `before`."""
    hashed = running_hash(before, made.digest)
    return Receipt(Cursor(made.lane, made.stream_epoch, made.number, made.covers_to, hashed))


def sent(effects: Sequence[Effect], kind: type[T]) -> list[T]:
    """The frames of one kind among the effects."""
    frames: list[LinkFrame] = [effect.frame for effect in effects if isinstance(effect, Send)]
    return [frame for frame in frames if isinstance(frame, kind)]


def reads(effects: Sequence[Effect]) -> list[Lane]:
    """The lanes to be read."""
    return [effect.lane for effect in effects if isinstance(effect, ReadLog)]


def only(effects: Sequence[Effect], kind: type[T]) -> T:
    """The one effect of this kind."""
    [found] = [effect for effect in effects if isinstance(effect, kind)]
    return found


def close_code(effects: Sequence[Effect]) -> str:
    """The code of the Close among the effects."""
    return only(effects, Close).code
