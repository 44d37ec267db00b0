"""Puts recovery, pruning and files on a stick together for one node."""

from __future__ import annotations

from concurrent.futures import Executor

from node.foundations import Foundations, utc_now
from node.link_store import NodeLinkStore
from node.links import LinkHub
from node.opening import OpenStore
from node.pruning import LogPruner
from node.questions import Questions
from node.recovery.keeper import RecoveryKeeper
from node.stick.room import StickRoom

__all__ = ["SeedingRoom"]


class SeedingRoom:
    """The tasks `recovery.run` and `pruner.run`, and what the services ask."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        link_store: NodeLinkStore,
        questions: Questions,
        threads: Executor,
    ) -> None:
        clock = hub.clock
        self.stick = StickRoom(base, store, link_store, clock=clock, utc=lambda: utc_now(clock))
        self.node_id = base.node_id
        self.hub = hub
        self.link_store = link_store
        self.recovery = RecoveryKeeper(
            store.engine, store.storage.recovery, hub, link_store, threads
        )
        self.pruner = LogPruner(
            store.engine,
            store.log,
            store.links,
            hub,
            hierarchy=base.hierarchy,
            node_id=base.node_id,
            profile=base.profile,
            clock=clock,
            threads=threads,
            columnar=lambda: questions.columnar_on_disk,
            flush_columnar=questions.flush_columnar,
        )
