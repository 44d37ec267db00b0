"""What of this node's log is a letter still on its way, and its erasing once it was handed on.

Looks through the log once, from where it last knew all letters to be erased, and remembers the
numbers of those that still have their payload. A neighbour whose release knows no letters is passed
over by the link; for him they are kept, and logged anew once he knows them.

An author sends a letter again and again until its receipt comes. Of one letter the log keeps one
copy: the first, so that it keeps its place, or the newest if it is for another node or key.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Engine

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.logs import get_logger
from node.security.errors import SecurityError
from node.transit.envelope import read_envelope
from node.transit.errors import TransitError
from node.transit.post import Post
from replication.changelog import (
    ChangeLog,
    LetterEntries,
    LinkState,
    NewEntry,
    StoreState,
    WaitingLetter,
    read_transaction,
    write_transaction,
)
from replication.changelog.tables import ChangelogTables
from replication.core.model import Hello, Lane, LogEntry

__all__ = ["Carriage", "next_hop"]

_PROTOCOL_OF_LETTERS: Final = 2
_SLICE: Final = 20_000
"""Numbers of the log looked through at once."""
_ON_WAY_MAX: Final = 50_000
"""Letters remembered; while there are more, the rest of the log waits to be looked through."""
_AT_ONCE: Final = 100
_NAMES_A_STEP: Final = 500
"""Letters whose header is read in one step."""
_SWEEP_MS: Final = 30_000
"""How often the log beyond the remembered letters is looked through for what was handed on."""
_ERASED_TO: Final = "letters_erased_to"


class _Held(StrEnum):
    """How a neighbour stands to letters; the fact is named after him."""

    KEPT = "kept"
    """His release knows none: what the link passed over for him is kept."""
    DUE = "due"
    """He knows them by now: what was kept is to be logged anew."""
    NONE = ""


def next_hop(hierarchy: Hierarchy, here: NodeId, to: NodeId) -> NodeId | None:
    """The neighbour a letter goes to next; None: it is for here, or for nobody."""
    if to == here or to not in hierarchy.nodes:
        return None
    for child in hierarchy.children(here):
        if hierarchy.is_in_subtree(to, child):
            return child
    return hierarchy.parent(here)


@dataclass(frozen=True, slots=True)
class _Name:
    """Which letter a copy is of, and for whom it is sealed; `letter` ("", ""): unreadable."""

    letter: tuple[str, str]
    to: str
    key: str


@dataclass(frozen=True, slots=True)
class _Hops:
    """How far each neighbour has confirmed each lane, and who is kept letters for."""

    delivered: Mapping[NodeId, Mapping[Lane, int]]
    held: Mapping[NodeId, _Held]


class Carriage:
    """Letters in this node's log."""

    def __init__(
        self,
        engine: Engine,
        tables: ChangelogTables,
        post: Post,
        *,
        hierarchy: Hierarchy,
        changelog: ChangeLog,
        clock: Clock,
        remembered_max: int = _ON_WAY_MAX,
    ) -> None:
        """Looks at nothing yet. `remembered_max`: letters; beyond, only what was handed on."""
        self._remembered_max = remembered_max
        self._engine = engine
        self._post = post
        self._here = post.node_id
        self._hierarchy = hierarchy
        self._changelog = changelog
        self._clock = clock
        self._letters = LetterEntries(tables)
        self._links = LinkState(tables)
        self._facts = StoreState(tables)
        self._on_way: dict[int, WaitingLetter] = {}
        self._names: dict[int, _Name] = {}
        self._first: dict[tuple[str, str], int] = {}
        self._swept_ms: int | None = None
        self._scanned: int | None = None
        self._saved = 0
        self._lock = threading.Lock()
        self._log = get_logger("transit")

    @property
    def count(self) -> int:
        """Letters known to be on their way through this node's log."""
        return len(self._on_way)

    def greeted(self, connection: Connection, peer: str, hello: Hello, epoch_before: int) -> None:
        """A link came up: note what the neighbour can, his chain, and whether he lives anew.

        In the transaction that remembers his store's epoch; `epoch_before` is the one before, 0 if
        he was never met.
        """
        try:
            self._post.chains.learn(connection, NodeId(peer), hello.signing_certificate)
        except FenheError as error:
            # The link itself proves it again, and ends if it cannot.
            self._log.warning("a neighbour's chain is not his", peer=peer, code=error.code)
        name = _fact(peer)
        held = _Held(self._facts.load(connection).get(name, ""))
        if hello.protocol_max < _PROTOCOL_OF_LETTERS:
            if held is not _Held.KEPT:
                self._facts.save(connection, name, _Held.KEPT)
        elif held is _Held.KEPT:
            self._facts.save(connection, name, _Held.DUE)
        if 0 < epoch_before < hello.store_epoch:
            hurried = self._post.outbox.hurry(connection, self._clock.now_ms())
            self._log.info("letters are sent again", peer=peer, letters=hurried)

    def step(self, head: int) -> int:
        """Look through what is new of the log up to `head`, erase what was handed on; how many."""
        with self._lock:
            return self._step(head)

    def _step(self, head: int) -> int:
        with read_transaction(self._engine) as connection:
            facts = self._facts.load(connection)
            self._look(connection, facts, head)
            hops = self._hops(connection, facts) if self._on_way else None
        if hops is None:
            self._save_place()
            return 0
        for peer, held in hops.held.items():
            if held is _Held.DUE:
                self._log_anew(peer, hops)
        gone = [
            letter.sequence
            for letter in self._on_way.values()
            if self._is_handed_on(letter, hops, hops.held)
        ]
        self._erase(gone)
        self._erase(self._copies())
        gone += self._sweep(head, hops)
        self._save_place()
        return len(gone)

    def _erase(self, sequences: Sequence[int]) -> None:
        for start in range(0, len(sequences), _AT_ONCE):
            some = sequences[start : start + _AT_ONCE]
            with write_transaction(self._engine) as connection:
                self._letters.erase(connection, some)
            self._forget(some)

    def _forget(self, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            self._on_way.pop(sequence, None)
            name = self._names.pop(sequence, None)
            if name is not None and self._first.get(name.letter) == sequence:
                del self._first[name.letter]

    def _copies(self) -> list[int]:
        """Copies that another copy makes needless, of the letters that were not looked at yet."""
        unknown = [sequence for sequence in sorted(self._on_way) if sequence not in self._names]
        needless: list[int] = []
        with read_transaction(self._engine) as connection:
            for sequence in unknown[:_NAMES_A_STEP]:
                entry = self._entry(connection, self._on_way[sequence])
                name = self._names[sequence] = _name_of(entry)
                first = self._first.setdefault(name.letter, sequence)
                if first == sequence or not name.letter[1]:
                    continue
                same = self._names[first] == name
                needless.append(sequence if same else first)
                self._first[name.letter] = first if same else sequence
        return needless

    def _sweep(self, head: int, hops: _Hops) -> list[int]:
        """Erase what was handed on beyond the letters that are remembered; what it was.

        Letters for somebody who is away for long must not keep those of all others.
        """
        now_ms, at = self._clock.monotonic_ms(), self._scanned or 0
        if at >= head or (self._swept_ms is not None and now_ms - self._swept_ms < _SWEEP_MS):
            return []
        self._swept_ms = now_ms
        gone: list[int] = []
        while at < head:
            up_to = min(head, at + _SLICE)
            with read_transaction(self._engine) as connection:
                waiting = self._letters.waiting(connection, at, up_to)
            gone += [e.sequence for e in waiting if self._is_handed_on(e, hops, hops.held)]
            at = up_to
        self._erase(gone)
        return gone

    def find(self, connection: Connection, letter_id: str, sender: str, to: str) -> bool:
        """Whether a letter lies in this node's log and was not handed on, as of the last step."""
        with self._lock:
            between = [
                letter
                for letter in self._on_way.values()
                if (letter.origin_node, letter.home_node) == (sender, to)
            ]
        for each in between:
            entry = self._entry(connection, each)
            if entry is not None and _letter_id(entry) == letter_id:
                return True
        return False

    def _look(self, connection: Connection, facts: Mapping[str, str], head: int) -> None:
        if self._scanned is None:
            self._saved = int(facts.get(_ERASED_TO, "0"))
            self._scanned = max(self._saved, self._changelog.pruned_to(connection))
        while self._scanned < head and len(self._on_way) < self._remembered_max:
            up_to = min(head, self._scanned + _SLICE)
            for letter in self._letters.waiting(connection, self._scanned, up_to):
                self._on_way[letter.sequence] = letter
            self._scanned = up_to

    def _hops(self, connection: Connection, facts: Mapping[str, str]) -> _Hops:
        tree, here = self._hierarchy, self._here
        parent = tree.parent(here)
        peers = [*tree.children(here), *([parent] if parent else [])]
        wanted = {next_hop(tree, here, NodeId(each.home_node)) for each in self._on_way.values()}
        # There may be more letters than are remembered.
        all_of_them = len(self._on_way) >= self._remembered_max
        chosen = [peer for peer in peers if all_of_them or peer in wanted]
        return _Hops(
            {
                peer: {
                    lane: cursor.covers_to
                    for lane, cursor in self._links.load_outbound(connection, peer).items()
                }
                for peer in chosen
            },
            {peer: _Held(facts.get(_fact(peer), "")) for peer in chosen},
        )

    def _is_handed_on(
        self, letter: WaitingLetter, hops: _Hops, held: Mapping[NodeId, _Held]
    ) -> bool:
        hop = next_hop(self._hierarchy, self._here, NodeId(letter.home_node))
        if hop is None or held.get(hop, _Held.NONE) is not _Held.NONE:
            return False
        return letter.sequence <= hops.delivered.get(hop, {}).get(letter.lane, 0)

    def _log_anew(self, peer: NodeId, hops: _Hops) -> None:
        """Put what the link passed over for a neighbour into the log again, at its end."""
        passed = [
            letter.sequence
            for letter in self._on_way.values()
            if next_hop(self._hierarchy, self._here, NodeId(letter.home_node)) == peer
            and letter.sequence <= hops.delivered[peer].get(letter.lane, 0)
        ]
        for start in range(0, len(passed), _AT_ONCE):
            some = passed[start : start + _AT_ONCE]
            with write_transaction(self._engine) as connection:
                found = [self._entry(connection, self._on_way[each]) for each in some]
                self._letters.erase(connection, some)
                entries = [_again(entry) for entry in found if entry is not None and entry.rows]
                self._changelog.append(connection, entries)
            self._forget(some)
        if len(self._on_way) >= self._remembered_max:
            # There may be more of them behind; until they are seen, they are kept.
            return
        with write_transaction(self._engine) as connection:
            self._facts.save(connection, _fact(peer), _Held.NONE)
        self._log.info("letters kept for a neighbour go now", peer=peer, letters=len(passed))

    def _entry(self, connection: Connection, letter: WaitingLetter) -> LogEntry | None:
        """The letter itself, also one that was kept from pruning; None if it does not open."""
        at = letter.sequence
        try:
            found = self._changelog.letters(
                connection, letter.lane, after=at - 1, up_to=at, bytes_max=1
            )
        except SecurityError as error:
            self._log.warning("a letter in the log does not open", sequence=at, code=error.code)
            return None
        return found[0] if found else None

    def _save_place(self) -> None:
        """Remember from where the next start has to look; not for every few numbers."""
        place = min(self._on_way, default=(self._scanned or 0) + 1) - 1
        if place - self._saved < _SLICE // 2:
            return
        with write_transaction(self._engine) as connection:
            self._facts.save(connection, _ERASED_TO, str(place))
        self._saved = place


def _fact(peer: str) -> str:
    return f"letters.{peer}"


def _name_of(entry: LogEntry | None) -> _Name:
    if entry is not None and entry.rows:
        try:
            header = read_envelope(entry.codec, entry.rows).header
        except TransitError:
            pass
        else:
            return _Name((header.sender, header.letter_id), header.to, header.key)
    return _Name(("", ""), "", "")


def _letter_id(entry: LogEntry) -> str:
    try:
        return read_envelope(entry.codec, entry.rows).header.letter_id
    except TransitError:
        return ""


def _again(entry: LogEntry) -> NewEntry:
    """The entry with its number withheld: that names the one which was erased."""
    return NewEntry(
        origin_node=entry.origin_node,
        origin_epoch=entry.origin_epoch,
        origin_sequence=0,
        lane=entry.lane,
        home_node=entry.home_node,
        form=entry.form,
        codec=entry.codec,
        schema_version=entry.schema_version,
        committed_at_ms=entry.committed_at_ms,
        row_count=entry.row_count,
        rows=entry.rows,
    )
