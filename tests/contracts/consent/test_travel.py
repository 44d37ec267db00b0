"""Consents rise, grants come down, and what a member of staff writes is his organization's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.consent.access import AccessDesk
from node.consent.consents import ConsentDesk
from node.consent.model import Wanted
from node.consent.reviews import ReviewDesk
from node.records.model import NewRecord
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.storage.errors import NotAuthorError
from replication.core.config import PeerRole
from replication.core.model import Lane
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    count,
    log_entry,
    observation,
    person,
    send,
)

RESIDENT = "00000000-0000-7000-9000-000000000001"


@pytest.fixture
def filled(region: Region) -> Region:
    """A village's resident, known up to the county."""
    village = region.node(VILLAGE)
    village.storage.put_bundle(
        village.caller(), bundle("r", person(resident_id=RESIDENT), observation(RESIDENT))
    )
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY, CITY)
    return region


def staff(node: NodeStore, organization: str = "a", name: str = "d") -> Caller:
    """A doctor at a node."""
    made = node.caller(CallerKind.STAFF, name)
    return replace(
        made, organization_id=organization, staff_id=name, roles=frozenset({Role.DOCTOR})
    )


def _sees(node: NodeStore, asker: Caller | None = None) -> bool:
    return node.storage.resident(asker or node.caller(), RESIDENT) is not None


def test_a_consent_rises_with_the_identity_and_is_obeyed_there(filled: Region) -> None:
    """As far as he is held in full; above that in the form in which he is."""
    village, county, city = (filled.node(each) for each in (VILLAGE, COUNTY, CITY))
    desk = ConsentDesk(village.storage.context, lambda: None)
    consent = desk.put(village.caller(), Wanted("c", RESIDENT, "deny", "everyone", "any"))
    assert _sees(county)
    filled.ship_up(VILLAGE, TOWNSHIP, COUNTY, CITY)
    assert not _sees(county)
    assert (count(county, "consents"), count(city, "consents")) == (1, 1)

    desk.revoke(village.caller(), consent.consent_id)
    filled.ship_up(VILLAGE, TOWNSHIP, COUNTY)
    assert _sees(county)


def test_a_broken_glass_comes_to_the_home_and_its_review_goes_back(filled: Region) -> None:
    """The row itself is the alert; who broke the glass learns what was found."""
    village, township = filled.node(VILLAGE), filled.node(TOWNSHIP)
    desk = AccessDesk(township.storage.context, lambda: None)
    grant = desk.break_glass(staff(township), Wanted("b", RESIDENT, reason="unconscious")).grant
    filled.ship(township, village)
    filled.ship(township, filled.node(VILLAGE_2))
    assert count(filled.node(VILLAGE_2), "access_grants") == 0

    reviews = ReviewDesk(village.storage.context, lambda: None)
    operator = village.caller(CallerKind.OPERATOR)
    (waiting,) = reviews.listed(operator, closed_too=False, after="", limit=10)
    assert waiting.grant == grant
    reviews.close(operator, grant.grant_id, "unjustified", "he was awake")
    filled.ship(village, township)
    assert count(township, "access_reviews") == 1


def test_a_relation_counts_where_it_was_written_and_at_home(filled: Region) -> None:
    """And nowhere between or above: each of those nodes believes itself and the home."""
    village, township, county = (filled.node(each) for each in (VILLAGE, TOWNSHIP, COUNTY))
    desk = AccessDesk(township.storage.context, lambda: None)
    desk.relate(township.caller(), Wanted("r", RESIDENT, "contract", "a"))
    filled.ship(township, village)
    filled.ship(township, county)
    assert count(county, "care_relations") == count(village, "care_relations") == 1
    assert _sees(township, staff(township))
    assert not _sees(township, staff(township, "b"))
    assert not _sees(county, staff(county))
    assert not _sees(village, staff(village))


def test_a_childs_word_opens_no_other_home(filled: Region) -> None:
    """A village that writes a grant over a resident of its neighbour opens nobody to anybody."""
    township = filled.node(TOWNSHIP)
    for author in (VILLAGE_2, VILLAGE):
        grant = change(
            "access_grants",
            author=author,
            values={
                "grantee": "staff:d",
                "kind": "break_glass",
                "from_at": "2020-01-01T00:00:00.000Z",
                "until_at": "2090-01-01T00:00:00.000Z",
            },
        )
        entry = log_entry(grant, lane=Lane.CARE, origin=VILLAGE_2)
        send(township, VILLAGE_2, PeerRole.CHILD, entry, lane=Lane.CARE)
        assert not _sees(township, staff(township))


def test_a_consent_is_taken_from_the_home_alone(filled: Region) -> None:
    """A sibling that forbids, or that revokes, changes nothing."""
    township = filled.node(TOWNSHIP)
    said = {"purpose": "any", "recipient": "everyone", "decision": "deny", "from_on": "2020-01-01"}
    for author, home in ((VILLAGE_2, VILLAGE), (VILLAGE_2, VILLAGE_2)):
        consent = change("consents", author=author, home=home, values=dict(said))
        entry = log_entry(consent, lane=Lane.IDENTITY, origin=VILLAGE_2)
        outcome = send(township, VILLAGE_2, PeerRole.CHILD, entry, lane=Lane.IDENTITY)
        assert (outcome.applied, outcome.quarantined) == (0, 1)
    assert _sees(township)


@pytest.mark.parametrize("day", ["20200101", "2020-W01-3", "2020-13-01", "0"])
@pytest.mark.parametrize("name", ["from_on", "until_on"])
def test_a_day_that_nobody_could_compare_waits_in_the_quarantine(
    filled: Region, name: str, day: str
) -> None:
    """A deny that is taken is obeyed: one that would not be is seen by the operator."""
    township = filled.node(TOWNSHIP)
    days = {"from_on": "2020-01-01", "until_on": "2090-01-01"}
    said = {"purpose": "any", "recipient": "everyone", "decision": "deny", **days}
    for row, values in enumerate(({**said, name: day}, said), start=1):
        consent = change("consents", row=row, author=VILLAGE, home=VILLAGE, values=dict(values))
        entry = log_entry(consent, lane=Lane.IDENTITY, sequence=90 + row)
        outcome = send(township, VILLAGE, PeerRole.CHILD, entry, lane=Lane.IDENTITY)
        assert outcome.quarantined == (row == 1)
        assert _sees(township) is (row == 1)


def test_what_staff_write_is_their_organizations(filled: Region) -> None:
    """They read it back, colleagues amend it, others neither; it stays the first's."""
    village = filled.node(VILLAGE)
    mine, colleague, other = staff(village), staff(village, name="e"), staff(village, "b", "f")
    (record_id,) = village.storage.put_bundle(
        mine, bundle("w", observation(RESIDENT, 120.0))
    ).record_ids
    assert village.storage.record(mine, record_id) is not None
    assert village.storage.record(other, record_id) is None
    assert village.storage.resident(mine, RESIDENT) is None

    amended = observation(RESIDENT, 121.0, record_id=record_id)
    with pytest.raises(NotAuthorError):
        village.storage.put_bundle(other, bundle("x", amended))
    village.storage.put_bundle(colleague, bundle("y", amended))
    village.storage.put_bundle(village.caller(), bundle("z", amended))
    found = village.storage.record(mine, record_id)
    assert found is not None
    assert (found.version.number, found.values["author_organization"]) == (3, "a")


def test_staff_amend_whom_they_see(filled: Region) -> None:
    """Who somebody is, is replaced as a whole, so it is read before it is written."""
    village = filled.node(VILLAGE)
    amended = bundle("a", person(resident_id=RESIDENT, name="李四"))
    with pytest.raises(NotAuthorError):
        village.storage.put_bundle(staff(village), amended)
    desk = AccessDesk(village.storage.context, lambda: None)
    desk.relate(village.caller(), Wanted("r", RESIDENT, "encounter", "a"))
    village.storage.put_bundle(staff(village), amended)
    found = village.storage.resident(staff(village), RESIDENT)
    assert found is not None
    assert found.name == "李四"


def test_a_bundle_does_not_say_for_whom_it_was_written(filled: Region) -> None:
    """The organization is the caller's: a column that nobody can give."""
    village = filled.node(VILLAGE)
    values = {"code": "8480-6", "author_organization": "b"}
    forged = NewRecord(None, "observations", RESIDENT, values)
    with pytest.raises(Exception, match="unknown tables or columns"):
        village.storage.put_bundle(staff(village), bundle("f", forged))


def test_the_organization_leaves_no_county(filled: Region) -> None:
    """A clinic of three names them; the city gets records without it."""
    village, county = filled.node(VILLAGE), filled.node(COUNTY)
    village.storage.put_bundle(staff(village), bundle("w", observation(RESIDENT, 120.0)))
    filled.ship_up(VILLAGE, TOWNSHIP)
    filled.ship(filled.node(TOWNSHIP), county)
    sent = filled.ship(county, filled.node(CITY))
    assert sent
    assert all(b"author_organization" not in entry.rows for entry in sent)
