"""The protocol of the links without I/O: what may follow what, and what must be stored first.

Time, bytes and answers come in as arguments; effects come out in order. Nothing here reads a clock,
a socket or a table, so the simulator of tests/simulation runs this very code through every fault.
Read model.py for the words, effects.py for what a driver must do, link.py for the order of things.
"""

from __future__ import annotations

from replication.core.config import LinkConfig, PeerRole
from replication.core.effects import (
    ApplyBatch,
    Close,
    Effect,
    LinkUp,
    ReadLog,
    SaveDelivered,
    SaveMark,
    Send,
)
from replication.core.hashing import batch_digest, receipt_bytes
from replication.core.link import LinkEnd

__all__ = [
    "ApplyBatch",
    "Close",
    "Effect",
    "LinkConfig",
    "LinkEnd",
    "LinkUp",
    "PeerRole",
    "ReadLog",
    "SaveDelivered",
    "SaveMark",
    "Send",
    "batch_digest",
    "receipt_bytes",
]
