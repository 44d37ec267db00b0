"""The room of residence, put together for the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from hierarchy_config.model import NodeId
from node.links.hub import LinkHub, RequestHandler
from node.opening import OpenStore
from node.residence.decisions import ProposalDesk
from node.residence.desk import ResidenceDesk

__all__ = ["ResidenceRoom"]


class ResidenceRoom:
    """Everything of one node that has to do with moves. `notify`: something was written."""

    def __init__(
        self,
        store: OpenStore,
        hub: LinkHub,
        *,
        threads: Executor,
        notify: Callable[[], None],
    ) -> None:
        context = store.storage.context
        self.node_id: NodeId = context.node_id
        self.notify = notify
        self.desk = ResidenceDesk(
            context,
            store.residence,
            hub,
            threads=threads,
            number=store.number,
            notify=notify,
        )
        self.proposals = ProposalDesk(context, store.residence)

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """What the parent may ask."""
        return self.desk.handlers

    @property
    def child_handlers(self) -> Mapping[str, RequestHandler]:
        """What a child may ask."""
        return self.desk.child_handlers

    async def run(self) -> None:
        """Carry moves on for ever."""
        await self.desk.run()
