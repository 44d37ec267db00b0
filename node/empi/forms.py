"""The forms in which a value is compared: its normal text, and a second that forgives more.

`text` decides whether two values are the same. `second` is, for a name, how it sounds (pinyin of a
Chinese name, the letters of another), so that 单雄 and Shan Xiong meet; for an
address, what is left without province, city and county; for anything else it is the text.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache
from operator import mul
from typing import Final, NamedTuple

from node.empi.pinyin import is_chinese, name_parts, name_pinyin
from node.records.identity import check_character

__all__ = [
    "Form",
    "fold",
    "form_of",
    "is_identity_number",
    "name_words",
    "parse_date",
    "shared_area_part",
]
__all__ += ["skeleton"]

_NOTHING: Final = frozenset(
    {"", "nan", "none", "null", "na", "n/a", "<na>", "nat", "-", "不详", "无"}
)
_DIVISION: Final = re.compile(r"^.{1,8}?(?:省|自治区|市|地区|县|区)")
_LINFEN_AREAS: Final = ("1426", "1410")
_SEX: Final = {
    "男": "m",
    "male": "m",
    "m": "m",
    "1": "m",
    "女": "f",
    "female": "f",
    "f": "f",
    "2": "f",
}


_CHECK_WEIGHTS: Final = tuple(2 ** (17 - place) % 11 for place in range(17))
_CHECK_OFFSET: Final = ord("0") * sum(_CHECK_WEIGHTS)


class Form(NamedTuple):
    """A value as it is compared."""

    text: str
    second: str


@lru_cache(maxsize=65_536)
def fold(text: str) -> str:
    """NFKC, without accents, lower case, single spaces."""
    wide = unicodedata.normalize("NFKC", text)
    if not wide.isascii():
        marks = unicodedata.normalize("NFD", wide)
        wide = "".join(each for each in marks if not unicodedata.combining(each))
    return " ".join(wide.lower().split())


def form_of(kind: str, value: str) -> Form | None:
    """The form of a value; None if it is missing."""
    text = fold(value)
    if text in _NOTHING:
        return None
    match kind:
        case "given_name" | "surname" | "full_name":
            return _name(kind, text)
        case "address" | "free":
            return _address(text)
        case "date":
            parsed = parse_date(text)
            return Form(parsed, parsed) if parsed else Form(re.sub(r"\W", "", text) or text, text)
        case "phone":
            return _phone(text)
        case "identifier":
            return _identifier(text)
        case "category":
            plain = _SEX.get(text, text)
            return Form(plain, plain)
        case _:
            plain = re.sub(r"[\s.,-]", "", text) or text
            plain = plain.lstrip("0") or "0" if kind == "number" and plain.isdigit() else plain
            return Form(plain, plain)


def _name(kind: str, text: str) -> Form:
    if is_chinese(text):
        plain = re.sub(r"[\s·•.,-]", "", text)
        return Form(plain, name_pinyin(plain, with_surname=kind != "given_name"))
    words = re.findall(r"[^\W_]+", text)
    plain = " ".join(words) or text
    return Form(plain, "".join(words) or text)


def _address(text: str) -> Form:
    if is_chinese(text):
        plain = re.sub(r"[\s,.;:()#-]", "", text)
        return Form(plain, _without_division(plain))
    words = re.findall(r"[^\W_]+", text)
    return Form(" ".join(words) or text, "".join(sorted(words)) or text)


def _without_division(text: str) -> str:
    """An address without its leading province, city and county, each at most once."""
    core = text
    for _ in range(3):
        shorter = _DIVISION.sub("", core, count=1)
        if shorter in {"", core}:
            break
        core = shorter
    return core


def _phone(text: str) -> Form:
    digits = re.sub(r"\D", "", text)
    if len(digits) > 11 and digits.startswith(("86", "0086")):
        digits = digits.removeprefix("00").removeprefix("86")
    digits = digits.lstrip("0") or digits or text
    return Form(digits, digits)


def _identifier(text: str) -> Form:
    plain = re.sub(r"[\W_]", "", text) or text
    if len(plain) == 15 and plain.isdigit():
        plain = _eighteen(plain)
    return Form(plain, plain)


def _eighteen(old: str) -> str:
    """An identity number of 15 digits in its present form; other 15 digits as they are."""
    first_17 = f"{old[:6]}19{old[6:]}"
    try:
        date(int(first_17[6:10]), int(first_17[10:12]), int(first_17[12:14]))
    except ValueError:
        return old
    return (first_17 + check_character(first_17)).lower()


def is_identity_number(text: str) -> bool:
    """Whether a folded text has the shape and the check character of GB 11643.

    As `node.records.identity` judges, but for days that no month has; asked of every candidate of a
    query, so it parses nothing.
    """
    if len(text) != 18 or not text.isascii() or not text[:17].isdigit():
        return False
    if not ("01" <= text[10:12] <= "12" and "01" <= text[12:14] <= "31"):
        return False
    total = sum(map(mul, text.encode(), _CHECK_WEIGHTS)) - _CHECK_OFFSET
    return "10x98765432"[total % 11] == text[17]


def shared_area_part(text: str) -> str:
    """What identity numbers of one person share under Linfen's old and new area codes.

    Birth date and sequence; empty if the text is no number of Linfen.
    """
    if len(text) != 18 or not text.startswith(_LINFEN_AREAS):
        return ""
    return text[6:17]


_ISO: Final = re.compile(r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[t ].*)?")
_DAY_FIRST: Final = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")


def parse_date(text: str) -> str | None:
    """A date as eight digits, year first; None if it cannot be read as one.

    Typing errors must survive to be compared, so a month or day out of its range is kept where the
    year is plain. `dd/mm/yyyy` unless only the other order is one.
    """
    if len(text) == 8 and text.isdigit():
        return text if 1800 <= int(text[:4]) <= 2199 else None
    if found := _ISO.fullmatch(text):
        year, month, day = found.groups()
    elif found := _DAY_FIRST.fullmatch(text):
        day, month, year = found.groups()
        if int(month) > 12 >= int(day):
            day, month = month, day
    else:
        return None
    return f"{year}{int(month):02d}{int(day):02d}"


_CONSONANT_CLASSES: Final = str.maketrans("bfpvcgjkqsxzdtlmnr", "111122222222334556", "aeiouyhw '-")


def name_words(text: str) -> str:
    """The words of a name in one order: Zhang Wei, Wei Zhang and 张伟 are the same."""
    if is_chinese(text):
        surname, given = name_parts(text)
        return " ".join(sorted((name_pinyin(surname), name_pinyin(given, with_surname=False))))
    return " ".join(sorted(text.split()))


@lru_cache(maxsize=65_536)
def skeleton(second: str) -> str:
    """First letter and the classes of three consonants, as Soundex has them."""
    if not second.isascii():
        return second[:2]
    rest = second[1:].translate(_CONSONANT_CLASSES)
    kept = [each for place, each in enumerate(rest) if place == 0 or rest[place - 1] != each]
    return second[:1] + "".join(kept)[:3]
