"""Comparisons: how far two values agree, as one of the levels of their kind.

A level is a small integer; 0 is always "missing" (no evidence), 1 "different", the last "exact".
The order of the levels between carries no meaning: what each is worth is learnt. Each comparison is
symmetric by construction: where a measure depends on the order of its arguments (Jaro's greedy
assignment does), a pair is put in one order first.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import OSA, JaroWinkler

from node.empi.forms import is_identity_number, name_words, shared_area_part
from node.empi.kinds import FieldKind
from node.empi.pinyin import is_chinese

__all__ = ["DIFFERENT", "LEVELS", "MISSING", "FormTable", "compare_forms", "level_of"]

MISSING: Final = 0
DIFFERENT: Final = 1

Levels = NDArray[np.uint8]
Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

_NAME: Final = ("missing", "different", "similar", "close", "near", "sound", "swapped", "exact")
_TEXT: Final = (
    "missing", "different", "similar", "close", "near", "street", "core", "swapped", "exact",
)  # fmt: skip
_EDIT: Final = ("missing", "different", "part", "two_off", "one_off", "exact")
_PLAIN: Final = ("missing", "different", "one_off", "exact")
LEVELS: Final = MappingProxyType({
    FieldKind.GIVEN_NAME: _NAME,
    FieldKind.SURNAME: _NAME,
    FieldKind.FULL_NAME: _NAME,
    FieldKind.ADDRESS: _TEXT,
    FieldKind.FREE: _TEXT,
    FieldKind.DATE: (
        "missing", "different", "part", "two_digits", "one_digit", "year_off", "swapped", "exact",
    ),
    FieldKind.IDENTIFIER: (
        "missing", "different", "conflict", "part", "two_off", "one_off", "area", "exact",
    ),
    FieldKind.PHONE: _EDIT,
    FieldKind.POSTCODE: _EDIT,
    FieldKind.NUMBER: _PLAIN,
    FieldKind.CATEGORY: _PLAIN,
})  # fmt: skip
"""By kind, the names of the levels.

Names: exact; swapped (each stands in the other's column); sound (the same pinyin, the same letters,
or the same words in another order); near (one edit); close (two edits, or Jaro–Winkler ≥ 0.92);
similar (≥ 0.84, or an initial of the other). Addresses: core (the same without province, city and
county, or the same words in another order), street (the same without numbers). Dates: swapped day
and month; the year off by one; one digit, or two neighbours exchanged; two digits; two of three
parts. Identifiers: area (an identity number whose area is another of Linfen's), part (one half of
it), conflict (two identity numbers, each with a sound check character). Of several that hold, the
rightmost is taken.
"""


def level_of(kind: FieldKind, name: str) -> int:
    """The number of a level."""
    return LEVELS[kind].index(name)


@dataclass(frozen=True, slots=True)
class FormTable:
    """Forms to be compared, with what is known of each by itself.

    Attributes:
        texts: Of each form, shape (forms,), str.
        seconds: The same.
        features: Integers of each form, shape (forms, n) by kind; see `_features`.
    """

    texts: NDArray[np.object_]
    seconds: NDArray[np.object_]
    features: NDArray[np.int64]

    @classmethod
    def of(cls, kind: FieldKind, texts: Sequence[str], seconds: Sequence[str]) -> FormTable:
        """The table of some forms of a kind."""
        made = [_features(kind, *form) for form in zip(texts, seconds, strict=True)]
        width = _WIDTHS[kind]
        return cls(
            np.array([*texts, ""], dtype=object)[:-1],
            np.array([*seconds, ""], dtype=object)[:-1],
            np.array(made, dtype=np.int64).reshape(len(made), width),
        )


_DIGITS: Final = str.maketrans("", "", "0123456789")


@lru_cache(maxsize=65_536)
def _features(kind: FieldKind, text: str, second: str) -> tuple[int, ...]:
    """Equality of text, equality of second, an order, the two lengths; then those of the kind."""
    first = (hash(text), hash(second), zlib.crc32(second.encode()), len(text), len(second))
    match kind:
        case FieldKind.GIVEN_NAME | FieldKind.SURNAME | FieldKind.FULL_NAME:
            initial = ord(second[0]) if second else 0
            return (*first, is_chinese(text), initial, hash(name_words(text)))
        case FieldKind.ADDRESS | FieldKind.FREE:
            bare = second.translate(_DIGITS)
            return (*first, hash(bare) if len(bare) >= 3 else hash(text), bare != second)
        case FieldKind.DATE:
            whole = int(text) if len(text) == 8 and text.isdecimal() else -1
            return (*first, whole // 10_000, whole // 100 % 100, whole % 100, whole >= 0)
        case FieldKind.IDENTIFIER:
            area = shared_area_part(text)
            return (*first, *_halves(text), is_identity_number(text), hash(area), area != "")
        case _:
            return (*first, *_halves(text))


def _halves(text: str) -> tuple[int, int]:
    """Hashes of the first and the last half; the whole text's, where it is short."""
    middle = (len(text) + 1) // 2
    if len(text) < 4:
        return hash(text), hash(text)
    return hash(text[:middle]), hash(text[-middle:])


_WIDTHS: Final = {kind: len(_features(kind, "", "")) for kind in FieldKind}


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of forms, each in one order, whichever side they came from."""

    one: FormTable
    other: FormTable
    left: Ids
    right: Ids

    def same(self, feature: int) -> Flags:
        return np.asarray(self.a(feature) == self.b(feature))

    def a(self, feature: int) -> Ids:
        return np.asarray(self.one.features[self.left, feature])

    def b(self, feature: int) -> Ids:
        return np.asarray(self.other.features[self.right, feature])

    def both(self, feature: int) -> Flags:
        return np.asarray((self.a(feature) != 0) & (self.b(feature) != 0))

    def shorter(self, feature: int) -> Ids:
        return np.asarray(np.minimum(self.a(feature), self.b(feature)))

    def edits(self, most: int, *, second: bool = False) -> Levels:
        """Edits (two neighbours exchanged are one) of each pair; `most` + 1 if there are more."""
        table = (self.one.seconds, self.other.seconds) if second else (
            self.one.texts, self.other.texts
        )  # fmt: skip
        found: Any = process.cpdist(
            table[0][self.left].tolist(),
            table[1][self.right].tolist(),
            scorer=OSA.distance,
            score_cutoff=most,
            dtype=np.int32,
        )
        return np.asarray(found).astype(np.uint8)

    def likeness(self, *, second: bool = False) -> NDArray[np.float32]:
        """Jaro–Winkler of each pair; 0 below 0.84."""
        table = (self.one.seconds, self.other.seconds) if second else (
            self.one.texts, self.other.texts
        )  # fmt: skip
        a, b = table[0][self.left], table[1][self.right]
        turned = self.a(_ORDER) > self.b(_ORDER)
        found: Any = process.cpdist(
            np.where(turned, b, a).tolist(),
            np.where(turned, a, b).tolist(),
            scorer=JaroWinkler.similarity,
            score_cutoff=0.84,
            dtype=np.float32,
        )
        return np.asarray(found)


_TEXT_EQUAL, _SECOND_EQUAL, _ORDER, _TEXT_LENGTH, _SECOND_LENGTH, _OWN = range(6)


def compare_forms(
    kind: FieldKind, one: FormTable, other: FormTable, left: Ids, right: Ids
) -> Levels:
    """Levels of pairs of forms, none of them missing.

    Args:
        kind: How they are compared.
        one: The forms of the left side.
        other: Those of the right side.
        left: Places in `one`, one a pair.
        right: Places in `other`.
    """
    pairs = _Pairs(one, other, left, right)
    levels = np.full(len(left), DIFFERENT, dtype=np.uint8)
    if not len(left):
        return levels
    match kind:
        case FieldKind.GIVEN_NAME | FieldKind.SURNAME | FieldKind.FULL_NAME:
            rules = _names(pairs)
        case FieldKind.ADDRESS | FieldKind.FREE:
            rules = _texts(pairs)
        case FieldKind.DATE:
            rules = _dates(pairs)
        case FieldKind.IDENTIFIER:
            rules = _identifiers(pairs)
        case FieldKind.PHONE | FieldKind.POSTCODE | FieldKind.NUMBER | FieldKind.CATEGORY:
            rules = _edited(pairs)
    rules["exact"] = pairs.same(_TEXT_EQUAL)
    for number, name in enumerate(LEVELS[kind]):
        if name in rules:
            levels[rules[name]] = number
    return levels


def _names(pairs: _Pairs) -> dict[str, Flags]:
    like, edits = pairs.likeness(second=True), pairs.edits(2, second=True)
    characters = pairs.edits(1)
    long = pairs.shorter(_SECOND_LENGTH)
    enough = np.where(pairs.both(_OWN), 3, 4)
    initial = (long == 1) & pairs.same(_OWN + 1)
    return {
        "similar": (like >= 0.84) | initial,
        "close": (like >= 0.92) | ((edits == 2) & (long >= 6)),
        "near": ((edits <= 1) & (long >= 4))
        | ((characters <= 1) & (pairs.shorter(_TEXT_LENGTH) >= enough)),
        "sound": pairs.same(_SECOND_EQUAL) | pairs.same(_OWN + 2),
    }


def _texts(pairs: _Pairs) -> dict[str, Flags]:
    like = np.maximum(pairs.likeness(), pairs.likeness(second=True))
    edits = np.minimum(pairs.edits(3), pairs.edits(3, second=True))
    long = pairs.shorter(_TEXT_LENGTH)
    numbered = (pairs.a(_OWN + 1) != 0) | (pairs.b(_OWN + 1) != 0)
    return {
        "similar": like >= 0.84,
        "close": (like >= 0.92) | ((edits <= 3) & (long >= 9)),
        "near": ((edits <= 2) & (long >= 6)) | ((edits <= 1) & (long >= 4)),
        "street": pairs.same(_OWN) & numbered,
        "core": pairs.same(_SECOND_EQUAL),
    }


def _dates(pairs: _Pairs) -> dict[str, Flags]:
    year, month, day, known = range(_OWN, _OWN + 4)
    both, edits = pairs.both(known), pairs.edits(2)
    same = [pairs.same(part) for part in (year, month, day)]
    crossed = (pairs.a(month) == pairs.b(day)) & (pairs.a(day) == pairs.b(month))
    return {
        "part": both & (np.sum(same, axis=0) == 2),
        "two_digits": edits == 2,
        "one_digit": edits <= 1,
        "year_off": both & (np.abs(pairs.a(year) - pairs.b(year)) == 1) & same[1] & same[2],
        "swapped": both & same[0] & crossed,
    }


def _identifiers(pairs: _Pairs) -> dict[str, Flags]:
    # A slip breaks the check character: two sound numbers are near by birth, not by a slip.
    sound = pairs.both(_OWN + 2)
    rules = {name: flags & ~sound for name, flags in _edited(pairs).items()}
    rules["conflict"] = sound
    rules["area"] = pairs.both(_OWN + 4) & pairs.same(_OWN + 3)
    return rules


def _edited(pairs: _Pairs) -> dict[str, Flags]:
    edits, long = pairs.edits(2), pairs.shorter(_TEXT_LENGTH)
    return {
        "part": (long >= 4) & (pairs.same(_OWN) | pairs.same(_OWN + 1)),
        "two_off": (edits == 2) & (long >= 4),
        "one_off": (edits <= 1) & (long >= 2),
    }
