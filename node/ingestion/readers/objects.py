"""JSON: a resource or row a line (NDJSON), or the entries of one FHIR Bundle, as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

from node.ingestion.errors import ContentUnreadableError, IntakeExtraMissingError
from node.ingestion.model import Trouble, Unit
from node.ingestion.readers.lines import LineSource

__all__ = ["BundleReader", "NdjsonReader", "RowsReader"]

OBJECT_BYTES_MAX: Final = 8 << 20
_SHOWN: Final = 400
_DEPTH_MAX: Final = 64
_HEADER_ROWS: Final = 100


def _loads() -> Any:
    try:
        import orjson
    except ImportError as error:
        raise IntakeExtraMissingError("JSON is read by orjson") from error
    return orjson.loads


class NdjsonReader:
    """An object a line; blank lines are none. NaN and Infinity are no JSON."""

    header: tuple[str, ...] = ()

    def __init__(self, stream: BinaryIO, encoding: str = "auto") -> None:
        self._source = LineSource(stream, encoding, OBJECT_BYTES_MAX)
        self._loads = _loads()
        self.truncated = False

    @property
    def encoding(self) -> str:
        """What it is decoded from."""
        return self._source.encoding

    def __iter__(self) -> Iterator[Unit]:
        number = 0
        loads = self._loads
        for line in self._source:
            if not line.rule and (not line.text or line.text.isspace()):
                continue
            number += 1
            if line.rule:
                yield Unit(number, line.number, raw=line.text, troubles=(Trouble(line.rule, ""),))
                continue
            try:
                found = loads(line.text)
            except ValueError:
                found = None
            if isinstance(found, dict) and _is_shallow(found):
                yield Unit(number, line.number, whole=found)
                continue
            self.truncated = self.truncated or not line.ended
            yield Unit(
                number, line.number, raw=line.text[:_SHOWN], troubles=(Trouble("LINE_BROKEN", ""),)
            )


class RowsReader:
    """Flat objects, a line each, as rows; the header is every name in the first hundred."""

    def __init__(self, stream: BinaryIO, encoding: str = "auto") -> None:
        first = NdjsonReader(stream, encoding)
        names: dict[str, None] = {}
        for unit, _ in zip(first, range(_HEADER_ROWS), strict=False):
            names.update(dict.fromkeys(unit.whole or ()))
        self.header = tuple(names)
        stream.seek(0)
        self._reader = NdjsonReader(stream, encoding)

    @property
    def encoding(self) -> str:
        """What it is decoded from."""
        return self._reader.encoding

    @property
    def truncated(self) -> bool:
        """Whether its last line was cut."""
        return self._reader.truncated

    def __iter__(self) -> Iterator[Unit]:
        from node.ingestion.mapper import cells_of

        for unit in self._reader:
            if unit.whole is not None:
                if any(isinstance(value, dict | list) for value in unit.whole.values()):
                    unit.troubles = (Trouble("COLUMNS_WRONG", ""),)
                    unit.raw = str(unit.whole)[:_SHOWN]
                unit.cells, unit.whole = cells_of(self.header, unit.whole), None
            yield unit


class BundleReader:
    """The resources of a Bundle's entries, in their order."""

    header: tuple[str, ...] = ()
    encoding = "utf-8"

    def __init__(self, stream: BinaryIO) -> None:
        try:
            import ijson
        except ImportError as error:
            raise IntakeExtraMissingError("Bundles are read by ijson") from error
        self._ijson = ijson
        self._stream = stream
        self.truncated = False
        head = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not head.startswith(b"{"):
            raise ContentUnreadableError("no JSON object")
        stream.seek(3 if _has_mark(stream) else 0)

    def __iter__(self) -> Iterator[Unit]:
        number = 0
        ijson = self._ijson
        events = ijson.items(self._stream, "entry.item", use_float=True)
        while True:
            try:
                entry = next(events, None)
            except (ijson.JSONError, UnicodeDecodeError, ValueError, RecursionError):
                # What follows cannot be told apart any more: one unit stands for it.
                self.truncated = True
                yield Unit(number + 1, troubles=(Trouble("LINE_BROKEN", f"entry[{number}]"),))
                return
            if entry is None:
                return
            number += 1
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict) or not _is_shallow(resource):
                yield Unit(number, troubles=(Trouble("LINE_BROKEN", f"entry[{number - 1}]"),))
                continue
            full = str(entry.get("fullUrl", ""))
            if full.startswith("urn:uuid:") and not resource.get("id"):
                resource["id"] = full.removeprefix("urn:uuid:")
            yield Unit(number, whole=resource)


def _has_mark(stream: BinaryIO) -> bool:
    stream.seek(0)
    return stream.read(3) == b"\xef\xbb\xbf"


def _is_shallow(found: Mapping[str, Any]) -> bool:
    """Whether its nesting is within what anybody writes."""
    level: list[Any] = [found]
    for _ in range(_DEPTH_MAX):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False
