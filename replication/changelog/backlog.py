"""How much of a lane lies before a reader, by where it came from and where it belongs.

Routing decides by those alone, so a peer's own backlog can be told from the lane's without opening
a payload. Looks at a bounded stretch of the log: whoever asks how far behind a peer is needs no
exact figure in the millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from replication.changelog.letters import CODEC_ERASED
from replication.changelog.tables import ChangelogTables
from replication.core.model import Audience, Form, Lane

__all__ = ["Backlog", "Waiting", "backlog", "backlog_rows"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Entries of one way: how many, the bytes of their rows, the oldest one's commit (ms)."""

    origin_node: str
    home_node: str
    form: Form
    audience: Audience
    entries: int
    bytes: int
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The stretch looked at, by way; `is_cut`: the lane goes on behind it."""

    waiting: tuple[Waiting, ...]
    is_cut: bool


def backlog(
    connection: Connection, tables: ChangelogTables, lane: Lane, after: int, entries_max: int
) -> Backlog:
    """The entries of a lane after a sequence that others than this node's own readers may be owed.

    Letters that the next hop has confirmed are erased: they are nobody's any more.
    """
    t = tables.change_log
    stretch = (
        select(
            t.c.origin_node,
            t.c.home_node,
            t.c.form,
            t.c.audience,
            t.c.codec,
            t.c["bytes"],
            t.c.committed_at,
        )
        .where(t.c.lane == lane.value, t.c.sequence > after)
        .order_by(t.c.sequence)
        .limit(entries_max)
        .subquery("stretch")
    )
    s = stretch.c
    is_owed = and_(s.codec != CODEC_ERASED, s.audience != Audience.HERE.value)
    grouped = select(
        s.origin_node,
        s.home_node,
        s.form,
        s.audience,
        is_owed.label("is_owed"),
        func.count().label("entries"),
        func.sum(s["bytes"]).label("size"),
        func.min(s.committed_at).label("oldest_ms"),
    ).group_by(s.origin_node, s.home_node, s.form, s.audience, is_owed)
    rows = connection.execute(grouped).all()
    return Backlog(
        tuple(_waiting(row) for row in rows if row.is_owed),
        sum(row.entries for row in rows) >= entries_max,
    )


def backlog_rows(
    connection: Connection, tables: ChangelogTables, lane: Lane, after: int, entries_max: int
) -> int:
    """Rows in a lane's entries after a sequence; of more than `entries_max`, those of the first."""
    t = tables.change_log
    entries = (
        select(t.c.row_count)
        .where(t.c.lane == lane.value, t.c.sequence > after)
        .order_by(t.c.sequence)
        .limit(entries_max)
        .subquery("waiting")
    )
    rows = connection.execute(select(func.coalesce(func.sum(entries.c.row_count), 0)))
    return int(rows.scalar_one())


def _waiting(row: Row[Any]) -> Waiting:
    return Waiting(
        row.origin_node,
        row.home_node,
        Form(row.form),
        Audience(row.audience),
        row.entries,
        int(row.size),
        row.oldest_ms,
    )
