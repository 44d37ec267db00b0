"""Sequence numbers: contiguous, and only for what has committed.

An auto-increment value read as a cursor loses rows, because a lower value can commit later. Here a
writer raises a counter's row near the end of its own transaction and holds the row's lock to the
commit: whoever is given n + 1 waited until n had committed, or was given n himself because its
taker rolled back. So no number is seen before a lower one, and none is missing. The cost: from its
append to its commit a writer holds up every other append, so what can be done before is done
before.

The fence is a row too, not a lease: whoever took over last has the highest, and a start that was
overtaken by another fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    Update,
    bindparam,
    case,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from replication.changelog.dialects import ConnectionFactory
from replication.changelog.errors import LogNotReadyError, SequencerFencedError
from replication.changelog.tables import SEQUENCER_ROW, ChangelogTables

__all__ = [
    "RAISED_HEAD",
    "CounterSequencer",
    "NumberBlock",
    "ensure_log",
]

RAISED_HEAD: Final = "@fenhe_raised_head"
"""A variable of the connection; what it holds from an earlier transaction is not to be used."""
_ENTRIES_A_PASS: Final = 1000
_PASSES_MAX: Final = 1000
_DEADLOCK_TRIES: Final = 5
_DEADLOCK_CODES: Final = frozenset({1205, 1213})  # lock wait timeout, deadlock


@dataclass(frozen=True, slots=True)
class NumberBlock:
    """Numbers first, first + 1, … of the life `epoch` of the store."""

    epoch: int
    first: int


def ensure_log(connection: Connection, tables: ChangelogTables) -> None:
    """Put the sequencer's row there if it is not; idempotent, for migrations and starts."""
    t = tables.sequencer
    if connection.execute(select(t.c.id).where(t.c.id == SEQUENCER_ROW)).first() is not None:
        return
    try:
        with connection.begin_nested():
            connection.execute(
                insert(t).values(
                    id=SEQUENCER_ROW, fence=0, store_epoch=0, head=0, durable_to=0, pruned_to=0
                )
            )
    except IntegrityError:
        return  # another process was first, with the same row


class CounterSequencer:
    """Gives numbers inside the append; a node calls `take_over` once, before the first.

    Several processes may append; `take_over` by a newer life of the store stops them all.
    """

    def __init__(
        self,
        tables: ChangelogTables,
        *,
        store_epoch: int,
        durable: Callable[[], int] = lambda: 0,
    ) -> None:
        """Nothing is read or written before take_over.

        Args:
            tables: Of the log.
            store_epoch: The current life of the store, at least 1.
            durable: The greatest number that this process has committed; what it returns needs no
                write to be sure of.
        """
        self._tables = tables
        self._store_epoch = store_epoch
        self._durable = durable
        self._durable_head = -1
        t = tables.sequencer
        self._raising = _of_life(t, store_epoch).values(
            head=func.last_insert_id(
                literal_column(RAISED_HEAD).op(":=")(t.c.head + bindparam("count"))
            )
        )

    @property
    def store_epoch(self) -> int:
        """The life of the store whose numbers these are."""
        return self._store_epoch

    def reserve(self, connection: Connection, count: int) -> NumberBlock:
        """Take numbers; from here to the commit no other append runs, so append last.

        Raises:
            SequencerFencedError: The store has a newer life, or take_over was never called.
        """
        head = self._raised_head(connection, count)
        if head is None:
            raise SequencerFencedError("the store is not in the life this log was opened for")
        return NumberBlock(self._store_epoch, head - count + 1)

    @property
    def raising(self) -> Update:
        """On MySQL: raises the counter by `count` and keeps the new head in RAISED_HEAD.

        The statement's own answer has it too. It matches no row if the store has another life.
        """
        return self._raising

    def _raised_head(self, connection: Connection, count: int) -> int | None:
        """Raise the counter and read it in one statement; None if the store has another life."""
        t = self._tables.sequencer
        if connection.dialect.name == "sqlite":
            raise_ = _of_life(t, self._store_epoch).values(head=t.c.head + bindparam("count"))
            raised = connection.execute(raise_.returning(t.c.head), {"count": count}).scalar()
            return None if raised is None else int(raised)
        # The value given to LAST_INSERT_ID() comes back with the statement's own answer.
        done = connection.execute(self._raising, {"count": count})
        return int(done.lastrowid) if done.rowcount == 1 else None

    def take_over(self, connection_factory: ConnectionFactory) -> None:
        """Become a sequencer of this store's current life.

        Entries that an earlier release committed and had not numbered yet get their numbers.

        Raises:
            SequencerFencedError: The store has had a newer life than this sequencer's, or another
                start took over while this one was numbering.
        """
        fence = _take_over(connection_factory, self._tables, self._store_epoch)
        _number_all(connection_factory, self._tables, self._store_epoch, fence)

    def durable_head(self, connection_factory: ConnectionFactory) -> int:
        """The head, once it is durable. From one thread at a time.

        A reader that must survive a power cut reads no further than the last head returned
        (`up_to`): MariaDB shows a commit to others before it has reached the disk. Writes only if
        the database does that and the head is not known to be durable.

        Raises:
            SequencerFencedError: The store has a newer life.
        """
        t = self._tables.sequencer
        with connection_factory() as connection:
            row = connection.execute(
                select(t.c.head, t.c.store_epoch).where(t.c.id == SEQUENCER_ROW)
            ).first()
            if row is None:
                raise LogNotReadyError("the log has no sequencer row")
            if row.store_epoch != self._store_epoch:
                raise SequencerFencedError("the store is in another life")
            sure = row.head == self._durable_head or row.head <= self._durable()
            if not sure and connection.dialect.name != "sqlite":
                # Committing any later write flushes the redo log past the head that was seen.
                connection.execute(
                    update(t).where(t.c.id == SEQUENCER_ROW).values(durable_to=row.head)
                )
        self._durable_head = int(row.head)
        return self._durable_head


def _of_life(t: Table, store_epoch: int) -> Update:
    # Literals: they are part of the statement, whose only parameter is how many.
    return update(t).where(
        t.c.id == literal_column(str(SEQUENCER_ROW)),
        t.c.store_epoch == literal_column(str(int(store_epoch))),
    )


def _take_over(factory: ConnectionFactory, tables: ChangelogTables, store_epoch: int) -> int:
    t = tables.sequencer
    with factory() as connection:
        ensure_log(connection, tables)
        raised = connection.execute(
            update(t)
            .where(t.c.id == SEQUENCER_ROW, t.c.store_epoch <= store_epoch)
            .values(fence=t.c.fence + 1, store_epoch=store_epoch)
        )
        if raised.rowcount != 1:
            raise SequencerFencedError(f"the store has had a newer life than {store_epoch}")
        fence = connection.execute(select(t.c.fence).where(t.c.id == SEQUENCER_ROW)).scalar_one()
    return int(fence)


# -- entries that a release left which numbered after the commit --------------------------------


def _number_all(
    factory: ConnectionFactory,
    tables: ChangelogTables,
    store_epoch: int,
    fence: int,
) -> None:
    for _ in range(_PASSES_MAX):
        if _number_pass(factory, tables, store_epoch, fence) < _ENTRIES_A_PASS:
            break


def _number_pass(
    factory: ConnectionFactory,
    tables: ChangelogTables,
    store_epoch: int,
    fence: int,
) -> int:
    """Number committed entries, a pass at most, in one transaction; how many."""
    for attempt in range(1, _DEADLOCK_TRIES + 1):
        try:
            with factory() as connection:
                head = _fenced_head(connection, tables, fence)
                ids = _unnumbered_ids(connection, tables, _ENTRIES_A_PASS)
                if ids:
                    _assign(connection, tables, ids, head=head, store_epoch=store_epoch)
                    _advance(connection, tables, fence, head, len(ids))
            return len(ids)
        except OperationalError as error:
            code = error.orig.args[0] if error.orig is not None and error.orig.args else None
            if attempt == _DEADLOCK_TRIES or code not in _DEADLOCK_CODES:
                raise
    raise AssertionError("the last try returns or raises")


def _fenced_head(connection: Connection, tables: ChangelogTables, fence: int) -> int:
    t = tables.sequencer
    row = connection.execute(
        select(t.c.head, t.c.fence).where(t.c.id == SEQUENCER_ROW).with_for_update()
    ).first()
    if row is None:
        raise LogNotReadyError("the log has no sequencer row")
    if row.fence != fence:
        raise SequencerFencedError(f"fence {fence} is over, {row.fence} numbers now")
    return int(row.head)


def _unnumbered_ids(connection: Connection, tables: ChangelogTables, limit: int) -> list[int]:
    """Committed entries without a number, oldest first.

    A plain consistent read: it waits for nobody, and what has not committed is not in it. Within
    the unique index equal (null) sequences lie in the order of entry_id, so nothing is sorted.
    """
    t = tables.change_log
    return list(
        connection.execute(
            select(t.c.entry_id).where(t.c.sequence.is_(null())).order_by(t.c.entry_id).limit(limit)
        ).scalars()
    )


def _assign(
    connection: Connection,
    tables: ChangelogTables,
    ids: Sequence[int],
    *,
    head: int,
    store_epoch: int,
) -> None:
    """Give ids[i] the number head + 1 + i, in one statement.

    Ids mostly follow each other, and within such a run number - id is constant: a CASE over the
    runs stays short where one over the ids would be compared n² / 2 times.
    """
    t = tables.change_log
    sequence = t.c.entry_id + _offsets(t.c.entry_id, ids, head)
    here = t.c.origin_epoch.is_(null())
    statement = (
        update(t)
        .where(t.c.entry_id.in_(ids), t.c.sequence.is_(null()))
        # MySQL assigns from left to right and reads what it has just set, hence this order.
        .ordered_values(
            (t.c.origin_sequence, case((here, sequence), else_=t.c.origin_sequence)),
            (t.c.origin_epoch, func.coalesce(t.c.origin_epoch, store_epoch)),
            (t.c.epoch, literal(store_epoch)),
            (t.c.sequence, sequence),
        )
    )
    if connection.execute(statement).rowcount != len(ids):
        raise SequencerFencedError("entries were numbered by another hand")


def _offsets(entry_id: ColumnElement[int], ids: Sequence[int], head: int) -> ColumnElement[int]:
    """The difference of number and id, as an expression of the id."""
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(ids)) if b != a + 1)]
    runs = [
        (ids[end - 1], head + 1 + start - ids[start])
        for start, end in pairwise([*starts, len(ids)])
    ]
    if len(runs) == 1:
        return literal(runs[0][1])
    return case(
        *((entry_id <= last, literal(offset)) for last, offset in runs[:-1]),
        else_=literal(runs[-1][1]),
    )


def _advance(
    connection: Connection, tables: ChangelogTables, fence: int, head: int, count: int
) -> None:
    t = tables.sequencer
    moved = connection.execute(
        update(t)
        .where(t.c.id == SEQUENCER_ROW, t.c.fence == fence, t.c.head == head)
        .values(head=head + count)
    )
    if moved.rowcount != 1:
        raise SequencerFencedError(f"fence {fence} is over")
