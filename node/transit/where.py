"""Where a record is: each node of its way says what it knows, as far as links reach.

The author asks the next node, which asks the one after it. A relay answers by a letter's id, and
only somebody through whom the letter has to pass; it says whether it still holds it, never what is
in it. Above the home, a node says from its own receipts how far the row has climbed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import format_ms, parse_ms
from node.links.hub import LinkHub, RequestHandler
from node.security.caller import Caller
from node.storage.causes import meaning_of
from node.storage.model import StoredRecord
from node.storage.specs import TABLES
from node.transit.carriage import Carriage, next_hop
from node.transit.model import SentLetter
from node.transit.post import Post
from node.transit.tracks import RowTrack, Tracks
from replication.channel import AskRefusedError
from replication.core.mailbox import PostState
from replication.core.model import Request

__all__ = ["Hop", "RecordWhere", "Wherever"]

LETTER_WHERE: Final = "transit.where"
ROW_WHERE: Final = "transit.climbed"
_ANSWER_MS: Final = 8_000
_HOP_MS: Final = 200
_TEXT_MAX: Final = 300
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hop:
    """One node of the way; the words of `place` and `state` are those of care.proto."""

    node_id: str
    place: str
    state: str
    cause: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class RecordWhere:
    """A record as this node holds it, the letter that carries it (None: a row), and its way."""

    record: StoredRecord
    letter: SentLetter | None
    hops: tuple[Hop, ...]


class Records(Protocol):
    """Reads a record for a caller: Storage."""

    def record(self, caller: Caller, record_id: str) -> StoredRecord | None:
        """Scoped and audited."""


class Wherever:
    """Asks and answers where a record is."""

    def __init__(
        self,
        records: Records,
        post: Post,
        carriage: Carriage,
        tracks: Tracks,
        hub: LinkHub,
        *,
        hierarchy: Hierarchy,
        threads: Executor,
    ) -> None:
        self._records = records
        self._post = post
        self._carriage = carriage
        self._tracks = tracks
        self._hub = hub
        self._here = post.node_id
        self._hierarchy = hierarchy
        self._threads = threads

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions that the parent and the children may ask."""
        return {LETTER_WHERE: self._answer_letter, ROW_WHERE: self._answer_row}

    async def record(self, caller: Caller, record_id: str) -> RecordWhere | None:
        """Where a record is that the caller may see; None: not here, or not for him. Audited."""
        record = await self._run(self._records.record, caller, record_id)
        if record is None:
            return None
        role = "author" if record.author_node == self._here else "copy"
        role = "home" if record.home_node == self._here and role == "copy" else role
        first = Hop(self._here, role, "stored", at=record.recorded_at)
        if role == "author" and record.home_node not in self._hierarchy.subtree(self._here):
            letter = await self._run(self._letter_of, record)
            if letter is None:
                return RecordWhere(record, None, (first, self._unknown(NodeId(record.home_node))))
            hops = await self._after_letter(letter, _ANSWER_MS)
            return RecordWhere(record, letter, (first, *hops))
        row = await self._run(self._track_of, record)
        below = NodeId(record.home_node) if role == "author" else self._here
        down = await self._down(row, below, _ANSWER_MS)
        up = await self._up(row, _ANSWER_MS)
        return RecordWhere(record, None, (first, *down, *up))

    def _letter_of(self, record: StoredRecord) -> SentLetter | None:
        def work(connection: Connection) -> SentLetter | None:
            sent = self._post.outbox.of_row(connection, record.record_id)
            named = [
                each
                for each in sent
                if any(
                    s.row_id == record.record_id and s.version == record.version
                    for s in each.subjects
                )
            ]
            return named[-1] if named else None

        return self._tracks.read(work)

    def _track_of(self, record: StoredRecord) -> RowTrack:
        lane = TABLES[record.table].lane
        at_ms = parse_ms(record.recorded_at)
        found = self._tracks.row(record.author_node, record.home_node, lane, at_ms, at_ms)
        return RowTrack(record.table, lane, record.home_node, found)

    # -- the way of a letter --------------------------------------------------------------------

    async def _after_letter(self, letter: SentLetter, remaining_ms: int) -> list[Hop]:
        """The nodes after the author."""
        next_node = next_hop(self._hierarchy, self._here, letter.to)
        asked = {"letter": letter.letter_id, "sender": self._here, "to": letter.to}
        if letter.parcel.state is PostState.WAITING_KEY:
            cause = "the home's key is not known here yet"
            return [Hop(letter.to, "home", "waiting", cause)]
        hops: list[Hop] = []
        if next_node is not None:
            held = await self._run(self._holds, letter.letter_id, self._here, letter.to)
            hops = await self._on(next_node, asked, held, remaining_ms)
        return _with_receipt(hops, letter)

    async def _on(
        self, next_node: NodeId, asked: Mapping[str, str], held: bool, remaining_ms: int
    ) -> list[Hop]:
        """What the next node and those after it say; why not, if they cannot be asked."""
        place = "home" if next_node == asked["to"] else "relay"
        if held:
            return [Hop(next_node, place, "waiting", self._why_not(next_node))]
        return await self._ask(next_node, LETTER_WHERE, place, asked, remaining_ms)

    async def _answer_letter(self, peer: NodeId, request: Request) -> bytes:
        asked = _question(request.body, ("letter", "sender", "to"))
        letter_id, sender, to = asked["letter"], asked["sender"], NodeId(asked["to"])
        self._refuse_stranger(peer, NodeId(sender), to)
        if to == self._here:
            hops = await self._at_home(sender, letter_id, request.remaining_ms - _HOP_MS)
            return _answer(hops)
        held = await self._run(self._holds, letter_id, sender, to)
        mine = Hop(self._here, "relay", "passed", "handed on, or not come yet")
        if held:
            mine = Hop(self._here, "relay", "stored", "sealed, in the log alone")
        if not held:
            cause = await self._run(self._tracks.quarantined, letter_id, sender, to)
            if cause:
                return _answer([Hop(self._here, "relay", "quarantined", meaning_of(cause))])
        next_node = next_hop(self._hierarchy, self._here, to)
        after: list[Hop] = []
        if next_node is not None:
            after = await self._on(next_node, asked, held, request.remaining_ms - _HOP_MS)
        return _answer([mine, *after])

    async def _at_home(self, sender: str, letter_id: str, remaining_ms: int) -> list[Hop]:
        outcome, at_ms = await self._run(self._tracks.received, sender, letter_id)
        at = format_ms(at_ms) if at_ms else ""
        if outcome is None:
            return [Hop(self._here, "home", "unknown", "it has not come yet")]
        if outcome:
            word = outcome.partition(":")[0]
            return [Hop(self._here, "home", "refused", f"{word}: {meaning_of(word)}", at)]
        first = Hop(self._here, "home", "confirmed", at=at)
        row = await self._run(self._tracks.taken, sender, at_ms)
        return [first, *(await self._up(row, remaining_ms))] if row is not None else [first]

    def _refuse_stranger(self, peer: NodeId, sender: NodeId, to: NodeId) -> None:
        """Only those through whom the letter passes may ask for it."""
        tree, here = self._hierarchy, self._here
        if peer == tree.parent(here):
            passes = to in tree.subtree(here) and sender not in tree.subtree(here)
        else:
            below = tree.subtree(peer)
            passes = sender in below and to not in below
        if not passes:
            raise AskRefusedError("DENIED", "that letter does not pass through the node that asks")

    def _holds(self, letter_id: str, sender: str, to: str) -> bool:
        return self._tracks.read(
            lambda connection: self._carriage.find(connection, letter_id, sender, to)
        )

    # -- the way of a row -----------------------------------------------------------------------

    async def _up(self, row: RowTrack, remaining_ms: int) -> list[Hop]:
        parent = self._hierarchy.parent(self._here)
        if parent is None:
            return []
        forms = sorted(f.value for f in self._hierarchy.copy_forms(self._here, row.table))
        if not forms:
            return [Hop(parent, "copy", "not_copied", "policy copies none of it up")]
        return await self._confirmed_by(parent, row, ", ".join(forms), remaining_ms)

    async def _down(self, row: RowTrack, home: NodeId, remaining_ms: int) -> list[Hop]:
        child = next_hop(self._hierarchy, self._here, home)
        if child is None or child == self._hierarchy.parent(self._here):
            return []
        return await self._confirmed_by(child, row, "full", remaining_ms)

    async def _confirmed_by(
        self, peer: NodeId, row: RowTrack, form: str, remaining_ms: int
    ) -> list[Hop]:
        """What a neighbour's receipts say, and those after him."""
        place = "home" if peer == row.home_node else "copy"
        if row.origin is None:
            return [Hop(peer, place, "unknown", "the log no longer has the entry it was in")]
        state = self._hub.states[peer]
        live = state.delivered_to.get(row.lane, 0)
        saved, at_ms = await self._run(self._tracks.delivered, peer, row.lane)
        if max(live, saved) < row.origin.here:
            return [Hop(peer, place, "waiting", self._why_not(peer))]
        mine = Hop(peer, place, "confirmed", form, format_ms(at_ms) if at_ms else "")
        asked = {
            "origin": row.origin.node,
            "epoch": str(row.origin.epoch),
            "sequence": str(row.origin.sequence),
            "table": row.table,
            "home": row.home_node,
        }
        if row.table not in TABLES or "full" not in form:
            return [mine]
        return [mine, *(await self._ask(peer, ROW_WHERE, "", asked, remaining_ms))]

    async def _answer_row(self, peer: NodeId, request: Request) -> bytes:
        asked = _question(request.body, ("origin", "epoch", "sequence", "table", "home"))
        from_above = peer == self._hierarchy.parent(self._here)
        home = NodeId(asked["home"])
        below = self._hierarchy.subtree(self._here if from_above else peer)
        spec = TABLES.get(asked["table"])
        numbers = asked["epoch"], asked["sequence"]
        if home not in below or spec is None or not all(n.isdecimal() for n in numbers):
            raise AskRefusedError("DENIED", "that row is not of the node that asks")
        origin = await self._run(
            self._tracks.relayed, asked["origin"], int(asked["epoch"]), int(asked["sequence"])
        )
        row = RowTrack(asked["table"], spec.lane, home, origin)
        remaining = request.remaining_ms - _HOP_MS
        after = self._down(row, home, remaining) if from_above else self._up(row, remaining)
        return _answer(await after)

    # -- odds and ends --------------------------------------------------------------------------

    async def _ask(
        self,
        peer: NodeId,
        method: str,
        place: str,
        asked: Mapping[str, str],
        remaining_ms: int,
    ) -> list[Hop]:
        """A neighbour's answer. `place` "": of no interest if it cannot be asked."""
        body = json.dumps(asked).encode()
        try:
            return _hops(await self._hub.ask(peer, method, body, remaining_ms=remaining_ms))
        except FenheError as error:
            if not place:
                return []
            return [Hop(peer, place, "unreachable", error.message)]

    def _why_not(self, peer: NodeId) -> str:
        state = self._hub.states.get(peer)
        if state is None or not state.connected:
            return f"no link between {self._here} and {peer}"
        return f"{peer} has not confirmed it to {self._here} yet"

    def _unknown(self, home: NodeId) -> Hop:
        return Hop(home, "home", "unknown", "no letter with this version is known here")

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _with_receipt(hops: list[Hop], letter: SentLetter) -> list[Hop]:
    """The home's own receipt outweighs what could be asked on the way."""
    proof = letter.proof
    if letter.parcel.state is not PostState.CONFIRMED or proof is None:
        return hops
    receipt = Hop(letter.to, "home", "confirmed", "by its signed receipt", format_ms(proof.at_ms))
    if any(hop.node_id == letter.to and hop.state == "confirmed" for hop in hops):
        return hops
    return [*(hop for hop in hops if hop.node_id != letter.to), receipt]


def _question(body: bytes, names: tuple[str, ...]) -> dict[str, str]:
    try:
        said = json.loads(body)
        found = {name: said[name] for name in names}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AskRefusedError("BAD_REQUEST", "the question cannot be read") from None
    if not all(isinstance(text, str) and len(text) <= _TEXT_MAX for text in found.values()):
        raise AskRefusedError("BAD_REQUEST", "the question cannot be read")
    return found


def _answer(hops: list[Hop]) -> bytes:
    return json.dumps([asdict(hop) for hop in hops]).encode()


def _hops(body: bytes) -> list[Hop]:
    try:
        hops = [Hop(**said) for said in json.loads(body)]
    except (ValueError, TypeError):
        raise AskRefusedError("BAD_ANSWER", "the answer cannot be read") from None
    texts = [text for hop in hops for text in asdict(hop).values()]
    if not all(isinstance(text, str) and len(text) <= _TEXT_MAX for text in texts):
        raise AskRefusedError("BAD_ANSWER", "the answer cannot be read")
    return hops
