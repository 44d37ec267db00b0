"""For what a caller asks: the words of the table of methods, of consents and of the audit."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["ANY_PURPOSE", "CONSENT_PURPOSES", "COUNT_PURPOSES", "Purpose", "purposes_of_count"]


class Purpose(StrEnum):
    """Why a call is made."""

    TREATMENT = "treatment"
    REGISTRATION = "registration"
    PUBLIC_HEALTH = "public_health"
    MANAGEMENT = "management"
    STATISTICS = "statistics"
    RESEARCH = "research"
    AUDIT = "audit"
    OPERATION = "operation"
    REPLICATION = "replication"


ANY_PURPOSE: Final = "any"
"""In a consent: whatever the purpose."""

CONSENT_PURPOSES: Final[frozenset[str]] = frozenset(
    {
        ANY_PURPOSE,
        Purpose.TREATMENT,
        Purpose.REGISTRATION,
        Purpose.PUBLIC_HEALTH,
        Purpose.MANAGEMENT,
        Purpose.STATISTICS,
        Purpose.RESEARCH,
    }
)
"""What a resident may allow or forbid. That looks at his record are audited is not his to forbid,
nor that the node is kept running."""

COUNT_PURPOSES: Final[frozenset[str]] = frozenset(
    {ANY_PURPOSE, Purpose.MANAGEMENT, Purpose.STATISTICS, Purpose.RESEARCH}
)
"""Purposes of consents that keep a resident out of counts.

`public_health` is none of them: statutory reporting (infectious diseases, vaccination coverage)
counts everybody. Neither is care: nobody is treated by a count.
"""


def purposes_of_count(purpose: str) -> tuple[str, ...]:
    """The purposes whose consents bind a question asked for `purpose`; none for public health.

    Every one for a purpose that nobody foresaw.
    """
    if purpose == Purpose.PUBLIC_HEALTH:
        return ()
    if purpose in COUNT_PURPOSES and purpose != ANY_PURPOSE:
        return (ANY_PURPOSE, purpose)
    return tuple(sorted(COUNT_PURPOSES))
