"""One end of a comparison, on this node's own storage: digests, verdicts, mending.

Every method blocks on the database. The other end is the same class on another node, asked over the
link (asking.py). A slice is read once and its leaves are kept for the questions that follow.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from node.reconcile.errors import ReconcileBehindError
from node.reconcile.mending import Mender
from node.reconcile.model import (
    Cause,
    Current,
    Direction,
    Offer,
    Open,
    Pair,
    Slice,
    Taken,
    Verdict,
    key_named,
    row_id_of,
)
from node.reconcile.ranges import KeyRange, LeafPage, Leaves, RangeDigest
from node.reconcile.slices import SliceReader, SliceRow, row_digest
from node.storage.context import StoreContext
from node.storage.rows import RowMaker
from node.storage.specs import IDENTIFIERS, RESIDENT_INDEX, RESIDENTS, TABLES
from replication.changelog.slices import LogSlice
from replication.core.codec import decode_changes
from replication.core.model import Audience, Form, Lane, LogEntry, Operation, RowChange, Version

__all__ = ["KEYS_A_SETTLE", "LocalSide"]

KEYS_A_SETTLE: Final = 200
_TREES_KEPT: Final = 3
_WISHES_KEPT: Final = 16
_SLICE_BYTES: Final = 4 << 20
_YOUNG_ENTRIES_MAX: Final = 50_000
_LOG_ENTRIES_MAX: Final = 500_000
_DOUBTFUL: Final = frozenset(
    {Cause.CONTENT, Cause.OWNER_MISSING, Cause.OWNER_BEHIND, Cause.OWNER_BROKEN}
    | {Cause.BOTH_BROKEN, Cause.NOT_FROM_BELOW}
)
"""What this end's own row may be to blame for."""


@dataclass(slots=True)
class _Touched:
    """Rows, and residents by their identifiers, that a stretch of the log names."""

    rows: set[tuple[str, str]] = field(default_factory=set)
    residents: set[str] = field(default_factory=set)


class LocalSide:
    """This node's end of one link."""

    def __init__(
        self,
        store: StoreContext,
        maker: RowMaker,
        pair: Pair,
        *,
        durable_head: Callable[[], int],
        delivered: Callable[[], Mapping[Lane, int]],
        changed: Callable[[], None],
    ) -> None:
        """Nothing is read yet.

        Args:
            store: This node's.
            maker: Makes database rows.
            pair: The link's ends, one of them this node.
            durable_head: Of the log; how far readers may go.
            delivered: Log sequences that the other end has confirmed, by lane.
            changed: Called after rows were mended: the log has grown.
        """
        self._store = store
        self._pair = pair
        self._reader = SliceReader(store, pair)
        self._mender = Mender(store, maker, self._reader, pair)
        self._durable_head = durable_head
        self._delivered = delivered
        self._changed = changed
        self._trees: OrderedDict[Slice, tuple[Leaves, int]] = OrderedDict()
        self._wishes: OrderedDict[Slice, frozenset[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    # -- comparing ---------------------------------------------------------------------------------

    def slices(self, tables: Sequence[str]) -> list[Slice]:
        """What this end has rows of."""

        def work(connection: Connection) -> list[Slice]:
            return [
                Slice(direction, table, home)
                for direction in Direction
                for table in tables
                for home in sorted(self._reader.homes(connection, direction, table))
            ]

        return self._store.transactions.read(work)

    def begin(self, part: Slice) -> tuple[Leaves, int]:
        """Read a slice now and keep its leaves; also how many rows have no id that could be one."""
        tree = self._store.transactions.read(
            lambda connection: self._reader.leaves(connection, part)
        )
        with self._lock:
            self._trees[part] = tree
            self._trees.move_to_end(part)
            while len(self._trees) > _TREES_KEPT:
                self._trees.popitem(last=False)
        return tree

    def digests(self, part: Slice, spans: Sequence[KeyRange], *, fresh: bool) -> list[RangeDigest]:
        """Digests of ranges; `fresh`: of the slice as it is now, else as it was then."""
        leaves = self._tree(part, fresh)
        return [leaves.digest(span) for span in spans]

    def pages(self, part: Slice, spans: Sequence[KeyRange]) -> list[LeafPage]:
        """The first leaves of ranges."""
        leaves = self._tree(part, False)
        return [leaves.page(span) for span in spans]

    def end(self, part: Slice) -> None:
        """Forget a slice's leaves."""
        with self._lock:
            self._trees.pop(part, None)

    def _tree(self, part: Slice, fresh: bool) -> Leaves:
        with self._lock:
            held = None if fresh else self._trees.get(part)
        return (held or self.begin(part))[0]

    # -- who is right ------------------------------------------------------------------------------

    def opened(self) -> Open:
        """How far the other end has confirmed this one's log, before it looks at its rows."""
        return Open({lane.value: at for lane, at in self._delivered().items()})

    def current(self, part: Slice, keys: Sequence[bytes]) -> list[Current]:
        """Rows as they are here now; of one whose home is elsewhere by now no content."""
        rows = self._rows(part, keys)
        return [self._reader.current(rows[key]) if key in rows else Current(None) for key in keys]

    def settle(
        self,
        part: Slice,
        opened: Open,
        theirs: Mapping[bytes, Current],
        *,
        repair: bool,
    ) -> list[Verdict]:
        """Say as the owner what each key of the copy should be.

        Args:
            part: The slice.
            opened: What `opened` said before the other end read `theirs`.
            theirs: The copy's rows, by key.
            repair: Give rows out, and mend this end from its own log.

        Raises:
            ReconcileBehindError: Too much is on its way to tell.
        """
        rows = self._rows(part, list(theirs))
        touched = self._touched(part, opened)
        verdicts: list[Verdict] = []
        doubtful: dict[bytes, Verdict] = {}
        for key, their in theirs.items():
            mine = rows.get(key)
            if self._is_young(part, key, mine, touched):
                verdicts.append(Verdict(key, young=True))
                continue
            verdict = self._judge(part, key, mine, their)
            if verdict.cause in _DOUBTFUL or self._is_elsewhere(part, mine):
                doubtful[key] = verdict
            else:
                verdicts.append(verdict)
        if doubtful:
            verdicts += self._settle_doubtful(part, doubtful, rows, theirs, repair)
        if repair:
            self._wish(part, frozenset(each.key for each in verdicts if each.wants))
        return verdicts if repair else [_without_row(each) for each in verdicts]

    def _rows(self, part: Slice, keys: Sequence[bytes]) -> dict[bytes, SliceRow]:
        return self._store.transactions.read(
            lambda connection: self._reader.rows(connection, part, keys)
        )

    def _judge(self, part: Slice, key: bytes, mine: SliceRow | None, their: Current) -> Verdict:
        """What the tables of the two ends say."""
        if mine is None:
            if their.digest is None:
                return Verdict(key)
            return self._wanted(part, key, Cause.OWNER_MISSING, their)
        if mine.change is None:
            return self._wanted(part, key, Cause.OWNER_BROKEN, their)
        if their.digest == mine.digest or not self._reader.belongs(part, mine.change):
            return Verdict(key)
        if their.digest is None:
            return Verdict(key, Cause.MISSING, row=mine.change)
        if their.version is not None and their.version > mine.version:
            return self._wanted(part, key, Cause.OWNER_BEHIND, their)
        if their.broken:
            return Verdict(key, Cause.SEAL_BROKEN, row=mine.change)
        if their.version == mine.version and their.home_epoch > mine.home_epoch:
            # He has moved, and this end keeps what it had: his new home's link tells.
            return Verdict(key)
        is_older = their.version is not None and their.version < mine.version
        return Verdict(key, Cause.STALE if is_older else Cause.CONTENT, row=mine.change)

    def _is_elsewhere(self, part: Slice, mine: SliceRow | None) -> bool:
        """Whether the row says that it is of another slice: it moved, or that word is wrong."""
        change = None if mine is None else mine.change
        return change is not None and not self._reader.belongs(part, change)

    def _wanted(self, part: Slice, key: bytes, cause: Cause, their: Current) -> Verdict:
        """The owner needs the copy's row: to be had from a parent that has it in full."""
        if their.broken or their.digest is None:
            cause = cause if their.digest is None else Cause.BOTH_BROKEN
            return Verdict(key, cause, decided=False)
        if part.direction is Direction.DOWN:
            return Verdict(key, Cause.NOT_FROM_BELOW, decided=False)
        if self._reader.is_reduced(part) or part.table == RESIDENT_INDEX.name:
            return Verdict(key, cause, decided=False)
        return Verdict(key, cause, wants=True)

    def _settle_doubtful(
        self,
        part: Slice,
        doubtful: Mapping[bytes, Verdict],
        rows: Mapping[bytes, SliceRow],
        theirs: Mapping[bytes, Current],
        repair: bool,
    ) -> list[Verdict]:
        """Where this end's own row may be the wrong one: its log knows, as far as it reaches."""
        logged = self._logged(part, doubtful)
        verdicts = []
        for key, verdict in doubtful.items():
            truth, mine, their = logged.get(key), rows.get(key), theirs[key]
            shown = self._reader.as_copy(part, truth) if truth is not None else None
            if truth is None or shown is None or _is_sound(mine, truth, shown):
                verdicts.append(verdict)
                continue
            if repair:
                self._mender.mend(part, [truth], from_log=True)
                self._changed()
            if their.version is not None and their.version > truth.version:
                verdicts.append(verdict)
            else:
                is_equal = their.digest == row_digest(shown)
                row = None if is_equal else shown
                verdicts.append(Verdict(key, Cause.OWNER_ALTERED, row=row))
        return verdicts

    # -- handing over ------------------------------------------------------------------------------

    def give(self, part: Slice, keys: Sequence[bytes]) -> list[Offer]:
        """Rows that the owner lost, from the copy: only what is here in full."""
        rows = self._rows(part, keys)
        offers = []
        for key in keys:
            row = rows.get(key)
            if row is None or row.change is None:
                offers.append(Offer(key, None, Cause.BOTH_BROKEN))
            elif row.change.form is not Form.FULL:
                offers.append(Offer(key, None, Cause.NOT_IN_FULL))
            elif not self._reader.belongs(part, row.change):
                offers.append(Offer(key, None, Cause.REFUSED))
            else:
                offers.append(Offer(key, row.change))
        return offers

    def take(self, part: Slice, rows: Sequence[RowChange]) -> list[Taken]:
        """Mend this end by rows of the other, as far as they may be written here.

        As the owner only by those that its last verdicts on the slice wanted, each once: a sound
        row is not to be replaced because the other end says so.
        """
        keys = [key_named(change) for change in rows]
        wished = frozenset(keys)
        if self._pair.owner(part.direction) == self._store.node_id:
            with self._lock:
                wished = self._wishes.pop(part, frozenset())
        sound = [change for key, change in zip(keys, rows, strict=True) if key in wished]
        mended = iter(self._mender.mend(part, sound))
        taken = [next(mended) if key in wished else Taken(key, Cause.REFUSED) for key in keys]
        if any(each.cause is None for each in taken):
            self._changed()
        return taken

    def _wish(self, part: Slice, keys: frozenset[bytes]) -> None:
        with self._lock:
            self._wishes[part] = keys
            self._wishes.move_to_end(part)
            while len(self._wishes) > _WISHES_KEPT:
                self._wishes.popitem(last=False)

    # -- the log -----------------------------------------------------------------------------------

    def _touched(self, part: Slice, opened: Open) -> _Touched:
        """What the log names beyond what the other end has confirmed."""
        lane = TABLES[part.table].lane
        after = opened.delivered.get(lane.value, 0)
        touched = _Touched()
        seen = 0
        for entry in self._log(after, self._durable_head(), lane):
            seen += 1
            if seen > _YOUNG_ENTRIES_MAX:
                raise ReconcileBehindError(
                    f"more than {_YOUNG_ENTRIES_MAX} entries of the log are on their way"
                )
            if entry.audience is Audience.HERE or entry.form is Form.SEALED:
                continue
            for change in decode_changes(entry.codec, entry.rows):
                touched.rows.add((change.table, change.row_id))
                if change.table == IDENTIFIERS.name:
                    touched.residents.add(change.resident_id)
        return touched

    def _is_young(self, part: Slice, key: bytes, mine: SliceRow | None, touched: _Touched) -> bool:
        row_id = row_id_of(key) if mine is None else mine.source
        if part.table == RESIDENT_INDEX.name:
            named = (RESIDENTS.name, row_id) in touched.rows or row_id in touched.residents
            return named or (part.table, row_id) in touched.rows
        return (part.table, row_id) in touched.rows

    def _logged(self, part: Slice, wanted: Mapping[bytes, Verdict]) -> dict[bytes, RowChange]:
        """The newest versions that the log has of rows here, by their keys in the copy."""
        found: dict[bytes, RowChange] = {}
        if part.table == RESIDENT_INDEX.name:
            return found
        pruned = self._store.transactions.read(self._store.changelog.pruned_to)
        for seen, entry in enumerate(
            self._log(pruned, self._durable_head(), TABLES[part.table].lane)
        ):
            if seen > _LOG_ENTRIES_MAX:
                return {}
            if entry.home_node != part.home or entry.form is Form.SEALED:
                continue
            for change in decode_changes(entry.codec, entry.rows):
                if change.table != part.table:
                    continue
                for key in self._reader.keys_in_copy(part, change):
                    if key in wanted:
                        _note_newest(found, key, change, entry.audience)
        return found

    def _log(self, after: int, head: int, lane: Lane) -> Iterator[LogEntry]:
        scanned = after
        while scanned < head:
            part = self._slice_of_log(scanned, head, lane)
            yield from part.entries
            if part.scanned_to <= scanned:
                return
            scanned = part.scanned_to

    def _slice_of_log(self, after: int, head: int, lane: Lane) -> LogSlice:
        return self._store.transactions.read(
            lambda connection: self._store.changelog.read(
                connection, after=after, lane=lane, bytes_max=_SLICE_BYTES, up_to=head
            )
        )


def _note_newest(
    found: dict[bytes, RowChange], key: bytes, change: RowChange, audience: Audience
) -> None:
    """Keep the first word of the greatest version; rows that were purged here are not missed."""
    held = found.get(key)
    if audience is Audience.HERE and change.operation is Operation.DELETE:
        found.pop(key, None)
    elif held is None or _age(held) < _age(change):
        found[key] = change


def _is_sound(mine: SliceRow | None, truth: RowChange, shown: RowChange) -> bool:
    """Whether the row here is what the log says, or newer than the log goes back."""
    if mine is None:
        return False
    if mine.version > truth.version:
        return True
    if mine.change is None:
        return False
    return _age(mine.change) > _age(truth) or mine.digest == row_digest(shown)


def _age(change: RowChange) -> tuple[Version, int]:
    """The same version under a later home epoch is newer: he has moved."""
    return change.version, change.home_epoch


def _without_row(verdict: Verdict) -> Verdict:
    return Verdict(
        verdict.key,
        verdict.cause,
        young=verdict.young,
        wants=verdict.wants,
        decided=verdict.decided,
    )
