"""When wrong passwords lock an account, and for how long. Pure.

From the fifth failure in a row on a lock closes, for a minute, and each time for twice as long, up
to a day. What is tried while it is closed is refused and not counted: nobody can be shut out for
ever. A right sign-in forgets the failures.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

__all__ = ["FAILURES_FREE", "LOCK_MS_MAX", "after_failure", "is_locked", "lock_ms"]

FAILURES_FREE: Final = 4
_LOCK_MS: Final = 60_000
LOCK_MS_MAX: Final = 24 * 3_600_000
_DOUBLINGS_MAX: Final = 16
_FAILURES_MAX: Final = 1_000_000


class Failing(Protocol):
    """The two figures of an account."""

    @property
    def failures(self) -> Any:
        """Failures in a row."""

    @property
    def locked_until(self) -> Any:
        """When its lock opens, ms since 1970 UTC."""


def lock_ms(failures: int) -> int:
    """How long so many failures in a row lock; 0: not at all."""
    over = failures - FAILURES_FREE
    return 0 if over <= 0 else min(_LOCK_MS << min(over - 1, _DOUBLINGS_MAX), LOCK_MS_MAX)


def is_locked(locked_until: int, now_ms: int) -> bool:
    """Whether the lock is closed; one for longer than any lasts was set by a wrong clock."""
    return 0 < locked_until - now_ms <= LOCK_MS_MAX


def after_failure(account: Failing, now_ms: int) -> dict[str, int]:
    """The two figures after one more failure."""
    if is_locked(account.locked_until, now_ms):
        return {"failures": account.failures, "locked_until": account.locked_until}
    failures = min(account.failures + 1, _FAILURES_MAX)
    lasts = lock_ms(failures)
    return {"failures": failures, "locked_until": now_ms + lasts if lasts else 0}
