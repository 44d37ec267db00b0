"""Consents, relations, grants and broken glasses, as callers write and end them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pytest

from node.clock import format_ms, today
from node.consent.access import BREAK_GLASS_MINUTES, AccessDesk
from node.consent.consents import ConsentDesk
from node.consent.errors import (
    AccessAuthorError,
    AccessUnknownError,
    BreakGlassError,
    ConsentNotAtHomeError,
)
from node.consent.model import Consent, Wanted
from node.consent.reviews import ReviewDesk, glasses_waiting
from node.errors import DeniedError, DiskFullError, InvalidRequestError, NotFoundError
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.storage.answers import ResidentQuestion
from node.storage.errors import RequestIdReusedError
from replication.changelog import read_transaction
from tests.contracts.consent.world import (
    HERE,
    MINUTE_MS,
    ORGANIZATION,
    OTHER,
    World,
    caller,
    row_id_of,
)

VILLAGE = "141002001201"
ELSEWHERE = "141024"
HIS = row_id_of(1)
BELOW = row_id_of(2)
STRANGER = row_id_of(3)
CLIENT = caller()
DOCTOR = caller(CallerKind.STAFF, organization=ORGANIZATION, staff_id="d", role=Role.DOCTOR)
NURSE = caller(CallerKind.STAFF, organization=ORGANIZATION, staff_id="n", role=Role.NURSE)
REGISTRAR = caller(CallerKind.STAFF, organization=ORGANIZATION, staff_id="r", role=Role.REGISTRAR)
OTHER_DOCTOR = caller(CallerKind.STAFF, organization=OTHER, staff_id="f", role=Role.DOCTOR)
AUDITOR = caller(CallerKind.STAFF, purpose="audit", staff_id="a", role=Role.AUDITOR)
ADMINISTRATOR = caller(CallerKind.STAFF, staff_id="m", role=Role.ADMINISTRATOR)
DENY = Wanted("q", HIS, what="deny", whom="everyone", purpose="any", reason="paper 7")


@dataclass
class Desks:
    """A township with a resident of its own, one of a village, and one of another county."""

    world: World

    def __post_init__(self) -> None:
        for number, home in ((1, HERE), (2, VILLAGE), (3, ELSEWHERE)):
            self.world.add_resident(number, home)
        self.world.store()
        context = self.world.storage.context
        self.consents = ConsentDesk(context, lambda: None)
        self.access = AccessDesk(context, lambda: None)
        self.reviews = ReviewDesk(context, lambda: None)

    def sees(self, asker: Caller, resident_id: str = HIS) -> bool:
        return self.world.storage.resident(asker, resident_id) is not None

    def entries(self) -> list[tuple[str, str, str | None, str]]:
        """What the audit says of this room's rows."""
        return [
            (entry.action, entry.object_table, entry.resident_id, entry.outcome)
            for entry in self.world.storage.audit_entries(limit=1000)
            if entry.object_table not in {"residents", "records"}
        ]


@pytest.fixture
def desks(world: World) -> Desks:
    """On each database."""
    return Desks(world)


def _relate(
    desks: Desks,
    asker: Caller = REGISTRAR,
    *,
    name: str = "r",
    kind: str = "contract",
    to: str = "",
) -> str:
    return desks.access.relate(asker, Wanted(name, HIS, kind, to)).relation_id


# -- consents -----------------------------------------------------------------------------------


def test_a_consent_is_obeyed_from_its_commit_until_it_is_revoked(desks: Desks) -> None:
    """No reader, cached or not, is late in either direction."""
    world = desks.world
    world.follow()
    assert world.answered(world.cached, CLIENT, [HIS]) == {HIS}

    consent = desks.consents.put(CLIENT, DENY)
    assert not desks.sees(CLIENT)
    assert world.answered(world.cached, CLIENT, [HIS]) == set()

    revoked = desks.consents.revoke(CLIENT, consent.consent_id)
    assert revoked.revoked_at
    assert desks.sees(CLIENT)
    assert world.answered(world.cached, CLIENT, [HIS]) == {HIS}
    assert desks.entries() == [
        ("consent", "consents", HIS, "done"),
        ("revoke", "consents", HIS, "done"),
    ]


def test_the_same_request_writes_one_consent(desks: Desks) -> None:
    """An answer may be lost; asking again neither doubles nor revives."""
    first = desks.consents.put(CLIENT, DENY)
    assert desks.consents.put(CLIENT, DENY) == first
    desks.consents.revoke(CLIENT, first.consent_id)
    again = desks.consents.put(CLIENT, DENY)
    assert again.consent_id == first.consent_id
    assert again.revoked_at
    assert [each.consent_id for each in _listed(desks)] == [first.consent_id]
    with pytest.raises(RequestIdReusedError):
        desks.consents.put(CLIENT, Wanted("q", HIS, "permit", "everyone", "any"))
    # Another's request of the same name is another request.
    assert desks.consents.put(REGISTRAR, DENY).consent_id != first.consent_id


def _listed(desks: Desks) -> list[Consent]:
    return desks.consents.listed(CLIENT, HIS, after="", limit=10)


def test_revoking_twice_keeps_the_first_time(desks: Desks) -> None:
    """When he said so, not when it was said again."""
    consent = desks.consents.put(CLIENT, DENY)
    first = desks.consents.revoke(CLIENT, consent.consent_id)
    desks.world.clock.ms += MINUTE_MS
    assert desks.consents.revoke(CLIENT, consent.consent_id) == first


def test_a_consent_is_written_down_at_home_alone(desks: Desks) -> None:
    """Above it the answer names the home; of a stranger it names nothing."""
    with pytest.raises(ConsentNotAtHomeError, match=VILLAGE):
        desks.consents.put(CLIENT, Wanted("q", BELOW, "deny", "everyone", "any"))
    with pytest.raises(NotFoundError) as raised:
        desks.consents.put(CLIENT, Wanted("q", STRANGER, "deny", "everyone", "any"))
    assert ELSEWHERE not in str(raised.value)
    assert desks.entries() == []


@pytest.mark.parametrize("asker", [CLIENT, DOCTOR])
def test_a_stated_purpose_opens_nothing_that_is_forbidden_without_it(
    desks: Desks, asker: Caller
) -> None:
    """What the method is for binds as well as what is stated; what concerns neither, does not."""
    _relate(desks)
    stated = replace(asker, purpose="public_health", default_purpose="treatment")
    for purpose, seen in (("research", True), ("treatment", False), ("public_health", False)):
        said = replace(DENY, request_id=purpose, purpose=purpose)
        consent = desks.consents.put(CLIENT, said)
        assert desks.sees(stated) is seen
        desks.consents.revoke(CLIENT, consent.consent_id)
    assert desks.sees(stated)


@pytest.mark.parametrize(
    "form", [date.isoformat, lambda day: f"{day:%Y%m%d}", lambda day: f"{day:%G-W%V-%u}"]
)
def test_a_day_holds_in_whatever_form_it_is_written(
    desks: Desks, form: Callable[[date], str]
) -> None:
    """It is stored in the form in which it is compared; the request that comes again says it so."""
    day = today(desks.world.clock)
    until = form(day + timedelta(1))
    wanted = Wanted("q", HIS, "deny", "everyone", "any", from_on=form(day), until_on=until)
    consent = desks.consents.put(CLIENT, wanted)
    assert (consent.from_on, consent.until_on) == (desks.world.day(0), desks.world.day(1))
    assert not desks.sees(CLIENT)
    assert desks.consents.put(CLIENT, wanted) == consent
    desks.world.clock.ms += 2 * 24 * 60 * MINUTE_MS
    assert desks.sees(CLIENT)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted("q", HIS, "forbid", "everyone", "any"),
        Wanted("q", HIS, "deny", "everybody", "any"),
        Wanted("q", HIS, "deny", "division:x", "any"),
        Wanted("q", HIS, "deny", "everyone", "curiosity"),
        Wanted("q", HIS, "deny", "everyone", "any", from_on="tomorrow"),
        Wanted("q", HIS, "deny", "everyone", "any", from_on="2026-03-02", until_on="2026-03-01"),
        Wanted("q", HIS, "deny", "everyone", "any", reason="x" * 201),
        Wanted("q", "张三", "deny", "everyone", "any"),
        Wanted("", HIS, "deny", "everyone", "any"),
    ],
)
def test_refuses_what_is_no_consent(desks: Desks, wanted: Wanted) -> None:
    """Each with what was expected; nothing is written."""
    with pytest.raises(InvalidRequestError):
        desks.consents.put(CLIENT, wanted)
    assert _listed(desks) == []


def test_who_may_not_see_him_may_still_write_down_what_he_says(desks: Desks) -> None:
    """He who has forbidden everything must be able to allow it again."""
    consent = desks.consents.put(REGISTRAR, DENY)
    assert not desks.sees(REGISTRAR)
    assert [each.consent_id for each in _listed(desks)] == [consent.consent_id]
    desks.consents.revoke(REGISTRAR, consent.consent_id)


# -- care relations -----------------------------------------------------------------------------


def test_a_relation_opens_a_resident_to_the_organization_that_cares(desks: Desks) -> None:
    """To all of its staff, to nobody else's, until it ends."""
    assert not desks.sees(DOCTOR)
    relation_id = _relate(desks)
    assert desks.sees(DOCTOR)
    assert not desks.sees(OTHER_DOCTOR)
    desks.access.end_relation(REGISTRAR, relation_id)
    assert not desks.sees(DOCTOR)


def test_a_relation_ends_by_itself(desks: Desks) -> None:
    """An encounter after thirty days."""
    _relate(desks, kind="encounter")
    desks.world.clock.ms += 30 * 24 * 60 * MINUTE_MS
    assert desks.sees(DOCTOR)
    desks.world.clock.ms += 24 * 60 * MINUTE_MS
    assert not desks.sees(DOCTOR)


def test_a_relation_is_opened_by_the_card_that_he_shows(desks: Desks) -> None:
    """By the whole number, of somebody whom this node may know."""
    by_number = Wanted("r", "", "encounter", identifier=("identity_number", "n2"))
    assert desks.access.relate(REGISTRAR, by_number).resident_id == BELOW
    assert desks.sees(DOCTOR, BELOW)
    for number in ("n3", "n9", "n"):
        wanted = Wanted("s", "", "encounter", identifier=("identity_number", number))
        with pytest.raises(NotFoundError):
            desks.access.relate(REGISTRAR, wanted)


def test_staff_open_and_end_relations_of_their_own(desks: Desks) -> None:
    """A clinic's system says which organization it means."""
    with pytest.raises(DeniedError):
        _relate(desks, to=OTHER)
    with pytest.raises(DeniedError):
        _relate(desks, caller(CallerKind.STAFF, staff_id="x", role=Role.REGISTRAR))
    with pytest.raises(InvalidRequestError):
        _relate(desks, CLIENT)
    others = _relate(desks, CLIENT, to=OTHER)
    assert desks.sees(OTHER_DOCTOR)
    with pytest.raises(AccessUnknownError):
        desks.access.end_relation(REGISTRAR, others)
    desks.access.end_relation(ADMINISTRATOR, others)
    assert not desks.sees(OTHER_DOCTOR)


def test_what_another_node_wrote_is_ended_there(desks: Desks) -> None:
    """Each row has one writer."""
    row = desks.world.add(
        "care_relations", BELOW, VILLAGE, organization_id=ORGANIZATION, from_on="2026-01-01"
    )
    desks.world.store()
    with pytest.raises(AccessAuthorError, match=VILLAGE):
        desks.access.end_relation(REGISTRAR, row.row_id)


# -- grants -------------------------------------------------------------------------------------


def test_a_doctor_grants_what_he_sees_and_no_more(desks: Desks) -> None:
    """To one colleague elsewhere, for some hours."""
    wanted = Wanted("g", HIS, whom="staff:f", reason="second opinion", hours=2)
    with pytest.raises(NotFoundError):
        desks.access.grant(DOCTOR, wanted)
    _relate(desks)
    grant = desks.access.grant(DOCTOR, wanted)
    assert desks.sees(OTHER_DOCTOR)
    assert grant.until_at == format_ms(desks.world.clock.ms + 120 * MINUTE_MS)
    with pytest.raises(AccessUnknownError):
        desks.access.revoke_grant(OTHER_DOCTOR, grant.grant_id)
    desks.access.revoke_grant(DOCTOR, grant.grant_id)
    assert not desks.sees(OTHER_DOCTOR)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted("g", HIS, whom="everyone", reason="second opinion"),
        Wanted("g", HIS, whom="staff:f", reason=" no "),
        Wanted("g", HIS, whom="staff:f", reason="second opinion", hours=2161),
        Wanted("g", HIS, whom="staff:d", reason="second opinion"),
        Wanted("g", HIS, whom=f"organization:{ORGANIZATION}", reason="second opinion"),
    ],
)
def test_refuses_what_is_no_grant(desks: Desks, wanted: Wanted) -> None:
    """To nobody in particular, for no reason, for ever, to oneself."""
    _relate(desks)
    with pytest.raises(InvalidRequestError):
        desks.access.grant(DOCTOR, wanted)


# -- broken glass -------------------------------------------------------------------------------


def test_a_broken_glass_beats_a_consent_for_half_an_hour_and_says_so(desks: Desks) -> None:
    """One person, one resident; the audit names it."""
    desks.consents.put(CLIENT, DENY)
    broken = desks.access.break_glass(DOCTOR, Wanted("b", HIS, reason="unconscious"))
    assert broken.overrides
    assert broken.grant.reason == "unconscious"
    assert desks.sees(DOCTOR)
    assert not desks.sees(NURSE)
    assert not desks.sees(CLIENT)
    assert not desks.sees(DOCTOR, BELOW)
    assert ("break_glass", "access_grants", HIS, "done") in desks.entries()

    desks.world.clock.ms += BREAK_GLASS_MINUTES * MINUTE_MS - 1
    assert desks.sees(DOCTOR)
    desks.world.clock.ms += 1
    assert not desks.sees(DOCTOR)


def test_each_read_through_a_broken_glass_is_marked_with_its_grant(desks: Desks) -> None:
    """Whoever reviews it finds what was looked at; nobody else's reads, and none after it."""
    desks.consents.put(CLIENT, DENY)
    desks.sees(DOCTOR)
    grant = desks.access.break_glass(DOCTOR, Wanted("b", HIS, reason="unconscious")).grant
    storage = desks.world.storage
    storage.resident(DOCTOR, HIS)
    storage.timeline(DOCTOR, HIS, size=10, token="")
    storage.resident_answers(
        [ResidentQuestion(DOCTOR, HIS), ResidentQuestion(CLIENT, HIS)], lambda _: b"wire"
    )
    storage.resident(DOCTOR, BELOW)
    storage.resident(OTHER_DOCTOR, HIS)
    desks.world.clock.ms += BREAK_GLASS_MINUTES * MINUTE_MS
    storage.resident(DOCTOR, HIS)
    marked = [
        (entry.action, entry.principal)
        for entry in storage.audit_entries(limit=1000)
        if entry.grant_id == grant.grant_id
    ]
    assert marked == [
        (action, DOCTOR.principal) for action in ("break_glass", "read", "timeline", "read")
    ]
    assert all(entry.grant_id in {None, grant.grant_id} for entry in storage.audit_entries())
    while storage.link_audit():
        pass
    assert storage.verify_audit() is None


def test_asking_again_does_not_lengthen_a_broken_glass(desks: Desks) -> None:
    """The same request has the same end."""
    wanted = Wanted("b", HIS, reason="unconscious")
    first = desks.access.break_glass(DOCTOR, wanted)
    desks.world.clock.ms += 29 * MINUTE_MS
    assert desks.access.break_glass(DOCTOR, wanted) == first
    assert not first.overrides


def test_glasses_are_broken_by_persons_for_a_reason(desks: Desks) -> None:
    """Not by a certificate, not for nothing, not for a stranger."""
    for nobody in (CLIENT, caller(CallerKind.STAFF, organization=ORGANIZATION)):
        with pytest.raises(BreakGlassError):
            desks.access.break_glass(nobody, Wanted("b", HIS, reason="unconscious"))
    with pytest.raises(InvalidRequestError):
        desks.access.break_glass(DOCTOR, Wanted("b", HIS, reason="  ?  "))
    with pytest.raises(NotFoundError):
        desks.access.break_glass(DOCTOR, Wanted("b", STRANGER, reason="unconscious"))


def test_a_home_reviews_what_was_broken_over_its_residents(desks: Desks) -> None:
    """Until somebody has said what he found; of others' residents it has no queue."""
    grant = desks.access.break_glass(DOCTOR, Wanted("b", HIS, reason="unconscious")).grant
    below = desks.access.break_glass(DOCTOR, Wanted("c", BELOW, reason="unconscious")).grant
    (waiting,) = desks.reviews.listed(AUDITOR, closed_too=False, after="", limit=10)
    assert (waiting.grant, waiting.state) == (grant, "open")
    assert _waiting(desks) == 1

    with pytest.raises(InvalidRequestError):
        desks.reviews.close(AUDITOR, grant.grant_id, "fine", "")
    with pytest.raises(ConsentNotAtHomeError, match=VILLAGE):
        desks.reviews.close(AUDITOR, below.grant_id, "justified", "")
    closed = desks.reviews.close(AUDITOR, grant.grant_id, "justified", "he was")
    assert (closed.state, closed.note) == ("justified", "he was")
    assert desks.reviews.close(AUDITOR, grant.grant_id, "justified", "again") == closed
    with pytest.raises(AccessUnknownError):
        desks.reviews.close(AUDITOR, grant.grant_id, "unjustified", "")
    assert _waiting(desks) == 0
    assert desks.reviews.listed(AUDITOR, closed_too=False, after="", limit=10) == []
    assert desks.reviews.listed(AUDITOR, closed_too=True, after="", limit=10) == [closed]


def _waiting(desks: Desks) -> int:
    with read_transaction(desks.world.engine) as connection:
        return glasses_waiting(connection, HERE)


def test_a_list_comes_in_pages(desks: Desks) -> None:
    """By id, from where the page before ended."""
    for number in range(3):
        desks.consents.put(CLIENT, Wanted(f"q{number}", HIS, "permit", "everyone", "any"))
        _relate(desks, name=f"r{number}")
    ids = [each.consent_id for each in _listed(desks)]
    assert ids == sorted(ids)
    rest = desks.consents.listed(CLIENT, HIS, after=ids[0], limit=1)
    assert [each.consent_id for each in rest] == ids[1:2]
    relations, grants = desks.access.listed(CLIENT, HIS, after="", limit=2)
    assert (len(relations), grants) == (2, [])


def test_nothing_is_written_on_a_full_disk(desks: Desks) -> None:
    """Of anything this room writes."""

    def full() -> None:
        raise DiskFullError("no")

    context = desks.world.storage.context
    consents, access = ConsentDesk(context, full), AccessDesk(context, full)
    reviews = ReviewDesk(context, full)
    writes: list[Callable[[], object]] = [
        lambda: consents.put(CLIENT, DENY),
        lambda: consents.revoke(CLIENT, HIS),
        lambda: access.relate(REGISTRAR, Wanted("r", HIS, "contract")),
        lambda: access.end_relation(REGISTRAR, HIS),
        lambda: access.grant(DOCTOR, Wanted("g", HIS, whom="staff:f", reason="because")),
        lambda: access.revoke_grant(DOCTOR, HIS),
        lambda: access.break_glass(DOCTOR, Wanted("b", HIS, reason="because")),
        lambda: reviews.close(AUDITOR, HIS, "justified", ""),
    ]
    for write in writes:
        with pytest.raises(DiskFullError):
            write()


def test_a_note_and_a_reason_are_sealed(desks: Desks) -> None:
    """What is said of a person stands in no column that can be read."""
    desks.consents.put(CLIENT, DENY)
    desks.access.break_glass(DOCTOR, Wanted("b", HIS, reason="unconscious"))
    with desks.world.engine.connect() as connection:
        for table, column, text in (
            ("consents", "note", b"paper 7"),
            ("access_grants", "reason", b"unconscious"),
        ):
            sealed = connection.exec_driver_sql(f"SELECT {column} FROM {table}").scalar_one()
            assert text not in bytes(sealed)
