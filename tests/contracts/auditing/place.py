"""A village and its township with real stores, keys and statements, and a line between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sqlalchemy import Engine, select, update

from hierarchy_config import NodeId
from node.auditing.anchors import AnchorStore
from node.auditing.events import NodeEvents
from node.auditing.ground import AuditGround
from node.auditing.holding import AnchorHolder
from node.auditing.keeper import ANCHOR_METHOD, COUNTED_FACT, AnchorKeeper
from node.auditing.proof import AuditProof
from node.auditing.search import AuditSearch
from node.auditing.standing import AnchorClock, SavedStanding
from node.auditing.verifying import ANCHORS_METHOD, AuditVerifier, Report
from node.revocation.book import RevokedBook
from node.security.authority import create_region
from node.security.caller import Caller, CallerKind, caller_for
from node.security.credentials import NodeCredentials, load_node_credentials
from node.storage.audit import Action, Auditor, Deed, Outcome
from node.storage.tables import AUDIT, AUDITING, CHANGELOG
from node.storage.transactions import Transactions
from replication.changelog import StoreState
from replication.channel import AskRefusedError, LinkDownError
from tests.schema import migrated
from tests.unit.security.region import TOWNSHIP, VILLAGE, small_hierarchy

__all__ = ["HIERARCHY", "START_MS", "HandClock", "Place", "Side"]

START_MS = 1_800_000_000_000
HIERARCHY = small_hierarchy()
NOW = datetime.fromtimestamp(START_MS / 1000, UTC)


@dataclass
class HandClock:
    """Two clocks that are set by hand."""

    wall: int = START_MS
    ran: int = 0

    def now_ms(self) -> int:
        return self.wall

    def monotonic_ms(self) -> int:
        return self.ran

    def pass_ms(self, ms: int) -> None:
        """Let time pass on both."""
        self.wall += ms
        self.ran += ms


@cache
def credentials_of(folder: Path, node_id: NodeId) -> NodeCredentials:
    """Read once: a test restarts a node hundreds of times."""
    return load_node_credentials(folder, node_id, HIERARCHY, NOW)


@dataclass
class Side:
    """One node's audit on its store, as after any start of the process."""

    node_id: NodeId
    engine: Engine
    folder: Path
    clock: HandClock
    threads: ThreadPoolExecutor
    line: Callable[[NodeId, NodeId, str, bytes], bytes]
    store_epoch: int = 1
    full: bool = False
    revoked: RevokedBook = field(default_factory=lambda: RevokedBook(HIERARCHY))
    ground: AuditGround = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self, transactions: Transactions | None = None) -> None:
        """Another life of the process: only what is durable is left."""
        work = transactions or Transactions(self.engine)
        facts = StoreState(CHANGELOG)
        said = work.read(facts.load).get(COUNTED_FACT, "")
        counted = AnchorClock(
            SavedStanding.read(said), self.clock.now_ms(), self.clock.monotonic_ms()
        )
        auditor = Auditor(self.clock)
        self.ground = AuditGround(
            self.node_id,
            HIERARCHY,
            self.store_epoch,
            work,
            auditor,
            AnchorStore(AUDITING),
            AuditProof(
                credentials_of(self.folder, self.node_id),
                HIERARCHY,
                lambda: NOW,
                revoked=self.revoked,
            ),
            self.clock,
            counted,
            lambda: work.write(auditor.link),
            self.threads,
            lambda: self.full,
        )
        self.keeper = AnchorKeeper(self.ground, self._ask)
        self.holding = AnchorHolder(self.ground)
        self.verifier = AuditVerifier(self.ground, self._ask)
        self.search = AuditSearch(self.ground)
        NodeEvents(self.ground).started()

    async def _ask(self, to: NodeId, method: str, body: bytes, _remaining_ms: int) -> bytes:
        return self.line(self.node_id, to, method, body)

    def caller(self, name: str = "zhang") -> Caller:
        """A member of staff."""
        principal = f"{HIERARCHY.spiffe_id(self.node_id)}/staff/{name}"
        return caller_for(CallerKind.STAFF, principal, self.node_id, HIERARCHY, "treatment")

    def read(self, *residents: str) -> None:
        """Audit reads of residents."""
        deeds = [Deed(Action.READ, "residents", Outcome.DONE, 1, each, each) for each in residents]
        self.ground.transactions.write(
            lambda connection: self.ground.auditor.write(connection, self.caller(), *deeds)
        )

    def link(self) -> None:
        """Chain what is not linked."""
        while self.ground.link():
            pass

    def anchor(self) -> bool:
        """What the keeper does once a minute."""
        return asyncio.run(self.keeper.step())

    def verify(self) -> Report:
        """What `fenhe audit verify` asks for."""

        async def told(_position: int) -> None:
            return None

        return asyncio.run(self.verifier.verify(self.caller(), told))

    def actions(self) -> list[str]:
        """Everything that was done, oldest first."""
        with self.engine.connect() as connection:
            return list(
                connection.execute(select(AUDIT.c.action).order_by(AUDIT.c.audit_id)).scalars()
            )


class Place:
    """Both nodes. `away`: the line is down. `old`: the township is of a release before anchors."""

    def __init__(self, root: Path, village: Engine, township: Engine) -> None:
        self.clock = HandClock()
        self.threads = ThreadPoolExecutor(2)
        self.folders = create_region(root / "nodes", HIERARCHY, NOW)
        self.away = False
        self.old = False
        self.asked = 0
        for engine in (village, township):
            migrated(engine)
        self.township = self._side(TOWNSHIP, township)
        self.village = self._side(VILLAGE, village)

    def _side(self, node_id: NodeId, engine: Engine) -> Side:
        folder = self.folders[node_id]
        return Side(node_id, engine, folder, self.clock, self.threads, self._line)

    def _line(self, sender: NodeId, to: NodeId, method: str, body: bytes) -> bytes:
        self.asked += 1
        if self.away or to != TOWNSHIP:
            raise LinkDownError(f"no link to {to}")
        if self.old:
            raise AskRefusedError("UNKNOWN_METHOD", f"{method} is not known here")
        answers = {
            ANCHOR_METHOD: lambda: self.township.holding.anchor(sender, body),
            ANCHORS_METHOD: lambda: self.township.holding.told(sender),
        }
        return answers[method]()

    def restore(self, copy: Callable[[], None]) -> None:
        """Put the village's store back: `copy` overwrites it; then a new life begins."""
        copy()
        self.clock.pass_ms(60_000)
        self.village.store_epoch += 1
        self.village.restart()

    def close(self) -> None:
        """End the threads."""
        self.threads.shutdown()

    def tamper(self, position: int, **values: object) -> None:
        """Overwrite an entry of the village, past the program."""
        with self.village.engine.begin() as connection:
            connection.execute(
                update(AUDIT).where(AUDIT.c.chain_position == position).values(**values)
            )
