"""Files of HL7 v2 messages: bare, between MLLP's block characters, or in FHS/BHS batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from node.ingestion.model import Trouble, Unit
from node.ingestion.readers.lines import LineSource

__all__ = ["MESSAGE_CHARACTERS_MAX", "MessageReader"]

MESSAGE_CHARACTERS_MAX: Final = 1 << 20
_SHOWN: Final = 400
_ENVELOPE: Final = ("FHS", "BHS", "BTS", "FTS")


class MessageReader:
    """A message is what stands from one MSH to the next. What stands before the first is a unit."""

    header: tuple[str, ...] = ()

    def __init__(self, stream: BinaryIO, encoding: str = "auto") -> None:
        self._source = LineSource(stream, encoding)
        self.truncated = False

    @property
    def encoding(self) -> str:
        """What it is decoded from."""
        return self._source.encoding

    def __iter__(self) -> Iterator[Unit]:
        for number, unit in enumerate(self._messages(), start=1):
            unit.number = number
            yield unit

    def _messages(self) -> Iterator[Unit]:
        held: list[str] = []
        began, size, rule = 0, 0, ""
        for line in self._source:
            for segment in line.text.replace("\x0b", "\r").replace("\x1c", "\r").split("\r"):
                if not segment.strip() or segment.startswith(_ENVELOPE):
                    continue
                if segment.startswith("MSH") and held:
                    yield _unit(began, held, rule)
                    held, size, rule = [], 0, ""
                if not held:
                    began = line.number
                rule = rule or line.rule
                size += len(segment)
                if size > MESSAGE_CHARACTERS_MAX:
                    rule = "LINE_TOO_LONG"
                if not rule or not held:
                    held.append(segment[:MESSAGE_CHARACTERS_MAX])
        if held:
            yield _unit(began, held, rule)


def _unit(line: int, segments: list[str], rule: str) -> Unit:
    text = "\r".join(segments)
    if rule:
        return Unit(0, line, raw=text[:_SHOWN], troubles=(Trouble(rule, ""),))
    return Unit(0, line, raw=text)
