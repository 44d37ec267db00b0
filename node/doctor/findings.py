"""What was found, how bad it is, what to do; and the register of everything that is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.errors import FenheError

__all__ = ["Checkup", "Finding", "Look", "Severity"]


class Severity(IntEnum):
    """How bad a finding is; the numbers are those of doctor.proto."""

    GOOD = 1
    WARNING = 2
    BAD = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `about` "": this node; `next_step` "" where it is good.

    Neither sentence holds patient data or a secret.
    """

    topic: str
    severity: Severity
    message: str
    next_step: str = ""
    about: str = ""


Look = Callable[[], Iterable[Finding]]
"""Looks at one topic. May block; may raise what `Checkup` turns into a finding."""


class Checkup:
    """Looks by topic. A look that fails is a finding itself and stops no other."""

    def __init__(self) -> None:
        self._looks: list[tuple[str, Look]] = []

    def add(self, topic: str, look: Look) -> None:
        """Have one more thing looked at; `topic` names it if the look itself fails."""
        self._looks.append((topic, look))

    @property
    def topics(self) -> tuple[str, ...]:
        """Everything that is looked at."""
        return tuple(topic for topic, _ in self._looks)

    def findings(self) -> list[Finding]:
        """Look at everything; the worst first, then by topic. Blocks."""
        found = [finding for topic, look in self._looks for finding in _looked(topic, look)]
        return sorted(found, key=lambda each: (-each.severity, each.topic, each.about))


def _looked(topic: str, look: Look) -> list[Finding]:
    try:
        return list(look())
    except FenheError as error:
        return [Finding(topic, Severity.BAD, f"{error.code}: {error.message}", error.hint)]
    except (OSError, SQLAlchemyError) as error:
        # The text of a database's error may quote a cell.
        step = "See that the database and the disk of the node can be reached."
        said = f"it could not be looked at ({type(error).__name__})"
        return [Finding(topic, Severity.BAD, said, step)]
