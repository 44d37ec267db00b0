"""A township's door on a real store, a village's machine, and whoever stands in between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sqlalchemy import Engine, select

from hierarchy_config import NodeId, region_text
from node.clock import Ids
from node.joining.answer import SignedEpochText
from node.joining.child import DoorCalls, JoinedNode, JoinWish, join
from node.joining.code import JoinCode, new_code
from node.joining.door import Door, DoorGround
from node.joining.invitations import Invitation, Invitations, NewInvitation
from node.joining.model import Begun, JoinAsked, Joined
from node.joining.proof import STRETCH, Conversation, StretchCost, parent_proof, stretch
from node.security.authority import create_region
from node.security.caller import local_operator
from node.security.folders import NodeFolder
from node.security.sealing import DataKeys
from node.storage.audit import Auditor
from node.storage.sealing import CellSealer
from node.storage.tables import AUDIT
from node.storage.transactions import Transactions
from tests.unit.security.region import TOWNSHIP, VILLAGE, small_hierarchy

__all__ = [
    "CODE",
    "DAY_MS",
    "HIERARCHY",
    "START_MS",
    "HandClock",
    "Liar",
    "LocalDoor",
    "Place",
    "quick",
]

START_MS = 1_800_000_000_000
DAY_MS = 86_400_000
CODE = new_code(VILLAGE, os.urandom)
SALT = os.urandom(16)
CERTIFICATE = b"the certificate of the door"
HIERARCHY = small_hierarchy()


@cache
def quick(code: JoinCode, salt: bytes, cost: StretchCost) -> bytes:
    """The real stretch, once for each code: half a second and 64 MiB are for attackers."""
    return stretch(code, salt, cost)


@dataclass
class HandClock:
    """A clock that is set by hand."""

    ms: int = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms - START_MS


class LocalDoor:
    """A child's line to a door in the same process."""

    def __init__(self, door: Door, address: str = "10.0.0.1") -> None:
        self.certificate = CERTIFICATE
        self.asked: list[JoinAsked] = []
        self._door = door
        self._address = address

    def begin(self, node_id: str, nonce: bytes) -> Begun:
        opened = asyncio.run(self._door.begin(node_id, nonce, self._address))
        return Begun(opened.salt, opened.cost, opened.parent_nonce)

    def join(self, asked: JoinAsked) -> Joined:
        self.asked.append(asked)
        return asyncio.run(self._door.join(asked, self._address))


@dataclass
class Place:
    """The township, as it is and after any restart."""

    root: Path
    engine: Engine
    clock: HandClock = field(default_factory=HandClock)
    child_clock: HandClock = field(default_factory=HandClock)
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    keys: DataKeys = field(default_factory=lambda: DataKeys.fresh(TOWNSHIP, os.urandom))
    known: bool = False
    store_epoch: int = 1
    region: tuple[str, SignedEpochText | None] = (region_text(HIERARCHY), None)
    knocks: int = 0

    def __post_init__(self) -> None:
        now = datetime.fromtimestamp(START_MS / 1000, UTC)
        self.folders = create_region(self.root / "nodes", HIERARCHY, now)
        self.operator = local_operator(TOWNSHIP, HIERARCHY)
        self.restart()

    def restart(self) -> None:
        """Another life of the township: only what is durable is left."""
        transactions = Transactions(self.engine)
        self.invitations = Invitations(
            transactions,
            Auditor(self.clock),
            node_id=TOWNSHIP,
            hierarchy=HIERARCHY,
            cells=CellSealer(TOWNSHIP, self.keys),
            clock=self.clock,
            ids=Ids(self.clock, os.urandom),
            store_epoch=self.store_epoch,
        )
        data = self.folders[TOWNSHIP]
        ground = DoorGround(
            data,
            TOWNSHIP,
            HIERARCHY,
            NodeFolder(data).tls.root.read_bytes(),
            lambda: self.region,
            lambda: ":4510",
            lambda _: self.known,
            self._nobody_lends,
            lambda: datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC),
        )
        self.door = Door(
            ground,
            self.invitations,
            CERTIFICATE,
            clock=self.clock,
            random_bytes=os.urandom,
            threads=self.threads,
        )

    async def _nobody_lends(self, _lender: NodeId, _child: NodeId, _chain: str) -> bytes:
        raise AssertionError("a village has no pseudonym key")

    def invite(self, code: JoinCode = CODE, lifetime_ms: int = DAY_MS) -> Invitation:
        """Invite with a code that is stretched already."""
        new = NewInvitation(code, quick(code, SALT, STRETCH), SALT, STRETCH, lifetime_ms, "")
        return self.invitations.create(self.operator, new)[0]

    def line(self) -> LocalDoor:
        """A line from an address that has not knocked yet."""
        self.knocks += 1
        return LocalDoor(self.door, f"10.0.{self.knocks // 250}.{self.knocks % 250}")

    def wish(self, machine: str = "machine", code: JoinCode = CODE) -> JoinWish:
        """A machine that wants to join."""
        return JoinWish(self.root / machine, code, "township:4511", "127.0.0.1:4510")

    def join(
        self,
        machine: str = "machine",
        code: JoinCode = CODE,
        through: Callable[[LocalDoor], DoorCalls] = lambda line: line,
    ) -> JoinedNode:
        """Join from a machine, through whatever stands in between."""

        def opened(_address: str) -> AbstractContextManager[DoorCalls]:
            return _line(through(self.line()))

        wish = self.wish(machine, code)
        return join(wish, opened, clock=self.child_clock, stretched=quick)

    def is_made(self, machine: str = "machine") -> bool:
        """Whether a machine has a data folder."""
        return (self.root / machine).exists()

    def standing(self) -> tuple[str, int]:
        """State and wrong proofs of the village's invitation."""
        newest = self.invitations.newest(VILLAGE)
        assert newest is not None
        return newest.state, newest.wrong_proofs

    def audited(self) -> list[tuple[str, str, str]]:
        """Who did what with which outcome, oldest first."""
        query = select(AUDIT.c.principal, AUDIT.c.action, AUDIT.c.outcome)
        query = query.order_by(AUDIT.c.audit_id)
        with self.engine.connect() as connection:
            return [(str(who), str(what), str(how)) for who, what, how in connection.execute(query)]


class Liar:
    """A parent that knows the code, so that it can prove whatever it says."""

    def __init__(self, line: LocalDoor, change: Callable[[bytes], bytes]) -> None:
        self.certificate = line.certificate
        self._line = line
        self._change = change
        self._nonce = b""
        self._begun = Begun(b"", STRETCH, b"")

    def begin(self, node_id: str, nonce: bytes) -> Begun:
        self._nonce, self._begun = nonce, self._line.begin(node_id, nonce)
        return self._begun

    def join(self, asked: JoinAsked) -> Joined:
        begun = self._begun
        said = Conversation(
            asked.node_id,
            self._nonce,
            begun.nonce,
            begun.salt,
            begun.cost,
            self.certificate,
            asked.tls_request,
            asked.authority_request,
        ).digest
        answer = self._change(self._line.join(asked).answer)
        return Joined(answer, parent_proof(quick(CODE, begun.salt, begun.cost), said, answer))


@contextmanager
def _line(calls: DoorCalls) -> Iterator[DoorCalls]:
    yield calls
