"""The hours at which a node works on files, as its profile says: so a clinic's PC stays usable."""

from __future__ import annotations

from node.clock import Clock

__all__ = ["is_open"]

_MINUTE_MS = 60_000
_DAY_MINUTES = 24 * 60
_CHINA_MINUTES = 8 * 60


def is_open(hours: str, clock: Clock) -> bool:
    """Whether now is within spans like "12:00-13:30,20:00-07:00", of the day in China.

    The profile has checked the text; a span may go over midnight.
    """
    now = (clock.now_ms() // _MINUTE_MS + _CHINA_MINUTES) % _DAY_MINUTES
    return any(_within(span, now) for span in hours.split(","))


def _within(span: str, now: int) -> bool:
    start, end = (_minutes(each) for each in span.strip().split("-"))
    return start <= now < end if start < end else now >= start or now < end


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
