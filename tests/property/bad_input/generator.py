"""Makes bad requests for any method from its descriptor: wrong, huge, deep, broken, hostile.

The same seed gives the same inputs. What could be somebody's name, number, phone or address carries
MARKER, which no error and no log may repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

__all__ = ["MARKER", "BadInputs"]

MARKER: Final = "蔺暮雪7f3a"

DEPTH_MAX: Final = 6
_PATIENT_FIELDS: Final = frozenset(
    {"name", "phone", "address", "value", "department", "display", "dosage", "birth_date"}
)
_STRINGS: Final = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "\r\nfenhe-code: OK",
    "\u202egnp.exe",
    "\u2066hidden\u2069",
    "\ufeff",
    "\U000e0001",
    "é\u0301\u0301\u0301\u0301" * 40,
    "'; DROP TABLE residents; --",
    "' OR '1'='1",
    "1) UNION SELECT value FROM identifiers --",
    "%' ESCAPE '\\",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "../../../../etc/passwd",
    "/etc/shadow",
    "file:///proc/self/environ",
    "C:\\windows\\system32",
    "${jndi:ldap://x/a}",
    "{{7*7}}",
    "%s%s%n%x",
    "$(reboot)",
    "`id`",
    "-1",
    "0",
    "NaN",
    "1e309",
    "9" * 400,
    "11010519491231002X",
    "110105194912310021",
    "110105194902310028",
    "00000000-0000-0000-0000-000000000000",
    "018f6b3e-0000-7000-8000-00000000000g",
    "018F6B3E-0000-7000-8000-000000000001",
    "018f6b3e-0000-7000-8000-000000000001",
    "2024-02-30",
    "0000-00-00",
    "9999-12-31",
    "2020-03-04",
    "2020-03-04T00:00:00Z",
    "1410",
    "141002",
    "14100",
    "999999999999",
    "٤٢",
    "null",
    "W10=",
    "WyIiLCIiLCIiXQ==",
    "WyJcdWQ4MDAiLCJiIiwiYyJd",
    "SELECT * FROM residents",
    "SELECT COUNT(*) FROM observations",
    "SELECT (((((((((((((((((((1)))))))))))))))))))",
    "SELECT COUNT(*) FROM residents WHERE sex = 'x' OR 1=1; DELETE FROM audit",
    "identity_number",
    "health_card",
    "male",
    "8480-6",
    "E11.9",
)
_INTEGERS: Final = (0, 1, -1, 2, 7, 127, 128, 255, 256, 500, 501, 65536, 2**31 - 1, -(2**31))
_LONGS: Final = (*_INTEGERS, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, -(2**63))
_FLOATS: Final = (0.0, -0.0, 1.5, -1e308, 1e308, math.nan, math.inf, -math.inf, 5e-324)
_LENGTHS: Final = (64, 65, 200, 1_000, 9_000, 70_000)

_F = FieldDescriptor
_SIGNED_32: Final = {_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32}
_UNSIGNED_32: Final = {_F.TYPE_UINT32, _F.TYPE_FIXED32}
_SIGNED_64: Final = {_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64}
_UNSIGNED_64: Final = {_F.TYPE_UINT64, _F.TYPE_FIXED64}


class BadInputs:
    """Requests as bytes, without end."""

    def __init__(self, request: Descriptor, others: Sequence[Descriptor], seed: str) -> None:
        """`others`: kinds of message that are sent where they do not belong."""
        self._request = request
        self._others = tuple(others)
        self._random = Random(seed)
        self._ways: tuple[tuple[int, Callable[[], bytes]], ...] = (
            (66, self._shaped),
            (16, self._damaged),
            (8, self._of_another_kind),
            (4, self._noise),
            (4, self._nested),
            (1, self._long),
        )

    def __iter__(self) -> Iterator[bytes]:
        weights = [weight for weight, _ in self._ways]
        ways = [way for _, way in self._ways]
        while True:
            yield self._random.choices(ways, weights)[0]()

    def _shaped(self) -> bytes:
        """A message of the right kind with wrong values in it."""
        return self._message(self._request, 0).SerializeToString()

    def _damaged(self) -> bytes:
        """Such a message with bytes cut off, turned over or put in; also text that is no UTF-8."""
        data = bytearray(self._shaped())
        for _ in range(self._random.randint(1, 6)):
            if not data:
                return b"\xff\xff\xff"
            at = self._random.randrange(len(data))
            match self._random.randrange(4):
                case 0:
                    data[at] ^= 1 << self._random.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = self._random.randbytes(self._random.randint(1, 4))
                case _:
                    data[at] = self._random.choice((0x80, 0xC0, 0xED, 0xFF))
        return bytes(data)

    def _of_another_kind(self) -> bytes:
        return self._message(self._random.choice(self._others), 0).SerializeToString()

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randint(0, 300))

    def _nested(self) -> bytes:
        """One field within itself, deeper than any parser goes; or groups that never end."""
        depth = self._random.choice((50, 99, 101, 400))
        number = self._random.randint(1, 12)
        if self._random.random() < 0.3:
            return bytes([number << 3 | 3]) * depth
        data = b""
        for _ in range(depth):
            data = bytes([number << 3 | 2]) + _varint(len(data)) + data
        return data

    def _long(self) -> bytes:
        """More than the method takes: one long text, or very many small things."""
        if self._random.random() < 0.5:
            return b"\x0a" + _varint(1_200_000) + b"x" * 1_200_000
        return b"\x12\x00" * 20_000

    def _message(self, kind: Descriptor, depth: int) -> Message:
        made = GetMessageClass(kind)()
        for field in kind.fields:
            if self._random.random() < 0.25:
                continue
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                self._fill_map(made, field)
            elif field.is_repeated:
                self._fill_list(made, field, depth)
            elif field.type == _F.TYPE_MESSAGE:
                if depth < DEPTH_MAX:
                    part = self._message(_kind_of(field), depth + 1)
                    getattr(made, field.name).CopyFrom(part)
            else:
                setattr(made, field.name, self._value(field))
        return made

    def _fill_list(self, made: Message, field: FieldDescriptor, depth: int) -> None:
        count = self._random.choice((0, 1, 1, 2, 3, 30))
        for _ in range(count if depth < DEPTH_MAX else 0):
            if field.type == _F.TYPE_MESSAGE:
                getattr(made, field.name).add().CopyFrom(self._message(_kind_of(field), depth + 2))
            else:
                getattr(made, field.name).append(self._value(field))

    def _fill_map(self, made: Message, field: FieldDescriptor) -> None:
        parts = _kind_of(field).fields_by_name
        if parts["value"].type == _F.TYPE_MESSAGE:
            return
        for _ in range(self._random.randint(0, 3)):
            key, value = self._value(parts["key"]), self._value(parts["value"])
            getattr(made, field.name)[key] = value

    def _value(self, field: FieldDescriptor) -> Any:
        kind, random = field.type, self._random
        if kind == _F.TYPE_STRING:
            return self._text(field.name)
        if kind == _F.TYPE_BYTES:
            return random.choice((b"", b"\xff\xfe", b"{" * 900, random.randbytes(40), b"[" * 5000))
        if kind == _F.TYPE_ENUM:
            return random.choice((0, 1, 2, 3, 99, -1, 2**31 - 1))
        if kind == _F.TYPE_BOOL:
            return random.random() < 0.5
        if kind in _SIGNED_32:
            return random.choice(_INTEGERS)
        if kind in _UNSIGNED_32:
            return abs(random.choice(_INTEGERS))
        if kind in _SIGNED_64:
            return random.choice(_LONGS)
        if kind in _UNSIGNED_64:
            return random.choice((*map(abs, _LONGS[:-1]), 2**64 - 1))
        return random.choice(_FLOATS) if kind == _F.TYPE_DOUBLE else 1.5

    def _text(self, name: str) -> str:
        text = self._random.choice(_STRINGS)
        if self._random.random() < 0.08:
            text = (text or "长") * (self._random.choice(_LENGTHS) // max(len(text), 1) + 1)
        if name in _PATIENT_FIELDS and self._random.random() < 0.7:
            text += MARKER
        return text


def _kind_of(field: FieldDescriptor) -> Descriptor:
    kind = field.message_type
    assert kind is not None
    return kind


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
