"""The delta: rows newer than the newest segment, in DuckDB's memory, and who they supersede.

Tables: `delta_<dataset>` (newest version of each row), `pending_<dataset>` (row ids that may have
an older version in a segment, not looked up yet), `dead` (dataset, segment, position: looked up).
Looking up is put off until somebody reads, because a bulk load would scan the segments' row ids for
every batch.
"""

# ruff: noqa: S608 - statements are made of the schema's own names, quoted where they are data.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from federation.columnar.manifest import Segment
from federation.columnar.schema import COLUMN_TYPES, identifier, literal, table_columns
from federation.columnar.source import ColumnarChanges
from federation.errors import ColumnarError

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

__all__ = [
    "absorb",
    "clear_delta",
    "create_tables",
    "delta_rows",
    "forget_pending",
    "resolve_pending",
]

_ARROW_NAME = "incoming"


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the empty delta."""
    for dataset in COLUMN_TYPES:
        connection.execute(f"CREATE TABLE delta_{dataset} ({table_columns(dataset)})")
        connection.execute(f"CREATE TABLE pending_{dataset} (row_id UUID)")
    connection.execute("CREATE TABLE dead (dataset VARCHAR, segment BIGINT, position BIGINT)")
    connection.execute("CREATE TABLE places (home VARCHAR, township VARCHAR, county VARCHAR)")


def clear_delta(connection: duckdb.DuckDBPyConnection) -> None:
    """Empty delta and pending ids inside the caller's transaction; dead rows stay."""
    for dataset in COLUMN_TYPES:
        connection.execute(f"DELETE FROM delta_{dataset}")
        connection.execute(f"DELETE FROM pending_{dataset}")


def delta_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows in the delta by dataset, empty ones left out."""
    counts = {}
    for dataset in COLUMN_TYPES:
        row = connection.execute(f"SELECT count(*) FROM delta_{dataset}").fetchone()
        if row and row[0]:
            counts[dataset] = int(row[0])
    return counts


def absorb(connection: duckdb.DuckDBPyConnection, changes: ColumnarChanges) -> None:
    """Put changes into the delta, in one transaction; the newest version of a row replaces others.

    Raises:
        ColumnarError: A dataset or a value is not of the schema. Nothing is changed.
    """
    import duckdb
    import pyarrow as pa

    connection.execute("BEGIN")
    try:
        for dataset, rows in changes.rows.items():
            _check_dataset(dataset)
            # The last version in the batch is the newest.
            newest = list({row[0]: row for row in rows}.values())
            if newest:
                connection.register(_ARROW_NAME, _arrow_table(dataset, newest))
                _supersede(connection, dataset)
                _insert(connection, dataset, newest[0], newest)
                connection.unregister(_ARROW_NAME)
        for dataset, row_ids in changes.deleted.items():
            _check_dataset(dataset)
            if row_ids:
                ids = pa.table({"row_id": pa.array([str(row_id) for row_id in row_ids])})
                connection.register(_ARROW_NAME, ids)
                _supersede(connection, dataset)
                connection.unregister(_ARROW_NAME)
        connection.execute("COMMIT")
    except (duckdb.Error, pa.ArrowException, TypeError, ValueError) as error:
        connection.execute("ROLLBACK")
        # The library's message may quote a cell, and a cell is patient data.
        raise ColumnarError(
            f"changes up to {changes.up_to} do not fit the replica: {type(error).__name__}"
        ) from None


def _check_dataset(dataset: str) -> None:
    if dataset not in COLUMN_TYPES:
        raise ValueError("no such dataset")


def _supersede(connection: duckdb.DuckDBPyConnection, dataset: str) -> None:
    ids = f"SELECT CAST(row_id AS UUID) FROM {_ARROW_NAME}"
    connection.execute(f"DELETE FROM delta_{dataset} WHERE row_id IN ({ids})")
    connection.execute(f"INSERT INTO pending_{dataset} {ids}")


def _insert(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    sample: tuple[object, ...],
    rows: Sequence[tuple[object, ...]],
) -> None:
    if len(sample) != len(COLUMN_TYPES[dataset]) or len(rows[-1]) != len(sample):
        raise ValueError("a row has another number of columns")
    casts = ", ".join(_cast(name, kind) for name, kind in COLUMN_TYPES[dataset])
    connection.execute(f"INSERT INTO delta_{dataset} SELECT {casts} FROM {_ARROW_NAME}")


def _cast(name: str, kind: str) -> str:
    column = identifier(name)
    match kind:
        case "DATE":
            # Text with a time of day keeps its day; text that is no day is unknown.
            return f"TRY_CAST(left(CAST({column} AS VARCHAR), 10) AS DATE)"
        case "UUID" if name in {"row_id", "resident_id"}:
            return f"CAST({column} AS UUID)"
        case "UUID":
            return f"TRY_CAST({column} AS UUID)"
        case _:
            return column


def _arrow_table(dataset: str, rows: Sequence[tuple[object, ...]]) -> Any:
    import pyarrow as pa

    arrays = {}
    for (name, kind), values in zip(COLUMN_TYPES[dataset], zip(*rows, strict=True), strict=True):
        match kind:
            case "DOUBLE":
                arrays[name] = pa.array(values, pa.float64())
            case "INTEGER":
                arrays[name] = pa.array(values, pa.int32())
            case "BOOLEAN":
                arrays[name] = pa.array(values, pa.bool_())
            case "VARCHAR":
                arrays[name] = pa.array(values, pa.string())
            case _:
                texts = [None if value is None else str(value) for value in values]
                arrays[name] = pa.array(texts, pa.string())
    return pa.table(arrays)


def resolve_pending(
    connection: duckdb.DuckDBPyConnection, folder: Path, segments: Iterable[Segment]
) -> Mapping[str, int]:
    """Find pending row ids in the segments and mark them dead, in the caller's transaction.

    Returns how many ids were pending, by dataset. Costs one scan of the row ids of every segment
    whose range of ids holds a pending one: ids made in order of time fall outside the old segments.
    """
    looked_up: dict[str, int] = {}
    by_dataset: dict[str, list[Segment]] = {}
    for segment in segments:
        by_dataset.setdefault(segment.dataset, []).append(segment)
    for dataset in COLUMN_TYPES:
        pending = f"pending_{dataset}"
        row = connection.execute(f"SELECT count(*) FROM {pending}").fetchone()
        if not row or not row[0]:
            continue
        looked_up[dataset] = int(row[0])
        for segment in by_dataset.get(dataset, ()):
            _mark_dead(connection, folder, segment, pending)
    return looked_up


def forget_pending(connection: duckdb.DuckDBPyConnection, datasets: Iterable[str]) -> None:
    """Drop the pending ids of some datasets once their lookup is to last."""
    for dataset in datasets:
        connection.execute(f"DELETE FROM pending_{dataset}")


def _mark_dead(
    connection: duckdb.DuckDBPyConnection, folder: Path, segment: Segment, pending: str
) -> None:
    bounds = f"row_id BETWEEN UUID {literal(segment.first_id)} AND UUID {literal(segment.last_id)}"
    near = connection.execute(f"SELECT 1 FROM {pending} WHERE {bounds} LIMIT 1").fetchone()
    if near is None:
        return
    connection.execute(
        f"INSERT INTO dead SELECT {literal(segment.dataset)}, {segment.number}, file_row_number "
        f"FROM read_parquet({literal(str(folder / segment.file))}, file_row_number = true) AS s "
        f"SEMI JOIN (SELECT DISTINCT row_id FROM {pending} WHERE {bounds}) AS p "
        f"ON s.row_id = p.row_id "
        f"ANTI JOIN (SELECT position FROM dead WHERE segment = {segment.number}) AS d "
        f"ON s.file_row_number = d.position"
    )
