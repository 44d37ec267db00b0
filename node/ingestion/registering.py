"""The people of a window: whom it registers, and what it adds to whom it knows. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from node.ingestion.checking import KnownPerson
from node.ingestion.model import Draft, Person, Trouble, Unit
from node.ingestion.persons import Answer, Persons
from node.ingestion.rules import RULES, is_error
from node.records.model import NewIdentifier, NewRecord, NewResident
from node.security.caller import Caller
from node.storage import Storage

__all__ = ["ERRORS", "Judged", "Registry", "WindowPlan"]

ERRORS: Final = frozenset(code for code in RULES if is_error(code))
"""The rules that quarantine."""


@dataclass(slots=True)
class Judged:
    """A unit that went through all steps before the store. `item_id`: it waits in quarantine.

    `found` by the unit alone, `refused` for good by what is held, `noted` in the present planning.
    """

    unit: Unit
    draft: Draft
    found: list[Trouble] = field(default_factory=list)
    refused: list[Trouble] = field(default_factory=list)
    noted: list[Trouble] = field(default_factory=list)
    item_id: int = 0

    @property
    def is_good(self) -> bool:
        """Whether no rule of an error is broken."""
        if not self.found and not self.refused:
            return True
        return not any(each.rule in ERRORS for each in (*self.found, *self.refused))

    @property
    def troubles(self) -> list[Trouble]:
        """All of them."""
        return [*self.found, *self.refused, *self.noted]


@dataclass
class WindowPlan:
    """What a window would write."""

    residents: list[NewResident] = field(default_factory=list)
    records: list[NewRecord] = field(default_factory=list)
    resident_units: list[int] = field(default_factory=list)
    record_units: list[int] = field(default_factory=list)
    amends: set[str] = field(default_factory=set)
    registered: int = 0
    warnings: list[tuple[int, str, str, Trouble]] = field(default_factory=list)
    new: list[tuple[str, str]] = field(default_factory=list)
    """Identifiers of whom it registers or gives more: another may have been quicker."""
    touched: set[int] = field(default_factory=set)
    days: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)


class Registry:
    """Whom a window registers, and what it adds to whom it knows."""

    def __init__(
        self, storage: Storage, caller: Caller, persons: Persons, plan: WindowPlan
    ) -> None:
        self._storage = storage
        self._caller = caller
        self._persons = persons
        self._plan = plan
        self._new: dict[tuple[str, str], int] = {}
        """Identifier → place in `_made`."""
        self._made: list[tuple[int, str, Person]] = []
        self._added: dict[str, tuple[int, list[tuple[str, str]], Person | None]] = {}

    def person(self, i: int, judged: Judged, answer: Answer) -> KnownPerson | None:
        """Who a unit is about; None after saying why nobody is."""
        person = judged.draft.person
        if answer.rule and not (answer.rule == "PERSON_UNKNOWN" and self._made_here(person)):
            judged.refused.append(Trouble(answer.rule, "person"))
            return None
        if judged.draft.former is not None and not self._former(judged, answer):
            return None
        if answer.known is not None:
            self._differs(judged, answer.known)
            if answer.is_matched:
                judged.noted.append(Trouble("PERSON_MATCHED", "person"))
            adds = list(answer.adds)
            if judged.draft.former is not None and not self._is_merged(judged, answer.known):
                adds.append(judged.draft.former)
            if adds and answer.known.author_node != self._storage.context.node_id:
                # Only who registered him gives him another number; his records are stored.
                judged.noted.append(Trouble("IDENTIFIER_NOT_KEPT", "person"))
                adds = []
            if adds or judged.draft.updates:
                update_of = person if judged.draft.updates else None
                if update_of is not None:
                    self._persons.forget(person.identifiers)
                self._add(i, answer.known.resident_id, adds, update_of)
            return answer.known
        return self._register(i, judged)

    def finish(self, window: Sequence[Judged]) -> None:
        """Put the residents into the plan."""
        plan = self._plan
        for i, resident_id, person in self._made:
            if not window[i].is_good:
                continue
            plan.residents.append(_resident(resident_id, person))
            plan.resident_units.append(i)
            plan.new += person.identifiers
            plan.registered += 1
            plan.touched.add(i)
        for resident_id, (i, adds, update_of) in self._added.items():
            if window[i].is_good:
                self._amend(window, i, resident_id, adds, update_of)

    def _made_here(self, person: Person) -> bool:
        return any(each in self._new for each in person.identifiers)

    def _register(self, i: int, judged: Judged) -> KnownPerson | None:
        person = judged.draft.person
        places = {self._new[each] for each in person.identifiers if each in self._new}
        if len(places) > 1:
            rule = "PERSONS_TO_MERGE" if judged.draft.former else "PERSON_AMBIGUOUS"
            judged.refused.append(Trouble(rule, "person"))
            return None
        if places:
            place = places.pop()
            first, resident_id, held = self._made[place]
            more = tuple(each for each in person.identifiers if each not in held.identifiers)
            if _contradicts(held, person):
                judged.refused.append(Trouble("PERSON_AMBIGUOUS", "person"))
                return None
            if more or judged.draft.updates:
                held = replace(held, identifiers=(*held.identifiers, *more))
                held = _updated(held, person) if judged.draft.updates else held
                self._made[place] = (first, resident_id, held)
                self._new.update(dict.fromkeys(more, place))
            return _as_known(resident_id, held)
        resident_id = self._storage.context.ids.mint_timeless()
        self._made.append((i, resident_id, person))
        self._new.update(dict.fromkeys(person.identifiers, len(self._made) - 1))
        return _as_known(resident_id, person)

    def _former(self, judged: Judged, answer: Answer) -> bool:
        """A40: the former number must be nobody's, the same one's, or one's who was merged."""
        former = judged.draft.former
        if former is None:
            return True
        (held,) = self._persons.resolve([Person(identifiers=(former,))])
        if held.known and (
            answer.known is None
            or not self._persons.are_one(held.known.resident_id, answer.known.resident_id)
        ):
            judged.refused.append(Trouble("PERSONS_TO_MERGE", "MRG-1"))
            return False
        held_by = judged.draft.person.identifiers
        if answer.known is None and former not in held_by:
            judged.draft.person.identifiers = (*held_by, former)
        return True

    def _is_merged(self, judged: Judged, known: KnownPerson) -> bool:
        """Whether the former number is carried by an id that a steward merged with his."""
        former = judged.draft.former
        (held,) = self._persons.resolve([Person(identifiers=(former,) if former else ())])
        return held.known is not None and held.known.resident_id != known.resident_id

    def _differs(self, judged: Judged, known: KnownPerson) -> None:
        person = judged.draft.person
        is_other = known.sex and person.sex in ("male", "female") and person.sex != known.sex
        if known.birth_year and person.birth_date:
            is_other = is_other or int(person.birth_date[:4]) != known.birth_year
        if is_other and not judged.draft.updates:
            judged.noted.append(Trouble("PERSON_DIFFERS", "person"))

    def _add(
        self, i: int, resident_id: str, adds: list[tuple[str, str]], person: Person | None
    ) -> None:
        first, held, update_of = self._added.get(resident_id, (i, [], None))
        held += [each for each in adds if each not in held]
        self._added[resident_id] = (first, held, person or update_of)

    def _amend(
        self,
        window: Sequence[Judged],
        i: int,
        resident_id: str,
        adds: Sequence[tuple[str, str]],
        person: Person | None,
    ) -> None:
        """A next version of somebody known: his data as held, or as an update says."""
        plan = self._plan
        held = self._storage.resident(self._caller, resident_id)
        if held is None or held.name is None or held.birth_date is None:
            window[i].refused.append(Trouble("STORE_REFUSED", "person"))
            return
        numbers = sum(each.system == "identity_number" for each in held.identifiers)
        more = sum(system == "identity_number" for system, _ in adds)
        if more and numbers + more > 1:
            window[i].refused.append(Trouble("PERSON_AMBIGUOUS", "person.identity_number"))
            return
        new = NewResident(
            resident_id=resident_id,
            name=(person and person.name) or held.name,
            sex=(person and person.sex) or held.sex or "unknown",
            birth_date=(person and person.birth_date) or held.birth_date,
            identifiers=tuple(NewIdentifier(*each) for each in adds),
            phone=(person and person.phone) or held.phone,
            address=(person and person.address) or held.address,
            deceased_on=(person and person.deceased_on) or held.deceased_on,
        )
        same = (held.name, held.sex, held.birth_date, held.phone, held.address, held.deceased_on)
        said = (new.name, new.sex, new.birth_date, new.phone, new.address, new.deceased_on)
        if same == said and not adds:
            return
        plan.residents.append(new)
        plan.resident_units.append(i)
        plan.new += adds
        plan.touched.add(i)


def _resident(resident_id: str, person: Person) -> NewResident:
    return NewResident(
        resident_id=resident_id,
        name=person.name,
        sex=person.sex,
        birth_date=person.birth_date,
        identifiers=tuple(NewIdentifier(*each) for each in person.identifiers),
        phone=person.phone or None,
        address=person.address or None,
        deceased_on=person.deceased_on or None,
    )


def _as_known(resident_id: str, person: Person) -> KnownPerson:
    return KnownPerson(resident_id, person.sex, int(person.birth_date[:4]), person.deceased_on)


def _updated(held: Person, person: Person) -> Person:
    """Somebody as a later message of the same window has him: what it says replaces."""
    return replace(
        held,
        name=person.name or held.name,
        sex=person.sex or held.sex,
        birth_date=person.birth_date or held.birth_date,
        phone=person.phone or held.phone,
        address=person.address or held.address,
        deceased_on=person.deceased_on or held.deceased_on,
    )


def _contradicts(held: Person, person: Person) -> bool:
    """Two introductions of one identifier that cannot be one person's."""
    numbers = {
        value
        for each in (held, person)
        for system, value in each.identifiers
        if system == "identity_number"
    }
    return len(numbers) > 1
