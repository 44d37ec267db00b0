"""What one end of a link is told before it starts, and the limits nobody may configure away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from replication.core.model import (
    PROTOCOL_MAX,
    SCHEMA_MIN,
    SCHEMA_VERSION,
    Cursor,
    Lane,
    Receipt,
)
from replication.errors import LocalProtocolError

__all__ = [
    "BATCH_BYTES_LIMIT",
    "BODY_BYTES_LIMIT",
    "QUEUE_BATCHES_LIMIT",
    "QUEUE_BYTES_LIMIT",
    "RATE_FIRST",
    "WINDOW_BYTES_LIMIT",
    "LinkConfig",
    "PeerRole",
]

BATCH_BYTES_LIMIT: Final = 1 << 20
"""Most a sender aims to put into one batch, bytes."""
BODY_BYTES_LIMIT: Final = 4 << 20
"""Most a receiver takes in one batch: a batch may hold a single entry larger than its aim."""
RATE_FIRST: Final = 64 << 10
"""What a line is taken to carry that nobody has measured yet, bytes a second."""
WINDOW_BYTES_LIMIT: Final = 16 << 20
"""Most a sender may leave unacknowledged."""
QUEUE_BYTES_LIMIT: Final = WINDOW_BYTES_LIMIT + len(Lane) * BODY_BYTES_LIMIT
"""Most a receiver queues; a sender that keeps the window limit never meets it."""
QUEUE_BATCHES_LIMIT: Final = 256
"""Most batches of one lane unacknowledged at a sender, or waiting at a receiver."""


class PeerRole(StrEnum):
    """What the peer is to this node."""

    PARENT = "parent"
    CHILD = "child"


def _accept_receipt(receipt: Receipt) -> bool:
    return bool(receipt.cursor.running_hash)


def _leave_unsigned(_cursor: Cursor) -> tuple[bytes, str]:
    return b"", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """One end's settings for one connection.

    Args:
        store_epoch: This node's store epoch; rises with every restore, from 1.
        store_incarnation: Random name of this life of the store.
        peer_store_epoch_seen: Newest store epoch of the peer remembered; 0 if never met.
        peer_incarnation_seen: The incarnation remembered with it; "" if never met.
        signing_certificate: PEM of the certificate whose key signs this end's receipts.
        batch_bytes_max: Upper bound of a batch, bytes, at most BATCH_BYTES_LIMIT.
        window_bytes: Upper bound of what is unacknowledged over all lanes, bytes.
        clock_ms: Wall clock for the Hello, milliseconds since 1970; only reported.
        protocol_max: Newest link protocol this end speaks; lower than PROTOCOL_MAX only in tests.
        schema: Newest table schema of this end; lower than SCHEMA_VERSION only in tests.
        schema_min: Oldest schema of a peer that is linked; higher than SCHEMA_MIN only in tests.
        save_after_entries: Entries passed over, none of them for the peer, before the place is
            persisted although nothing was sent. The pruner keeps more than these.
        rate_first: Bytes a second that the line is taken to carry until it is measured; what the
            stream before has measured, if there was one (outbound.first_rate).
        small_in_flight: Batches of a lane that may be unacknowledged while the lane is at the
            log's end. What comes meanwhile shares the next one, so that a busy receiver gets fewer
            and larger batches.
        stall_ms: Silence after which a peer that owes a receipt or a Hello is given up.
        backoff_ms_min: First pause after a refused batch; doubles up to backoff_ms_max.
        verify: Whether an accepting receipt's signature is the peer's (see receipt_bytes); the
            default looks at nothing but that a hash is there.
        sign: (signature, key_id) of a cursor; the default leaves receipts unsigned, so that the
            driver may sign where it sends.
    """

    node_id: str
    peer_id: str
    peer_role: PeerRole
    store_epoch: int
    store_incarnation: str
    peer_store_epoch_seen: int = 0
    peer_incarnation_seen: str = ""
    config_epoch: int = 1
    signing_certificate: bytes = b""
    batch_bytes_max: int = BATCH_BYTES_LIMIT
    batch_bytes_min: int = 4096
    window_bytes: int = 4 << 20
    rate_first: int = RATE_FIRST
    features: tuple[str, ...] = ()
    lanes: tuple[Lane, ...] = tuple(Lane)
    clock_ms: int = 0
    protocol_max: int = PROTOCOL_MAX
    schema: int = SCHEMA_VERSION
    schema_min: int = SCHEMA_MIN
    save_after_entries: int = 1000
    small_in_flight: int = QUEUE_BATCHES_LIMIT
    stall_ms: int = 60_000
    backoff_ms_min: int = 500
    backoff_ms_max: int = 60_000
    verify: Callable[[Receipt], bool] = _accept_receipt
    sign: Callable[[Cursor], tuple[bytes, str]] = _leave_unsigned

    def __post_init__(self) -> None:
        """Check that the sizes keep the limits both ends rely on."""
        if not 0 < self.batch_bytes_min <= self.batch_bytes_max <= BATCH_BYTES_LIMIT:
            raise LocalProtocolError(
                f"batch sizes {self.batch_bytes_min}..{self.batch_bytes_max} are not within"
                f" 1..{BATCH_BYTES_LIMIT} bytes"
            )
        if not 0 < self.window_bytes <= WINDOW_BYTES_LIMIT:
            raise LocalProtocolError(
                f"window_bytes {self.window_bytes} is not within 1..{WINDOW_BYTES_LIMIT}"
            )
        if self.store_epoch < 1:
            raise LocalProtocolError("store_epoch starts at 1")
