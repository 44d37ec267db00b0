"""The room of residence, put together for the node."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from hierarchy_config.model import NodeId
from node.link_store import NodeLinkStore
from node.links.hub import LinkHub
from node.opening import OpenStore
from node.residence.decisions import ProposalDesk
from node.residence.desk import ResidenceDesk

__all__ = ["ResidenceRoom"]


class ResidenceRoom:
    """Everything of one node that has to do with moves; answers what the hub is asked about them.

    `notify`: something was written.
    """

    def __init__(
        self,
        store: OpenStore,
        hub: LinkHub,
        link_store: NodeLinkStore,
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
            durable_head=store.durable_head,
            notify=notify,
        )
        link_store.greeted.append(self.desk.reminders.greeted)
        self.proposals = ProposalDesk(context, store.residence)
        hub.handlers = {**hub.handlers, **self.desk.handlers}
        hub.child_handlers = {**hub.child_handlers, **self.desk.child_handlers}

    async def run(self) -> None:
        """Carry moves on for ever."""
        await self.desk.run()
