"""`ingest`: rows a second of a file that comes in, beside LOAD DATA of the same rows.

Observations of made-up people as CSV and as flat JSON lines: read, mapped, cleaned, people found or
registered, stored with their log, audit, checkpoint and figures, by the one thread that a node has
for it, into a private MariaDB. Beside: LOAD DATA LOCAL of the same observations, already in the
columns of the table, into a copy of that table with its indexes, in one durable transaction; no
people, no log, no checks. The headline is the slower format. Memory is this process's greatest.
"""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import pymysql
from sqlalchemy import make_url

from benchmarks.places import TOWNSHIP, made_place, server_configuration
from benchmarks.result import Result, Scale
from node.clock import SystemClock, format_ms, system_ids
from node.foundations import Foundations, read_foundations
from node.ingestion.content import PIECE_BYTES, Contents
from node.ingestion.mapping import load_mapping
from node.ingestion.model import RunState
from node.ingestion.persons import IdentifierIndex
from node.ingestion.pipeline import Pipeline, Workshop
from node.ingestion.runs import Run, Runs
from node.mariadb_server import PrivateMariaDB
from node.opening import OpenStore, open_store
from node.records.identity import make_identity_number
from node.security.caller import local_operator

__all__ = ["run"]

_GOAL: Final = 0.3
_MEMORY_MB: Final = 400
_EACH: Final = 20
_BORN: Final = date(1940, 1, 1)
_FIRST: Final = date(2024, 1, 1)
_MAPPINGS: Final = {"csv": "observations-table", "ndjson": "rows-ndjson"}
_HEADER: Final = (
    "patient_id",
    "identity_number",
    "name",
    "sex",
    "birth_date",
    "code",
    "value",
    "unit",
    "observed_on",
)


def run(scale: Scale) -> Result:
    """Measure both formats, each into a database of its own."""
    people = scale.pick(50_000, 1_000)
    rows = people * _EACH
    folder = scale.folder
    text = server_configuration("county", folder / "server")
    with PrivateMariaDB(folder / "server", configuration=text) as server:
        beside = _load_data(server, people, folder)
        figures = {}
        for name, mapping in _MAPPINGS.items():
            file = folder / f"rows.{name}"
            _write(file, name, people)
            with _opened(folder / name, server, name) as (base, store):
                figures[name] = rows / _ingest(base, store, file, mapping, rows)
            file.unlink()
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    slowest = min(figures.values())
    ratio = slowest / beside
    return Result(
        name="ingest",
        figure=slowest,
        unit="rows/s",
        beside="LOAD DATA of the same observations",
        beside_figure=beside,
        ratio=ratio,
        goal=f">= {_GOAL}, memory <= {_MEMORY_MB} MB",
        met=ratio >= _GOAL and memory_mb <= _MEMORY_MB,
        detail={
            **{f"{name}_rows_s": figure for name, figure in figures.items()},
            "memory_mb": memory_mb,
            "rows": rows,
            "people": people,
        },
    )


def _rows(people: int) -> Iterator[tuple[str, ...]]:
    for person in range(people):
        area, rest = divmod(person, 20_000)
        days, sequence = divmod(rest, 500)
        born = _BORN + timedelta(days=days * 7)
        number = make_identity_number(f"{142601 + area}", born, sequence * 2)
        who = (f"P{person:06d}", number, f"居民{person}", "2", born.isoformat())
        for each in range(_EACH):
            day = (_FIRST + timedelta(days=(person + each * 37) % 800)).isoformat()
            yield (*who, "8480-6", str(90 + (person * 7 + each * 13) % 90), "mmHg", day)


def _write(file: Path, name: str, people: int) -> None:
    import json

    with file.open("w", encoding="utf-8") as stream:
        if name == "csv":
            stream.write(",".join(_HEADER) + "\n")
            stream.writelines(",".join(row) + "\n" for row in _rows(people))
            return
        for row in _rows(people):
            said: dict[str, Any] = dict(zip(_HEADER, row, strict=True))
            said["value"] = float(said["value"])
            stream.write(json.dumps(said, ensure_ascii=False) + "\n")


@contextmanager
def _opened(
    folder: Path, server: PrivateMariaDB, name: str
) -> Iterator[tuple[Foundations, OpenStore]]:
    place = made_place(folder, (TOWNSHIP,), "mysql")
    place.set_database(TOWNSHIP, server.create_database(name))
    base = read_foundations(place.node_dir(TOWNSHIP), SystemClock())
    store = open_store(base.paths.data, base.settings, base.hierarchy, base.profile, SystemClock())
    try:
        yield base, store
    finally:
        store.close()


def _ingest(base: Foundations, store: OpenStore, file: Path, mapping: str, rows: int) -> float:
    """Seconds from the first unit to the end of the run; the content lies in the store already."""
    clock = SystemClock()
    context = store.storage.context
    shop = Workshop(
        store.storage,
        IdentifierIndex(context),
        Contents(context, clock),
        Runs(context, base.hierarchy, clock, context.ids),
        clock,
    )
    pipeline = Pipeline(shop, _arrived(base, shop, file, mapping))
    began = time.perf_counter()
    while pipeline.step():
        pass
    taken = time.perf_counter() - began
    counts = pipeline.counts
    if (counts.read, counts.accepted, counts.records) != (rows, rows, rows):
        raise RuntimeError(f"not everything came in: {counts}")
    return taken


def _arrived(base: Foundations, shop: Workshop, file: Path, mapping: str) -> Run:
    model, text = load_mapping(mapping)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        content = shop.contents.announce(digest, file.stat().st_size, file.name)
        stream.seek(0)
        for number in range(content.pieces):
            content = shop.contents.put_piece(content, number, stream.read(PIECE_BYTES))
    caller = local_operator(base.node_id, base.hierarchy, "benchmark")
    said = (model.name, model.source, hashlib.sha256(text.encode()).hexdigest(), text)
    run = shop.runs.begin(content.content_id, said, caller, "")
    shop.runs.set_state(run.run_id, RunState.RUNNING)
    return shop.runs.load(run.run_id)


def _load_data(server: PrivateMariaDB, people: int, folder: Path) -> float:
    """Rows a second of LOAD DATA LOCAL into the observations of an empty store."""
    url = server.create_database("beside")
    place = made_place(folder / "beside", (TOWNSHIP,), "mysql")
    place.set_database(TOWNSHIP, url)
    base = read_foundations(place.node_dir(TOWNSHIP), SystemClock())
    open_store(base.paths.data, base.settings, base.hierarchy, base.profile, SystemClock()).close()
    file, rows = folder / "beside.tsv", _prepared(folder / "beside.tsv", people)
    address = make_url(url)
    connection = pymysql.connect(
        host=address.host,
        port=address.port or 3306,
        user=address.username,
        password=str(address.password),
        database=address.database,
        local_infile=True,
    )
    with connection, connection.cursor() as cursor:
        began = time.perf_counter()
        cursor.execute(
            "LOAD DATA LOCAL INFILE %s INTO TABLE observations CHARACTER SET utf8mb4"
            " (row_id, resident_id, version_epoch, version_number, author_node, home_node,"
            " home_epoch, schema_version, recorded_at, form, deleted, code, value, unit,"
            " observed_on)",
            (str(file),),
        )
        connection.commit()
        taken = time.perf_counter() - began
        cursor.execute("SELECT count(*) FROM observations")
        (held,) = cursor.fetchone() or (0,)
    file.unlink()
    if held != rows:
        raise RuntimeError(f"LOAD DATA left {rows - held} rows out")
    return rows / taken


def _prepared(file: Path, people: int) -> int:
    """The same observations as the table has them; how many."""
    ids = system_ids()
    at = format_ms(SystemClock().now_ms())
    count, whose, resident = 0, "", ""
    with file.open("w", encoding="utf-8") as stream:
        for row in _rows(people):
            if row[0] != whose:
                whose, resident = row[0], ids.mint_timeless()
            fixed = ("1", "1", TOWNSHIP, TOWNSHIP, "1", "1", at, "full", "0")
            cells = (ids.mint(), resident, *fixed, row[5], row[6], "mm[Hg]", row[8])
            stream.write("\t".join(cells) + "\n")
            count += 1
    return count
