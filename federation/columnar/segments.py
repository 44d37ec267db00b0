"""Writing segments: the delta as a new one, and several old ones as one."""

# ruff: noqa: S608 - statements are made of the schema's own names, quoted where they are data.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from federation.columnar.engine import ColumnarLimits
from federation.columnar.manifest import Manifest, Segment, sync_path
from federation.columnar.schema import SORT_COLUMN, identifier, literal

if TYPE_CHECKING:
    import duckdb

__all__ = ["dead_counts", "file_number", "segments_to_merge", "write_dead", "write_segment"]

# Measured on 12.8 M observations over 64 files: LZ4 with the newer encodings scanned fastest, and
# smaller row groups than DuckDB's own size cost more than they prune.
_PARQUET = "FORMAT parquet, COMPRESSION lz4_raw, PARQUET_VERSION v2, ROW_GROUP_SIZE 122880"


def write_segment(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    dataset: str,
    number: int,
    select: str,
) -> Segment | None:
    """Write the rows of a SELECT as a segment and sync it; None if there are no rows.

    The file is complete under its name only after the rename; who names it is the manifest.
    """
    file = f"{dataset}-{number:08d}.parquet"
    path, fresh = folder / file, folder / f"{file}.new"
    order = f"home, {identifier(SORT_COLUMN[dataset])}"
    connection.execute(
        f"COPY (SELECT * FROM ({select}) ORDER BY {order}) TO {literal(str(fresh))} ({_PARQUET})"
    )
    summary = connection.execute(
        "SELECT count(*), list(DISTINCT home), list(DISTINCT author), "
        "CAST(min(row_id) AS VARCHAR), CAST(max(row_id) AS VARCHAR) "
        f"FROM read_parquet({literal(str(fresh))})"
    ).fetchone()
    if summary is None or not summary[0]:
        fresh.unlink()
        return None
    rows, homes, authors, first_id, last_id = summary
    most = connection.execute(
        "SELECT max(rows) FROM (SELECT count(*) AS rows "
        f"FROM read_parquet({literal(str(fresh))}) GROUP BY resident_id)"
    ).fetchone()
    sync_path(fresh)
    fresh.replace(path)
    return Segment(
        dataset=dataset,
        number=number,
        file=file,
        rows=int(rows),
        bytes=path.stat().st_size,
        homes=frozenset(homes),
        authors=frozenset(authors),
        first_id=first_id,
        last_id=last_id,
        resident_rows=int(most[0]) if most else int(rows),
    )


def write_dead(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    number: int,
    *,
    without: frozenset[int] = frozenset(),
) -> str:
    """Write the table of dead rows but those of some segments; returns the file's name.

    The name is empty, and nothing is written, if there are none.
    """
    listed = ", ".join(map(str, sorted(without))) or "-1"
    select = f"SELECT * FROM dead WHERE segment NOT IN ({listed})"
    if connection.execute(f"{select} LIMIT 1").fetchone() is None:
        return ""
    file = f"dead-{number:08d}.parquet"
    fresh = folder / f"{file}.new"
    connection.execute(f"COPY ({select}) TO {literal(str(fresh))} ({_PARQUET})")
    sync_path(fresh)
    fresh.replace(folder / file)
    return file


def file_number(path: Path) -> int:
    """The number in a file's name; 0 if it has none."""
    digits = path.name.partition(".")[0].rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def dead_counts(connection: duckdb.DuckDBPyConnection) -> dict[int, int]:
    """Dead rows by segment number."""
    rows = connection.execute("SELECT segment, count(*) FROM dead GROUP BY segment").fetchall()
    return {int(number): int(count) for number, count in rows}


def segments_to_merge(
    manifest: Manifest, dataset: str, limits: ColumnarLimits
) -> Sequence[Segment]:
    """The segments to write anew as one: those with many dead rows, and the smallest of too many.

    Merging the smaller half keeps the work of a row logarithmic in the size of the replica.
    """
    segments = manifest.of_dataset(dataset)
    chosen = {
        segment.number
        for segment in segments
        if manifest.dead_rows.get(segment.number, 0) > limits.dead_share_max * segment.rows
    }
    if len(segments) > limits.segments_max:
        smallest = sorted(segments, key=lambda segment: segment.rows)
        chosen.update(segment.number for segment in smallest[: limits.segments_max // 2 + 1])
    return tuple(segment for segment in segments if segment.number in chosen)
