"""Nodes of a small region that know of each other's lists, over links that a test cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from sqlalchemy import Engine

from hierarchy_config import NodeId
from node.links.hub import LinkHub
from node.revocation.book import RevokedBook
from node.revocation.desk import Revoked, RevokeDesk, Wish
from node.revocation.entries import Entry, Target, Word, sign_entry
from node.revocation.flooding import Flooding, Ground
from node.revocation.store import KeyRole, RevocationStore, SeenKey, load_entries
from node.security.authority import create_region, load_authority
from node.security.caller import local_operator
from node.security.certificates import certificates_from_pem, private_key_from_pem
from node.security.folders import NodeFolder
from node.security.former import key_digest
from node.security.key_files import read_secret
from node.security.signatures import Signer
from node.storage import EngineLimits, open_engine
from node.storage.audit import Auditor
from node.storage.transactions import Transactions
from replication.channel import LinkDownError
from replication.core.model import Request
from tests.contracts.joining.place import HIERARCHY, START_MS, HandClock
from tests.schema import migrated
from tests.unit.security.region import CITY, COUNTY, OTHER_COUNTY, TOWNSHIP, VILLAGE

__all__ = ["NODES", "LocalHub", "Member", "Place"]

NODES = (CITY, COUNTY, OTHER_COUNTY, TOWNSHIP, VILLAGE)


@dataclass
class LocalState:
    """A link that is up or down."""

    peer: NodeId
    connected: bool = True


class LocalHub:
    """The links of one node, as calls into the same process."""

    def __init__(self, node_id: NodeId, members: dict[NodeId, Member]) -> None:
        parent = HIERARCHY.parent(node_id)
        near = (*((parent,) if parent else ()), *HIERARCHY.children(node_id))
        self.states = {each: LocalState(each) for each in near}
        self.lies: dict[NodeId, Callable[[str, bytes], bytes]] = {}
        self._node_id = node_id
        self._members = members

    async def ask(self, to: NodeId, method: str, body: bytes, *, remaining_ms: int) -> bytes:
        if to in self.lies:
            return self.lies[to](method, body)
        near = self.states.get(to)
        if to not in self._members or (near is not None and not near.connected):
            raise LinkDownError(f"{to} is not connected")
        member = self._members[to]
        request = Request(1, (), method, remaining_ms, b"", body)
        handlers = {**member.flooding.handlers, **member.desk.handlers}
        return await handlers[method](self._node_id, request)


@dataclass
class Member:
    """One node, as far as revocation goes."""

    node_id: NodeId
    signer: Signer
    chain: tuple[x509.Certificate, ...]
    engine: Engine
    store: RevocationStore
    book: RevokedBook
    hub: LocalHub
    flooding: Flooding
    desk: RevokeDesk
    learnt: list[Entry] = field(default_factory=list)


class Place:
    """The region. Each test makes the members that it needs, on one event loop."""

    def __init__(self, root: Path, engine: Engine) -> None:
        self.clock = HandClock()
        self.threads = ThreadPoolExecutor(4)
        self.folders = create_region(
            root / "nodes", HIERARCHY, datetime.fromtimestamp(START_MS / 1000, UTC)
        )
        self.root_pem = NodeFolder(self.folders[CITY]).tls.root.read_bytes()
        self.engines = {TOWNSHIP: engine}
        for node in NODES:
            if node != TOWNSHIP:
                url = f"sqlite:///{root / node}.db"
                self.engines[node] = open_engine(url, EngineLimits(connections=4))
                migrated(self.engines[node])
        self.members: dict[NodeId, Member] = {}

    def close(self) -> None:
        self.threads.shutdown()
        for node, engine in self.engines.items():
            if node != TOWNSHIP:
                engine.dispose()

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a test's conversation with every member in a new life."""

        async def lives() -> None:
            self.start(*NODES)
            await work()

        asyncio.run(lives())

    def start(self, *nodes: NodeId) -> None:
        """Begin a life of nodes: what is in memory is made from what is durable."""
        for node in nodes:
            self.members[node] = self._member(node)

    def _member(self, node: NodeId) -> Member:
        engine = self.engines[node]
        book = RevokedBook(HIERARCHY, load_entries(engine))
        book.trust(load_authority(self.folders[node]).private_key.public_key())
        store = RevocationStore(
            Transactions(engine), Auditor(self.clock), node, HIERARCHY, self.clock.now_ms
        )
        hub, learnt = LocalHub(node, self.members), list[Entry]()
        ground = Ground(
            node,
            HIERARCHY,
            self.root_pem,
            book,
            store,
            cast(LinkHub, hub),
            self.threads,
            self.clock,
            lambda: "",
            learnt.extend,
            lambda _peer, _pem: None,
        )
        flooding = Flooding(ground)

        def signed(entries: Sequence[Entry]) -> None:
            learnt.extend(entries)
            flooding.spread()

        signer = self.signer(node)
        desk = RevokeDesk(
            node,
            HIERARCHY,
            signer,
            book=book,
            store=store,
            hub=cast(LinkHub, hub),
            clock=self.clock,
            learnt=signed,
        )
        chain = self.chain(node)
        return Member(node, signer, chain, engine, store, book, hub, flooding, desk, learnt)

    def chain(self, node: NodeId) -> tuple[x509.Certificate, ...]:
        return certificates_from_pem(NodeFolder(self.folders[node]).tls.chain.read_bytes())

    def signer(self, node: NodeId) -> Signer:
        files = NodeFolder(self.folders[node]).tls
        return Signer(private_key_from_pem(read_secret(files.private_key)), self.chain(node))

    def keys(self, node: NodeId) -> tuple[SeenKey, SeenKey]:
        """The node's own two keys."""
        authority = load_authority(self.folders[node]).private_key.public_key()
        tls = self.signer(node).public_key
        return (
            SeenKey(node, key_digest(tls), KeyRole.TLS),
            SeenKey(node, key_digest(authority), KeyRole.AUTHORITY),
        )

    def word(self, signer: NodeId, node: NodeId, **more: Any) -> Word:
        """A revocation of a node's two keys."""
        said: dict[str, Any] = {
            "signer": signer,
            "number": 1,
            "target": Target.NODE,
            "node_id": node,
            "keys": tuple(key.digest for key in self.keys(node)),
            "principals": (),
            "issued_before_ms": 0,
            "reason": "stolen",
            "by": "an operator",
            "at_ms": self.clock.now_ms(),
        }
        return Word(**(said | more))

    def entry(self, signer: NodeId, node: NodeId, **more: Any) -> Entry:
        """Signed by a node in its own name, whether it may or not."""
        return sign_entry(self.signer(signer), self.word(signer, node, **more))

    async def revoke(self, by: NodeId, node: NodeId) -> Revoked:
        """As an operator does, until every node is told that can be."""
        made = await self.members[by].desk.revoke(
            local_operator(by, HIERARCHY), Wish("stolen", node)
        )
        await self.settle()
        return made

    async def settle(self) -> None:
        """Until no message is under way."""
        for _ in range(2 * len(NODES)):
            for member in self.members.values():
                await member.flooding.idle()

    def cut(self, one: NodeId, other: NodeId, *, up: bool = False) -> None:
        """Cut a link, or mend it with a greeting."""
        self.members[one].hub.states[other].connected = up
        self.members[other].hub.states[one].connected = up
        if up:
            self.members[one].flooding.greet(other)
            self.members[other].flooding.greet(one)

    def knowing(self) -> set[NodeId]:
        """The nodes that hold an entry in memory and on disk."""
        return {
            node
            for node, member in self.members.items()
            if member.book.entries and len(load_entries(member.engine)) == len(member.book.entries)
        }
