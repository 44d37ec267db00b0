"""How a cell becomes a value: widths, blanks, names, phones, dates, codes. Says, never guesses.

Each function takes text and returns the normal form; None: it cannot be read as that kind. What is
asked again and again within a file (codes, days, units) is remembered.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import Final

from node.records.icd10 import normal_icd10

__all__ = [
    "code_text",
    "icd10_text",
    "identifier_text",
    "name_text",
    "number_of",
    "phone_text",
    "plain_text",
    "sex_of",
]

_WIDTHS: Final = {0xFF01 + step: 0x21 + step for step in range(94)} | {0x3000: 0x20}
_BLANKS: Final = re.compile(r"\s+")
_CJK_BLANK: Final = re.compile(
    r"(?<=[\u3400-\u9fff\U00020000-\U0003ffff])\s+(?=[\u3400-\u9fff\U00020000-\U0003ffff])"
)
_PHONE_NOISE: Final = re.compile(r"[\s\-()（）－—]+")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_SEXES: Final = {
    "1": "male",
    "2": "female",
    "9": "unstated",
    "0": "unknown",
    "男": "male",
    "女": "female",
    "男性": "male",
    "女性": "female",
    "未说明": "unstated",
    "未说明的性别": "unstated",
    "未知": "unknown",
    "未知的性别": "unknown",
    "m": "male",
    "f": "female",
    "u": "unknown",
    "male": "male",
    "female": "female",
    "unstated": "unstated",
    "unknown": "unknown",
    "other": "unstated",
    "o": "unstated",
}
"""GB/T 2261.1 by number and word, FHIR, and HL7 table 0001."""


@lru_cache(maxsize=65_536)
def code_text(text: str) -> str:
    """A code or identifier: full-width digits are digits."""
    return unicodedata.normalize("NFKC", text).strip()


def plain_text(text: str) -> str:
    """Text for people: only widths of ASCII, so that 1½ stays 1½."""
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text).translate(_WIDTHS).strip()


def name_text(text: str) -> str:
    """A name: blanks within a Chinese name are layout, in others they part its words."""
    if text.isascii():
        return _BLANKS.sub(" ", text).strip()
    return _CJK_BLANK.sub("", _BLANKS.sub(" ", plain_text(text)))


def identifier_text(text: str) -> str:
    """A number that names somebody."""
    clean = text.strip() if text.isascii() else unicodedata.normalize("NFKC", text).strip()
    return clean.upper() if len(clean) == 18 else clean


def phone_text(text: str) -> str:
    """A telephone number without what only parts its digits."""
    clean = _PHONE_NOISE.sub("", unicodedata.normalize("NFKC", text))
    return clean.removeprefix("+86") if len(clean) == 14 else clean


@lru_cache(maxsize=65_536)
def icd10_text(text: str) -> str:
    """A diagnosis, in capitals with its dot."""
    return normal_icd10(code_text(text))


@lru_cache(maxsize=1024)
def sex_of(text: str) -> str | None:
    """One of male, female, unstated, unknown."""
    return _SEXES.get(unicodedata.normalize("NFKC", text).strip().lower())


def number_of(text: str) -> float | None:
    """A finite number."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.strip()
    if len(text) > 40 or _NUMBER.fullmatch(text) is None:
        return None
    found = float(text)
    return found if math.isfinite(found) else None
