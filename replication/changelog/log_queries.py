"""The statements that read the log, built once: composing one costs more than running it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Select, SmallInteger, bindparam, func, select, true

from replication.changelog.tables import SEQUENCER_ROW, ChangelogTables
from replication.core.model import Lane

__all__ = ["end_query", "slice_query"]


def end_query(tables: ChangelogTables) -> Select[Any]:
    """The head, and whether a lane has more after a sequence; parameters lane and after."""
    t, s = tables.change_log, tables.sequencer
    of_lane = select(t.c.entry_id).where(t.c.lane == bindparam("lane", type_=SmallInteger))
    later = of_lane.where(t.c.sequence > bindparam("after", type_=BigInteger)).exists()
    return select(s.c.head, later.label("later")).where(s.c.id == SEQUENCER_ROW)


def slice_query(tables: ChangelogTables, lane: Lane | None, *, lane_as_range: bool) -> Select[Any]:
    """The sequencer's row beside the entries of a slice: one statement, so one moment of the log.

    The sizes are added up first, without the payloads, so that no more is fetched than is asked.
    """
    t, s = tables.change_log, tables.sequencer
    sizes = (
        select(t.c.sequence, t.c.bytes)
        .where(
            t.c.sequence > bindparam("after", type_=BigInteger),
            t.c.sequence <= bindparam("up_to", type_=BigInteger),
        )
        .order_by(t.c.lane, t.c.sequence)
        .limit(bindparam("entries_max", type_=BigInteger))
    )
    if lane is None:
        sizes = sizes.order_by(None).order_by(t.c.sequence)
    elif lane_as_range:
        # For an equality MariaDB walks the lane's index from its beginning; SQLite for a range.
        sizes = sizes.where(t.c.lane >= lane.value, t.c.lane <= lane.value)
    else:
        sizes = sizes.where(t.c.lane == lane.value)
    sized = sizes.subquery("sized")
    before = func.sum(sized.c.bytes).over(order_by=sized.c.sequence) - sized.c.bytes
    summed = select(sized.c.sequence, before.label("before")).subquery("summed")
    wanted = (
        select(summed.c.sequence)
        .where(summed.c.before < bindparam("bytes_max", type_=BigInteger))
        .subquery("wanted")
    )
    return (
        select(s.c.head, s.c.pruned_to, *t.c)
        .select_from(s.outerjoin(wanted, true()).outerjoin(t, t.c.sequence == wanted.c.sequence))
        .where(s.c.id == SEQUENCER_ROW)
    )
