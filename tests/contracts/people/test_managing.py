"""Who may manage what: the subtree of one's division, and no role that one lacks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hierarchy_config.model import NodeId
from node.errors import DeniedError, InvalidRequestError, NotFoundError
from node.people.errors import (
    AccountExistsError,
    NotYourDivisionError,
    PeopleEndedError,
    RoleLackedError,
)
from node.people.model import NewAccount, NewOrganization, NewQualification
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.storage.errors import RequestIdReusedError
from tests.contracts.people.place import FIRST, PASSWORD, Office, Worker, deeds_of
from tests.contracts.storage.region import CITY, COUNTY, OTHER_COUNTY, TOWNSHIP, VILLAGE

UNKNOWN = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def hospital(office: Office) -> str:
    """An organization of the county."""
    return office.organization()


@pytest.fixture
def head(office: Office, hospital: str) -> Worker:
    """An administrator of the county, who is a nurse as well."""
    return office.worker(hospital, Role.ADMINISTRATOR, Role.NURSE)


@pytest.fixture
def boss(office: Office, head: Worker) -> Caller:
    """The administrator, signed in."""
    return office.acting(head)


def test_an_administrator_manages_his_subtree_and_nothing_else(
    office: Office, boss: Caller
) -> None:
    """Every node of the region, as the division of a new organization."""
    mine = office.node.tree.subtree(COUNTY)
    for division in office.node.tree.nodes:
        if division in mine:
            office.organization(division, by=boss)
            continue
        with pytest.raises(NotYourDivisionError):
            office.organization(division, by=boss)
    assert CITY not in mine
    assert OTHER_COUNTY not in mine


def test_an_administrator_of_a_township_manages_what_is_below_it(
    office: Office, hospital: str
) -> None:
    """His assignment's division counts, not the node he signs in at."""
    worker = office.worker(hospital, Role.ADMINISTRATOR, division=TOWNSHIP)
    caller = office.acting(worker)
    clinic = office.organization(VILLAGE, by=caller, name="村卫生室")
    office.member(clinic, by=caller)
    for refused in (
        lambda: office.organization(COUNTY, by=caller),
        lambda: office.member(hospital, by=caller),
        lambda: office.parts.registry.end(caller, "organizations", hospital, "", ""),
        lambda: office.give(worker.staff_id, Role.ADMINISTRATOR, by=caller),
        lambda: office.parts.accounts.page(caller, "", 10),
        lambda: office.parts.accounts.disable(caller, worker.account, ""),
    ):
        with pytest.raises((NotYourDivisionError, NotFoundError)):
            refused()


@pytest.mark.parametrize("role", Role)
def test_nobody_gives_a_role_that_he_lacks(
    office: Office, hospital: str, boss: Caller, role: Role
) -> None:
    """An administrator who is a nurse gives those two."""
    staff = office.member(hospital)
    if role in {Role.ADMINISTRATOR, Role.NURSE}:
        office.give(staff, role, by=boss)
        return
    with pytest.raises(RoleLackedError):
        office.give(staff, role, by=boss)


def test_a_role_held_over_less_is_not_given_over_more(office: Office, hospital: str) -> None:
    """Administrator of the county, nurse for a township."""
    worker = office.worker(hospital, Role.ADMINISTRATOR)
    office.give(worker.staff_id, Role.NURSE, division=TOWNSHIP)
    caller = office.acting(worker)
    staff = office.member(hospital)
    office.give(staff, Role.NURSE, by=caller, division=VILLAGE)
    with pytest.raises(RoleLackedError):
        office.give(staff, Role.NURSE, by=caller)


def test_nobody_takes_over_the_account_of_one_who_may_more(
    office: Office, hospital: str, head: Worker, boss: Caller
) -> None:
    """With another's password one would have his roles; but anybody's account can be closed."""
    accounts = office.parts.accounts
    physician = office.worker(hospital, Role.NURSE, Role.AUDITOR)
    with pytest.raises(RoleLackedError):
        accounts.set_password(boss, physician.account, FIRST, "")
    for refused in (accounts.remove_totp, accounts.unlock, accounts.enable):
        with pytest.raises(RoleLackedError):
            refused(boss, physician.account, "")
    accounts.disable(boss, physician.account, "")
    nurse = office.worker(hospital, Role.NURSE)
    accounts.set_password(boss, nurse.account, "a password by the boss", "")
    assert head.account != nurse.account


def test_who_administers_nothing_manages_nothing(office: Office, hospital: str) -> None:
    """A nurse who has signed in, a client's certificate, staff's certificate."""
    nurse = office.acting(office.worker(hospital, Role.NURSE))
    certificates = (office.node.caller(kind) for kind in (CallerKind.CLIENT, CallerKind.STAFF))
    for caller in (nurse, *certificates):
        with pytest.raises(NotYourDivisionError):
            office.organization(by=caller)
        with pytest.raises(NotYourDivisionError):
            office.parts.accounts.page(caller, "", 10)
        with pytest.raises(NotYourDivisionError):
            office.parts.registry.end(caller, "organizations", hospital, "", "")


def test_who_works_here_is_shown_to_those_who_work_here(office: Office, hospital: str) -> None:
    """Not to a certificate that nobody has signed in with."""
    registry = office.parts.registry
    nurse = office.acting(office.worker(hospital, Role.NURSE))
    assert [each.name for each in registry.organizations(nurse, "", 10)] == ["县人民医院"]
    assert len(registry.staff(nurse, "", 10, hospital)) == 1
    with pytest.raises(DeniedError):
        registry.staff(office.node.caller(CallerKind.STAFF), "", 10)


def test_an_administrator_whose_role_is_over_manages_no_more(
    office: Office, head: Worker, boss: Caller
) -> None:
    """Also within a session that goes on in another role."""
    office.parts.registry.end(office.operator, "assignments", head.assignments[0], "", "")
    with pytest.raises(NotYourDivisionError):
        office.organization(by=boss)


def test_what_is_refused_is_in_the_audit(office: Office, boss: Caller) -> None:
    """An attempt to reach beyond is worth knowing of."""
    with pytest.raises(NotYourDivisionError):
        office.organization(CITY, by=boss)
    assert deeds_of(office.node)[-1] == ("add", "organizations", "refused", None)


def test_permission_changes_are_in_the_audit_of_their_transaction(
    office: Office, hospital: str
) -> None:
    """Who gave and took what."""
    staff = office.member(hospital)
    given = office.give(staff, Role.NURSE)
    office.parts.registry.end(office.operator, "assignments", given, "", "")
    assert [deed for deed in deeds_of(office.node) if deed[1] == "assignments"] == [
        ("give", "assignments", "done", given),
        ("take", "assignments", "done", given),
    ]


def test_a_request_is_carried_out_once(office: Office) -> None:
    """The same again gets the same answer; another wish under its id is refused."""
    registry = office.parts.registry
    new = NewOrganization(COUNTY, "县中医院", "hospital")
    first = registry.add_organization(office.operator, new, "request-1")
    again = registry.add_organization(office.operator, new, "request-1")
    assert (first.object_id, again.repeated) == (again.object_id, True)
    with pytest.raises(RequestIdReusedError):
        registry.add_organization(
            office.operator, NewOrganization(COUNTY, "另一", "hospital"), "request-1"
        )
    assert len(registry.organizations(office.operator, "", 10)) == 1


def test_edits_at_once_are_all_kept(office: Office, hospital: str) -> None:
    """Six give, six end the same: nothing is lost, nothing fails, one ending is enough."""
    staff = office.member(hospital)
    with ThreadPoolExecutor(3) as pool:
        given = list(pool.map(lambda _: office.give(staff, Role.NURSE), range(6)))
        done = list(
            pool.map(
                lambda _: office.parts.registry.end(
                    office.operator, "assignments", given[0], "", ""
                ),
                range(6),
            )
        )
    assert len(set(given)) == 6
    assert any(each.count for each in done)
    shown = office.parts.registry.assignments(office.operator, "", 10, staff)
    assert {each.assignment_id for each in shown if not each.today} == {given[0]}


def test_two_accounts_of_one_name_made_at_once_are_one(office: Office, hospital: str) -> None:
    """And nobody has two accounts."""
    members = [office.member(hospital) for _ in range(4)]

    def add(staff: str) -> bool:
        try:
            office.parts.accounts.add(office.operator, NewAccount("wang", staff, FIRST), "")
        except AccountExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(add, members)) == [False, False, False, True]
    (made,) = office.parts.accounts.page(office.operator, "", 10)
    with pytest.raises(AccountExistsError):
        office.parts.accounts.add(office.operator, NewAccount("wang2", made.staff_id, FIRST), "")


def test_what_is_over_is_given_nothing_new(office: Office, hospital: str) -> None:
    """A closed organization, staff who work here no more."""
    staff = office.member(hospital)
    office.parts.registry.end(office.operator, "staff", staff, "", "")
    with pytest.raises(PeopleEndedError):
        office.give(staff, Role.NURSE)
    with pytest.raises(PeopleEndedError):
        office.parts.accounts.add(office.operator, NewAccount("li", staff, FIRST), "")
    office.parts.registry.end(office.operator, "organizations", hospital, "", "")
    with pytest.raises(PeopleEndedError):
        office.member(hospital)


def test_an_account_is_added_where_its_owner_works(office: Office) -> None:
    """Accounts never leave their node, so nobody has one elsewhere."""
    clinic = office.organization(VILLAGE, name="村卫生室")
    staff = office.member(clinic)
    with pytest.raises(PeopleEndedError, match=VILLAGE):
        office.parts.accounts.add(office.operator, NewAccount("li", staff, FIRST), "")


def test_departments_and_qualifications_belong_to_theirs(office: Office, hospital: str) -> None:
    """A role names a department of its own organization."""
    registry = office.parts.registry
    ward = registry.add_department(office.operator, hospital, "内科", "").object_id
    staff = office.member(hospital)
    office.give(staff, Role.NURSE, department_id=ward)
    other = office.organization(name="另一")
    with pytest.raises(InvalidRequestError):
        office.give(staff, Role.NURSE, organization_id=other, department_id=ward)
    new = NewQualification(staff, "nurse-licence", "2026-1234", "2026-01-01", "2031-01-01")
    registry.add_qualification(office.operator, new, "")
    record = registry.staff_record(office.operator, staff)
    assert record.member.name == "李四"
    assert [each.number for each in record.qualifications] == ["2026-1234"]
    assert [each.department_id for each in record.assignments] == [ward]
    (_, departments) = registry.organization(office.operator, hospital)
    assert [each.name for each in departments] == ["内科"]


def test_an_organization_lies_below_one_of_its_own_path(office: Office, hospital: str) -> None:
    """The tree of organizations follows the divisions."""
    below = office.organization(VILLAGE, parent=hospital)
    (shown,) = office.parts.registry.organizations(office.operator, "", 10, VILLAGE)
    assert (shown.organization_id, shown.parent_id) == (below, hospital)
    with pytest.raises(InvalidRequestError):
        office.organization(TOWNSHIP, parent=below)
    with pytest.raises(NotFoundError):
        office.organization(parent=UNKNOWN)


def test_lists_come_page_by_page(office: Office, hospital: str) -> None:
    """Every row once, in the order of the ids."""
    made = {office.member(hospital) for _ in range(7)}
    seen: list[str] = []
    while True:
        after = seen[-1] if seen else ""
        page = office.parts.registry.staff(office.operator, after, 3)
        if not page:
            break
        seen += [each.staff_id for each in page]
    assert seen == sorted(made)


@pytest.mark.parametrize("bad", ["x", "无", UNKNOWN, "' OR 1=1"])
def test_ids_that_are_none_name_nothing(office: Office, bad: str) -> None:
    """Whatever was typed: not found, or not an id."""
    registry = office.parts.registry
    for work in (
        lambda: registry.organization(office.operator, bad),
        lambda: registry.staff_record(office.operator, bad),
        lambda: registry.end(office.operator, "assignments", bad, "", ""),
        lambda: office.parts.sessions.end(office.operator, bad, ""),
    ):
        with pytest.raises(NotFoundError):
            work()
    if bad != UNKNOWN:
        with pytest.raises(InvalidRequestError):
            registry.staff(office.operator, "", 10, bad)
        with pytest.raises(InvalidRequestError):
            registry.staff(office.operator, bad, 10)
    with pytest.raises(NotYourDivisionError):
        office.organization(NodeId(bad))


def test_an_account_has_one_way_in(office: Office) -> None:
    """A password or an issuer's subject: the second would be known to whoever chose it alone."""
    staff = office.member(office.organization())
    accounts = office.parts.accounts
    with pytest.raises(InvalidRequestError, match="not by both"):
        accounts.add(office.operator, NewAccount("both", staff, FIRST, "his-subject"), "")
    assert accounts.page(office.operator, "", 10) == []

    accounts.add(office.operator, NewAccount("token", staff, "", "his-subject"), "")
    with pytest.raises(InvalidRequestError, match="not by both"):
        accounts.set_password(office.operator, "token", PASSWORD, "")
    (kept,) = accounts.page(office.operator, "", 10)
    assert (kept.has_password, kept.must_change, kept.oidc_subject) == (False, False, "his-subject")
