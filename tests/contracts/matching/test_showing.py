"""What a caller is shown: only pairs and candidates whom he may see, in order, audited."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import insert

from node.matching import showing
from node.matching.book import PairBook, evidence_text
from node.matching.finder import Finder
from node.matching.model import (
    Candidates,
    Evidence,
    MatchOutcome,
    PairKey,
    PairState,
    Reason,
    key_of,
)
from node.matching.showing import Shower
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.storage.audit import Action
from node.storage.errors import PageTokenError
from node.storage.tables import MATCHING
from replication.changelog import write_transaction
from tests.contracts.consent.world import HERE, ORGANIZATION, OTHER, World, caller, row_id_of
from tests.contracts.matching.place import values

VILLAGE = f"{HERE}201"
CLIENT = caller()
REGISTRAR = caller(
    CallerKind.STAFF,
    purpose="registration",
    organization=ORGANIZATION,
    staff_id="staff-r",
    role=Role.REGISTRAR,
)
NOBODY = caller(CallerKind.STAFF, staff_id="staff-n", role=Role.DOCTOR)


@dataclass
class Place:
    """A township with people of two organizations."""

    world: World
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.context = self.world.storage.context
        self.shower = Shower(self.context, PairBook(self.context))

    def add(self, who: int, organization: str = ORGANIZATION) -> str:
        """A resident as an organization wrote him; his id."""
        resident_id = row_id_of(next(self._numbers))
        self.world.add(
            "residents",
            resident_id,
            VILLAGE,
            row_id=resident_id,
            author_organization=organization,
            **values(who),
        )
        return resident_id

    def find(self) -> Finder:
        """Everybody stored and asked for."""
        self.world.store()
        from node.empi.defaults import shipped_model

        finder = Finder(self.world.storage, shipped_model())
        while finder.step(self.world.node.durable_head()):
            pass
        return finder

    def keys(self, asker: Caller, state: PairState = PairState.WAITING) -> list[PairKey]:
        """All pairs that he is shown."""
        return [
            (pair.first_id, pair.second_id)
            for pair in self.shower.pairs(asker, state, "", 200).pairs
        ]

    def candidates(self, finder: Finder, asker: Caller, who: int, limit: int = 10) -> Candidates:
        """Asked by what is known of somebody."""
        answer = finder.query(values(who))
        return self.shower.candidates(asker, answer, finder.standing, limit)

    def deeds(self) -> list[tuple[str, str, str | None, str]]:
        """What the audit says of looking for people."""
        return [
            (each.principal, each.object_table, each.resident_id, each.outcome)
            for each in self.world.storage.audit_entries(limit=10_000)
            if each.action == Action.FIND
        ]

    def keep(self, *chances: float) -> list[PairKey]:
        """Pairs of so many certainties, of residents who are here."""
        keys, rows = [], []
        for chance in chances:
            key = key_of(self.add(1), self.add(1))
            keys.append(key)
            reason = (Reason("name", "exact", 3.25), Reason("related", "alone", 0.0))
            evidence = Evidence(3.25, chance, MatchOutcome.REVIEW, reason)
            rows.append(
                {
                    "first_id": key[0],
                    "second_id": key[1],
                    "weight": 3.25,
                    "probability": chance,
                    "outcome": "review",
                    "why": evidence_text(evidence),
                    "model_digest": "d",
                    "state": "waiting",
                    "found_at": 1,
                }
            )
        self.world.store()
        with write_transaction(self.world.engine) as connection:
            connection.execute(insert(MATCHING.pairs), rows)
        return keys


@pytest.fixture
def place(world: World) -> Place:
    """On each database."""
    return Place(world)


def test_a_pair_is_shown_to_who_may_see_both(place: Place) -> None:
    """An organization's registrar sees its own people; a clinic's system, all of the township."""
    own, mixed, foreign = (
        key_of(place.add(who, one), place.add(who, other))
        for who, (one, other) in enumerate(
            itertools.combinations_with_replacement((ORGANIZATION, OTHER), 2)
        )
    )
    place.find()
    assert sorted(place.keys(CLIENT)) == sorted([own, mixed, foreign])
    assert place.keys(REGISTRAR) == [own]
    assert place.keys(NOBODY) == []


def test_a_consent_that_forbids_hides_the_pair(place: Place) -> None:
    """One of the two is enough."""
    hidden = key_of(place.add(1), place.add(1))
    place.world.add(
        "consents",
        hidden[1],
        VILLAGE,
        decision="deny",
        recipient="everyone",
        purpose="any",
        from_on=place.world.day(-9),
    )
    finder = place.find()
    assert place.keys(CLIENT) == []
    asked = place.candidates(finder, CLIENT, 1)
    assert [each.resident_id for each in asked.found] == [hidden[0]]


def test_a_candidate_is_shown_to_who_may_see_him(place: Place) -> None:
    """And nobody learns that there is another: who is not seen changes no outcome."""
    ours = place.add(1)
    theirs = place.add(1, OTHER)
    place.add(2, OTHER)
    finder = place.find()

    seen = place.candidates(finder, CLIENT, 1)
    assert {each.resident_id for each in seen.found} == {ours, theirs}
    assert seen.outcome is MatchOutcome.REVIEW
    own = place.candidates(finder, REGISTRAR, 1)
    assert [each.resident_id for each in own.found] == [ours]
    assert own.outcome is MatchOutcome.LINK
    assert own.found[0].evidence.probability > 0.9
    weight = sum(each.bits for each in own.found[0].evidence.why)
    assert weight == pytest.approx(own.found[0].evidence.weight)
    for asked in (
        place.candidates(finder, REGISTRAR, 2),
        place.candidates(finder, NOBODY, 1),
        place.candidates(finder, CLIENT, 9),
    ):
        assert (asked.outcome, asked.found, asked.is_partial) == (MatchOutcome.NEW, (), False)


def test_who_is_shown_is_audited(place: Place) -> None:
    """Each of them by name, and that nobody was; whom the limit cuts off is not."""
    first, second = place.add(1), place.add(1)
    finder = place.find()
    place.keys(CLIENT)
    place.candidates(finder, REGISTRAR, 1, limit=1)
    place.candidates(finder, REGISTRAR, 5)
    place.keys(NOBODY)

    shown = place.candidates(finder, REGISTRAR, 1, limit=1).found[0].resident_id
    assert place.deeds() == [
        (CLIENT.principal, "match_pairs", first, "done"),
        (CLIENT.principal, "match_pairs", second, "done"),
        (REGISTRAR.principal, "residents", shown, "done"),
        (REGISTRAR.principal, "residents", None, "not_found"),
        (NOBODY.principal, "match_pairs", None, "not_found"),
        (REGISTRAR.principal, "residents", shown, "done"),
    ]


def test_the_limit_hides_no_second_certain_one(place: Place) -> None:
    """Two who are certain are for review, however few are shown."""
    place.add(1), place.add(1)
    finder = place.find()
    asked = place.candidates(finder, CLIENT, 1, limit=1)
    assert (len(asked.found), asked.outcome) == (1, MatchOutcome.REVIEW)


def test_the_likeliest_come_first_page_by_page(place: Place) -> None:
    """Each once, whatever fits on a page, and equals in the order of their ids."""
    chances = [0.1, 1 / 3, 0.7, 0.7, 0.7, 0.999999999994722, 0.02, 2 / 3]
    keys = place.keep(*chances)
    expected = sorted(zip(keys, chances, strict=True), key=lambda each: (-each[1], each[0]))
    for limit in (1, 2, 3, 50):
        shown: list[tuple[PairKey, float]] = []
        after, pages = "", 0
        while pages == 0 or after:
            page = place.shower.pairs(CLIENT, PairState.WAITING, after, limit)
            assert len(page.pairs) <= limit
            shown += [
                ((each.first_id, each.second_id), each.evidence.probability) for each in page.pairs
            ]
            after, pages = page.next, pages + 1
            assert pages <= len(keys)
        assert shown == expected
    only = place.shower.pairs(CLIENT, PairState.WAITING, "", 1).pairs[0]
    assert only.evidence.why == (Reason("name", "exact", 3.25), Reason("related", "alone", 0.0))
    assert place.keys(CLIENT, PairState.GONE) == []


def test_a_page_is_given_up_after_many_whom_he_may_not_see(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He asks on, and what he asks with names nobody."""
    monkeypatch.setattr(showing, "_LOOKED_AT", 2)
    monkeypatch.setattr(showing, "_LOOKS", 2)
    keys = place.keep(*[0.5] * 9)
    page = place.shower.pairs(NOBODY, PairState.WAITING, "", 5)
    assert page.pairs == ()
    clear = base64.urlsafe_b64decode(page.next)
    assert not any(each.encode() in clear for key in keys for each in key)
    pages = 1
    while page.next:
        page = place.shower.pairs(NOBODY, PairState.WAITING, page.next, 5)
        pages += 1
    assert pages == 3
    with pytest.raises(PageTokenError):
        place.shower.pairs(CLIENT, PairState.WAITING, _next(place), 5)


def _next(place: Place) -> str:
    return place.shower.pairs(NOBODY, PairState.WAITING, "", 5).next


@pytest.mark.parametrize(
    "made", [lambda good: "x", lambda good: "é" * 9, lambda good: good[:-4], lambda good: good * 20]
)
def test_a_made_up_token_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, made: Callable[[str], str]
) -> None:
    """Whatever it is made of."""
    place.keep(0.5, 0.6)
    good = place.shower.pairs(CLIENT, PairState.WAITING, "", 1).next
    with pytest.raises(PageTokenError):
        place.shower.pairs(CLIENT, PairState.WAITING, made(good), 1)
