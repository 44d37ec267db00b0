"""Opens the database, and refuses one that could lose what it has acknowledged.

kill -9 proves nothing about durability: a power cut lost hundreds of commits under settings that
survived every kill (I1 in replication/GUARANTEES.md). So the settings are read back from the
database itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pymysql.constants import CLIENT, SERVER_STATUS
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState, QueuePool

from node.storage.errors import DurabilityError
from replication.changelog.dialects import prepare_engine
from replication.changelog.together import SEVERAL_STATEMENTS

__all__ = ["EngineLimits", "UnsafeSetting", "check_durability", "open_engine", "unsafe_settings"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one node's storage may use; a hardware profile says how much.

    Args:
        connections: Connections kept open; at least one for each thread that uses the storage.
        cache_mb: Page cache of one SQLite connection. MySQL has its own buffer pool.
        connect_timeout_s: Until a MySQL server must have answered.
        read_timeout_s: Longest wait for one answer of MySQL: a full disk makes it hang.
        checkout_timeout_s: Longest wait for a free connection.
        busy_timeout_ms: How long SQLite waits for another writer.
    """

    connections: int = 4
    cache_mb: int = 16
    connect_timeout_s: int = 10
    read_timeout_s: int = 60
    checkout_timeout_s: int = 30
    busy_timeout_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class UnsafeSetting:
    """A setting with a value that is not durable."""

    setting: str
    found: str
    expected: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Rule:
    safe: tuple[str, ...]
    remedy: str
    required: bool = True

    @property
    def expected(self) -> str:
        return " or ".join(self.safe)


_SQLITE_RULES: Final = MappingProxyType(
    {
        "journal_mode": _Rule(
            ("wal",), "keep the database on a local disk: this file system cannot do WAL"
        ),
        "synchronous": _Rule(("2", "3"), "nothing else may set PRAGMA synchronous here"),
    }
)

_MYSQL_RULES: Final = MappingProxyType(
    {
        "innodb_flush_log_at_trx_commit": _Rule(
            ("1",), "set innodb_flush_log_at_trx_commit=1 under [mysqld] and restart the server"
        ),
        "innodb_doublewrite": _Rule(
            ("ON", "1", "DETECT_AND_RECOVER"),
            "set innodb_doublewrite=ON under [mysqld] and restart the server",
        ),
        "innodb_flush_method": _Rule(
            ("fsync", "O_DSYNC", "O_DIRECT", "O_DIRECT_NO_FSYNC"),
            "set innodb_flush_method=O_DIRECT under [mysqld] and restart the server",
            required=False,
        ),
        "default_storage_engine": _Rule(
            ("InnoDB",), "set default_storage_engine=InnoDB under [mysqld] and restart the server"
        ),
        "debug_no_sync": _Rule(
            ("OFF", "0"), "remove debug_no_sync from the configuration", required=False
        ),
    }
)

_UNKNOWN: Final = object()
_BINLOG_RULE: Final = _Rule(
    ("1",), "set sync_binlog=1 under [mysqld] and restart the server, or turn log_bin off"
)


def open_engine(url: str | URL, limits: EngineLimits | None = None) -> Engine:
    """Open the database at `url` and check that it is durable.

    Args:
        url: sqlite:///FILE, or mysql+pymysql://… (mariadb+pymysql://… is the same).
        limits: What the node's profile allows.

    Raises:
        DurabilityError: A setting would let acknowledged commits be lost; nothing was changed.
    """
    limits = limits or EngineLimits()
    address = make_url(url)
    is_sqlite = address.get_backend_name() == "sqlite"
    engine = create_engine(
        address,
        # Values of rows must not reach a log through the text of an error.
        hide_parameters=True,
        poolclass=QueuePool,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.checkout_timeout_s,
        pool_recycle=-1 if is_sqlite else 3600,
        pool_reset_on_return="rollback" if is_sqlite else None,
        connect_args=_sqlite_arguments() if is_sqlite else _mysql_arguments(limits),
    )
    prepare_engine(engine, busy_timeout_ms=limits.busy_timeout_ms)
    if is_sqlite:
        _limit_sqlite_cache(engine, limits.cache_mb)
    else:
        event.listen(engine, "reset", _roll_back_what_is_open)
    try:
        check_durability(engine)
    except DurabilityError:
        engine.dispose()
        raise
    return engine


def check_durability(engine: Engine) -> None:
    """Read the settings that decide durability and refuse unsafe ones, all named together.

    Raises:
        DurabilityError: With setting, value found, value expected and remedy of each.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            faults = unsafe_settings(_sqlite_settings(connection), _SQLITE_RULES)
        else:
            faults = _mysql_faults(_mysql_settings(connection))
    if faults:
        raise DurabilityError(
            "the database could lose acknowledged commits: "
            + "; ".join(
                f"{each.setting} is {each.found}, expected {each.expected}" for each in faults
            ),
            hint="; ".join(each.remedy for each in faults) + ".",
        )


def unsafe_settings(
    settings: Mapping[str, str], rules: Mapping[str, _Rule] = _MYSQL_RULES
) -> tuple[UnsafeSetting, ...]:
    """The rules that `settings` break. A setting that is missing breaks a required rule."""
    faults = []
    for name, rule in rules.items():
        found = settings.get(name, "missing" if rule.required else None)
        if found is not None and found.lower() not in {safe.lower() for safe in rule.safe}:
            faults.append(UnsafeSetting(name, found, rule.expected, rule.remedy))
    return tuple(faults)


def _mysql_faults(settings: Mapping[str, str]) -> tuple[UnsafeSetting, ...]:
    rules = dict(_MYSQL_RULES)
    if settings.get("log_bin", "OFF") in {"ON", "1"}:
        rules["sync_binlog"] = _BINLOG_RULE
    return unsafe_settings(settings, rules)


def _sqlite_settings(connection: Connection) -> dict[str, str]:
    return {
        name: str(connection.exec_driver_sql(f"PRAGMA {name}").scalar()) for name in _SQLITE_RULES
    }


def _mysql_settings(connection: Connection) -> dict[str, str]:
    names = [*_MYSQL_RULES, "log_bin", "sync_binlog"]
    quoted = ", ".join(f"'{name}'" for name in names)
    rows = connection.execute(text(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({quoted})"))
    return {str(name): str(value) for name, value in rows}


def _sqlite_arguments() -> dict[str, Any]:
    # The pool hands a connection from thread to thread, never to two at once.
    return {"check_same_thread": False}


def _mysql_arguments(limits: EngineLimits) -> dict[str, Any]:
    return {
        "connect_timeout": limits.connect_timeout_s,
        "read_timeout": limits.read_timeout_s,
        "write_timeout": limits.read_timeout_s,
        "charset": "utf8mb4",
        # Flags given here replace the dialect's own, so its FOUND_ROWS is given again: without it
        # an UPDATE that changes nothing counts no row, and a conditional one seems refused.
        "client_flag": SEVERAL_STATEMENTS | CLIENT.FOUND_ROWS,
    }


def _roll_back_what_is_open(dbapi: Any, _entry: ConnectionPoolEntry, state: PoolResetState) -> None:
    """Give a connection back without a transaction; one whose last word was COMMIT has none.

    Another ROLLBACK each time would be a way there and back. PyMySQL holds no result after a COMMIT
    or ROLLBACK, and one after everything else.
    """
    open_still = dbapi.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS
    ended = getattr(dbapi, "_result", _UNKNOWN) is None and not open_still
    if not ended and not state.terminate_only:
        dbapi.rollback()


def _limit_sqlite_cache(engine: Engine, cache_mb: int) -> None:
    def connect(dbapi: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = dbapi.cursor()
        cursor.execute(f"PRAGMA cache_size = {-1024 * int(cache_mb)}")
        cursor.close()

    event.listen(engine, "connect", connect)
