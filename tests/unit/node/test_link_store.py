"""The links' store: what a disk below the watermark takes in, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId
from node.clock import SystemClock
from node.errors import DiskFullError
from node.link_store import NodeLinkStore
from replication.core.config import PeerRole
from replication.core.model import Batch, Cursor, Lane, StreamEpoch

VILLAGE = NodeId("141002001201")


class Shelf:
    """Stands for the storage: keeps the lanes that were applied."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []

    def apply_batch(self, _peer: NodeId, _role: PeerRole, batch: Batch, _cursor: Cursor) -> None:
        """Store nothing."""
        self.lanes.append(batch.lane)


@pytest.mark.parametrize("lane", [Lane.CARE, Lane.IDENTITY, Lane.BULK])
def test_a_full_disk_takes_no_rows(lane: Lane) -> None:
    """Until there is room again; the peer keeps them. What steers the network always passes."""
    shelf, room = Shelf(), [False]
    store = _store(shelf, room)
    with pytest.raises(DiskFullError):
        store.apply(VILLAGE, *_batch(lane))
    store.apply(VILLAGE, *_batch(Lane.CONTROL))
    room[0] = True
    store.apply(VILLAGE, *_batch(lane))
    assert shelf.lanes == [Lane.CONTROL, lane]


def test_what_is_large_does_not_steer() -> None:
    """A child could fill the last of the disk in the control lane."""
    shelf = Shelf()
    batch, cursor = _batch(Lane.CONTROL)
    with pytest.raises(DiskFullError):
        _store(shelf, [False]).apply(VILLAGE, replace(batch, body_bytes=20_000), cursor)
    assert shelf.lanes == []


def _store(shelf: Shelf, room: list[bool]) -> NodeLinkStore:
    entry = NodeEntry(VILLAGE, CareLevel.VILLAGE, "村", "cun", None, None, "village")
    nothing = cast(Any, None)
    return NodeLinkStore(
        nothing,
        cast(Any, shelf),
        nothing,
        nothing,
        nothing,
        node_id=VILLAGE,
        hierarchy=Hierarchy("linfen", 1, {VILLAGE: entry}),
        clock=SystemClock(),
        notify=lambda: None,
        durable_head=lambda: 0,
        head=lambda: 0,
        disk_is_full=lambda: not room[0],
    )


def _batch(lane: Lane) -> tuple[Batch, Cursor]:
    epoch = StreamEpoch(1, 1)
    batch = Batch(
        lane=lane,
        stream_epoch=epoch,
        number=1,
        previous=0,
        covers_from=1,
        covers_to=1,
        coalesced=False,
        digest=b"",
        entries=(),
        row_count=0,
        body_bytes=0,
    )
    return batch, Cursor(lane, epoch, 1, 1)
