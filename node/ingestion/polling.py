"""What is polled: a folder for files that are finished, a table for rows beyond a watermark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final

from sqlalchemy import MetaData, Table, create_engine, select
from sqlalchemy.exc import ArgumentError, NoSuchTableError, SQLAlchemyError

from node.ingestion.errors import SourceUnreachableError

__all__ = ["FolderWatch", "TablePoll"]

_FETCHED: Final = 1000
_DONE: Final = "done"
_FAILED: Final = "failed"
_HIDDEN: Final = (".", "~")
_UNFINISHED: Final = (".part", ".tmp", ".crdownload")


@dataclass
class FolderWatch:
    """Files of a folder, each once it has stopped growing: its size and time are as before."""

    folder: Path
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def ready(self) -> list[Path]:
        """Files that have not changed since the last look, by name.

        Raises:
            SourceUnreachableError: The folder cannot be read.
        """
        now: dict[Path, tuple[int, int]] = {}
        try:
            for path in sorted(self.folder.iterdir()):
                if path.name.startswith(_HIDDEN) or path.suffix in _UNFINISHED:
                    continue
                if path.is_file() and not path.is_symlink():
                    stat = path.stat()
                    now[path] = (stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise SourceUnreachableError(f"the folder cannot be read: {error.strerror}") from error
        found = [path for path, mark in now.items() if mark[0] and self._seen.get(path) == mark]
        self._seen = now
        return found

    def put_away(self, path: Path, *, failed: bool) -> Path:
        """Move a file to `done` or `failed` beside it; nothing there is overwritten."""
        folder = self.folder / (_FAILED if failed else _DONE)
        folder.mkdir(exist_ok=True)
        target = folder / path.name
        number = 1
        while target.exists():
            target = folder / f"{path.stem}-{number}{path.suffix}"
            number += 1
        self._seen.pop(path, None)
        return path.rename(target)


@dataclass(frozen=True, slots=True)
class TablePoll:
    """A table or view, and the column by which new and changed rows are told."""

    url: str
    table: str
    watermark: str

    def write_since(self, last: str, to: BinaryIO) -> tuple[int, str]:
        """Write rows from a watermark on as JSON lines; how many, and where the next poll begins.

        Rows at the watermark come again, so that none of the same moment is missed; that they are
        known is seen by their ids.

        Raises:
            SourceUnreachableError: It cannot be read.
        """
        try:
            engine = create_engine(self.url, poolclass=None)
        except (ArgumentError, ImportError) as error:
            raise SourceUnreachableError("no database of that URL can be opened here") from error
        try:
            count, newest = 0, last
            for row in self._rows(engine, last):
                to.write(json.dumps(row, ensure_ascii=False, default=_plain).encode() + b"\n")
                newest = str(_plain(row[self.watermark]))
                count += 1
        except NoSuchTableError as error:
            raise SourceUnreachableError("the table is not there") from error
        except SQLAlchemyError as error:
            raise SourceUnreachableError(
                f"the table cannot be read: {type(error).__name__}"
            ) from error
        finally:
            engine.dispose()
        return count, newest

    def _rows(self, engine: Any, last: str) -> Iterator[dict[str, Any]]:
        schema, _, name = self.table.rpartition(".")
        with engine.connect() as connection:
            table = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
            if self.watermark not in table.c:
                raise SourceUnreachableError("the table has no column of the watermark's name")
            column = table.c[self.watermark]
            query = select(table).order_by(column)
            if last:
                query = query.where(column >= _typed(column.type.python_type, last))
            streamed = connection.execution_options(yield_per=_FETCHED)
            for row in streamed.execute(query).mappings():
                yield dict(row)


def _typed(kind: type, text: str) -> Any:
    """A watermark as its column holds it."""
    if kind is int:
        return int(text)
    if kind is datetime:
        return datetime.fromisoformat(text)
    if kind is date:
        return date.fromisoformat(text[:10])
    return text


def _plain(value: object) -> object:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case bytes():
            return value.hex()
        case _:
            return value
