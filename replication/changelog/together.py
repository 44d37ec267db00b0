"""Statements that go to the database together: on MySQL in one packet, answered by one.

A statement alone costs its way there and back, which is most of what a small transaction costs. On
SQLite, where there is no way, they are carried out one by one. A statement that fails ends the
rest: nothing after it was carried out, and the transaction is to be rolled back, as ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.converters import escape_string
from pymysql.cursors import RE_INSERT_VALUES
from sqlalchemy import Connection, Insert, Update
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError

__all__ = ["SEVERAL_STATEMENTS", "Done", "Raw", "Together"]

SEVERAL_STATEMENTS: Final = int(CLIENT.MULTI_STATEMENTS)
"""The flag that a MySQL connection must be opened with for packets of several statements."""

_NAMED: Final = re.compile(r"%\((\w+)\)s")
_PACKET_CHARACTERS: Final = 2 << 20
_INSERT_CHARACTERS: Final = 512 << 10


@dataclass(frozen=True, slots=True)
class Raw:
    """SQL instead of a value, on MySQL only; never made of anything that came from outside."""

    sql: str


@dataclass(frozen=True, slots=True)
class Done:
    """Rows that a statement matched, and the number that LAST_INSERT_ID was given in it."""

    rows: int
    number: int


class Together:
    """Collects statements of one transaction; `send` carries them out in order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.in_packets = _takes_several(connection)
        self.done: list[Done] = []
        """What the last `send` carried out, also if it ended in an error."""
        self._statements: list[tuple[Insert | Update, Sequence[Mapping[str, Any]]]] = []

    @property
    def count(self) -> int:
        """How many statements wait to be sent."""
        return len(self._statements)

    def add(self, statement: Insert | Update, rows: Sequence[Mapping[str, Any]]) -> None:
        """An INSERT of rows with the same keys, or an UPDATE with all that it has as parameters."""
        self._statements.append((statement, rows))

    def send(self) -> list[Done]:
        """Carry out what was added; one result each.

        Raises:
            DBAPIError: A statement failed; `done` has as many results as were carried out.
        """
        statements, self._statements = self._statements, []
        self.done = []
        if self.in_packets:
            self._send_packets(statements)
        else:
            for statement, rows in statements:
                self.done.append(Done(self._execute(statement, rows), 0))
        return self.done

    def _execute(self, statement: Insert | Update, rows: Sequence[Mapping[str, Any]]) -> int:
        """One statement for its rows; how many rows it matched.

        On SQLite as the driver wants it: what SQLAlchemy does for each row costs more than
        SQLite's own work, and no value that is written here needs to be translated.
        """
        connection = self.connection
        if connection.dialect.name != "sqlite":
            return connection.execute(statement, list(rows)).rowcount
        text, names = _line(statement, connection.dialect, tuple(rows[0]))
        values = [tuple([row[name] for name in names]) for row in rows]
        return connection.exec_driver_sql(text, values).rowcount

    def _send_packets(
        self, statements: Sequence[tuple[Insert | Update, Sequence[Mapping[str, Any]]]]
    ) -> None:
        proxy = self.connection.connection
        escape = _escape_of(proxy.dbapi_connection)
        dialect = self.connection.dialect
        texts = [
            (place, text)
            for place, (statement, rows) in enumerate(statements)
            for text in _texts(escape, dialect, statement, rows)
        ]
        cursor = proxy.cursor()
        try:
            for packet in _packets(texts):
                self._send_packet(cursor, packet)
        except dialect.loaded_dbapi.Error as error:
            raise self._wrapped(error) from error
        except BaseException as error:
            # In the middle of an answer: nobody can go on with this connection.
            self.connection.invalidate(error)
            raise
        finally:
            cursor.close()

    def _send_packet(self, cursor: Any, packet: Sequence[tuple[int, str]]) -> None:
        # Without arguments: the text is final, and a percent sign in it is one.
        cursor.execute(";".join(text for _, text in packet))
        for number, (place, _) in enumerate(packet):
            if number:
                cursor.nextset()
            if place < len(self.done):
                before = self.done.pop()
                self.done.append(Done(before.rows + cursor.rowcount, cursor.lastrowid or 0))
            else:
                self.done.append(Done(cursor.rowcount, cursor.lastrowid or 0))

    def _wrapped(self, error: Any) -> BaseException:
        """The error as SQLAlchemy raises it; without the statement, which holds values of rows."""
        connection = self.connection
        dbapi = connection.dialect.loaded_dbapi
        gone = connection.dialect.is_disconnect(error, None, None)
        wrapped: BaseException = DBAPIError.instance(
            None,
            None,
            error,
            dbapi.Error,
            hide_parameters=True,
            connection_invalidated=gone,
            dialect=connection.dialect,
        )
        if gone:
            connection.invalidate(error)
        return wrapped


def _takes_several(connection: Connection) -> bool:
    if connection.dialect.name == "sqlite":
        return False
    flags = getattr(connection.connection.dbapi_connection, "client_flag", 0)
    return bool(flags & SEVERAL_STATEMENTS)


def _escape_of(dbapi: Any) -> Callable[[Any], str]:
    """How this connection writes a value; what it does for text and bytes, done here for speed."""
    escape, encoders = dbapi.escape, dbapi.encoders
    plain = not dbapi.server_status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES

    def text(value: Any) -> str:
        kind = type(value)
        if kind is str and plain:
            return f"'{escape_string(value)}'"
        if kind is int:
            return str(value)
        if value is None:
            return "NULL"
        return value.sql if kind is Raw else str(escape(value, encoders))

    return text


def _packets(texts: Sequence[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    packet: list[tuple[int, str]] = []
    size = 0
    for each in texts:
        if packet and size + len(each[1]) > _PACKET_CHARACTERS:
            yield packet
            packet, size = [], 0
        packet.append(each)
        size += len(each[1])
    if packet:
        yield packet


def _texts(
    escape: Callable[[Any], str],
    dialect: Dialect,
    statement: Insert | Update,
    rows: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """The statement with its values; an INSERT of many rows as several."""
    shape = _shape(statement, dialect, tuple(rows[0]))
    if shape.row is None:
        [values] = rows
        yield shape.before % tuple(escape(values[name]) for name in shape.names)
        return
    parts: list[str] = []
    size = 0
    for values in rows:
        part = shape.row % tuple([escape(values[name]) for name in shape.names])
        if parts and size + len(part) > _INSERT_CHARACTERS:
            yield shape.before + ",".join(parts) + shape.after
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    yield shape.before + ",".join(parts) + shape.after


@dataclass(frozen=True, slots=True)
class _Shape:
    """A compiled statement: what stands before a row's values, the row, what stands after.

    `row` None: no INSERT of rows; `before` is all of it.
    """

    before: str
    row: str | None
    after: str
    names: tuple[str, ...]


@lru_cache(maxsize=512)
def _line(
    statement: Insert | Update, dialect: Dialect, keys: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """A compiled statement of a dialect with parameters by position, and their names in order."""
    columns = list(keys) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    return str(compiled), tuple(getattr(compiled, "positiontup", None) or ())


@lru_cache(maxsize=512)
def _shape(statement: Insert | Update, dialect: Dialect, keys: tuple[str, ...]) -> _Shape:
    columns = list(keys) if isinstance(statement, Insert) else None
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    names = tuple(getattr(compiled, "positiontup", None) or _NAMED.findall(str(compiled)))
    text = _NAMED.sub("%s", str(compiled))
    if isinstance(statement, Insert):
        match = RE_INSERT_VALUES.match(text)
        if match is None:
            raise ValueError("an INSERT without VALUES cannot be sent together with others")
        before, row, after = match.group(1), match.group(2), match.group(3) or ""
        return _Shape(before % (), row, after % (), names)
    return _Shape(text, None, "", names)
