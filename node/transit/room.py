"""Puts the letters of a running node together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.clock import Clock
from node.foundations import Foundations
from node.link_store import NodeLinkStore
from node.links import LinkHub
from node.opening import OpenStore
from node.pump import LogPump
from node.storage.tables import CHANGELOG
from node.transit.carriage import Carriage
from node.transit.service import TransitService
from node.transit.tracks import Tracks
from node.transit.where import Wherever
from replication.core.model import Lane

__all__ = ["TransitRoom"]


class TransitRoom:
    """The task `service.run`, and `where` for the services."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        link_store: NodeLinkStore,
        pump: LogPump,
        *,
        threads: Executor,
        clock: Clock,
    ) -> None:
        """Answers neighbours' questions and hears of links from now on."""
        carriage = Carriage(
            store.engine,
            CHANGELOG,
            store.post,
            hierarchy=base.hierarchy,
            changelog=store.log,
            clock=clock,
        )
        self.service = TransitService(
            store.engine,
            store.post,
            carriage,
            hub,
            hierarchy=base.hierarchy,
            clock=clock,
            threads=threads,
            notify=pump.notify,
            head=lambda: pump.head,
            aside=store.storage.context.aside,
            delivered=_delivered(store, hub, base.hierarchy.parent(base.node_id)),
        )
        tracks = Tracks(
            store.engine,
            CHANGELOG,
            node_id=base.node_id,
            changelog=store.log,
            quarantine=store.storage.quarantine,
            inbox=store.post.inbox,
        )
        self.where = Wherever(
            store.storage,
            store.post,
            carriage,
            tracks,
            hub,
            hierarchy=base.hierarchy,
            threads=threads,
        )
        link_store.greeted.append(carriage.greeted)
        answers = {**self.service.handlers, **self.where.handlers}
        hub.handlers = {**hub.handlers, **answers}
        hub.child_handlers = {**hub.child_handlers, **answers}


def _delivered(
    store: OpenStore, hub: LinkHub, parent: NodeId | None
) -> Callable[[Connection, Lane], int]:
    """Up to where the parent holds a lane: by its receipts, and by what a live link passed over."""

    def delivered(connection: Connection, lane: Lane) -> int:
        if parent is None:
            return 0
        saved = store.links.load_outbound(connection, parent).get(lane)
        live = hub.states[parent].delivered_to.get(lane, 0)
        return max(saved.covers_to if saved is not None else 0, live)

    return delivered
