"""Fetching what this node was not told, when its link to the parent is refused.

A moved node whose former parent has switched before it is not known there any more, and not yet
known where it belongs. So it asks both, by a call that any node of the region may make; what it
gets is verified like everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from hierarchy_config import Hierarchy, NodeId
from hierarchy_config.errors import FenheError
from node.logs import get_logger
from node.region.context import RegionContext
from node.region.keeper import Keeper
from node.region.store import EpochState
from node.region.wire import epochs_after
from node.security.tls import open_channel

__all__ = ["Fetching"]

_REFUSED: Final = ("PERMISSION_DENIED", "UNAUTHENTICATED", "PEER_IDENTITY")


class Fetching:
    """Lives on the event loop."""

    def __init__(self, context: RegionContext, keeper: Keeper) -> None:
        self._c = context
        self._keeper = keeper
        self._log = get_logger("region")

    async def look(self) -> None:
        """Fetch once, if this node has reason to think that it was left behind."""
        parent = self._c.hierarchy.parent(self._c.node_id)
        if parent is None or self._c.hub.states[parent].connected:
            return
        rows = await self._c.blocking(self._c.epochs.all)
        pending = [row.hierarchy for row in rows if row.state is EpochState.PENDING]
        refused = any(word in self._c.hub.states[parent].last_error for word in _REFUSED)
        if not pending and not refused:
            return
        for hierarchy in (self._c.hierarchy, *pending[-1:]):
            if await self._fetch(hierarchy):
                return

    async def _fetch(self, hierarchy: Hierarchy) -> bool:
        """Ask this node's parent in a hierarchy; whether a decision came of it."""
        parent = hierarchy.parent(self._c.node_id) if self._c.node_id in hierarchy else None
        endpoint = None if parent is None else self._endpoint(parent, hierarchy)
        if parent is None or endpoint is None:
            return False
        try:
            statements = await self._ask(endpoint, hierarchy.dns_name(parent))
        except (grpc.aio.AioRpcError, FenheError):
            # It is down, or knows us as little: the dialling says so already.
            return False
        if not any(each["decision"] for each in statements):
            return False
        self._log.info("epochs are fetched", peer=parent, epochs=len(statements))
        holding = await self._keeper.take(statements)
        self._keeper.switch_soon()
        return self._c.node_id in holding.have

    def _endpoint(self, parent: NodeId, hierarchy: Hierarchy) -> str | None:
        said = self._c.base.settings.parent_endpoint
        if said is not None and parent == self._c.hierarchy.parent(self._c.node_id):
            return said
        return hierarchy.entry(parent).endpoint

    async def _ask(self, endpoint: str, name: str) -> Sequence[dict[str, Any]]:
        base = self._c.base
        channel = open_channel(endpoint, name, base.credentials.tls, base.limits)
        try:
            return await epochs_after(channel, self._c.hierarchy.epoch)
        finally:
            await channel.close()
