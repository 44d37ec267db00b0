"""A link between two storages without a wire: what one end asks goes through bytes to the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from node.reconcile.comparing import Comparison
from node.reconcile.ends import FarEnd, LinkDesk, NearEnd
from node.reconcile.model import LinkReport, Pair
from node.reconcile.side import LocalSide
from node.storage import CHANGELOG
from node.storage.rows import RowMaker
from node.storage.specs import TABLES
from replication.changelog import LinkState, read_transaction, write_transaction
from replication.core.model import Cursor, Lane, Request, StreamEpoch
from tests.contracts.storage.region import NodeStore, Region

__all__ = ["compare", "desk_of", "settled", "side_of"]


def side_of(region: Region, here: NodeStore, peer: NodeStore) -> LocalSide:
    """One end of the link between two nodes."""
    up = region.tree.parent(here.node_id) == peer.node_id
    pair = (
        Pair(child=here.node_id, parent=peer.node_id)
        if up
        else Pair(child=peer.node_id, parent=here.node_id)
    )
    store = here.storage.context

    def delivered() -> Mapping[Lane, int]:
        with read_transaction(here.engine) as connection:
            held = LinkState(CHANGELOG).load_outbound(connection, peer.node_id)
        return {lane: cursor.covers_to for lane, cursor in held.items()}

    return LocalSide(
        store,
        RowMaker(store.cells, store.blind_index),
        pair,
        durable_head=here.durable_head,
        delivered=delivered,
        changed=lambda: None,
    )


def settled(region: Region, *path: NodeStore) -> None:
    """Ship both ways between neighbours and note the receipts, until nothing is on its way."""
    for lower, upper in pairwise(path):
        region.ship(lower, upper)
    for upper, lower in pairwise(path[::-1]):
        region.ship(upper, lower)
    for one, other in pairwise(path):
        for sender, receiver in ((one, other), (other, one)):
            head = sender.durable_head()
            for lane in Lane:
                cursor = Cursor(lane, StreamEpoch(1, 1), 1, head)
                with write_transaction(sender.engine) as connection:
                    LinkState(CHANGELOG).save_outbound(connection, receiver.node_id, cursor)


async def in_place(work: Callable[[], Any]) -> Any:
    """No thread: a test has one."""
    return work()


def desk_of(region: Region, here: NodeStore, peer: NodeStore) -> LinkDesk:
    """What a node answers to its neighbour."""
    near = NearEnd(side_of(region, here, peer), in_place)
    return LinkDesk(here.node_id, lambda: region.tree, lambda _peer: near)


async def compare(
    region: Region,
    here: NodeStore,
    peer: NodeStore,
    *,
    repair: bool,
    tables: tuple[str, ...] = (),
    refuse: Exception | None = None,
) -> LinkReport:
    """Compare a node with its neighbour; `refuse`: what the neighbour answers to everything."""
    desk = desk_of(region, peer, here)

    async def ask(method: str, body: bytes, remaining_ms: int) -> bytes:
        if refuse is not None:
            raise refuse
        return await desk.answer(here.node_id, Request(1, (), method, remaining_ms, b"", body))

    async def told(_report: LinkReport) -> None:
        return None

    up = region.tree.parent(here.node_id) == peer.node_id
    pair = (
        Pair(child=here.node_id, parent=peer.node_id)
        if up
        else Pair(child=peer.node_id, parent=here.node_id)
    )
    near = NearEnd(side_of(region, here, peer), in_place)
    work = Comparison(pair, here.node_id, near, FarEnd(ask), repair=repair)
    return await work.run(tables or tuple(TABLES), told)
