"""Dates as hospitals write them, to ISO. Cached: a file has few distinct days."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

__all__ = ["DEFAULT_FORMATS", "excel_day", "iso_day", "unknown_formats"]

DEFAULT_FORMATS: Final = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%Y年%m月%d日")
"""Year first only: 03/04/2025 is two days, and which one only a mapping can say."""

_ISO_MOMENT: Final = re.compile(r"(\d{4}-\d{2}-\d{2})[T ][0-9:.+\-Z ]{2,40}", re.ASCII)
_COMPACT_MOMENT: Final = re.compile(r"(\d{8})\d{2,6}(?:\.\d{1,6})?(?:[+-]\d{4})?", re.ASCII)
_TIME: Final = re.compile(
    r"[ T]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?$", re.ASCII
)
_EXCEL_EPOCH: Final = date(1899, 12, 30)
"""Day 0 of Excel's serial numbers from day 61 on: it has a 29 February 1900 that no year had."""
_EXCEL_FIRST: Final = 61
_EXCEL_LAST: Final = 2_958_465
_PROBE: Final = datetime(2001, 2, 3)  # noqa: DTZ001 - a pattern is tried on it, nothing more


@lru_cache(maxsize=65_536)
def iso_day(text: str, formats: tuple[str, ...] = DEFAULT_FORMATS) -> str | None:
    """The day of a date or moment, YYYY-MM-DD; None if no format fits or there is no such day.

    A time behind the day is left out; the day is that of the wall clock where it was written.
    """
    text = text.strip()
    if not text or len(text) > 48:
        return None
    moment = _ISO_MOMENT.fullmatch(text) or _COMPACT_MOMENT.fullmatch(text)
    bare = moment[1] if moment else _TIME.sub("", text)
    for pattern in (*formats, *(DEFAULT_FORMATS[:1] if moment else ())):
        try:
            # Only the day is kept, which no time zone changes here.
            return datetime.strptime(bare, pattern).date().isoformat()  # noqa: DTZ007
        except ValueError:
            continue
    return _compact(bare) if moment else None


def _compact(text: str) -> str | None:
    try:
        return date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:8]}").isoformat()
    except ValueError:
        return None


def excel_day(text: str) -> str | None:
    """The day of an Excel serial number that lost its date format; None if it is none."""
    try:
        number = int(text)
    except ValueError:
        return None
    if not _EXCEL_FIRST <= number <= _EXCEL_LAST:
        return None
    return (_EXCEL_EPOCH + timedelta(days=number)).isoformat()


def unknown_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those that name no whole day."""
    return tuple(each for each in formats if not _is_whole(each))


def _is_whole(pattern: str) -> bool:
    try:
        written = _PROBE.strftime(pattern)
        return datetime.strptime(written, pattern).date() == _PROBE.date()  # noqa: DTZ007
    except ValueError:
        return False
