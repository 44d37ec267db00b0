"""Power cuts: what was not synced is lost, nothing acknowledged is: `python -m tests.chaos.power`.

A library preloaded into the process (unsynced.c) keeps a shadow of its files as a disk would hold
them. A kill, and the shadow in place of the folder, is a power cut. That the library bites is shown
first: SQLite that syncs less, and MariaDB that flushes once a second, must lose what they said.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, text

from hierarchy_config import NodeId
from node.demo.place import DemoPlace
from node.demo.processes import Fleet
from node.mariadb_server import PrivateMariaDB
from tests.chaos.acknowledged import read_all
from tests.services.region import MARIADB
from tests.services.stores import opened
from tests.services.waiting import CLOCK

__all__ = ["Cut", "compiled", "main"]

SOURCE: Final = Path(__file__).with_name("unsynced.c")
VILLAGE: Final = NodeId("141002104200")
WRITE_S: Final = 8.0
CUTS: Final = 3
_SQLITE_WRITER: Final = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1] + "/plain.db", isolation_level=None)
c.execute("PRAGMA journal_mode=WAL")
c.execute("PRAGMA synchronous=" + sys.argv[2])
c.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)")
n = 0
while True:
    n += 1
    c.execute("INSERT INTO t VALUES (?)", (n,))
    print(n, flush=True)
"""
_NATIVE_AIO_OFF: Final = "innodb_use_native_aio = 0\ninnodb_flush_method = fsync\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """What one power cut did."""

    what: str
    acknowledged: int
    lost: int


def compiled(folder: Path) -> Path | None:
    """The library, built; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "unsynced.so"
    flags = ("-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread")
    subprocess.run([compiler, *flags], check=True)
    return library


class Disk:
    """A folder, and what would be left of it if the power went now."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.shadow = folder.with_name(f"{folder.name}.shadow")
        self._library = library

    @property
    def environment(self) -> Mapping[str, str]:
        """With it a process keeps the shadow."""
        return {
            "LD_PRELOAD": str(self._library),
            "UNSYNCED_ROOT": str(self.folder),
            "UNSYNCED_SHADOW": str(self.shadow),
        }

    def settle(self) -> None:
        """Everything written so far is on the disk; nothing writes now."""
        shutil.rmtree(self.shadow, ignore_errors=True)
        shutil.copytree(self.folder, self.shadow, symlinks=True)

    def cut(self) -> None:
        """The power goes: the folder is what its shadow is. Whatever wrote has been killed."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.shadow, self.folder, symlinks=True)


def sqlite_control(root: Path, library: Path, synchronous: str) -> Cut:
    """Plain SQLite with a `synchronous` of one's choice."""
    folder = root / f"plain-{synchronous}"
    folder.mkdir()
    disk = Disk(folder, library)
    disk.settle()
    with subprocess.Popen(
        [sys.executable, "-c", _SQLITE_WRITER, str(folder), synchronous],
        stdout=subprocess.PIPE,
        env={**os.environ, **disk.environment},
        text=True,
    ) as writer:
        threading.Event().wait(2.0)
        writer.kill()
        said = writer.communicate()[0].split()
    disk.cut()
    held = 0
    if (folder / "plain.db").exists():
        with sqlite3.connect(folder / "plain.db") as database:
            found = database.execute("SELECT name FROM sqlite_master").fetchall()
            held = database.execute("SELECT COUNT(*) FROM t").fetchone()[0] if found else 0
    return Cut(f"SQLite WAL, synchronous={synchronous}", len(said), max(0, len(said) - held))


def mariadb_control(root: Path, library: Path, flush: int) -> Cut:
    """Plain MariaDB with an innodb_flush_log_at_trx_commit of one's choice."""
    folder = root / f"maria-{flush}"
    folder.mkdir()
    disk = Disk(folder, library)
    configuration = MARIADB.replace(
        "innodb_flush_log_at_trx_commit = 1", f"innodb_flush_log_at_trx_commit = {flush}"
    )
    server = PrivateMariaDB(folder / "server", configuration=configuration + _NATIVE_AIO_OFF)
    with server:
        server.create_database("cut")
    disk.settle()
    os.environ.update(disk.environment)
    try:
        server.start()
    finally:
        for name in disk.environment:
            del os.environ[name]
    said = _insert(server, 2.0)
    server.kill()
    disk.cut()
    with server:
        engine = create_engine(server.url("cut"))
        with engine.connect() as connection:
            held = connection.execute(text("SELECT COUNT(*) FROM t")).scalar_one()
        engine.dispose()
    return Cut(f"MariaDB, flush_log_at_trx_commit={flush}", said, max(0, said - held))


def _insert(server: PrivateMariaDB, seconds: float) -> int:
    engine = create_engine(server.url("cut"))
    until = CLOCK.monotonic_ms() + seconds * 1000
    said = 0
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE t (n INT PRIMARY KEY)"))
        connection.execute(text("FLUSH TABLES"))
        connection.commit()
        while CLOCK.monotonic_ms() < until:
            connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": said})
            connection.commit()
            said += 1
    engine.dispose()
    return said


def node_cuts(root: Path, library: Path, database: str) -> list[Cut]:
    """A village under an independent writer, its power cut several times."""
    made = root / f"node-{database}"
    made.mkdir()
    place, _ = DemoPlace.open(made / "region", "sqlite", CLOCK, (VILLAGE,))
    place.complete()
    disk = Disk(place.node_dir(VILLAGE), library)
    server: PrivateMariaDB | None = None
    if database == "mysql":
        disk = Disk(made / "mariadb", library)
        server = PrivateMariaDB(disk.folder, configuration=MARIADB + _NATIVE_AIO_OFF, port=19_316)
        with server:
            place.set_database(VILLAGE, server.create_database("village"))
    fleet = Fleet(place, CLOCK)
    (made / "acknowledged").mkdir()
    cuts = []
    for number in range(CUTS):
        disk.settle()
        _start(fleet, server, disk)
        _write(place, made / "acknowledged" / f"{number}.log")
        fleet.kill(VILLAGE)
        if server is not None:
            server.kill()
        disk.cut()
        if server is not None:
            server.start()
        cuts.append(_compare(place, made / "acknowledged", f"node on {database}, cut {number + 1}"))
        if server is not None:
            server.stop()
    return cuts


def _start(fleet: Fleet, server: PrivateMariaDB | None, disk: Disk) -> None:
    """Start the node; the process that keeps the store is the one that keeps the shadow."""
    os.environ.update(disk.environment)
    try:
        if server is not None:
            server.start()
        else:
            fleet.start(VILLAGE)
    finally:
        for name in disk.environment:
            del os.environ[name]
    if server is not None:
        fleet.start(VILLAGE)
    fleet.wait_ready((VILLAGE,))


def _write(place: DemoPlace, log: Path) -> None:
    words = (str(place.root), str(log), "100", VILLAGE)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.writer", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as writer:
        threading.Event().wait(WRITE_S)
        writer.kill()


def _compare(place: DemoPlace, folder: Path, what: str) -> Cut:
    noted = list(read_all(folder))
    with opened(place, VILLAGE) as store:
        held = store.rows()
    lost = [
        ack
        for ack in noted
        if (row := held.get((ack.table, ack.row_id))) is None or row.version[1] < ack.number
    ]
    return Cut(what, len(noted), len(lost))


def main() -> int:
    """Print what each cut lost; exit code 1 if a node lost anything, or a control nothing."""
    with tempfile.TemporaryDirectory(prefix="fenhe-power-") as made:
        root = Path(made)
        library = compiled(root)
        if library is None:
            print("not run: no C compiler")
            return 0
        controls = [sqlite_control(root, library, "NORMAL"), mariadb_control(root, library, 2)]
        sound = [sqlite_control(root, library, "FULL"), mariadb_control(root, library, 1)]
        for database in ("sqlite", "mysql"):
            sound += node_cuts(root, library, database)
    for cut in (*controls, *sound):
        print(f"{cut.what:44} acknowledged {cut.acknowledged:6} lost {cut.lost:6}")
    held = not any(cut.lost for cut in sound) and all(cut.acknowledged for cut in sound)
    return 0 if held and all(cut.lost for cut in controls) else 1


if __name__ == "__main__":
    sys.exit(main())
