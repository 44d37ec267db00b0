"""What of this node's log is a letter still on its way, and its erasing once it was handed on.

Looks through the log once, from where it last knew all letters to be erased, and remembers the
numbers of those that still have their payload. A neighbour whose release knows no letters is passed
over by the link; for him they are kept, and logged anew once he knows them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Engine

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.logs import get_logger
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
    ) -> None:
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
            self._post.learn(connection, NodeId(peer), hello.signing_certificate)
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
        for start in range(0, len(gone), _AT_ONCE):
            some = gone[start : start + _AT_ONCE]
            with write_transaction(self._engine) as connection:
                self._letters.erase(connection, some)
            for sequence in some:
                del self._on_way[sequence]
        self._save_place()
        return len(gone)

    def find(self, connection: Connection, letter_id: str, sender: str, to: str) -> bool:
        """Whether a letter lies in this node's log and was not handed on, as of the last step."""
        with self._lock:
            between = [
                letter.sequence
                for letter in self._on_way.values()
                if (letter.origin_node, letter.home_node) == (sender, to)
            ]
        for sequence in between:
            entry = self._entry(connection, sequence)
            if entry is not None and _letter_id(entry) == letter_id:
                return True
        return False

    def _look(self, connection: Connection, facts: Mapping[str, str], head: int) -> None:
        if self._scanned is None:
            self._saved = int(facts.get(_ERASED_TO, "0"))
            self._scanned = max(self._saved, self._changelog.pruned_to(connection))
        while self._scanned < head and len(self._on_way) < _ON_WAY_MAX:
            up_to = min(head, self._scanned + _SLICE)
            for letter in self._letters.waiting(connection, self._scanned, up_to):
                self._on_way[letter.sequence] = letter
            self._scanned = up_to

    def _hops(self, connection: Connection, facts: Mapping[str, str]) -> _Hops:
        tree, here = self._hierarchy, self._here
        parent = tree.parent(here)
        peers = [*tree.children(here), *([parent] if parent else [])]
        wanted = {next_hop(tree, here, NodeId(each.home_node)) for each in self._on_way.values()}
        chosen = [peer for peer in peers if peer in wanted]
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
                found = [self._entry(connection, sequence) for sequence in some]
                self._letters.erase(connection, some)
                entries = [_again(entry) for entry in found if entry is not None and entry.rows]
                self._changelog.append(connection, entries)
            for sequence in some:
                del self._on_way[sequence]
        with write_transaction(self._engine) as connection:
            self._facts.save(connection, _fact(peer), _Held.NONE)
        self._log.info("letters kept for a neighbour go now", peer=peer, letters=len(passed))

    def _entry(self, connection: Connection, sequence: int) -> LogEntry | None:
        part = self._changelog.read(
            connection, after=sequence - 1, lane=None, bytes_max=1, entries_max=1, up_to=sequence
        )
        return part.entries[0] if part.entries else None

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
