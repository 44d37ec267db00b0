"""Excel workbooks (.xlsx), read row by row. A workbook is a ZIP file that anybody may have made.

Its directory is judged before anything is unpacked: number of parts, their sizes and ratios. Days
come out as ISO; a number comes out as Excel shows it to a program, so an identifier that lost its
leading zeros comes short, which the mapping's `length` finds.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, BinaryIO, Final

from node.ingestion.errors import (
    ContentDangerousError,
    ContentUnreadableError,
    IntakeExtraMissingError,
)
from node.ingestion.model import Trouble, Unit
from node.ingestion.readers.table_text import COLUMNS_MAX, header_of

__all__ = ["WorkbookReader", "judge_archive"]

PARTS_MAX: Final = 2000
# Sheets are read row by row; every other part (texts, styles, theme) is held as a whole.
SHEET_BYTES_MAX: Final = 1 << 30
PART_BYTES_MAX: Final = 64 << 20
TOTAL_BYTES_MAX: Final = 2 << 30
RATIO_MAX: Final = 200
_RATIO_FROM: Final = 1 << 20
_SHEETS: Final = "xl/worksheets/"
_PACKINGS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_SHOWN: Final = 400
# What openpyxl, zipfile and the XML parser raise on a file that was cut or changed.
_BROKEN: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def judge_archive(stream: BinaryIO) -> None:
    """Refuse what would take more than a node gives.

    Raises:
        ContentUnreadableError: It is no ZIP file.
        ContentDangerousError: A bomb.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            parts = archive.infolist()
    except _BROKEN as error:
        raise ContentUnreadableError("no whole .xlsx file: it may have been cut") from error
    if len(parts) > PARTS_MAX:
        raise ContentDangerousError(f"a workbook of {len(parts)} parts, at most {PARTS_MAX}")
    total = 0
    for part in parts:
        total += part.file_size
        limit = SHEET_BYTES_MAX if part.filename.startswith(_SHEETS) else PART_BYTES_MAX
        packed = max(part.compress_size, 1)
        is_dense = part.file_size > _RATIO_FROM and part.file_size / packed > RATIO_MAX
        if part.file_size > limit or is_dense or total > TOTAL_BYTES_MAX:
            raise ContentDangerousError("a workbook that unpacks to far more than it is")
        if part.flag_bits & 0x1:
            raise ContentUnreadableError("the workbook is encrypted")
        if part.compress_type not in _PACKINGS:
            raise ContentUnreadableError("the workbook is packed in a way that Excel does not use")


class WorkbookReader:
    """The units of one sheet; its first row is the header."""

    encoding = "utf-8"
    truncated = False

    def __init__(self, stream: BinaryIO, sheet: str = "") -> None:
        judge_archive(stream)
        stream.seek(0)
        self._book = _open(stream)
        names = self._book.sheetnames
        if sheet and sheet not in names:
            raise ContentUnreadableError("the workbook has no sheet of the mapping's name")
        if not names:
            raise ContentUnreadableError("the workbook has no sheet")
        chosen = self._book[sheet] if sheet else self._book.worksheets[0]
        self._rows = _guarded(chosen.iter_rows(values_only=True, max_col=COLUMNS_MAX))
        first = next(self._rows, None)
        if first is None or isinstance(first, Unit):
            raise ContentUnreadableError("no header in the sheet's first row")
        self._width = _width(first)
        self.header = header_of([_cell(value) for value in first[: self._width]])

    def __iter__(self) -> Iterator[Unit]:
        number = 0
        width = self._width
        for line, row in enumerate(self._rows, start=2):
            if isinstance(row, Unit):
                row.number, row.line = number + 1, line
                self.truncated = True
                yield row
                return
            if all(value is None for value in row):
                continue
            number += 1
            cells = tuple(_cell(value) for value in row)
            if any(cells[width:]):
                shown = ",".join(cells)[:_SHOWN]
                trouble = Trouble("COLUMNS_WRONG", "", str(_width(row)))
                yield Unit(number, line, raw=shown, troubles=(trouble,))
                continue
            yield Unit(number, line, cells[:width] + ("",) * (width - len(cells)))


def _open(stream: BinaryIO) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise IntakeExtraMissingError("workbooks are read by openpyxl") from error
    try:
        return openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
    except _BROKEN as error:
        raise ContentUnreadableError("no workbook that can be read") from error


def _guarded(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...] | Unit]:
    """The rows; one unit with a trouble where the sheet's XML or its packing breaks off."""
    while True:
        try:
            row = next(rows, None)
        except _BROKEN:
            yield Unit(0, troubles=(Trouble("LINE_BROKEN", ""),))
            return
        if row is None:
            return
        yield row


def _width(row: tuple[Any, ...]) -> int:
    filled = [i for i, value in enumerate(row, start=1) if value is not None]
    return filled[-1] if filled else 0


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
        case date():
            return value.isoformat()
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case _:
            return str(value)
