"""Who has looked at a resident's record: by this node's audit and those of the nodes around.

The question goes up to the root and down towards the home, from neighbour to neighbour, over the
links; each node answers for its own audit and brings the answers of those behind it. A node that
does not answer stands in the answer by name. Nodes on other branches that wrote for him are named
too: no link leads there from here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.auditing.errors import AuditStatementError, AuditTryLaterError
from node.auditing.ground import AuditGround
from node.auditing.keeper import AskPeer
from node.auditing.search import AuditSearch
from node.auditing.statements import read_json
from node.errors import NotFoundError
from node.security.caller import Caller, CallerKind, caller_for
from node.storage.audit import Action, Deed, Outcome
from node.storage.model import AuditEntry
from node.storage.reads import named_id
from node.storage.specs import RECORD_TABLES, RESIDENT_INDEX, RESIDENTS
from node.storage.tables import REPLICATED
from replication.channel import AskRefusedError
from replication.core.model import Request

__all__ = [
    "ABOUT_METHOD",
    "AboutResident",
    "Answered",
    "Look",
    "is_break_glass",
    "is_by_node",
]

ABOUT_METHOD: Final = "audit.about"
ENTRIES_MAX: Final = 500
_ASK_MS: Final = 20_000
_HOP_MS: Final = 500
_NODES_MAX: Final = 64
_TEXT_MAX: Final = 200
_OBJECT: Final = "audit"
_FIELDS: Final = len(AuditEntry.__dataclass_fields__)
_COUNT: Final = list(AuditEntry.__dataclass_fields__).index("row_count")
_OF_NODES: Final = frozenset(
    action.value for action in (Action.SHIP, Action.TAKE_OVER, Action.LEARN, Action.PURGE)
)


@dataclass(frozen=True, slots=True)
class Look:
    """One entry, and in whose audit it stands."""

    at_node: NodeId
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class Answered:
    """What one node said. `fault`: empty, or the code why not; `more`: it has older entries."""

    node_id: NodeId
    looks: tuple[Look, ...] = ()
    fault: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True)
class _Here:
    """What this node knows by itself."""

    answered: Answered
    home: NodeId | None
    authors: frozenset[NodeId]


class AboutResident:
    """Asks, and answers neighbours."""

    def __init__(self, ground: AuditGround, ask: AskPeer, search: AuditSearch) -> None:
        self._g = ground
        self._ask = ask
        self._search = search

    async def about(self, caller: Caller, resident_id: str) -> list[Answered]:
        """This node's answer first, then those of the others, then who was not asked; audited.

        Raises:
            NotFoundError: No such resident here, or his home is not below this node.
        """
        named = named_id(resident_id)
        if named is None:
            raise NotFoundError("no such resident here")
        here = await self._g.blocking(self._here, caller, named)
        if here.home is None or here.home not in self._g.hierarchy.subtree(self._g.node_id):
            raise NotFoundError("no such resident here")
        up, down = await asyncio.gather(
            self._upwards(named, here.home, _ASK_MS), self._downwards(named, here.home, _ASK_MS)
        )
        said = [here.answered, *up, *down]
        authors = here.authors - {each.node_id for each in said}
        return [*said, *(Answered(node, fault="NO_ROUTE") for node in sorted(authors))]

    async def answer(self, peer: NodeId, request: Request) -> bytes:
        """Answer a neighbour, who asks for a resident of its side, as it is known here.

        Where he lives is what this node's own rows say. The home that the question names only has
        to be of the asker's side, too; it decides nothing.
        """
        g = self._g
        said = read_json(request.body)
        named, home = named_id(str(said.get("resident"))), NodeId(str(said.get("home")))
        from_above = peer == g.hierarchy.parent(g.node_id)
        side = g.hierarchy.subtree(g.node_id if from_above else peer)
        if named is None or home not in side:
            raise AskRefusedError("DENIED", "that resident is not of the node that asks")
        caller = caller_for(
            CallerKind.NODE, g.hierarchy.spiffe_id(peer), peer, g.hierarchy, ABOUT_METHOD
        )
        if g.is_full():
            # The entry about the question is kept for ever; this node's own readers need the room.
            raise AuditTryLaterError(f"the disk of {g.node_id} is nearly full")
        here = await g.blocking(self._here, caller, named, side)
        if here.home is None:
            return _said([here.answered])
        if here.home not in side:
            raise AskRefusedError("DENIED", "that resident is not of the node that asks")
        left_ms = request.remaining_ms - _HOP_MS
        behind = (
            await self._downwards(named, here.home, left_ms)
            if from_above
            else await self._upwards(named, here.home, left_ms)
        )
        return _said([here.answered, *behind])

    def _here(
        self, caller: Caller, resident_id: str, side: Container[NodeId] | None = None
    ) -> _Here:
        """`side`: whose residents may be told of; None: those of all. It is audited either way."""

        def work(connection: Connection) -> _Here:
            home = _home_of(connection, resident_id)
            if side is not None and (home is None or home not in side):
                outcome = Outcome.NOT_FOUND if home is None else Outcome.REFUSED
                deed = Deed(Action.ABOUT, _OBJECT, outcome, 0, resident_id, resident_id)
                self._g.auditor.write(connection, caller, deed)
                return _Here(Answered(self._g.node_id, fault="NOT_FOUND"), home, frozenset())
            found, more = self._search.of_resident(connection, resident_id, ENTRIES_MAX)
            deed = Deed(Action.ABOUT, _OBJECT, Outcome.DONE, len(found), resident_id, resident_id)
            self._g.auditor.write(connection, caller, deed)
            here = self._g.node_id
            looks = tuple(Look(here, each.entry) for each in found)
            return _Here(
                Answered(here, looks, more=more),
                home,
                frozenset(_authors_of(connection, resident_id)),
            )

        return self._g.transactions.write(work)

    async def _upwards(
        self, resident_id: str, home: NodeId, remaining_ms: int
    ) -> Sequence[Answered]:
        parent = self._g.hierarchy.parent(self._g.node_id)
        if parent is None:
            return ()
        above = self._g.hierarchy.path_to_root(self._g.node_id)[1:]
        return await self._asked(parent, above, resident_id, home, remaining_ms)

    async def _downwards(
        self, resident_id: str, home: NodeId, remaining_ms: int
    ) -> Sequence[Answered]:
        way = self._g.hierarchy.path_to_root(home)
        below = way[: way.index(self._g.node_id)] if self._g.node_id in way else ()
        if not below:
            return ()
        return await self._asked(below[-1], below, resident_id, home, remaining_ms)

    async def _asked(
        self,
        peer: NodeId,
        way: Sequence[NodeId],
        resident_id: str,
        home: NodeId,
        remaining_ms: int,
    ) -> Sequence[Answered]:
        """Answers of the nodes of a way through one neighbour; each is in it, answering or not."""
        body = json.dumps({"resident": resident_id, "home": home}).encode()
        try:
            given = _in(await self._ask(peer, ABOUT_METHOD, body, remaining_ms), frozenset(way))
        except FenheError as error:
            code = error.status if isinstance(error, AskRefusedError) else error.code
            return [Answered(node, fault=code if node == peer else "NOT_REACHED") for node in way]
        said = {each.node_id: each for each in given}
        return [said.get(node, Answered(node, fault="NOT_REACHED")) for node in way]


def is_break_glass(entry: AuditEntry) -> bool:
    """Whether somebody looked in an emergency, past what he may see otherwise."""
    return entry.action == Action.BREAK_GLASS or entry.grant_id is not None


def is_by_node(entry: AuditEntry) -> bool:
    """Whether no person looked: the nodes themselves move records."""
    return entry.action in _OF_NODES


def _home_of(connection: Connection, resident_id: str) -> NodeId | None:
    for name in (RESIDENTS.name, RESIDENT_INDEX.name):
        t = REPLICATED[name]
        home = connection.execute(select(t.c.home_node).where(t.c.row_id == resident_id)).scalar()
        if home is not None:
            return NodeId(home)
    return None


def _authors_of(connection: Connection, resident_id: str) -> Iterable[NodeId]:
    for spec in (RESIDENTS, *RECORD_TABLES):
        t = REPLICATED[spec.name]
        query = select(t.c.author_node).where(t.c.resident_id == resident_id).distinct()
        yield from map(NodeId, connection.execute(query).scalars())


def _said(nodes: Iterable[Answered]) -> bytes:
    return json.dumps({"nodes": [_out(each) for each in nodes]}).encode()


def _out(answered: Answered) -> dict[str, Any]:
    return {
        "node": answered.node_id,
        "fault": answered.fault,
        "more": answered.more,
        "entries": [list(astuple(look.entry)) for look in answered.looks],
    }


def _in(body: bytes, way: frozenset[NodeId]) -> list[Answered]:
    """What a neighbour says of itself and of those behind it."""
    nodes = read_json(body).get("nodes")
    if not isinstance(nodes, list) or len(nodes) > _NODES_MAX:
        raise AuditStatementError("an answer about a resident cannot be read")
    return [found for each in nodes if (found := _answered(each)).node_id in way]


def _answered(said: Any) -> Answered:
    try:
        node, fault = NodeId(said["node"]), str(said["fault"])
        entries = [_entry(each) for each in said["entries"][:ENTRIES_MAX]]
    except (KeyError, TypeError, AttributeError):
        raise AuditStatementError("an answer about a resident cannot be read") from None
    looks = tuple(Look(node, entry) for entry in entries)
    return Answered(node, looks, fault[:_TEXT_MAX], said.get("more") is True)


def _entry(said: Any) -> AuditEntry:
    if not isinstance(said, list) or len(said) != _FIELDS:
        raise AuditStatementError("an entry of an answer cannot be read")
    texts = [each for place, each in enumerate(said) if place != _COUNT]
    fits = (
        isinstance(said[_COUNT], int)
        and all(
            each is None or (isinstance(each, str) and len(each) <= _TEXT_MAX) for each in texts
        )
        and all(isinstance(said[place], str) for place in (0, 1, 2, 3, 4, 5, 6, 9))
    )
    if not fits:
        raise AuditStatementError("an entry of an answer cannot be read")
    return AuditEntry(*said)
