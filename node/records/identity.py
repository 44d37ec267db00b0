"""The resident identity number: 18 characters of GB 11643.

Six digits of area, eight of the birth date, three of sequence (odd: male), one check character of
ISO 7064 MOD 11-2. The area is where the number was issued, under the codes of that day: it is not
judged and says nothing of where someone lives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

__all__ = [
    "IdentityNumber",
    "IdentityNumberError",
    "check_character",
    "make_identity_number",
    "parse_identity_number",
]

_SHAPE: Final = re.compile(r"[0-9]{17}[0-9X]", re.ASCII)
# ISO 7064 MOD 11-2: a position weighs 2 to the power of its distance from the end, modulo 11.
_WEIGHTS: Final = tuple(2 ** (17 - position) % 11 for position in range(17))
_CHECK_CHARACTERS: Final = "10X98765432"


class IdentityNumberError(ValueError):
    """Text is no identity number; the message says what was expected and never repeats it."""


@dataclass(frozen=True, slots=True)
class IdentityNumber:
    """The parts of a sound identity number."""

    area: str
    birth_date: date
    sequence: int

    @property
    def sex(self) -> str:
        """Return "male" for an odd sequence, "female" for an even one."""
        return "male" if self.sequence % 2 else "female"


def check_character(first_17: str) -> str:
    """Return the check character of the first 17 digits."""
    total = sum(int(digit) * weight for digit, weight in zip(first_17, _WEIGHTS, strict=True))
    return _CHECK_CHARACTERS[total % 11]


def parse_identity_number(text: str) -> IdentityNumber:
    """Take a number apart; a trailing x must be a capital X.

    Raises:
        IdentityNumberError: Its shape, date or check character is wrong.
    """
    if not _SHAPE.fullmatch(text):
        raise IdentityNumberError("17 digits and a digit or X")
    try:
        birth = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        raise IdentityNumberError("a date of the calendar in digits 7 to 14") from None
    if check_character(text[:17]) != text[17]:
        raise IdentityNumberError("the check character of ISO 7064 MOD 11-2")
    return IdentityNumber(text[:6], birth, int(text[14:17]))


def make_identity_number(area6: str, birth: date, sequence: int) -> str:
    """Return the number of an area, a birth date and a sequence of 0 to 999 (odd: male).

    For made-up people: nothing says whether the number has been issued to someone.

    Raises:
        ValueError: The area is not six digits or the sequence is out of its range.
    """
    if not re.fullmatch(r"[0-9]{6}", area6):
        raise ValueError("an area of six digits")
    if not 0 <= sequence <= 999:
        raise ValueError("a sequence of 0 to 999")
    first_17 = f"{area6}{birth.year:04d}{birth.month:02d}{birth.day:02d}{sequence:03d}"
    return first_17 + check_character(first_17)
