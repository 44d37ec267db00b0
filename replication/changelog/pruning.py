"""How far the log may be pruned, as a pure rule, and the figures that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, select

from replication.changelog.letters import CODEC_ERASED
from replication.changelog.tables import SEQUENCER_ROW, ChangelogTables

__all__ = ["Cut", "LogFigures", "LogReader", "cut_at", "log_figures", "sweep_letters"]

_SAMPLE: Final = 1000
_LOG_ONLY_TIMES: Final = 4
_ENTRY_BYTES: Final = 400
"""What an entry takes in the database beside its rows, roughly."""


@dataclass(frozen=True, slots=True)
class LogFigures:
    """The log's ends, and about how many bytes an entry takes (from the newest entries)."""

    head: int
    pruned_to: int
    entry_bytes: int

    @property
    def bytes(self) -> int:
        """About what the whole log takes."""
        return (self.head - self.pruned_to) * self.entry_bytes


@dataclass(frozen=True, slots=True)
class LogReader:
    """Someone who reads the log: a neighbour, the columnar replica, the backup.

    `is_absent`: away for so long that he is not waited for; he is seeded when he comes.
    `takes_log_only`: of a release that cannot be seeded, so that he is waited for much longer.
    """

    name: str
    at: int
    is_absent: bool = False
    takes_log_only: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """Up to where to prune, and who is left behind by it."""

    up_to: int
    left_behind: tuple[str, ...]


def cut_at(
    figures: LogFigures, readers: Sequence[LogReader], *, keep_bytes: int, entries_min: int
) -> Cut:
    """Up to the last reader who is there; further, where the log takes more than `keep_bytes`.

    A reader who takes nothing but the log holds it up to four times as much. The newest
    `entries_min` entries always stay: places in the log are not written down at every step.
    """
    lowest = min((r.at for r in readers if not r.is_absent), default=figures.head)
    kept = keep_bytes // max(1, figures.entry_bytes)
    needed = min((r.at for r in readers if r.takes_log_only), default=figures.head)
    up_to = min(max(lowest, figures.head - kept), figures.head - entries_min)
    up_to = min(up_to, max(needed, figures.head - _LOG_ONLY_TIMES * kept))
    up_to = max(up_to, figures.pruned_to)
    return Cut(up_to, tuple(sorted(r.name for r in readers if r.at < up_to)))


def log_figures(connection: Connection, tables: ChangelogTables) -> LogFigures:
    """The figures now; reads some of the newest entries' sizes."""
    t, s = tables.change_log, tables.sequencer
    head, pruned = connection.execute(
        select(s.c.head, s.c.pruned_to).where(s.c.id == SEQUENCER_ROW)
    ).one()
    newest = (
        select(t.c["bytes"].label("size")).where(t.c.sequence > head - _SAMPLE).subquery("newest")
    )
    average = connection.execute(select(func.avg(newest.c.size))).scalar() or 0
    return LogFigures(int(head), int(pruned), int(average) + _ENTRY_BYTES)


def sweep_letters(connection: Connection, tables: ChangelogTables, *, entries_max: int) -> int:
    """Delete letters that were kept when the log was pruned and have been handed on since."""
    t, s = tables.change_log, tables.sequencer
    pruned = connection.execute(select(s.c.pruned_to).where(s.c.id == SEQUENCER_ROW)).scalar_one()
    ids = connection.execute(
        select(t.c.entry_id)
        .where(t.c.sequence <= pruned, t.c.codec == CODEC_ERASED)
        .limit(entries_max)
    ).scalars()
    found = list(ids)
    if found:
        connection.execute(delete(t).where(t.c.entry_id.in_(found)))
    return len(found)
