"""What the parts of this room work with, put together once a life of the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.auditing.anchors import AnchorStore
from node.auditing.proof import AuditProof
from node.auditing.standing import AnchorClock
from node.clock import Clock
from node.security.caller import Caller, local_operator
from node.storage.audit import Auditor
from node.storage.transactions import Transactions

__all__ = ["AuditGround"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AuditGround:
    """`link`: chains entries that are not linked yet; how many. `counted`: the time unanchored.

    `is_full`: whether the disk is below its watermark: then nothing is kept for a neighbour that
    takes more room.
    """

    node_id: NodeId
    hierarchy: Hierarchy
    store_epoch: int
    transactions: Transactions
    auditor: Auditor
    anchors: AnchorStore
    proof: AuditProof
    clock: Clock
    counted: AnchorClock
    link: Callable[[], int]
    threads: Executor
    is_full: Callable[[], bool] = lambda: False

    @property
    def holders(self) -> tuple[NodeId, ...]:
        """Who is asked to anchor: the parent; at the root its children."""
        parent = self.hierarchy.parent(self.node_id)
        if parent is not None:
            return (parent,)
        return tuple(self.hierarchy.children(self.node_id))

    @property
    def neighbours(self) -> tuple[NodeId, ...]:
        """The parent, if there is one, and the children."""
        parent = self.hierarchy.parent(self.node_id)
        children = tuple(self.hierarchy.children(self.node_id))
        return children if parent is None else (parent, *children)

    @property
    def unanchored_ms(self) -> int:
        """For how long nobody else holds the end."""
        return self.counted.unanchored_ms(self.clock.monotonic_ms())

    def itself(self, purpose: str) -> Caller:
        """The node as a caller: what it does by itself."""
        return local_operator(self.node_id, self.hierarchy, purpose)

    async def blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks on the database beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *arguments)
