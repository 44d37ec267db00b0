"""Whom a unit is about where no number says it: asked of matching, and taken only if it is certain.

Somebody who is introduced under a number that nobody carries may be known here all the same: by
another hospital's number, or by none. One resident who is certainly he is taken for him, gets the
number, and the unit says so (PERSON_MATCHED). Whoever is merely like him is no reason to keep his
data back: he is registered, and the pair waits for a steward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from node.clock import Clock
from node.ingestion.model import Person
from node.ingestion.persons import Answer, Identifier, Persons
from node.storage.specs import IDENTITY_NUMBER

__all__ = ["Certain", "MatchedPersons"]

_REMEMBERED_MAX: Final = 10_000
_REMEMBERED_MS: Final = 60_000

Known = tuple[tuple[str, str], ...]
"""Names of fields and their values."""


class Certain(Protocol):
    """Matching, as far as this room knows it."""

    def certain(self, people: Sequence[Mapping[str, str]]) -> Sequence[str]:
        """For each of whom so much is known, the resident who he certainly is; "" if there is none.

        Blocks. Where nobody can be asked at the time, nobody is certain.
        """


class MatchedPersons:
    """Answers as `known` does, and asks matching for those who are new to it."""

    def __init__(self, known: Persons, matching: Certain, clock: Clock) -> None:
        self._known = known
        self._matching = matching
        self._clock = clock
        # A window is planned several times; somebody who was not certain is not asked for again.
        self._asked: dict[Known, str] = {}
        self._since_ms = 0

    def resolve(self, people: Sequence[Person]) -> list[Answer]:
        """See Persons."""
        answers = list(self._known.resolve(people))
        new = [i for i, answer in enumerate(answers) if answer.is_new]
        found = self._certain([people[i] for i in new])
        named = [i for i, resident_id in zip(new, found, strict=True) if resident_id]
        ids = [resident_id for resident_id in found if resident_id]
        # Under his id: whether he is still here, and which of the numbers he does not carry.
        asked = [
            replace(people[i], resident_id=resident_id)
            for i, resident_id in zip(named, ids, strict=True)
        ]
        for i, answer in zip(named, self._known.resolve(asked) if asked else (), strict=True):
            if answer.known is not None:
                answers[i] = replace(answer, is_matched=True)
        return answers

    def forget(self, identifiers: Iterable[Identifier]) -> None:
        """See Persons."""
        self._known.forget(identifiers)

    def are_one(self, one: str, other: str) -> bool:
        """See Persons."""
        return self._known.are_one(one, other)

    def _certain(self, people: Sequence[Person]) -> list[str]:
        now = self._clock.monotonic_ms()
        if now - self._since_ms > _REMEMBERED_MS or len(self._asked) > _REMEMBERED_MAX:
            self._asked.clear()
            self._since_ms = now
        keys = [_known_of(person) for person in people]
        missing = list(dict.fromkeys(key for key in keys if key not in self._asked))
        if missing:
            found = self._matching.certain([dict(key) for key in missing])
            self._asked.update(zip(missing, found, strict=True))
        return [self._asked[key] for key in keys]


def _known_of(person: Person) -> Known:
    """What is known of somebody, by the names of matching."""
    numbers = [value for system, value in person.identifiers if system == IDENTITY_NUMBER]
    said = {
        "name": person.name,
        "sex": person.sex,
        "birth_date": person.birth_date,
        "identity_number": numbers[0] if numbers else "",
        "phone": person.phone,
        "address": person.address,
    }
    return tuple((name, value) for name, value in said.items() if value)
