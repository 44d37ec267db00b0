"""Lines of bytes, bounded, and what they are encoded in.

A line ends at LF or CR LF, or at CR where a file mostly uses that (HL7, old Macintoshes). In UTF-8
and GB18030 alike: neither uses those bytes inside a character. UTF-16 is decoded as a stream first.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from node.ingestion.errors import ContentUnreadableError

__all__ = ["LINE_BYTES_MAX", "Line", "LineSource", "detect_encoding"]

LINE_BYTES_MAX: Final = 1 << 20
_SAMPLE_BYTES: Final = 1 << 20
_SHOWN: Final = 400
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KNOWN: Final = frozenset({"utf-8", "gb18030", "utf-16-le", "utf-16-be"})
_SAME: Final = {"utf8": "utf-8", "gbk": "gb18030", "gb2312": "gb18030", "utf-8-sig": "utf-8"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number, its text without its end, and the rule it breaks ("": none)."""

    number: int
    text: str
    rule: str = ""
    ended: bool = True


def detect_encoding(sample: bytes, wanted: str = "auto") -> tuple[str, int]:
    """Encoding and length of the byte order mark.

    Raises:
        ContentUnreadableError: It is none of those read here, or not the one wanted.
    """
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name, len(mark)
    named = _SAME.get(wanted.lower(), wanted.lower())
    if named != "auto":
        if named not in _KNOWN:
            raise ContentUnreadableError("the mapping names an encoding that is not read here")
        return named, 0
    if b"\x00" in sample:
        raise ContentUnreadableError("it holds zero bytes: no text, or UTF-16 without a mark")
    for name in ("utf-8", "gb18030"):
        try:
            codecs.getincrementaldecoder(name)().decode(sample, final=False)
        except UnicodeDecodeError:
            continue
        return name, 0
    # A few broken bytes in a file of one encoding: the one that breaks later.
    return _later(sample), 0


def _later(sample: bytes) -> str:
    reached: dict[str, int] = {}
    for name in ("utf-8", "gb18030"):
        try:
            sample.decode(name)
        except UnicodeDecodeError as error:
            reached[name] = error.start
    best = max(reached, key=lambda name: reached[name])
    if reached[best] < min(64, len(sample) // 2):
        raise ContentUnreadableError("neither UTF-8 nor GB18030")
    return best


@dataclass
class LineSource:
    """The lines of a binary stream, decoded one by one.

    `encoding` may change once: a file that was ASCII so far turns out to be GB18030 at its first
    line that is not.
    """

    stream: BinaryIO
    wanted: str = "auto"
    line_bytes_max: int = LINE_BYTES_MAX
    encoding: str = field(init=False)
    ascii_so_far: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        sample = self.stream.read(_SAMPLE_BYTES)
        self.encoding, mark = detect_encoding(sample, self.wanted)
        self.ascii_so_far = self.wanted == "auto" and sample.isascii()
        self.stream.seek(mark)
        if self.encoding.startswith("utf-16"):
            reader = codecs.getreader(self.encoding)(self.stream, "replace")
            self._raw: Iterator[bytes] = _utf16_lines(reader, self.line_bytes_max)
        else:
            bare = sample.count(b"\r") > 2 * sample.count(b"\r\n")
            buffered = io.BufferedReader(_Raw(self.stream, bare=bare), 1 << 18)
            self._raw = _bytes_lines(buffered, self.line_bytes_max)

    def __iter__(self) -> Iterator[Line]:
        limit = self.line_bytes_max
        for number, raw in enumerate(self._raw, start=1):
            if len(raw) > limit:
                yield Line(number, self._shown(raw), "LINE_TOO_LONG")
                continue
            ended = raw.endswith((b"\n", b"\r"))
            try:
                text = raw.decode(self._text_encoding)
            except UnicodeDecodeError:
                again = self._again(raw)
                if again is None:
                    yield Line(number, self._shown(raw), "ENCODING_WRONG", ended)
                    continue
                text = again
            yield Line(number, text.rstrip("\r\n"), "", ended)

    @property
    def _text_encoding(self) -> str:
        return "utf-8" if self.encoding.startswith("utf-16") else self.encoding

    def _again(self, raw: bytes) -> str | None:
        if not self.ascii_so_far or self.encoding != "utf-8":
            return None
        try:
            text = raw.decode("gb18030")
        except UnicodeDecodeError:
            return None
        self.encoding, self.ascii_so_far = "gb18030", False
        return text

    def _shown(self, raw: bytes) -> str:
        return raw[:_SHOWN].decode(self._text_encoding, errors="replace")


class _Raw(io.RawIOBase):
    """A stream whose reader may be closed without closing it."""

    def __init__(self, stream: BinaryIO, *, bare: bool) -> None:
        """`bare`: a CR alone ends a line, and becomes LF."""
        self._stream = stream
        self._bare = bare

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read(len(view))
        if self._bare:
            data = data.replace(b"\r", b"\n")
        view[: len(data)] = data
        return len(data)


def _bytes_lines(stream: io.BufferedIOBase, limit: int) -> Iterator[bytes]:
    """Lines by LF; of one that is too long its begin, one byte over the limit."""
    while raw := stream.readline(limit + 1):
        if len(raw) <= limit:
            yield raw
            continue
        kept, last = raw, raw
        while not last.endswith(b"\n") and (last := stream.readline(1 << 20)):
            pass
        yield kept


def _utf16_lines(reader: codecs.StreamReader, limit: int) -> Iterator[bytes]:
    held = ""
    dropping = False
    while piece := reader.read(1 << 16):
        *whole, held = (held + piece).split("\n")
        for text in whole:
            if not dropping:
                yield (text + "\n").encode("utf-8", errors="replace")
            dropping = False
        if len(held) > limit:
            if not dropping:
                yield held.encode("utf-8", errors="replace")[: limit + 1].ljust(limit + 1)
            held, dropping = "", True
    if held and not dropping:
        yield held.encode("utf-8", errors="replace")
