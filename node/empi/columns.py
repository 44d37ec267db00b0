"""Columns of values as numbers: each distinct form once, with the codes that blocking joins on.

A vocabulary serves one field for both sides (and for the index), so equality is equality of two
integers, and a form is made and hashed once however often it occurs.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.compare import FormTable
from node.empi.forms import Form, form_of, skeleton
from node.empi.kinds import FieldKind

__all__ = ["MISSING_ID", "NAME_KINDS", "TEXT_KINDS", "Vocabulary", "code_count"]

MISSING_ID: Final = -1
NAME_KINDS: Final = frozenset({FieldKind.GIVEN_NAME, FieldKind.SURNAME, FieldKind.FULL_NAME})
TEXT_KINDS: Final = frozenset({FieldKind.ADDRESS, FieldKind.FREE})

Ids = NDArray[np.int32]
Codes = NDArray[np.uint32]


def code_count(kind: FieldKind) -> int:
    """How many blocking codes a value of a kind has. The first is the finest and implies all."""
    match kind:
        case FieldKind.DATE | FieldKind.IDENTIFIER:
            return 3
        case FieldKind.POSTCODE | FieldKind.NUMBER | FieldKind.CATEGORY:
            return 1
        case _:
            return 2


def _parts(kind: FieldKind, form: Form) -> tuple[str, ...]:
    """What the codes of a value are made of; equal parts, equal codes."""
    text, second = form
    match kind:
        case FieldKind.GIVEN_NAME | FieldKind.SURNAME | FieldKind.FULL_NAME:
            return second, skeleton(second)
        case FieldKind.ADDRESS | FieldKind.FREE:
            words = re.sub(r"\d+|[号室单元]", "", text if second.isascii() else second)
            return second, "".join(sorted(words.split())) or second
        case FieldKind.DATE:
            days = "".join(sorted((text[4:6], text[6:8])))
            return f"{text[:4]}{days}", text[:6], days
        case FieldKind.IDENTIFIER:
            middle = len(text) // 2
            return text, text[:middle], text[middle:]
        case FieldKind.PHONE:
            return text, text[-6:]
        case FieldKind.POSTCODE | FieldKind.NUMBER | FieldKind.CATEGORY:
            return (text,)


class Vocabulary:
    """The distinct forms of a field, numbered in the order in which they were first seen.

    Args:
        kind: Of the field.
        space: Codes of fields with the same space are equal for equal values, so that values in
            each other's column meet.
    """

    def __init__(self, kind: FieldKind, space: str) -> None:
        self.kind = kind
        self.texts: list[str] = []
        self.seconds: list[str] = []
        self._space = space
        self._ids: dict[str, int] = {}
        self._raw: dict[str, int] = {}
        self._table: FormTable | None = None
        self._codes: Codes = np.zeros((64, code_count(kind)), dtype=np.uint32)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def codes(self) -> Codes:
        """Codes by id, shape (size, code_count); never 0."""
        return self._codes[: len(self.texts)]

    def table(self) -> FormTable:
        """All forms, for comparison; kept until one is added."""
        if self._table is None or len(self._table.texts) != len(self.texts):
            self._table = FormTable.of(self.kind, self.texts, self.seconds)
        return self._table

    def encode(self, values: Iterable[str | None]) -> Ids:
        """Ids of values, new forms added; -1 where a value is missing."""
        raw, learn = self._raw, self._learn
        return np.fromiter(
            (
                MISSING_ID if value is None else (raw[value] if value in raw else learn(value))
                for value in values
            ),
            dtype=np.int32,
        )

    def form(self, number: int) -> Form:
        """The form of an id."""
        return Form(self.texts[number], self.seconds[number])

    def memory_bytes(self) -> int:
        """What the forms, their numbers and their codes take."""
        own = (b for a, b in zip(self.texts, self.seconds, strict=True) if a is not b)
        return (
            sum(map(sys.getsizeof, self.texts))
            + sum(map(sys.getsizeof, own))
            + sum(map(sys.getsizeof, (self.texts, self.seconds, self._ids)))
            # Numbers are objects of their own.
            + 32 * len(self.texts)
            + self._codes.nbytes
        )

    def number_of(self, text: str) -> int | None:
        """The id of a form's text; None if it is not known."""
        return self._ids.get(text)

    def codes_of(self, form: Form) -> Codes:
        """The codes of a form, known or not."""
        return np.array(
            [
                zlib.crc32(f"{self._space}\x1f{place}\x1f{part}".encode()) or 1
                for place, part in enumerate(_parts(self.kind, form))
            ],
            dtype=np.uint32,
        )

    def _learn(self, value: str) -> int:
        form = form_of(self.kind, value)
        number = MISSING_ID if form is None else self.add(form)
        self._raw[value] = number
        return number

    def add(self, form: Form) -> int:
        """The id of a form, which is added if it is new."""
        number = self._ids.get(form.text)
        if number is None:
            number = self._ids[form.text] = len(self.texts)
            self.texts.append(form.text)
            # Most seconds are the text itself: one string serves both.
            self.seconds.append(form.text if form.second == form.text else form.second)
            if number == len(self._codes):
                self._codes = np.concatenate([self._codes, np.zeros_like(self._codes)])
            self._codes[number] = self.codes_of(form)
        return number


def spaces_of(names: Sequence[str], kinds: Sequence[FieldKind]) -> list[str]:
    """The space of each field: one for all names, one for all addresses, else its own."""
    shared = {**dict.fromkeys(NAME_KINDS, "name"), **dict.fromkeys(TEXT_KINDS, "text")}
    return [shared.get(kind, f"field {name}") for name, kind in zip(names, kinds, strict=True)]
