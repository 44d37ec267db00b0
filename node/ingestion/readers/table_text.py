"""CSV and its relatives: header, delimiter, rows. One record is one unit.

The module csv does the parsing; this file bounds what it is given and puts it back on its feet
after a quotation mark that nobody closed: then the first line of the broken record is one unit,
and reading goes on with the next line.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from node.ingestion.errors import ContentUnreadableError
from node.ingestion.model import Trouble, Unit
from node.ingestion.readers.lines import Line, LineSource

__all__ = ["COLUMNS_MAX", "CsvReader", "header_of"]

COLUMNS_MAX: Final = 4096
LINES_A_RECORD: Final = 64
_DELIMITERS: Final = (",", "\t", ";", "|", "，")
_SAMPLE_LINES: Final = 20
_SHOWN: Final = 400


class CsvReader:
    """The units of a delimited text.

    Raises:
        ContentUnreadableError: It has no header, or one with a name twice.
    """

    def __init__(self, stream: BinaryIO, encoding: str = "auto", delimiter: str = "auto") -> None:
        self._source = LineSource(stream, encoding)
        self._lines: Iterator[Line] = iter(self._source)
        self._waiting: deque[Line] = deque()
        sample = self._sample()
        self.delimiter = _delimiter(sample) if delimiter == "auto" else _named(delimiter)
        self.truncated = False
        first = next(self._records(), None)
        if first is None or first.troubles:
            raise ContentUnreadableError("no header in its first line")
        self.header = header_of(first.cells)

    @property
    def encoding(self) -> str:
        """What it is decoded from, as far as it was read."""
        return self._source.encoding

    def __iter__(self) -> Iterator[Unit]:
        columns = len(self.header)
        number = 0
        for unit in self._records():
            if not unit.cells and not unit.troubles:
                continue
            number += 1
            unit.number = number
            if not unit.troubles and len(unit.cells) != columns:
                unit.troubles = (Trouble("COLUMNS_WRONG", "", str(len(unit.cells))),)
                unit.raw = self.delimiter.join(unit.cells)[:_SHOWN]
                self.truncated = self.truncated or (len(unit.cells) < columns and self._at_end())
            yield unit

    def _sample(self) -> list[str]:
        for line in self._lines:
            self._waiting.append(line)
            if len(self._waiting) >= _SAMPLE_LINES:
                break
        return [line.text for line in self._waiting if not line.rule and line.text.strip()]

    def _at_end(self) -> bool:
        if self._waiting:
            return False
        following = next(self._lines, None)
        if following is None:
            return True
        self._waiting.append(following)
        return False

    def _next_line(self) -> Line | None:
        if self._waiting:
            return self._waiting.popleft()
        return next(self._lines, None)

    def _records(self) -> Iterator[Unit]:
        """Records, unnumbered; a blank line is a unit without cells."""
        quote, delimiter = '"', self.delimiter
        while (line := self._next_line()) is not None:
            if line.rule:
                yield Unit(0, line.number, raw=line.text, troubles=(Trouble(line.rule, ""),))
            elif quote not in line.text:
                text = line.text
                cells = text.split(delimiter) if text.strip() else ()
                yield self._bounded(Unit(0, line.number, cells))
            else:
                yield self._quoted(line)

    def _quoted(self, first: Line) -> Unit:
        """A record whose first line has quotation marks: it may go on in the next lines."""
        taken = [first]

        def feed() -> Iterator[str]:
            yield first.text + "\n"
            while len(taken) < LINES_A_RECORD:
                line = self._next_line()
                if line is None:
                    return
                taken.append(line)
                if line.rule:
                    return
                yield line.text + "\n"

        reader = csv.reader(feed(), delimiter=self.delimiter, strict=True)
        try:
            cells = next(reader, None)
        except csv.Error:
            cells = None
        if cells is None:
            self.truncated = self.truncated or self._at_end()
            # The first line is broken; those behind it may be whole.
            self._waiting.extendleft(reversed(taken[1:]))
            return Unit(
                0, first.number, raw=first.text[:_SHOWN], troubles=(Trouble("LINE_BROKEN", ""),)
            )
        return self._bounded(Unit(0, first.number, cells))

    def _bounded(self, unit: Unit) -> Unit:
        if len(unit.cells) > COLUMNS_MAX:
            text = io.StringIO()
            text.write(self.delimiter.join(unit.cells[:40]))
            return Unit(
                0,
                unit.line,
                raw=text.getvalue()[:_SHOWN],
                troubles=(Trouble("LINE_TOO_LONG", "", f"{len(unit.cells)} columns"),),
            )
        return unit


def header_of(cells: Sequence[str]) -> tuple[str, ...]:
    """Column names, trimmed; blank ones are named by their place.

    Raises:
        ContentUnreadableError: A name stands twice: which of the two is meant, nobody can say.
    """
    names = tuple(cell.strip() or f"column {i}" for i, cell in enumerate(cells, start=1))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        shown = ", ".join(name[:40] for name in twice[:5])
        raise ContentUnreadableError(
            f"columns stand twice in the header: {shown}",
            hint="Rename one of each in the export; which is meant cannot be known here.",
        )
    if len(names) > COLUMNS_MAX:
        raise ContentUnreadableError(f"a header of {len(names)} columns, at most {COLUMNS_MAX}")
    return names


def _named(delimiter: str) -> str:
    return {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)[:1]


def _delimiter(sample: Sequence[str]) -> str:
    """The one that parts every line of the sample into the same number of columns, the most."""
    best, score = ",", (-1.0, 0)
    for each in _DELIMITERS:
        counts = [text.count(each) for text in sample]
        if not counts or not counts[0]:
            continue
        alike = sum(count == counts[0] for count in counts) / len(counts)
        if (alike, counts[0]) > score:
            best, score = each, (alike, counts[0])
    return best
