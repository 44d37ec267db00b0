"""Statements on key_work: how far the re-sealing of each table has come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, select, update

from node.storage.tables import KEYS
from replication.changelog.dialects import upsert

__all__ = ["ResealState", "ResealWork", "Work"]

_T = KEYS.work


class ResealState(StrEnum):
    """What is to be done with a table."""

    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class ResealWork:
    """How far a table has come. `position`: the last primary key looked at; () at the start.

    `unreadable`: rows that did not open since the pass began; `resealed`: rows, ever.
    """

    place: str
    state: ResealState
    position: tuple[Any, ...]
    resealed: int
    unreadable: int
    started_ms: int
    finished_ms: int | None


class Work:
    """Every method works in the caller's transaction."""

    def all(self, connection: Connection) -> dict[str, ResealWork]:
        """By table, what was ever begun."""
        return {row.place: _work(row) for row in connection.execute(select(_T))}

    def get(self, connection: Connection, place: str) -> ResealWork | None:
        """One table's."""
        row = connection.execute(select(_T).where(_T.c.place == place)).first()
        return None if row is None else _work(row)

    def begin(self, connection: Connection, places: Iterable[str], now_ms: int) -> None:
        """Look at every row of these tables, from the first."""
        rows = [
            {
                "place": place,
                "state": ResealState.RUNNING.value,
                "position": "",
                "resealed": 0,
                "unreadable": 0,
                "started_at": now_ms,
                "finished_at": None,
            }
            for place in places
        ]
        changed = ("state", "position", "unreadable", "started_at", "finished_at")
        upsert(connection, _T, rows, changed)

    def advance(
        self,
        connection: Connection,
        before: ResealWork,
        position: Sequence[Any],
        *,
        resealed: int,
        unreadable: int,
    ) -> bool:
        """Write the place down in the transaction that re-sealed; False if it began anew since."""
        text = json.dumps(list(position)) if position else ""
        moved = update(_T).where(
            _T.c.place == before.place,
            _T.c.started_at == before.started_ms,
            _T.c.position == (json.dumps(list(before.position)) if before.position else ""),
        )
        values = {
            "position": text,
            "resealed": _T.c.resealed + resealed,
            "unreadable": unreadable,
        }
        return connection.execute(moved.values(values)).rowcount == 1

    def finish(
        self, connection: Connection, before: ResealWork, now_ms: int, *, unreadable: int
    ) -> None:
        """Nothing of this table names an older key any more that could be read."""
        done = update(_T).where(_T.c.place == before.place, _T.c.started_at == before.started_ms)
        values = {"finished_at": now_ms, "unreadable": unreadable}
        connection.execute(done.values(state=ResealState.DONE.value, **values))


def _work(row: Row[Any]) -> ResealWork:
    return ResealWork(
        row.place,
        ResealState(row.state),
        tuple(json.loads(row.position)) if row.position else (),
        row.resealed,
        row.unreadable,
        row.started_at,
        row.finished_at,
    )
