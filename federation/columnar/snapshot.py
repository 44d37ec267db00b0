"""A consistent view of the replica for one question, and the same view as files for Ray's workers.

The delta and the dead rows are read in one transaction, the segments by name; the replica keeps the
files of an open snapshot until it is closed.
"""

# ruff: noqa: S608 - statements are made of the schema's own names, quoted where they are data.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from federation.columnar.schema import (
    COLUMN_TYPES,
    CONSENTS,
    identifier,
    literal,
    table_columns,
)
from federation.columnar.views import SegmentPart, SiteColumn, relation, site_filter
from federation.core.model import EVERYBODY, Audience

if TYPE_CHECKING:
    import duckdb

__all__ = ["PLACES", "Snapshot", "SnapshotFiles", "open_files"]

PLACES = "places"
"""Relation (home, township, county) beside the datasets."""

_WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class SnapshotFiles:
    """A snapshot that another process can read; plain data.

    `delta` names one Parquet file a dataset that has newer rows, `dead` and `places` one file each.
    All paths are absolute. They are valid until the snapshot they came from is closed and their
    folder is removed.
    """

    sequence: int
    folder: str
    segments: Mapping[str, tuple[SegmentPart, ...]]
    delta: Mapping[str, str]
    dead: str
    places: str


class Snapshot:
    """One question's view. Not thread-safe but for `interrupt`; close it, or use it with `with`."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        *,
        sequence: int,
        segments: Mapping[str, tuple[SegmentPart, ...]],
        dead: str = "dead",
        delta: Mapping[str, str] | None = None,
        on_close: Callable[[], None],
    ) -> None:
        self.sequence = sequence
        self._cursor = cursor
        self._segments = segments
        self._dead = dead
        self._delta = delta
        self._on_close = on_close
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the view; its files may be removed from then on."""
        if not self._closed:
            self._closed = True
            self._cursor.close()
            self._on_close()

    def interrupt(self) -> None:
        """Stop the statement that runs in another thread; it raises duckdb.InterruptException."""
        if not self._closed:
            self._cursor.interrupt()

    def select(
        self,
        dataset: str,
        column: SiteColumn = SiteColumn.HOME,
        sites: frozenset[str] | None = None,
    ) -> str:
        """The statement of the live rows of a dataset at some sites; None is every site."""
        return relation(
            dataset,
            self._segments.get(dataset, ()),
            dead=self._dead,
            delta=self._delta_of(dataset),
            column=column,
            sites=sites,
        )

    def resident_rows_max(
        self, dataset: str, column: SiteColumn, sites: frozenset[str] | None
    ) -> int:
        """No resident has more rows than this at these sites; at least 1.

        The sum of what each segment and the delta hold at most: cheap, and never too low.
        """
        most = 0
        for part in self._segments.get(dataset, ()):
            if sites is None or part.sites(column) & sites:
                most += part.resident_rows
        delta = self._delta_of(dataset)
        if delta is not None:
            rows = self.query(
                f"SELECT max(rows) FROM (SELECT count(*) AS rows FROM {delta} GROUP BY resident_id)"
            )
            most += rows[0][0] or 0
        return max(1, most)

    def _delta_of(self, dataset: str) -> str | None:
        if self._delta is None:
            return f"delta_{dataset}"
        file = self._delta.get(dataset)
        return f"read_parquet({literal(file)})" if file else None

    def bind(
        self,
        column: SiteColumn,
        sites: frozenset[str] | None,
        datasets: Iterable[str] = tuple(COLUMN_TYPES),
        audience: Audience = EVERYBODY,
    ) -> None:
        """Make the datasets' names stand for their rows at these sites, for this view only.

        Without the rows of residents whose consents, as of this view, forbid them to the audience.
        """
        some_withhold = self._find_withheld(audience)
        for dataset in datasets:
            statement = self.select(dataset, column, sites)
            if some_withhold:
                statement = (
                    f"SELECT held.* FROM ({statement}) AS held ANTI JOIN {_WITHHELD} AS w "
                    "ON held.resident_id = w.resident_id"
                )
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP VIEW {identifier(dataset)} AS {statement}"
            )

    def _find_withheld(self, audience: Audience) -> bool:
        """Put into a table who is to be left out; whether there is anybody."""
        if not audience.purposes:
            return False
        day = f"DATE {literal(audience.day)}"
        # Wherever he lives: a record may stand at another site than its resident's consent.
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {_WITHHELD} AS "
            f"SELECT DISTINCT resident_id FROM ({self.select(CONSENTS)}) "
            f"WHERE purpose IN ({_listed(audience.purposes)}) "
            f"AND recipient IN ({_listed(audience.recipients)}) "
            f"AND from_on <= {day} AND (until_on IS NULL OR until_on >= {day})"
        )
        return bool(self.query(f"SELECT 1 FROM {_WITHHELD} LIMIT 1"))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        rows: list[tuple[Any, ...]] = self._cursor.execute(statement).fetchall()
        return rows

    def residents_by_home(self, homes: frozenset[str]) -> dict[str, int]:
        """Residents by home, homes without any left out."""
        rows = self.query(
            f"SELECT home, count(*) FROM ({self.select('residents', SiteColumn.HOME, homes)}) "
            "GROUP BY home"
        )
        return {str(home): int(count) for home, count in rows}

    def residents_between(self, low: str, high: str) -> dict[str, tuple[str, ...]]:
        """Ids of residents in [low, high) by the datasets that have rows of them."""
        # As text: the bounds are beginnings of ids, and a column may be of a narrower type.
        word = "CAST(resident_id AS VARCHAR)"
        where = f"{word} >= {literal(low)} AND {word} < {literal(high)}"
        found = {
            dataset: tuple(
                str(row[0])
                for row in self.query(
                    f"SELECT DISTINCT {word} FROM ({self.select(dataset)}) WHERE {where}"
                )
            )
            for dataset in COLUMN_TYPES
        }
        return {dataset: ids for dataset, ids in found.items() if ids}

    def row_count(self, dataset: str) -> int:
        """Live rows of a dataset."""
        return int(self.query(f"SELECT count(*) FROM ({self.select(dataset)})")[0][0])

    def stored_rows(self, dataset: str) -> int:
        """Rows of a dataset in segments, superseded ones included; costs nothing."""
        return sum(part.rows for part in self._segments.get(dataset, ()))

    def site_rows(self, dataset: str, column: SiteColumn, sites: frozenset[str]) -> dict[str, int]:
        """Live rows of a dataset by site, for cutting the work into even partitions."""
        name = identifier(column.value)
        statement = self.select(dataset, column, sites)
        rows = self.query(f"SELECT {name}, count(*) FROM ({statement}) GROUP BY {name}")
        return {str(site): int(count) for site, count in rows}

    def export(
        self, folder: Path, datasets: Sequence[str], column: SiteColumn, sites: frozenset[str]
    ) -> SnapshotFiles:
        """Write what lies in memory beside the segments as files below `folder`.

        `folder` must lie in the replica's own folder. Only rows of these datasets and sites leave,
        and all consents.
        """
        folder.mkdir(parents=True)
        delta = {}
        for dataset in (*datasets, CONSENTS):
            path = folder / f"delta-{dataset}.parquet"
            where = "true" if dataset == CONSENTS else site_filter(column, sites)
            rows = f"SELECT * FROM delta_{dataset} WHERE {where}"
            if self.query(f"SELECT 1 FROM ({rows}) LIMIT 1"):
                self._cursor.execute(f"COPY ({rows}) TO {literal(str(path))} (FORMAT parquet)")
                delta[dataset] = str(path)
        dead, places = folder / "dead.parquet", folder / "places.parquet"
        self._cursor.execute(f"COPY dead TO {literal(str(dead))} (FORMAT parquet)")
        self._cursor.execute(f"COPY places TO {literal(str(places))} (FORMAT parquet)")
        return SnapshotFiles(
            sequence=self.sequence,
            folder=str(folder),
            segments={name: self._segments.get(name, ()) for name in (*datasets, CONSENTS)},
            delta=delta,
            dead=str(dead),
            places=str(places),
        )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(map(literal, sorted(words))) or "NULL"


def open_files(connection: duckdb.DuckDBPyConnection, files: SnapshotFiles) -> Snapshot:
    """The view of exported files, over an engine that may read them."""
    cursor = connection.cursor()
    for dataset in COLUMN_TYPES:
        # An empty relation of the right columns for datasets that were not exported.
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE delta_{dataset} ({table_columns(dataset)})")
    cursor.execute(
        f"CREATE OR REPLACE TEMP VIEW {PLACES} AS "
        f"SELECT * FROM read_parquet({literal(files.places)})"
    )
    return Snapshot(
        cursor,
        sequence=files.sequence,
        segments=files.segments,
        dead=f"read_parquet({literal(files.dead)})",
        delta=files.delta,
        on_close=lambda: None,
    )
