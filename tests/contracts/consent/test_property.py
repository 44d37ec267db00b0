"""Whatever residents consent to: every reader shows what a plain model of the rules shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.security.caller import Caller, CallerKind
from node.storage import open_engine
from node.storage.engine import EngineLimits
from tests.contracts.consent.world import HERE, World, caller, row_id_of
from tests.databases import Database

HOMES: Final = (HERE, "141002001201", "141002001202", "141002", "141024")
BELOW: Final = frozenset(HOMES[:3])
ABOVE: Final = (HERE, "141002", "1410")
ORGANIZATIONS: Final = ("", "a", "b")
PURPOSES: Final = ("treatment", "registration", "research", "operation", "a move")
SPOKEN_OF: Final = frozenset(
    {"treatment", "registration", "public_health", "management", "statistics", "research"}
)


@dataclass(frozen=True)
class Consent:
    purpose: str
    recipient: str
    deny: bool
    days: tuple[int, int | None]
    revoked: bool


@dataclass(frozen=True)
class Relation:
    organization: str
    author: str
    days: tuple[int, int | None]
    ended: bool


@dataclass(frozen=True)
class Grant:
    grantee: str
    author: str
    minutes: tuple[int, int]
    glass: bool
    revoked: bool


@dataclass(frozen=True)
class Situation:
    """One resident, a record of his, and what decides over both."""

    home: str
    registered_for: str
    author: str
    written_for: str
    consents: tuple[Consent, ...]
    relations: tuple[Relation, ...]
    grants: tuple[Grant, ...]


def _sees(asker: Caller, it: Situation, author: str, written_for: str) -> bool:
    """The rules, as one would say them."""
    if it.home not in BELOW and author != HERE:
        return False
    forbidden = any(_forbids(each, asker) for each in it.consents)
    if asker.kind is not CallerKind.STAFF:
        return not forbidden
    live = [each for each in it.grants if _is_live(each, asker, it.home)]
    if any(each.glass for each in live):
        return True
    if forbidden:
        return False
    own = asker.organization_id != "" and asker.organization_id == written_for
    return own or bool(live) or any(_cares(each, asker, it.home) for each in it.relations)


def _forbids(consent: Consent, asker: Caller) -> bool:
    if not consent.deny or consent.revoked or not _is_today(consent.days):
        return False
    everything = asker.kind is CallerKind.OPERATOR or asker.purpose not in SPOKEN_OF
    if not everything and consent.purpose not in {"any", asker.purpose}:
        return False
    word, _, name = consent.recipient.partition(":")
    if word == "everyone":
        return True
    if word == "organization":
        return name == asker.organization_id
    return name in ABOVE


def _cares(relation: Relation, asker: Caller, home: str) -> bool:
    return (
        asker.organization_id == relation.organization
        and relation.organization != ""
        and relation.author in {HERE, home}
        and not relation.ended
        and _is_today(relation.days)
    )


def _is_live(grant: Grant, asker: Caller, home: str) -> bool:
    word, _, name = grant.grantee.partition(":")
    named = asker.staff_id if word == "staff" else asker.organization_id
    begins, ends = grant.minutes
    return (
        named != ""
        and name == named
        and grant.author in {HERE, home}
        and not grant.revoked
        and begins <= 0 < ends
    )


def _is_today(days: tuple[int, int | None]) -> bool:
    return days[0] <= 0 and (days[1] is None or days[1] >= 0)


days = st.tuples(st.integers(-1, 1), st.sampled_from([None, -1, 0, 1]))
organizations = st.sampled_from(ORGANIZATIONS)
homes = st.sampled_from(HOMES)
recipients = st.sampled_from(
    [
        "everyone",
        "organization:a",
        "organization:b",
        *(f"division:{code}" for code in (HERE, "1410", "141024", "141002001201")),
    ]
)
consents = st.builds(
    Consent,
    st.sampled_from(["any", "treatment", "registration", "research"]),
    recipients,
    st.booleans(),
    days,
    st.booleans(),
)
relations = st.builds(Relation, st.sampled_from(["a", "b"]), homes, days, st.booleans())
grants = st.builds(
    Grant,
    st.sampled_from(["staff:s", "staff:t", "organization:a", "organization:b"]),
    homes,
    st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
    st.booleans(),
    st.booleans(),
)
situations = st.builds(
    Situation,
    homes,
    organizations,
    homes,
    organizations,
    st.lists(consents, max_size=3).map(tuple),
    st.lists(relations, max_size=2).map(tuple),
    st.lists(grants, max_size=2).map(tuple),
)
askers = st.builds(
    caller,
    st.sampled_from([CallerKind.CLIENT, CallerKind.OPERATOR] + [CallerKind.STAFF] * 4),
    purpose=st.sampled_from(PURPOSES),
    organization=organizations,
    staff_id=st.sampled_from(["", "s", "t"]),
)


def _fill(world: World, situations_: list[Situation]) -> None:
    """Every situation, a resident each; his number tells them apart."""
    for number, it in enumerate(situations_):
        resident_id = world.add_resident(number, it.home, it.registered_for)
        world.add(
            "observations",
            resident_id,
            it.home,
            author=it.author,
            row_id=row_id_of(number, 1),
            author_organization=it.written_for or None,
        )
        for consent in it.consents:
            world.add(
                "consents",
                resident_id,
                it.home,
                purpose=consent.purpose,
                recipient=consent.recipient,
                decision="deny" if consent.deny else "permit",
                from_on=world.day(consent.days[0]),
                until_on=None if consent.days[1] is None else world.day(consent.days[1]),
                revoked_at=world.moment(0) if consent.revoked else None,
            )
        for relation in it.relations:
            world.add(
                "care_relations",
                resident_id,
                it.home,
                author=relation.author,
                organization_id=relation.organization,
                from_on=world.day(relation.days[0]),
                until_on=None if relation.days[1] is None else world.day(relation.days[1]),
                ended_at=world.moment(0) if relation.ended else None,
            )
        for grant in it.grants:
            world.add(
                "access_grants",
                resident_id,
                it.home,
                author=grant.author,
                grantee=grant.grantee,
                kind="break_glass" if grant.glass else "consultation",
                from_at=world.moment(grant.minutes[0]),
                until_at=world.moment(grant.minutes[1]),
                revoked_at=world.moment(0) if grant.revoked else None,
            )
    world.store()


def _check(world: World, made: list[Situation], asked: list[Caller]) -> None:
    world.empty()
    _fill(world, made)
    ids = [row_id_of(number) for number in range(len(made))]
    for asker in asked:
        expected = {
            row_id_of(number)
            for number, it in enumerate(made)
            if _sees(asker, it, it.home, it.registered_for)
        }
        assert world.answered(world.storage, asker, ids) == expected
        assert world.answered(world.cached, asker, ids) == expected
        for number, it in enumerate(made):
            resident_id, record_id = row_id_of(number), row_id_of(number, 1)
            shown = world.read_one_by_one(asker, resident_id, record_id)
            seen = {"resident", "find"} if resident_id in expected else set()
            if _sees(asker, it, it.author, it.written_for):
                seen |= {"record", "timeline"}
            assert shown == seen


@pytest.fixture(scope="module")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A township that is emptied before each example."""
    path = tmp_path_factory.mktemp("property") / "store.db"
    return World(open_engine(f"sqlite:///{path}", EngineLimits(connections=6)))


_SEVERAL: Final = st.lists(situations, min_size=1, max_size=4)
_ASKED: Final = st.lists(askers, min_size=1, max_size=2)


@given(made=_SEVERAL, asked=_ASKED)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_reader_agrees_with_the_model(
    sqlite_world: World, made: list[Situation], asked: list[Caller]
) -> None:
    """Consents, relations and grants of every kind, period and author; on SQLite."""
    _check(sqlite_world, made, asked)


@pytest.mark.mariadb
def test_mariadb_agrees_with_the_model(mariadb_database: Database) -> None:
    """The same with fewer examples."""
    world = World(mariadb_database.engine)

    @given(made=_SEVERAL, asked=_ASKED)
    @settings(max_examples=20, deadline=None)
    def agrees(made: list[Situation], asked: list[Caller]) -> None:
        _check(world, made, asked)

    agrees()
