"""The room put together for one life of the node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Final

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.foundations import Foundations, utc_now
from node.joining.answer import SignedEpochText
from node.joining.desk import DeskGround, InviteDesk
from node.joining.door import Door, DoorGround
from node.joining.errors import DoorClosedError, JoinPseudonymError
from node.joining.invitations import Invitations
from node.joining.lending import LEND, Lender, question
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.opening import OpenStore
from node.region import RegionGround
from node.renewing.parent import RenewalGround, Renewer
from node.security.authority import JoinRequest
from node.storage.transactions import Transactions
from node.whereabouts import public_address
from replication.core.model import Request

__all__ = ["JoiningRoom"]

_LEND_MS: Final = 10_000


class JoiningRoom:
    """`desk` for operators, `make_door` for whoever serves it, `handlers` for the parent."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        ground: RegionGround,
        *,
        threads: Executor,
        clock: Clock,
        address: Callable[[], str],
        admit: Callable[[JoinRequest], None],
    ) -> None:
        """`address`: where this node serves, asked once it does. `admit`: see DoorGround."""
        self._admit = admit
        self._base = base
        self._hub = hub
        self._links = store.links
        self._epochs = ground.epochs
        self._former = ground.former
        self._revoked = store.revoked
        self._threads = threads
        self._clock = clock
        self._address = address
        self.door_address = ""
        """host:port of the open door; empty: it is closed."""
        self.closed_because = "it has no children"
        context = store.storage.context
        self._transactions: Transactions = context.transactions
        self._invitations = Invitations(
            context.transactions,
            context.auditor,
            node_id=base.node_id,
            hierarchy=base.hierarchy,
            cells=context.cells,
            clock=clock,
            ids=context.ids,
            store_epoch=store.epoch,
        )
        self._lender = Lender(
            base.paths.data,
            base.node_id,
            base.hierarchy,
            context.transactions,
            context.auditor,
            clock,
            lambda: utc_now(clock),
            context.ids,
        )
        desk_ground = DeskGround(
            base.node_id,
            base.hierarchy,
            base.credentials.root_pem,
            self._door,
            self._told_address,
            self._is_known,
        )
        self.desk = InviteDesk(desk_ground, self._invitations, os.urandom, clock)

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the parent."""
        return {LEND: self._on_lend}

    def make_door(self, certificate: bytes) -> Door:
        """The door that shows this certificate (DER)."""
        base = self._base
        ground = DoorGround(
            base.paths.data,
            base.node_id,
            base.hierarchy,
            base.credentials.root_pem,
            self._region,
            self._told_address,
            self._is_known,
            self._lend,
            lambda: utc_now(self._clock),
            self._admit,
            self._renewer(),
        )
        return Door(
            ground,
            self._invitations,
            certificate,
            clock=self._clock,
            random_bytes=os.urandom,
            threads=self._threads,
        )

    def _renewer(self) -> Renewer:
        base = self._base
        ground = RenewalGround(
            base.paths.data,
            base.node_id,
            base.hierarchy,
            base.credentials,
            base.settings.renewal_grace_days,
            self._revoked,
            self._former,
            self._admit,
            self._clock,
        )
        return Renewer(ground)

    def _door(self) -> str:
        if not self.door_address:
            raise DoorClosedError(
                f"the door of {self._base.node_id} is closed: {self.closed_because}"
            )
        return self.door_address

    def _told_address(self) -> str:
        """What children dial: host:port, or :port where this node listens on every address."""
        said = self._address()
        public = public_address(said, self._base.hierarchy, self._base.node_id)
        return public or f":{said.rpartition(':')[2]}"

    def _is_known(self, child: NodeId) -> bool:
        met = self._transactions.read(
            lambda connection: self._links.peer_epoch_seen(connection, child)
        )
        return met is not None

    def _region(self) -> tuple[str, SignedEpochText | None]:
        """The text of the epoch in force, and the root's statements if it signed that one."""
        row = self._epochs.get(self._base.hierarchy.epoch)
        if row is None:
            raise LookupError("the epoch in force is in the table from the start on")
        if row.offer is None or row.decision is None:
            return row.text, None
        return row.text, SignedEpochText(row.offer.decode(), row.decision.decode())

    async def _lend(self, lender: NodeId, child: NodeId, chain: str) -> bytes:
        asked = question(child, chain)
        try:
            return await self._hub.ask(lender, LEND, asked, remaining_ms=_LEND_MS)
        except FenheError as error:
            raise JoinPseudonymError(
                f"county {lender} does not lend its pseudonym key: {error.message}"
            ) from error

    async def _on_lend(self, peer: NodeId, request: Request) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._lender.lend, peer, request)
