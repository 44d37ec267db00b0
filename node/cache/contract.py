"""What a cache of answers is, whichever it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Cache", "CachedAnswer", "Held"]


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A resident as he goes on the wire, and what decides who may see him."""

    home_node: str
    author_node: str
    wire: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What a cache holds of the residents asked for, and the position at which that is true.

    `position` None: the cache has no place in the log (not started, unreachable) and holds nothing.
    """

    position: int | None
    answers: Mapping[str, CachedAnswer]


class Cache(Protocol):
    """Answers by resident id, at a position of the change log. Safe from several threads.

    No method raises because a server behind it is down: it then holds nothing and takes nothing.
    """

    @property
    def is_available(self) -> bool:
        """False while what is behind it cannot be used."""

    def get(self, resident_ids: Sequence[str]) -> Held:
        """What is held of these residents, and the position, both of one moment."""

    def put(self, answers: Mapping[str, CachedAnswer], at: int) -> bool:
        """Keep answers read when the log's head was `at`; whether they were taken.

        Refused if the position is beyond `at`, or there is none.
        """

    def position(self) -> int | None:
        """The log's sequence up to which changed residents are gone; None: no place in the log."""

    def advance(self, after: int, up_to: int, changed: Collection[str]) -> int | None:
        """Take out the residents changed in (after, up_to] and move there, in one step.

        Nothing happens unless the position is `after`. Returns the position it has now.
        """

    def start_over(self, position: int) -> None:
        """Hold nothing, at this position."""

    def ids(self, start: str) -> frozenset[str]:
        """Ids of residents held that begin so; may take its time, and changes nothing."""

    def close(self) -> None:
        """Give back what is held open; what lies in a server stays there."""
