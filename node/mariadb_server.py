"""A private MariaDB: own data folder, own port on the loopback, one user with a made-up password.

For the demo, the benchmarks and the tests. A production node uses the server its operator installed
and never comes here. Nothing outlives the process that started it: the server stops with `stop`, at
the interpreter's exit, and, through the kernel, when its parent is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import pymysql

from hierarchy_config.errors import Fault
from node.clock import Clock, SystemClock
from node.errors import NodeError

__all__ = ["MariaDBMissingError", "MariaDBStartError", "PrivateMariaDB"]

LOOPBACK: Final = "127.0.0.1"
USER: Final = "fenhe"
_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin")
_PORT_TRIES: Final = 5
_READY_S_MAX: Final = 60.0
_STOP_S_MAX: Final = 30.0
_POLL_S: Final = 0.05
_SOCKET_PATH_MAX: Final = 107
_LOG_TAIL_BYTES: Final = 2000

_SMALL_CONFIGURATION: Final = """\
[mariadbd]
innodb_buffer_pool_size = 32M
innodb_log_file_size = 32M
innodb_flush_log_at_trx_commit = 1
innodb_doublewrite = ON
max_connections = 64
transaction_isolation = READ-COMMITTED
character_set_server = utf8mb4
performance_schema = OFF
skip_log_bin
"""


class MariaDBMissingError(NodeError):
    """The programs of a MariaDB server are not on this machine."""

    code = "MARIADB_MISSING"
    fault = Fault.OPERATOR
    default_hint = "apt install mariadb-server (no service needs to run), or use SQLite."


class MariaDBStartError(NodeError):
    """The private server did not come up; the end of its own log is in the message."""

    code = "MARIADB_START_FAILED"
    fault = Fault.OPERATOR
    default_hint = "Read the named log; free memory and disk are the usual reasons."


class PrivateMariaDB:
    """One server on one folder. Not thread-safe; `start` it from a thread that lives as long."""

    def __init__(
        self,
        folder: Path,
        *,
        configuration: str = _SMALL_CONFIGURATION,
        port: int = 0,
        clock: Clock | None = None,
        make_password: Callable[[], str] = secrets.token_hex,
        search_path: str | None = None,
    ) -> None:
        """Nothing is started or written yet.

        Args:
            folder: Becomes the server's own: data/, my.cnf, password, server.log. A second start on
                it finds the same databases and password.
            configuration: Text of a my.cnf with a [mariadbd] section. Folder, port, socket, address
                and names are set here and win over it.
            port: On the loopback; 0 takes a free one at each start.
            clock: For the time limits of start and stop.
            make_password: Alphanumeric text nobody can guess.
            search_path: Folders that hold the programs, as in PATH; None: PATH and the usual ones.
        """
        self.folder = folder.absolute()
        self.port = port
        self._configuration = configuration
        self._any_port = port == 0
        self._clock = clock or SystemClock()
        self._make_password = make_password
        self._search_path = search_path
        self._password = ""  # nosec B105
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Create the databases' files if there are none, start, and return once it answers.

        Raises:
            MariaDBMissingError: The programs are not installed.
            MariaDBStartError: It ended, or did not answer within a minute.
        """
        if self.running:
            return
        server = self._program("mariadbd", "mysqld")
        self._prepare(server)
        atexit.register(self.stop)
        for attempt in range(1, _PORT_TRIES + 1):
            if self._any_port:
                self.port = _free_port()
            self._launch(server)
            if self._wait_ready():
                return
            said = self._log_tail()
            self.stop()
            # Another program may take a free port before the server does.
            if not self._any_port or "Bind on TCP/IP port" not in said or attempt == _PORT_TRIES:
                raise MariaDBStartError(f"MariaDB did not start ({self._log}): {said}")

    def stop(self) -> None:
        """Stop in order, by force after half a minute; idempotent."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            _end(process, signal.SIGTERM)
        self._remove_socket()

    def kill(self) -> None:
        """SIGKILL, as a crash would be; `start` brings back what had been committed."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            _end(process, signal.SIGKILL)
        self._remove_socket()

    def url(self, database: str) -> str:
        """SQLAlchemy URL of a database on this server, password included: not for logs."""
        return (
            f"mysql+pymysql://{USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"
            "?charset=utf8mb4"
        )

    def create_database(self, name: str) -> str:
        """Create an empty database if it is not there; return its URL."""
        self._execute(f"CREATE DATABASE IF NOT EXISTS `{_word(name)}` CHARACTER SET utf8mb4")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database and all in it."""
        self._execute(f"DROP DATABASE IF EXISTS `{_word(name)}`")

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    @property
    def _temporary(self) -> Path:
        return self.folder / "tmp"

    def _prepare(self, server: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temporary.mkdir(exist_ok=True)
        self._password = self._load_password()
        (self.folder / "my.cnf").write_text(self._configuration)
        first = self.folder / "users.sql"
        first.touch(mode=0o600)
        first.write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'{LOOPBACK}';\n"
            f"ALTER USER '{USER}'@'{LOOPBACK}' IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'{LOOPBACK}' WITH GRANT OPTION;\n"
        )
        if not (self.folder / "data" / "mysql").is_dir():
            self._install(server)

    def _install(self, server: str) -> None:
        """Fill a fresh data folder, beside its place first: a killed attempt leaves nothing."""
        fresh, data = self.folder / "data.new", self.folder / "data"
        for left in (fresh, data):
            shutil.rmtree(left, ignore_errors=True)
        installer = self._program("mariadb-install-db", "mysql_install_db")
        done = subprocess.run(
            [
                installer,
                "--no-defaults",
                f"--datadir={fresh}",
                f"--tmpdir={self._temporary}",
                "--skip-test-db",
                "--skip-name-resolve",
                *_as_root(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{Path(server).parent}:{os.environ.get('PATH', '')}"},
            check=False,
        )
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace")[-_LOG_TAIL_BYTES:]
            raise MariaDBStartError(f"{installer} failed: {said}")
        fresh.rename(data)

    def _program(self, *names: str) -> str:
        path = self._search_path
        if path is None:
            path = os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
        for name in names:
            found = shutil.which(name, path=path)
            if found is not None:
                return found
        raise MariaDBMissingError(f"{names[0]} is not installed")

    def _load_password(self) -> str:
        path = self.folder / "password"
        if path.is_file() and path.read_text().strip():
            return path.read_text().strip()
        password = self._make_password()
        path.touch(mode=0o600)
        path.write_text(password + "\n")
        return password

    def _launch(self, server: str) -> None:
        self._remove_socket()
        place = self.folder
        if len(os.fsencode(place / "socket")) > _SOCKET_PATH_MAX:
            place = self._socket_folder = Path(tempfile.mkdtemp(prefix="fenhe-mariadb-"))
        command = [
            *_end_with_parent(),
            server,
            f"--defaults-file={self.folder / 'my.cnf'}",
            f"--datadir={self.folder / 'data'}",
            f"--socket={place / 'socket'}",
            f"--pid-file={place / 'pid'}",
            f"--port={self.port}",
            f"--bind-address={LOOPBACK}",
            "--skip-networking=0",  # a configuration for a socket alone says otherwise
            f"--init-file={self.folder / 'users.sql'}",
            f"--log-error={self._log}",
            # A server clears its temporary folder when it starts: a shared one is another's too.
            f"--tmpdir={self._temporary}",
            "--skip-name-resolve",
            *_as_root(),
        ]
        self._log.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,  # Ctrl-C goes to the program, which stops its servers in order
        )

    def _wait_ready(self) -> bool:
        assert self._process is not None  # noqa: S101
        deadline = self._clock.monotonic_ms() + int(_READY_S_MAX * 1000)
        while self._clock.monotonic_ms() < deadline:
            with contextlib.suppress(pymysql.Error):
                self._execute("SELECT 1")
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_S)
                return False
        return False

    def _execute(self, statement: str) -> None:
        connection = pymysql.connect(
            host=LOOPBACK,
            port=self.port,
            user=USER,
            password=self._password,
            autocommit=True,
            connect_timeout=5,
        )
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)

    def _log_tail(self) -> str:
        if not self._log.is_file():
            return "it left no log"
        return self._log.read_text(errors="replace")[-_LOG_TAIL_BYTES:]

    def _remove_socket(self) -> None:
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal the server's whole process group and wait until it is gone."""
    for number, wait_s in ((how, _STOP_S_MAX), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            return


def _as_root() -> list[str]:
    """The server refuses to run as root unless it is told to."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _end_with_parent() -> list[str]:
    """The kernel signals the server when our thread dies, even by SIGKILL (util-linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv is not None else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _word(name: str) -> str:
    if not (name.isascii() and name.replace("_", "").isalnum()):
        raise ValueError(f"not a database name: {name!r}")
    return name
