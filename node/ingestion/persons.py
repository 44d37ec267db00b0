"""Who a unit is about: the door to the main index, and the first thing behind it.

`Persons` is what the rest of the room knows. `IdentifierIndex` answers by resident id and by the
node's keyed index of identifiers, and by nothing else: it never guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import Connection, bindparam, select

from node.ingestion.checking import KnownPerson
from node.ingestion.model import Person
from node.merging.links import group
from node.storage.context import StoreContext
from node.storage.rows import chunks
from node.storage.specs import IDENTIFIERS, RESIDENTS
from node.storage.tables import REPLICATED
from replication.core.model import Form

__all__ = ["Answer", "IdentifierIndex", "Persons"]

_REMEMBERED_MAX: Final = 100_000
_REMEMBERED_MS: Final = 60_000
_I = REPLICATED[IDENTIFIERS.name]
_R = REPLICATED[RESIDENTS.name]
_FACTS: Final = (_R.c.row_id, _R.c.sex, _R.c.birth_year, _R.c.deceased_on, _R.c.author_node)
_HELD: Final = (_R.c.form == Form.FULL.value, _R.c.deleted.is_(False))
_BY_IDENTIFIER: Final = (
    select(_I.c.system, _I.c.value_index, *_FACTS)
    .join(_R, _R.c.row_id == _I.c.resident_id)
    .where(
        _I.c.value_index.in_(bindparam("indexes", expanding=True)),
        _I.c.deleted.is_(False),
        *_HELD,
    )
)
_BY_ID: Final = select(*_FACTS).where(_R.c.row_id.in_(bindparam("ids", expanding=True)), *_HELD)

Identifier = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """Who it is: exactly one of `known`, `is_new` and `rule`.

    `rule` says why nobody is named. `adds`: identifiers that the known one does not carry yet.
    `is_matched`: no identifier says so; who he is and where he lives do.
    """

    known: KnownPerson | None = None
    is_new: bool = False
    rule: str = ""
    adds: tuple[Identifier, ...] = ()
    is_matched: bool = False


class Persons(Protocol):
    """Who people are, as far as this node knows."""

    def resolve(self, people: Sequence[Person]) -> Sequence[Answer]:
        """An answer for each, in order. Registers nobody."""

    def forget(self, identifiers: Iterable[Identifier]) -> None:
        """What was answered of these may be out of date."""

    def are_one(self, one: str, other: str) -> bool:
        """Whether stewards merged two residents."""


@dataclass
class IdentifierIndex:
    """Answers by resident id and identifiers, of residents held here in full.

    Remembers whom it found for a minute, up to a bound; whether he is still there is looked at by
    every write. What belongs to several people is not remembered.
    """

    store: StoreContext
    _known: dict[Identifier, KnownPerson] = field(default_factory=dict)
    _since_ms: int = 0

    def resolve(self, people: Sequence[Person]) -> list[Answer]:
        """See Persons."""
        wanted = {each for person in people for each in person.identifiers}
        ids = {person.resident_id for person in people if person.resident_id}
        self._bound(len(wanted))
        missing = [each for each in wanted if each not in self._known]
        found: dict[str, KnownPerson] = {}
        ambiguous: set[Identifier] = set()
        if missing or ids:
            self._find(missing, ids, found, ambiguous)
        return [self._answer(person, found, ambiguous) for person in people]

    def forget(self, identifiers: Iterable[Identifier]) -> None:
        """See Persons."""
        for each in identifiers:
            self._known.pop(each, None)

    def _bound(self, wanted: int) -> None:
        """Forget everybody where it would be too many, or was too long ago."""
        now = self.store.clock.monotonic_ms()
        is_old = now - self._since_ms > _REMEMBERED_MS
        if is_old or len(self._known) + wanted > _REMEMBERED_MAX:
            self._known.clear()
            self._since_ms = now

    def are_one(self, one: str, other: str) -> bool:
        """See Persons."""
        return self._survivor({one, other}) is not None

    def _survivor(self, ids: AbstractSet[str]) -> str | None:
        """Of ids that stewards merged, the one who is shown; None: they are not one person's."""
        if len(ids) == 1:
            return min(ids)
        store = self.store
        whose = store.transactions.read(lambda connection: group(store, connection, min(ids)))
        if not ids <= whose.members:
            return None
        return whose.survivor if whose.survivor in ids else min(ids)

    def _answer(
        self, person: Person, by_id: Mapping[str, KnownPerson], ambiguous: set[Identifier]
    ) -> Answer:
        if not ambiguous.isdisjoint(person.identifiers):
            return Answer(rule="PERSON_AMBIGUOUS")
        held = {each: self._known.get(each) for each in person.identifiers}
        found = {known.resident_id: known for known in held.values() if known is not None}
        if person.resident_id:
            named = by_id.get(person.resident_id)
            if named is None:
                return Answer(rule="PERSON_UNKNOWN")
            found[named.resident_id] = named
        if found:
            survivor = self._survivor(found.keys())
            if survivor is None:
                return Answer(rule="PERSON_AMBIGUOUS")
            known = found[survivor]
            adds = tuple(each for each, carrier in held.items() if carrier is None)
            return Answer(known, adds=adds)
        return Answer(is_new=True) if person.introduces else Answer(rule="PERSON_UNKNOWN")

    def _find(
        self,
        missing: Sequence[Identifier],
        ids: Iterable[str],
        found: dict[str, KnownPerson],
        ambiguous: set[Identifier],
    ) -> None:
        index = self.store.blind_index.index
        places = {(system, index(system, value)): (system, value) for system, value in missing}
        carriers: dict[Identifier, dict[str, KnownPerson]] = {}

        def work(connection: Connection) -> None:
            for some in chunks([digest for _, digest in places]):
                for row in connection.execute(_BY_IDENTIFIER, {"indexes": some}):
                    identifier = places.get((row.system, row.value_index))
                    if identifier is not None:
                        carriers.setdefault(identifier, {})[row.row_id] = _known(row)
            for some in chunks(sorted(ids)):
                for named in connection.execute(_BY_ID, {"ids": some}):
                    found[named.row_id] = _known(named)

        self.store.transactions.read(work)
        for identifier, people in carriers.items():
            survivor = self._survivor(people.keys())
            if survivor is None:
                # Several carry it: which of them is meant, nobody can say by it alone.
                ambiguous.add(identifier)
            else:
                self._known[identifier] = people[survivor]


def _known(row: Any) -> KnownPerson:
    return KnownPerson(
        row.row_id,
        row.sex or "",
        int(row.birth_year or 0),
        str(row.deceased_on or ""),
        row.author_node,
    )
