"""Re-seals what is stored under the keys that seal now: row by row, behind a durable cursor.

It is no change: no version rises, no entry of the log is written, nothing travels. A value is put
in the place of exactly the ciphertext that was read, or not at all; whoever wrote meanwhile has
sealed under the new key already. The cursor moves in the transaction that re-seals, so a death
costs at most one step, and doing it again finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    update,
)

from node.clock import Clock
from node.keys.places import SealedPlace
from node.keys.work import ResealState, ResealWork, Work
from node.security.errors import DataKeyUnknownError, SealBrokenError
from node.security.sealing import HEADER_BYTES, DataKeys, Sealed, header_of
from node.storage.transactions import Transactions

__all__ = ["Resealer", "Step", "count_rows", "naming", "stale"]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `ended`: the table has nothing more to do."""

    rows: int
    ended: bool


@dataclass(frozen=True, slots=True)
class _Resealed:
    """A row with what is to take the place of what was read, by column."""

    row: RowMapping
    sealed: Mapping[str, Sealed]


class Resealer:
    """Works on one table at a time; blocks on the database. One of them for a node."""

    def __init__(
        self, node_id: str, keys: DataKeys, transactions: Transactions, clock: Clock
    ) -> None:
        self._node_id = node_id
        self._keys = keys
        self._transactions = transactions
        self._clock = clock
        self._work = Work()

    def step(self, place: SealedPlace, rows_max: int) -> Step:
        """Re-seal at most so many rows of a table, durably; at its end begin again or finish."""
        rows_max = min(rows_max, place.rows_max)
        work = self._transactions.read(lambda connection: self._work.get(connection, place.name))
        if work is None or work.state is ResealState.DONE:
            return Step(0, ended=True)
        # Asked before the rows are read: what is written from then on is under this key or later.
        header = header_of(self._keys.current(place.name).key_id)
        rows = self._transactions.read(
            lambda connection: _next_rows(connection, place, header, work.position, rows_max)
        )
        made = [self._resealed(place, row, header) for row in rows]
        good = [each for each in made if each is not None]
        unreadable = work.unreadable + len(made) - len(good)
        if len(rows) < rows_max:
            return self._at_the_end(place, work, good, unreadable)
        last = tuple(rows[-1][column.name] for column in place.key)
        self._store(place, work, good, last, unreadable)
        return Step(len(rows), ended=False)

    def _resealed(self, place: SealedPlace, row: RowMapping, header: bytes) -> _Resealed | None:
        """The row's values that name another key, sealed anew; None: one does not open."""
        sealer = self._keys.of(place.name)
        sealed: dict[str, Sealed] = {}
        try:
            for column in place.columns:
                held = row[column]
                if held is None or not held or bytes(held[:HEADER_BYTES]) == header:
                    continue
                aad = place.aad(self._node_id, column, dict(row))
                sealed[column] = sealer.seal_named(self._keys.open(bytes(held), aad), aad)
        except (SealBrokenError, DataKeyUnknownError):
            return None
        return _Resealed(row, sealed)

    def _store(
        self,
        place: SealedPlace,
        work: ResealWork,
        made: Sequence[_Resealed],
        position: Sequence[Any],
        unreadable: int,
    ) -> None:
        def store(connection: Connection) -> None:
            _exchange(connection, place, made)
            self._work.advance(
                connection, work, position, resealed=len(made), unreadable=unreadable
            )

        self._transactions.write(store)

    def _at_the_end(
        self, place: SealedPlace, work: ResealWork, made: Sequence[_Resealed], unreadable: int
    ) -> Step:
        """The last rows; then all is done, or what others wrote meanwhile is looked at again."""
        self._store(place, work, made, (), 0)
        header = header_of(self._keys.current(place.name).key_id)

        def left(connection: Connection) -> bool:
            now = self._work.get(connection, place.name)
            if now is None or now.started_ms != work.started_ms:
                return True
            if count_rows(connection, place, stale(place, header)) > unreadable:
                return True
            self._work.finish(connection, now, self._clock.now_ms(), unreadable=unreadable)
            return False

        return Step(len(made), ended=not self._transactions.write(left))


def stale(place: SealedPlace, header: bytes) -> ColumnElement[bool]:
    """Rows in which something names another key than the one of this header."""
    if place.named:
        return _any(place, lambda _: place.table.c.key_id != header[1:].hex())
    return _any(place, lambda cell: func.substr(cell, 1, HEADER_BYTES) != literal(header))


def naming(place: SealedPlace, key_ids: Sequence[str]) -> ColumnElement[bool]:
    """Rows in which something names one of these keys."""
    if place.named:
        # Beside the payload, so that nobody has to read payloads to tell.
        return _any(place, lambda _: place.table.c.key_id.in_(list(key_ids)))
    headers = [header_of(key_id) for key_id in key_ids]
    return _any(place, lambda cell: func.substr(cell, 1, HEADER_BYTES).in_(headers))


def count_rows(connection: Connection, place: SealedPlace, where: ColumnElement[bool]) -> int:
    """Rows of a table. Reads all of it."""
    query = select(func.count()).select_from(place.table).where(where)
    return int(connection.execute(query).scalar_one())


def _any(
    place: SealedPlace, said: Callable[[ColumnElement[Any]], ColumnElement[bool]]
) -> ColumnElement[bool]:
    cells = [place.table.c[name] for name in place.columns]
    return or_(*(and_(func.length(cell) > 0, said(cell)) for cell in cells))


def _next_rows(
    connection: Connection,
    place: SealedPlace,
    header: bytes,
    position: Sequence[Any],
    limit: int,
) -> Sequence[RowMapping]:
    """The next rows behind a position that name another key, in the order of the primary key."""
    t = place.table
    names = dict.fromkeys([*(c.name for c in place.key), *place.bound, *place.columns])
    query = select(*(t.c[name] for name in names)).where(stale(place, header))
    if position:
        query = query.where(_after(place, position))
    return connection.execute(query.order_by(*place.key).limit(limit)).mappings().all()


def _after(place: SealedPlace, position: Sequence[Any]) -> ColumnElement[bool]:
    """Keys greater than a position; spelt out, for not every database ranges over a tuple."""
    ways = []
    for at, column in enumerate(place.key):
        same = [each == position[i] for i, each in enumerate(place.key[:at])]
        ways.append(and_(*same, column > position[at]))
    return or_(*ways)


def _exchange(connection: Connection, place: SealedPlace, made: Sequence[_Resealed]) -> None:
    t = place.table
    for name in place.columns:
        rows = [each for each in made if name in each.sealed]
        if not rows:
            continue
        again = update(t).where(
            *(column == bindparam(f"key_{column.name}") for column in place.key),
            t.c[name] == bindparam("was"),
        )
        values: dict[str, Any] = {name: bindparam("new")}
        if place.named:
            values |= {"suite": bindparam("new_suite"), "key_id": bindparam("new_key_id")}
        connection.execute(again.values(values), [_parameters(place, each, name) for each in rows])


def _parameters(place: SealedPlace, made: _Resealed, name: str) -> dict[str, Any]:
    sealed = made.sealed[name]
    said = {f"key_{column.name}": made.row[column.name] for column in place.key}
    said |= {"was": bytes(made.row[name]), "new": sealed.envelope}
    if place.named:
        said |= {"new_suite": sealed.suite, "new_key_id": sealed.key_id}
    return said
