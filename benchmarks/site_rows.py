"""Synthetic observations for the columnar replicas of many sites, and the same rows pooled.

The bulk is made inside each replica's engine and stored by its own flush: the segments are those
that a node writes. The last rows of each site go through the feed, so that a question finds a delta
beside the segments, as it does at a node.
"""

# ruff: noqa: S608 - statements are made of this module's own constants and division codes.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from federation.columnar import COLUMN_NAMES, ColumnarChanges, ColumnarLimits, ColumnarReplica
from federation.sites import places_of
from hierarchy_config import Hierarchy

__all__ = ["Site", "filled_sites", "pooled"]

ROWS_A_RESIDENT: Final = 50
_CHUNK_ROWS: Final = 200_000
_TAIL_ROWS: Final = 200
_CODES: Final = "['8480-6', '8462-4', '2093-3', '8302-2', '29463-7', '8867-4', '2339-0', '4548-4']"
_LIMITS: Final = ColumnarLimits(threads=1, memory_mb=512, segment_rows=_CHUNK_ROWS)

_RESIDENTS: Final = """
INSERT INTO delta_residents (row_id, resident_id, home, author, sex, birth_year)
SELECT CAST(md5('{home}' || i) AS UUID), CAST(md5('{home}' || i) AS UUID), '{home}', '{home}',
    CASE i % 2 WHEN 0 THEN 'female' ELSE 'male' END, 1930 + i % 80
FROM range({residents}) AS numbers(i)
"""
_OBSERVATIONS: Final = """
INSERT INTO delta_observations
    (row_id, resident_id, home, author, sex, birth_year, code, value, unit, observed_on)
SELECT CAST(md5('{home}o' || i) AS UUID), CAST(md5('{home}' || r) AS UUID), '{home}', '{home}',
    CASE r % 2 WHEN 0 THEN 'female' ELSE 'male' END, 1930 + r % 80,
    {codes}[CAST(1 + hash(i) % 8 AS INTEGER)], 90 + (hash(i, 1) % 1000) / 10.0, 'mm[Hg]',
    DATE '2024-01-01' + CAST(hash(i, 2) % 700 AS INTEGER)
FROM (SELECT i, (i * 7919) % {residents} AS r FROM range({first}, {last}) AS numbers(i))
"""


class Tail:
    """federation.columnar.ReplicaSource of a site's newest rows: one change, then nothing."""

    def __init__(self, after: int, rows: Sequence[tuple[object, ...]]) -> None:
        self._after = after
        self._rows = rows

    def columnar_changes(self, after: int, limit: int) -> ColumnarChanges:
        """The tail after the bulk; nothing after the tail."""
        if after != self._after:
            return ColumnarChanges(after)
        return ColumnarChanges(after + 1, {"observations": self._rows})


@dataclass(frozen=True)
class Site:
    """One site's replica, what feeds it, and how many residents it has."""

    home: str
    replica: ColumnarReplica
    source: Tail
    tail: Sequence[tuple[object, ...]]
    residents: int


def filled_sites(folder: Path, hierarchy: Hierarchy, rows: int) -> list[Site]:
    """A replica for every node of the hierarchy, each with an even share of the rows."""
    places = places_of(hierarchy)
    share = rows // len(hierarchy.nodes)
    return [_filled(folder / home, home, share, places) for home in sorted(hierarchy.nodes)]


def pooled(folder: Path, sites: Sequence[Site], threads: int) -> duckdb.DuckDBPyConnection:
    """A DuckDB file with every site's rows in one native table, in the order of the sites."""
    connection = duckdb.connect(str(folder / "pooled.duckdb"), config={"threads": threads})
    first = True
    for site in sites:
        files = [str(path) for path in site.replica.folder.glob("observations-*.parquet")]
        verb = "CREATE TABLE observations AS" if first else "INSERT INTO observations"
        connection.execute(f"{verb} SELECT * FROM read_parquet({files})")
        marks = ", ".join("?" * len(COLUMN_NAMES["observations"]))
        connection.executemany(f"INSERT INTO observations VALUES ({marks})", list(site.tail))
        first = False
    connection.execute("CHECKPOINT")
    return connection


def _filled(
    folder: Path, home: str, rows: int, places: Mapping[str, tuple[str | None, str | None]]
) -> Site:
    replica = ColumnarReplica.open(folder, _LIMITS)
    replica.set_places(places)
    engine = replica._connection
    residents = max(1, rows // ROWS_A_RESIDENT)
    engine.execute(_RESIDENTS.format(home=home, residents=residents))
    bulk = rows - _TAIL_ROWS
    for first in range(0, bulk, _CHUNK_ROWS):
        last = min(first + _CHUNK_ROWS, bulk)
        engine.execute(
            _OBSERVATIONS.format(
                home=home, residents=residents, codes=_CODES, first=first, last=last
            )
        )
        replica._sequence += last - first
        replica.flush()
    tail = _tail(replica, home)
    source = Tail(replica.sequence, tail)
    while (before := replica.sequence) != replica.feed_once(source):
        assert before < replica.sequence
    return Site(home, replica, source, tail, residents)


def _tail(replica: ColumnarReplica, home: str) -> list[tuple[object, ...]]:
    """New rows for residents that the site has already."""
    held = replica._connection.execute(
        "SELECT CAST(md5(CAST(row_id AS VARCHAR)) AS UUID) AS row_id, resident_id, home, author, "
        "sex, birth_year, encounter_id, code, value, unit, observed_on FROM read_parquet("
        f"'{replica.folder}/observations-*.parquet') WHERE home = '{home}' "
        f"ORDER BY row_id LIMIT {_TAIL_ROWS}"
    ).fetchall()
    return [tuple(row) for row in held]
