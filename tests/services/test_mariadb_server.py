"""The private MariaDB: starts on an empty folder, survives SIGKILL, leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from node.mariadb_server import MariaDBMissingError, MariaDBStartError, PrivateMariaDB

pytestmark = pytest.mark.mariadb

ROOT = Path(__file__).parents[2]

START_AND_WAIT = """
import sys
from pathlib import Path
from node.mariadb_server import PrivateMariaDB
server = PrivateMariaDB(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, since filling a new one takes seconds; each test starts it anew."""
    return tmp_path_factory.mktemp("mariadb") / "server"


@pytest.fixture
def server(folder: Path) -> Iterator[PrivateMariaDB]:
    """Not started yet; stopped afterwards whatever happened."""
    private = PrivateMariaDB(folder)
    yield private
    private.stop()


def _run(url: str, *statements: str) -> list[object]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        return [row[0] for row in results[-1].all()] if results[-1].returns_rows else []


def test_keeps_what_was_committed_over_a_kill(server: PrivateMariaDB) -> None:
    """SIGKILL, then a start on the same folder: same password, same rows, another port."""
    server.start()
    url = server.create_database("kept")
    _run(url, "CREATE TABLE t (n INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    server.kill()
    assert not server.running
    server.start()
    assert _run(server.url("kept"), "SELECT n FROM t ORDER BY n") == [1, 2]


def test_starts_and_stops_any_number_of_times(server: PrivateMariaDB) -> None:
    """Starting twice and stopping twice are both harmless."""
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()


def test_is_durable_and_speaks_on_the_loopback_only(server: PrivateMariaDB) -> None:
    """The settings a node asks for hold, and no other address is listened on."""
    server.start()
    url = server.url("information_schema")
    [flush] = _run(url, "SELECT @@innodb_flush_log_at_trx_commit")
    [doublewrite] = _run(url, "SELECT @@innodb_doublewrite")
    [address] = _run(url, "SELECT @@bind_address")
    [isolation] = _run(url, "SELECT @@tx_isolation")
    assert (flush, doublewrite, address) == (1, 1, "127.0.0.1")
    assert isolation == "READ-COMMITTED"


def test_nobody_enters_without_the_password(server: PrivateMariaDB) -> None:
    """The password lies in the folder, readable by its owner only; root has none over TCP."""
    server.start()
    secret = server.folder / "password"
    assert secret.stat().st_mode & 0o077 == 0
    for user in ("root", "fenhe", ""):
        with pytest.raises(OperationalError):
            _run(f"mysql+pymysql://{user}@127.0.0.1:{server.port}/mysql", "SELECT 1")


def test_a_database_can_be_dropped(server: PrivateMariaDB) -> None:
    """And its name is checked, since it goes into a statement."""
    server.start()
    url = server.create_database("records")
    server.drop_database("records")
    with pytest.raises(OperationalError):
        _run(url, "SELECT 1")
    with pytest.raises(ValueError, match="not a database name"):
        server.create_database("x`; DROP DATABASE mysql; --")


def test_says_what_is_missing(tmp_path: Path) -> None:
    """Without the programs: a code, what to install, and nothing written."""
    nowhere = PrivateMariaDB(tmp_path / "mariadb", search_path=str(tmp_path))
    with pytest.raises(MariaDBMissingError) as caught:
        nowhere.start()
    assert not nowhere.folder.exists()
    assert caught.value.code == "MARIADB_MISSING"
    assert "apt install mariadb-server" in caught.value.hint


def test_says_why_it_did_not_start(folder: Path) -> None:
    """A setting the server does not know: its own words are in the error."""
    wrong = PrivateMariaDB(folder, configuration="[mariadbd]\nno_such_setting = 1\n")
    with pytest.raises(MariaDBStartError, match="no_such_setting"):
        wrong.start()
    assert not wrong.running


def test_works_in_a_deep_folder(tmp_path: Path) -> None:
    """A socket's path may have 107 bytes, a data folder's more."""
    with PrivateMariaDB(tmp_path / ("deep" * 20) / ("folder" * 10)) as deep:
        assert _run(deep.url("mysql"), "SELECT 1") == [1]


@pytest.mark.parametrize("how", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_does_not_outlive_its_program(folder: Path, how: signal.Signals | None) -> None:
    """Whether its program ends or is killed, the server ends too."""
    program = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        watch = os.pidfd_open(pid)
        try:
            if how is not None:
                program.send_signal(how)
            else:
                program.communicate()
            ended, _, _ = select.select([watch], [], [], 30)
        finally:
            os.close(watch)
    assert ended
