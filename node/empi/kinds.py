"""What a column holds, recognised from its values and hinted by its name.

The name alone decides nothing: a column called `date` whose values are no dates is compared as
text. The values alone decide where they are plain (dates, categories, Chinese names); the name
tells a surname from a given name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from node.empi.forms import fold, parse_date
from node.empi.pinyin import is_chinese

__all__ = ["FieldKind", "recognise_kind"]

_SAMPLE: Final = 2_000


class FieldKind(StrEnum):
    """How the values of a column are read and compared."""

    GIVEN_NAME = "given_name"
    SURNAME = "surname"
    FULL_NAME = "full_name"
    DATE = "date"
    IDENTIFIER = "identifier"
    PHONE = "phone"
    ADDRESS = "address"
    POSTCODE = "postcode"
    CATEGORY = "category"
    NUMBER = "number"
    FREE = "free"


_HINTS: Final[tuple[tuple[FieldKind, str], ...]] = (
    (FieldKind.DATE, r"date|dob|birth|born|日期|出生|生日"),
    (FieldKind.POSTCODE, r"post_?code|zip|postal|plz|邮编|邮政"),
    (FieldKind.PHONE, r"phone|mobile|tel|cell|电话|手机"),
    (FieldKind.NUMBER, r"(street|house)_?(number|no|num)|门牌|^age$|年龄"),
    (
        FieldKind.IDENTIFIER,
        r"ssn|soc_?sec|identi|_id$|^id_|^id$|nhs|passport|mrn|card|insur|身份证|证件|卡号|编号|medicare",
    ),
    (FieldKind.SURNAME, r"surname|last_?name|family_?name|^lname|_lname|^姓$|姓氏"),
    (FieldKind.GIVEN_NAME, r"given|first_?name|fore_?name|middle_?name|^fname|_fname|^名$|名字"),
    (
        FieldKind.ADDRESS,
        r"addr|street|road|suburb|town|village|city|place|local|地址|住址|住所|户籍",
    ),
    (FieldKind.FULL_NAME, r"name|姓名|名称"),
    (FieldKind.CATEGORY, r"sex|gender|state|province|性别|民族|省"),
)
_TEXT: Final = frozenset(
    {FieldKind.GIVEN_NAME, FieldKind.SURNAME, FieldKind.FULL_NAME, FieldKind.ADDRESS}
)
_ADDRESS_WORDS: Final = re.compile(
    r"[省市县区镇乡村路街号]|\b(street|st|road|rd|avenue|ave|lane)\b"
)


def recognise_kind(name: str, values: Sequence[str]) -> FieldKind:
    """The kind of a column.

    Args:
        name: The column's name; any will do.
        values: Its values without those that are missing, in any order.
    """
    sample = [fold(value) for value in values[:: max(1, len(values) // _SAMPLE)]]
    hints = [kind for kind, words in _HINTS if re.search(words, name.strip().lower())]
    for hint in hints:
        if _agrees(hint, sample):
            return hint
    return _from_values(sample)


def _agrees(kind: FieldKind, sample: Sequence[str]) -> bool:
    """Whether the values can be what the name says."""
    if not sample:
        return True
    digits = _share(sample, lambda text: any(each.isdigit() for each in text))
    match kind:
        case FieldKind.DATE:
            return _share(sample, lambda text: parse_date(text) is not None) >= 0.6
        case FieldKind.CATEGORY:
            return len(set(sample)) <= 60
        case FieldKind.GIVEN_NAME | FieldKind.SURNAME | FieldKind.FULL_NAME:
            return digits <= 0.2
        case FieldKind.PHONE | FieldKind.IDENTIFIER | FieldKind.POSTCODE | FieldKind.NUMBER:
            return digits >= 0.5
        case _:
            return True


def _share(sample: Sequence[str], holds: Callable[[str], bool]) -> float:
    return sum(holds(text) for text in sample) / max(1, len(sample))


def _from_values(sample: Sequence[str]) -> FieldKind:
    """The kind that the values alone speak for."""
    distinct = len(set(sample))
    if not sample:
        return FieldKind.FREE
    if _share(sample, lambda text: parse_date(text) is not None) >= 0.9 and distinct > 12:
        return FieldKind.DATE
    if distinct <= 12 or (distinct <= 60 and len(sample) >= 50 * distinct):
        return FieldKind.CATEGORY
    if _share(sample, lambda text: bool(re.fullmatch(r"\+?[\d\s().-]{7,20}", text))) >= 0.8:
        mobile = _share(sample, lambda text: bool(re.search(r"^\+|^(86)?1[3-9]\d{9}$", text)))
        return FieldKind.PHONE if mobile >= 0.5 else FieldKind.IDENTIFIER
    if _share(sample, str.isdigit) >= 0.9:
        same = len({len(text) for text in sample}) <= 2 and len(sample[0]) >= 4
        return FieldKind.POSTCODE if same else FieldKind.NUMBER
    if _share(sample, lambda text: bool(re.fullmatch(r"[a-z0-9-]*\d[a-z0-9-]*", text))) >= 0.8:
        return FieldKind.IDENTIFIER
    return _from_text(sample)


def _from_text(sample: Sequence[str]) -> FieldKind:
    if _share(sample, lambda text: bool(_ADDRESS_WORDS.search(text))) >= 0.5:
        return FieldKind.ADDRESS
    if _share(sample, lambda text: is_chinese(text) and 2 <= len(text) <= 4) >= 0.8:
        return FieldKind.FULL_NAME
    return FieldKind.FREE
