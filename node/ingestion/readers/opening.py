"""Which reader reads a content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol, assert_never

from node.ingestion.mapping import MappingModel
from node.ingestion.model import Format, Unit
from node.ingestion.readers.messages import MessageReader
from node.ingestion.readers.objects import BundleReader, NdjsonReader, RowsReader
from node.ingestion.readers.table_text import CsvReader
from node.ingestion.readers.workbook import WorkbookReader

__all__ = ["Opened", "open_reader"]


class Opened(Protocol):
    """A content that is being read."""

    @property
    def header(self) -> tuple[str, ...]:
        """Column names of a table; of others none."""

    @property
    def encoding(self) -> str:
        """What its text is decoded from."""

    @property
    def truncated(self) -> bool:
        """Whether it breaks off in the middle of a unit; known at its end."""

    def __iter__(self) -> Iterator[Unit]:
        """The units, numbered from 1."""


def open_reader(stream: BinaryIO, mapping: MappingModel) -> Opened:
    """A reader of a seekable stream.

    Raises:
        ContentUnreadableError: It is not of the mapping's format.
        ContentDangerousError: It would take more than a node gives.
        IntakeExtraMissingError: The format's library is not installed.
    """
    match mapping.format:
        case Format.CSV:
            return CsvReader(stream, mapping.encoding, mapping.delimiter)
        case Format.XLSX:
            return WorkbookReader(stream, mapping.sheet)
        case Format.ROWS:
            return RowsReader(stream, mapping.encoding)
        case Format.NDJSON:
            return NdjsonReader(stream, mapping.encoding)
        case Format.BUNDLE:
            return BundleReader(stream)
        case Format.HL7:
            return MessageReader(stream, mapping.encoding)
        case _:
            assert_never(mapping.format)
