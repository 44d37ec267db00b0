"""Ends a recovery once every neighbour has given back what it holds, or was given up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import Executor
from typing import Final

from sqlalchemy import Engine

from hierarchy_config.model import NodeId
from node.errors import NotANeighbourError, said_node
from node.link_store import NodeLinkStore
from node.links import LinkHub
from node.logs import get_logger
from node.storage.recovering import Recovery, RecoveryStanding
from replication.changelog import read_transaction, write_transaction

__all__ = ["RecoveryKeeper"]

LOOK_S: Final = 1.0


class RecoveryKeeper:
    """Looks once a second while the node recovers."""

    def __init__(
        self,
        engine: Engine,
        recovery: Recovery,
        hub: LinkHub,
        link_store: NodeLinkStore,
        threads: Executor,
    ) -> None:
        self._engine = engine
        self._recovery = recovery
        self._hub = hub
        self._link_store = link_store
        self._threads = threads
        self._log = get_logger("recovery")

    @property
    def active(self) -> bool:
        """Whether the node is recovering."""
        return self._recovery.active

    async def run(self) -> None:
        """Until the recovery is over; for ever if there is none."""
        loop = asyncio.get_running_loop()
        if self._recovery.active:
            self._log.warning("recovering", hint="fenhe node recover --status")
        while self._recovery.active:
            if await loop.run_in_executor(self._threads, self.end_if_done):
                self._whole()
            else:
                await asyncio.sleep(LOOK_S)
        await asyncio.Event().wait()

    def end_if_done(self) -> bool:
        """End it if nothing is waited for any more; blocks on the database."""
        with write_transaction(self._engine) as connection:
            standing = self._recovery.standing(connection)
            if standing.active and not standing.is_done:
                return False
            self._recovery.end(connection)
        self._recovery.ended()
        return True

    def standing(self) -> RecoveryStanding:
        """For whom it waits; blocks on the database."""
        with read_transaction(self._engine) as connection:
            return self._recovery.standing(connection)

    def give_up(self, peers: Collection[NodeId]) -> RecoveryStanding:
        """Wait no longer for these neighbours; blocks on the database.

        Raises:
            NotANeighbourError: One of them is not linked to this node; nothing was changed.
        """
        strangers = sorted(set(peers) - set(self._recovery.neighbours))
        if strangers:
            raise NotANeighbourError(
                f"{', '.join(map(said_node, strangers))}: not the parent nor a child of this node"
            )
        with write_transaction(self._engine) as connection:
            if self._recovery.active:
                self._recovery.give_up(connection, peers)
            return self._recovery.standing(connection)

    def _whole(self) -> None:
        """Children that recover were put off until now: their links begin anew."""
        self._log.info("recovered")
        for peer, state in self._hub.states.items():
            met = self._link_store.met(peer)
            if state.role == "child" and state.runner and met is not None and met.recovering:
                state.runner.end("PARENT_RECOVERED", "this node is whole now and can give back")
