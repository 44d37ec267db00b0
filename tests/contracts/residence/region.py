"""A region of ten stores with keys whose residents move; links are cut and mended by hand.

`flow` does what the links and the nodes' tasks do: it carries everything over every link that is
not cut, both ways, and drives what each node still owes, until nothing moves any more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId
from node.cache import Cache
from node.clock import Ids
from node.records.model import Bundle
from node.residence.decisions import ProposalDesk
from node.residence.homes import SignedGrant
from node.residence.lost import LostGrants, LostQuestion
from node.residence.papers import Ask, grants_in, grants_out
from node.residence.questions import GrantQuestion, GrantQuestions
from node.residence.reminders import Reminders
from node.residence.residence import AWAY_MS, Residence, ResidenceSealers
from node.residence.seal import KeyedSeal
from node.residence.steps import MoveSteps
from node.security.blind_index import BlindIndex, Pseudonymizer, RegionalIndex
from node.storage import CHANGELOG, Storage
from node.storage.model import BundleResult
from node.storage.tables import REPLICATED, RESIDENCE, TRANSIT
from node.transit import NodeVerifier, OwnKey, Post
from node.transit.chains import KnownKey
from node.transit.keys import key_name
from replication.changelog import LinkState, read_transaction, write_transaction
from replication.core.model import Lane, LogEntry
from replication.core.residence import KnownHome
from tests.contracts.storage.region import NodeStore, Region, bundle
from tests.unit.security.region import Held, below, create
from tests.unit.security.region import Region as Authorities

CITY: Final = NodeId("1410")
COUNTY: Final = NodeId("141002")
OTHER_COUNTY: Final = NodeId("141024")
TOWNSHIP: Final = NodeId("141002001")
TOWNSHIP_2: Final = NodeId("141002002")
VILLAGE: Final = NodeId("141002001201")
VILLAGE_2: Final = NodeId("141002001202")
VILLAGE_3: Final = NodeId("141002002201")
FAR_TOWNSHIP: Final = NodeId("141024001")
FAR_VILLAGE: Final = NodeId("141024001201")
ABOVE: Final = {
    CITY: None,
    COUNTY: CITY,
    OTHER_COUNTY: CITY,
    TOWNSHIP: COUNTY,
    TOWNSHIP_2: COUNTY,
    VILLAGE: TOWNSHIP,
    VILLAGE_2: TOWNSHIP,
    VILLAGE_3: TOWNSHIP_2,
    FAR_TOWNSHIP: OTHER_COUNTY,
    FAR_VILLAGE: FAR_TOWNSHIP,
}
_LEVELS: Final = {
    4: CareLevel.CITY,
    6: CareLevel.COUNTY,
    9: CareLevel.TOWNSHIP,
    12: CareLevel.VILLAGE,
}
_LINKS: Final = LinkState(CHANGELOG)
_ROUNDS_MAX: Final = 80
_IDLE_ROUNDS: Final = 3


def moving_hierarchy(
    epoch: int = 1, above: Sequence[NodeId | None] = tuple(ABOVE.values())
) -> Hierarchy:
    """Two counties; in the first two townships with three villages, in the other one of each.

    `above`: whom the nodes have above them, in the order of ABOVE.
    """
    return Hierarchy(
        region="linfen",
        epoch=epoch,
        nodes={
            node: NodeEntry(node, _LEVELS[len(node)], "地", "di", parent, None, "village")
            for node, parent in zip(ABOVE, above, strict=True)
        },
    )


_TREE: Final = moving_hierarchy()
_AUTHORITIES: Final = create(_TREE)
_HELD: Final = {node: _AUTHORITIES.node(node) for node in ABOVE}


_Above = tuple[NodeId | None, ...]


def _above(tree: Hierarchy) -> _Above:
    return tuple(tree.parent(node) for node in ABOVE)


@cache
def _known(above: _Above) -> tuple[KnownKey, ...]:
    """Everybody's key, as a node keeps it once it has verified the chain."""
    return tuple(
        KnownKey(node, key_name(held.private_key.public_key()), held.chain_pem)
        for node, held in _held_under(above).items()
    )


@cache
def _held_under(above: _Above) -> dict[NodeId, Held]:
    """Everybody's certificate: who has another node above it got a new one, and all below it."""
    tree, held = moving_hierarchy(above=above), dict(_HELD)
    issued = Authorities(tree, _AUTHORITIES.root, dict(_AUTHORITIES.authorities))
    changed: set[NodeId] = set()
    for node, parent in zip(ABOVE, above, strict=True):
        if parent is None or (parent == ABOVE[node] and parent not in changed):
            continue
        changed.add(node)
        issuer = issued.authorities[parent]
        issued.authorities[node] = below(issuer, node, tree, tree.nodes[node].level)
        held[node] = issued.node(node)
    return held


@dataclass
class _Keys:
    held: Held

    def own(self) -> OwnKey:
        return OwnKey(self.held.private_key, self.held.chain_pem)


@dataclass
class MovingNode(NodeStore):
    """A node with its post and its part in moves."""

    post: Post = field(init=False)
    residence: Residence = field(init=False)
    steps: MoveSteps = field(init=False)
    reminders: Reminders = field(init=False)
    questions: GrantQuestions = field(init=False)
    lost: LostGrants = field(init=False)
    proposals: ProposalDesk = field(init=False)
    connected: set[NodeId] = field(default_factory=set)
    former: dict[int, Hierarchy] = field(default_factory=dict)
    """Hierarchies of earlier epochs in which grants are believed still."""

    def open_storage(self, source: random.Random, cache: Cache | None) -> Storage:
        """The node's storage with everything that moves need."""
        keys = _Keys(_held_under(_above(self.tree))[self.node_id])

        def now() -> datetime:
            return datetime.fromtimestamp(self.clock.ms / 1000, UTC)

        ids = Ids(self.clock, source.randbytes)
        verifier = NodeVerifier(lambda: _AUTHORITIES.root_pem, self.tree, now)
        self.post = Post(
            TRANSIT,
            node_id=self.node_id,
            hierarchy=self.tree,
            changelog=self.log,
            sealer=self.keys,
            clock=self.clock,
            ids=ids,
            keys=keys,
            verifier=verifier,
        )
        level = self.tree.nodes[self.node_id].level
        storage = Storage(
            self.engine,
            node_id=self.node_id,
            hierarchy=self.tree,
            sealer=self.keys,
            blind_index=BlindIndex(source.randbytes(32)),
            changelog=self.log,
            clock=self.clock,
            ids=ids,
            regional_index=RegionalIndex(b"r" * 32)
            if level in {CareLevel.CITY, CareLevel.COUNTY}
            else None,
            pseudonymizer=Pseudonymizer(b"p" * 32) if level is CareLevel.COUNTY else None,
            random_bytes=source.randbytes,
            cache=cache,
            post=self.post,
        )
        self.residence = Residence(
            storage.context,
            RESIDENCE,
            seal=KeyedSeal(keys, verifier),
            sealers=ResidenceSealers(self.keys, self.keys),
            ids=ids,
            former=lambda _, epoch: self.former.get(epoch),
        )
        self.steps = MoveSteps(
            storage.context, self.residence, is_connected=lambda node: node in self.connected
        )
        self.reminders = Reminders(storage.context, self.residence)
        self.questions = GrantQuestions(storage.context, self.residence)
        self.lost = LostGrants(storage.context, self.residence)
        self.proposals = ProposalDesk(storage.context, self.residence)
        with write_transaction(self.engine) as connection:
            for known in _known(_above(self.tree)):
                self.post.chains.save(connection, known)
        return storage

    def put(self, request_id: str, *rows: Any) -> BundleResult:
        """Store a bundle."""
        made: Bundle = bundle(request_id, *rows)
        return self.storage.put_bundle(self.caller(), made)

    def grant(
        self, resident_id: str, to: NodeId, *, present: KnownHome | None = None
    ) -> SignedGrant:
        """Grant a move, as the desk does once it knows the present home."""
        known = present or self.read(lambda c: self.residence.known(c, resident_id))
        assert known is not None
        ask = Ask(resident_id, to, "moved house", self.node_id, known)
        granted: SignedGrant = self.write(
            lambda c: self.residence.grant(c, self.caller(), ask, known)
        )
        return granted

    def read(self, work: Callable[[Connection], Any]) -> Any:
        """In a transaction that reads."""
        with read_transaction(self.engine) as connection:
            return work(connection)

    def write(self, work: Callable[[Connection], Any]) -> Any:
        """In a transaction as the node makes them."""
        return self.storage.context.transactions.write(work)

    def work_off(self) -> bool:
        """What the node's tasks do once; whether there was anything."""
        busy = False
        for letter_id in self.read(lambda c: self.post.outbox.due(c, self.clock.ms, 1000)):
            busy = True
            self.write(partial(_go_on, self.post, letter_id))
        self.durable_head()
        if self.read(self.post.owed.is_any):
            self.write(self.post.owed.place)
            answered = self.write(lambda c: self.post.answer_owed(c, partial(self._delivered, c)))
            busy |= bool(answered)
        busy |= self.reminders.step()
        for resident_id, home_epoch in self.steps.due():
            before = self._standing(resident_id)
            self.steps.step(resident_id, home_epoch)
            busy |= before != self._standing(resident_id)
        return busy

    def _delivered(self, connection: Connection, lane: Lane) -> int:
        """Up to where the parent holds a lane."""
        parent = self.tree.parent(self.node_id)
        if parent is None:
            return 0
        cursor = _LINKS.load_outbound(connection, parent).get(lane)
        return cursor.covers_to if cursor else 0

    def _standing(self, resident_id: str) -> list[tuple[str, int]]:
        moves = self.read(lambda c: self.residence.moves.of_resident(c, resident_id))
        return [(move.state.value, move.sequence) for move in moves]

    def rows(self, resident_id: str, table: str = "observations") -> list[Any]:
        """The rows of him that the table has, whoever may see them, by row id."""
        t = REPLICATED[table]
        query = select(t).where(t.c.resident_id == resident_id).order_by(t.c.row_id)
        return self.read(lambda c: list(c.execute(query).all()))  # type: ignore[no-any-return]

    def count(self, resident_id: str) -> int:
        """Rows of him in all tables."""
        return sum(len(self.rows(resident_id, table)) for table in REPLICATED)

    def home(self, resident_id: str) -> tuple[str, int] | None:
        """Where his row here says that he lives."""
        rows = self.rows(resident_id, "residents") or self.rows(resident_id, "resident_index")
        return (rows[0].home_node, rows[0].home_epoch) if rows else None

    def state(self, resident_id: str) -> str:
        """This node's part in his newest move; "" if it has none."""
        moves = self.read(lambda c: self.residence.moves.of_resident(c, resident_id))
        return str(moves[-1].state.value) if moves else ""

    def waiting(self) -> int:
        """Changes in the quarantine."""
        q = CHANGELOG.quarantine
        query = select(func.count()).select_from(q).where(q.c.closed_as.is_(None))
        return int(self.read(lambda c: c.execute(query).scalar_one()))


def _go_on(post: Post, letter_id: str, connection: Connection) -> None:
    post.go_on(connection, letter_id)


class MovingRegion(Region):
    """Opens the nodes on demand; `flow` moves everything."""

    def __init__(self, new_engine: Callable[[], Engine]) -> None:
        super().__init__(new_engine)
        self.tree = _TREE
        self._new = new_engine
        self.cut: set[NodeId] = set()
        """Nodes whose link to the parent is down."""
        self._quiet: dict[tuple[int, int], int] = {}
        """Heads at which a sender had nothing for a receiver."""

    def node(self, node_id: NodeId) -> MovingNode:
        """The node of that id."""
        if node_id not in self._nodes:
            self._nodes[node_id] = MovingNode(
                node_id, self._new(), self.tree, self.clock, int(node_id)
            )
        node = self._nodes[node_id]
        assert isinstance(node, MovingNode)
        return node

    def nodes(self, *codes: NodeId) -> list[MovingNode]:
        """Several of them."""
        return [self.node(code) for code in codes]

    def _ask_for_grants(self, node: MovingNode, only: Collection[NodeId]) -> bool:
        """What the desk does every few seconds; whether anything was learned."""
        busy = False
        for question in node.questions.wanted():
            asked: NodeId | None = question.peer
            said = grants_out([])
            while asked is not None and asked in only and asked not in self.cut:
                child = self.node(asked)
                here = GrantQuestion.read(asked, question.body())
                grants, asked = child.read(partial(child.questions.held, question=here))
                said = grants_out(grants)
            busy |= node.write(partial(node.questions.take, question, grants_in(said)))
        for lost in node.lost.wanted():
            if lost.peer in only and lost.peer not in self.cut:
                child, read = self.node(lost.peer), LostQuestion.read(lost.peer, lost.body())
                look = partial(child.lost.held, granter=node.node_id, question=read)
                told = grants_in(grants_out(child.read(look)))
                busy |= node.write(partial(node.lost.take, lost, told))
        return busy

    def regroup(self, tree: Hierarchy) -> None:
        """Every node has restarted with another hierarchy; grants of the first are believed."""
        self.tree = tree
        for node in self.nodes(*ABOVE):
            node.tree = tree
            node.former[_TREE.epoch] = _TREE
            node.storage = node.open_storage_again()

    def ship(self, sender: NodeStore, receiver: NodeStore) -> list[LogEntry]:
        """Send everything, and keep at the sender what the receiver has confirmed."""
        link, head = (id(sender), id(receiver)), sender.durable_head()
        if self._quiet.get(link) == head:
            return []
        sent = super().ship(sender, receiver)
        if not sent:
            self._quiet[link] = head
        reached = receiver.cursors(sender.node_id)
        with read_transaction(sender.engine) as connection:
            held = _LINKS.load_outbound(connection, receiver.node_id)
        news = [each for lane, each in reached.items() if each.number and held.get(lane) != each]
        if news:
            with write_transaction(sender.engine) as connection:
                for cursor in news:
                    _LINKS.save_outbound(connection, receiver.node_id, cursor)
        return sent

    def say_all_again(self) -> None:
        """Nobody is known to have nothing for a neighbour."""
        self._quiet.clear()

    def flow(self, only: Collection[NodeId] = tuple(ABOVE)) -> None:
        """Carry everything between these nodes until nothing moves. Time passes as it must."""
        chosen = [node for node in ABOVE if node in only]
        for node in chosen:
            below = {child for child in self.tree.children(node) if child in only}
            self.node(node).connected = below - self.cut
        idle = 0
        for _ in range(_ROUNDS_MAX):
            busy = False
            for node in chosen:
                parent = self.tree.parent(node)
                if parent is not None and parent in only and node not in self.cut:
                    busy |= bool(self.ship(self.node(node), self.node(parent)))
                    busy |= bool(self.ship(self.node(parent), self.node(node)))
            for node in chosen:
                busy |= self.node(node).work_off()
                busy |= self._ask_for_grants(self.node(node), only)
            # A node waits a little before it ships in another's place.
            idle = 0 if busy else idle + 1
            if idle == _IDLE_ROUNDS:
                return
            self.clock.ms += 1_000 if busy else AWAY_MS
        raise AssertionError("something moves for ever")
