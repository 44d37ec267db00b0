"""What the parts of this room work with, put together once a life of the node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from hierarchy_config import Hierarchy, NodeId
from node.clock import Clock
from node.foundations import Foundations
from node.links import LinkHub
from node.region.errors import RegionStatementError
from node.region.statements import Judge
from node.region.store import EpochStore
from node.security.authority import load_authority
from node.security.certificates import PublicKey
from node.security.former import FormerNames, key_digest
from node.storage import Storage
from node.watch.figures import Figures

__all__ = ["RegionContext", "own_keys", "parse_body", "to_body"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RegionContext:
    """`restart` stops the node's parts and starts them on the data folder as it is then."""

    base: Foundations
    epochs: EpochStore
    storage: Storage
    hub: LinkHub
    former: FormerNames
    threads: Executor
    clock: Clock
    utc: Callable[[], datetime]
    restart: Callable[[], None]
    durable_head: Callable[[], int]
    figures: Figures
    pruned_to: Callable[[], int]

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return self.base.node_id

    @property
    def hierarchy(self) -> Hierarchy:
        """The one in force here."""
        return self.base.hierarchy

    @property
    def is_root(self) -> bool:
        """Whether this node decides for the region."""
        return self.hierarchy.root == self.node_id

    def judge(self, hierarchy: Hierarchy | None = None) -> Judge:
        """What statements are judged by; `hierarchy`: an epoch that is verified already."""
        return Judge(
            self.base.credentials.root_pem, hierarchy or self.hierarchy, self.utc(), self.former
        )

    async def blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks on the database or on files beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *arguments)

    async def ask(
        self, to: NodeId, method: str, body: Mapping[str, Any], remaining_ms: int
    ) -> Mapping[str, Any]:
        """Ask a node over the links. Errors: those of LinkHub.ask, and RegionStatementError."""
        answer = await self.hub.ask(to, method, to_body(body), remaining_ms=remaining_ms)
        return parse_body(answer)


def to_body(body: Mapping[str, Any]) -> bytes:
    """JSON, as questions over a link carry it here."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def parse_body(raw: bytes) -> Mapping[str, Any]:
    """What to_body made. Raises RegionStatementError: it is no JSON object.

    Nor is one with text that is not Unicode: a lone surrogate can neither be signed nor stored.
    """
    try:
        # Strictly UTF-8: left to itself, json would also take UTF-16, and lone surrogates as bytes.
        body = json.loads(raw.decode("utf-8"))
        if b"\\u" in raw:
            to_body(body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RegionStatementError("a question about the region cannot be read")
    return body


def own_keys(base: Foundations) -> tuple[str, str]:
    """Digests of this node's keys: of its certificate, of its authority."""
    authority: PublicKey = load_authority(base.paths.data).private_key.public_key()
    return key_digest(base.credentials.signer.public_key), key_digest(authority)
