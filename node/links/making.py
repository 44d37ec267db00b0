"""Makes the runner of one stream from what this node remembers of the link."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import datetime
from typing import Final

from hardware_profiles import HardwareProfile
from hierarchy_config import Hierarchy, NodeId
from node.clock import Clock
from node.link_store import NodeLinkStore
from node.links.proof import ReceiptProof
from node.security.credentials import NodeCredentials
from node.security.identity import KeyJudge, NameJudge
from replication.core.config import RATE_FIRST, LinkConfig
from replication.core.model import Hello, Request
from replication.runner import FrameStream, LinkRunner

__all__ = ["LinkMaker"]

_SMALL_IN_FLIGHT: Final = 1
"""With one under way, what comes meanwhile makes the next batch as large as the peer is busy."""


class LinkMaker:
    """Implements node/links/hub.py's RunnerFactory."""

    def __init__(
        self,
        node_id: NodeId,
        hierarchy: Hierarchy,
        profile: HardwareProfile,
        credentials: NodeCredentials,
        store: NodeLinkStore,
        *,
        epoch: int,
        incarnation: str,
        threads: Executor,
        clock: Clock,
        utc: Callable[[], datetime],
        former: NameJudge | None = None,
        revoked: KeyJudge | None = None,
    ) -> None:
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._profile = profile
        self._credentials = credentials
        self._store = store
        self._epoch = epoch
        self._incarnation = incarnation
        self._threads = threads
        self._clock = clock
        self._utc = utc
        self._former = former
        self._revoked = revoked
        self._last: dict[NodeId, LinkRunner] = {}

    async def make(
        self,
        peer: NodeId,
        stream: FrameStream,
        answer: Callable[[Request], Awaitable[bytes]],
        on_up: Callable[[Hello], None],
    ) -> LinkRunner:
        """A runner that goes on where the last stream of this link ended."""
        loop = asyncio.get_running_loop()
        memory = await loop.run_in_executor(self._threads, self._store.load, peer)
        proof = ReceiptProof(
            self._credentials, peer, self._hierarchy, self._utc, self._former, self._revoked
        )

        def went_up(hello: Hello) -> None:
            proof.meet(hello)
            on_up(hello)

        last = self._last.get(peer)
        config = LinkConfig(
            node_id=self._node_id,
            peer_id=peer,
            peer_role=self._store.role(peer),
            store_epoch=self._epoch,
            store_incarnation=self._incarnation,
            peer_store_epoch_seen=memory.peer_store_epoch,
            peer_incarnation_seen=memory.peer_incarnation,
            config_epoch=self._hierarchy.epoch,
            features=memory.features,
            signing_certificate=proof.certificate,
            batch_bytes_max=self._profile.batch_bytes_max,
            window_bytes=self._profile.window_bytes,
            rate_first=last.rate_next if last is not None else RATE_FIRST,
            small_in_flight=_SMALL_IN_FLIGHT,
            clock_ms=self._clock.now_ms(),
            verify=proof.verify,
            sign=proof.sign,
        )
        self._last[peer] = runner = LinkRunner(
            config,
            inbound=memory.inbound,
            outbound=memory.outbound,
            stream=stream,
            store=self._store,
            answer=answer,
            threads=self._threads,
            clock=self._clock,
            on_up=went_up,
        )
        return runner
