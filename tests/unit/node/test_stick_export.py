"""What a stick carries continues where its reader stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from hierarchy_config.model import NodeId
from node.link_store import LinkMemory
from node.stick.exporting import Exporter
from replication.core.effects import LogPart
from replication.core.inbound import InboundLane, Offer
from replication.core.model import (
    Batch,
    Cursor,
    Form,
    Hello,
    Lane,
    LogEntry,
    Mark,
    StreamEpoch,
)

PEER = NodeId("141002001")
EPOCH = StreamEpoch(1, 1)
HEAD = 5101
STANDS = Cursor(Lane.BULK, EPOCH, 1, 100, b"h" * 32)
"""The reader's own cursor."""


class Shelf:
    """A log of one entry for the reader, behind 5,000 for others that a live link passed over."""

    store_epoch = 1

    def load(self, _peer: str) -> LinkMemory:
        """A receipt up to 100, and the place passed over."""
        passed = {Lane.BULK: replace(STANDS, covers_to=5100)}
        return LinkMemory({}, passed, 1, "life", confirmed={Lane.BULK: STANDS})

    def mark_for(self, _peer: str) -> Mark:
        """None."""
        return Mark({}, 0)

    def met(self, _peer: str) -> None:
        """Not since this process began."""

    def read(self, _peer: str, lane: Lane, after: int, _bytes: int, _position: str) -> LogPart:
        """The entry, if it lies beyond."""
        if lane is not Lane.BULK or after >= HEAD:
            return LogPart((), HEAD)
        assert after == 5100
        entry = LogEntry(HEAD, "1410", 1, 1, lane, PEER, Form.FULL, 1, 1, 0, 1, b"[]")
        return LogPart((entry,), HEAD)


def test_a_batch_behind_what_was_passed_over_is_taken() -> None:
    """It covers from the reader's own place: a reader refuses what leaves a gap."""

    def greet(peer: NodeId, memory: LinkMemory) -> Hello:
        return Hello("141002", 1, 2, 1, 1, "life", 1, 1)

    exporter = Exporter(cast(Any, Shelf()), greet, lambda: HEAD, batch_bytes=1000)
    [batch] = [frame for frame in exporter.frames(PEER) if isinstance(frame, Batch)]
    assert (batch.number, batch.covers_from, batch.covers_to) == (2, 100, HEAD)
    assert InboundLane(STANDS).offer(batch) is Offer.QUEUED
