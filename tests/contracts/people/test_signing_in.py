"""Signing in on both databases: who gets a session, what it may, and what ends it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.kdf import argon2
from sqlalchemy import event, select, update

from node.errors import NotFoundError
from node.people.accounts import ACCOUNTS
from node.people.errors import (
    NoRoleTodayError,
    OrganizationNeededError,
    PasswordMustChangeError,
    PasswordWeakError,
    SessionEndedError,
    SignInRefusedError,
    TotpRefusedError,
)
from node.people.locks import LOCK_MS_MAX
from node.people.model import NewAccount
from node.people.passwords import PasswordCost
from node.people.proving import SESSION_MS, SESSIONS
from node.people.tokens import TOKEN_MS
from node.people.totp import code_at, step_of
from node.security.caller import CallerKind
from node.security.roles import Role
from replication.changelog import read_transaction
from tests.contracts.people.place import CHEAP, FIRST, PASSWORD, Office, Worker, deeds_of
from tests.contracts.storage.region import COUNTY, TOWNSHIP

MINUTE_MS = 60_000
DAY_MS = 86_400_000


def refused(office: Office, name: str, password: str = PASSWORD, *, code: str = "") -> str:
    """The one answer; its words."""
    with pytest.raises(SignInRefusedError) as raised:
        office.sign_in(name, password, code=code)
    return f"{raised.value.code} {raised.value.message} {raised.value.hint}"


def test_who_signs_in_acts_in_his_roles_for_his_organization(
    office: Office, hospital: str, nurse: Worker
) -> None:
    """Kind, node, organization, roles and scope are those of his assignments."""
    session = office.sign_in(nurse.account)
    caller = office.caller(session)

    assert (caller.kind, caller.node_id) == (CallerKind.STAFF, COUNTY)
    assert (caller.staff_id, caller.organization_id) == (nurse.staff_id, hospital)
    assert caller.roles == {Role.NURSE}
    assert caller.scope == office.node.tree.subtree(COUNTY)
    assert session.roles == ("nurse",)
    assert caller.asks == frozenset(), "a nurse asks about nobody"


def test_an_analyst_asks_about_the_divisions_that_he_is_analyst_of(
    office: Office, hospital: str
) -> None:
    """Whatever else he is, and wherever: he cares for a county and counts a township."""
    analyst = office.worker(hospital, Role.ANALYST, division=TOWNSHIP)
    office.give(analyst.staff_id, Role.NURSE)
    caller = office.caller(office.sign_in(analyst.account))
    assert caller.roles == {Role.ANALYST, Role.NURSE}
    assert caller.asks == office.node.tree.subtree(TOWNSHIP)
    assert caller.scope == office.node.tree.subtree(COUNTY)


def test_a_role_opens_its_own_divisions_and_no_others(office: Office, hospital: str) -> None:
    """A doctor of a village who audits a county is doctor of the village in every call."""
    village, other = office.node.tree.children(TOWNSHIP)[:2]
    doctor = office.worker(hospital, Role.DOCTOR, division=village)
    office.give(doctor.staff_id, Role.AUDITOR)
    office.give(doctor.staff_id, Role.NURSE, division=other)
    session = office.sign_in(doctor.account)

    reads = office.caller(session, method="/fenhe.care.v1.RecordService/Timeline")
    assert (set(reads.scope), set(reads.roles)) == ({village, other}, {Role.DOCTOR, Role.NURSE})
    audits = office.caller(session, method="/fenhe.node.v1.AuditService/AboutResident")
    assert audits.scope == office.node.tree.subtree(COUNTY) != reads.scope
    everything = office.caller(session, method="/fenhe.control.v1.SessionService/Renew")
    assert everything.roles == {Role.DOCTOR, Role.NURSE, Role.AUDITOR}


def test_a_role_over_a_division_gives_its_subtree_as_scope(office: Office, hospital: str) -> None:
    """An assignment may be for less than the whole node."""
    township = office.node.tree.children(COUNTY)[0]
    worker = office.worker(hospital, Role.NURSE, division=township)
    assert office.acting(worker).scope == office.node.tree.subtree(township)


def test_whatever_is_wrong_gets_one_answer(office: Office, nurse: Worker) -> None:
    """No such account, a name that none can have, a wrong password, disabled, locked."""
    answers = {
        refused(office, "nobody"),
        refused(office, "无此人 "),
        refused(office, nurse.account, "wrong"),
    }
    office.parts.accounts.disable(office.operator, nurse.account, "")
    answers.add(refused(office, nurse.account))
    office.parts.accounts.enable(office.operator, nurse.account, "")
    for _ in range(5):
        answers.add(refused(office, nurse.account, "wrong"))
    answers.add(refused(office, nurse.account))
    assert len(answers) == 1


def test_a_name_without_account_costs_as_many_stretches_and_statements(
    office: Office, nurse: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be told by the clock is how much is done."""

    class Counting:
        """Argon2id that counts."""

        done = 0

        @classmethod
        def verify_phc_encoded(cls, *asked: bytes) -> None:
            cls.done += 1
            argon2.Argon2id.verify_phc_encoded(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr("node.people.passwords.Argon2id", Counting)
    statements: list[str] = []
    event.listen(
        office.node.engine, "before_cursor_execute", lambda *seen: statements.append(seen[2])
    )
    seen = []
    for name in ("nobody", nurse.account):
        statements.clear()
        Counting.done = 0
        refused(office, name, "wrong")
        seen.append((Counting.done, [each.split()[0] for each in statements]))
    assert seen[0] == seen[1]
    assert seen[0][0] == 1


def test_wrong_passwords_lock_for_a_growing_time(office: Office, nurse: Worker) -> None:
    """Five in a row: a minute; the next: two minutes; a right one forgets them."""
    clock = office.node.clock
    for _ in range(4):
        refused(office, nurse.account, "wrong")
    office.sign_in(nurse.account)
    for _ in range(5):
        refused(office, nurse.account, "wrong")
    refused(office, nurse.account)
    clock.ms += MINUTE_MS
    refused(office, nurse.account, "wrong")
    clock.ms += MINUTE_MS
    refused(office, nurse.account)
    clock.ms += MINUTE_MS
    office.sign_in(nurse.account)


def test_what_is_tried_while_it_is_locked_is_not_counted(office: Office, nurse: Worker) -> None:
    """Or anybody could shut somebody out for ever."""
    for _ in range(50):
        refused(office, nurse.account, "wrong")
    (seen,) = office.parts.accounts.page(office.operator, "", 10)
    assert seen.failures == 5
    office.node.clock.ms += MINUTE_MS
    office.sign_in(nurse.account)


def test_an_administrator_unlocks(office: Office, nurse: Worker) -> None:
    """Who is locked out need not wait."""
    for _ in range(5):
        refused(office, nurse.account, "wrong")
    office.parts.accounts.unlock(office.operator, nurse.account, "")
    office.sign_in(nurse.account)


def test_a_lock_set_by_a_wrong_clock_holds_nobody_for_years(office: Office, nurse: Worker) -> None:
    """The clock was years ahead and went back."""
    clock = office.node.clock
    clock.ms += 4 * 365 * DAY_MS
    for _ in range(5):
        refused(office, nurse.account, "wrong")
    clock.ms -= 4 * 365 * DAY_MS
    assert LOCK_MS_MAX < 4 * 365 * DAY_MS
    office.sign_in(nurse.account)


def test_several_guesses_at_once_are_each_counted(office: Office, nurse: Worker) -> None:
    """Guesses that race are not counted as one."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: refused(office, nurse.account, "wrong"), range(4)))
    (seen,) = office.parts.accounts.page(office.operator, "", 10)
    assert seen.failures == 4


def test_a_password_that_somebody_set_is_to_be_changed(office: Office, hospital: str) -> None:
    """Nobody else knows a password that is in use."""
    staff = office.member(hospital)
    office.give(staff, Role.NURSE)
    office.parts.accounts.add(office.operator, NewAccount("zhang", staff, FIRST), "")

    with pytest.raises(PasswordMustChangeError):
        office.sign_in("zhang", FIRST)
    refused(office, "zhang", "wrong")
    with pytest.raises(PasswordWeakError):
        office.sign_in("zhang", FIRST, new_password="short")
    office.sign_in("zhang", FIRST, new_password=PASSWORD)
    refused(office, "zhang", FIRST)
    office.sign_in("zhang")


def test_a_changed_password_ends_the_sessions(office: Office, nurse: Worker) -> None:
    """Whoever had got in with the old one is out."""
    session = office.sign_in(nurse.account)
    caller = office.caller(session)
    with pytest.raises(SignInRefusedError):
        office.parts.accounts.change_password(caller, "wrong", "another good password")
    office.parts.accounts.change_password(caller, PASSWORD, "another good password")
    with pytest.raises(SessionEndedError):
        office.caller(session)
    office.sign_in(nurse.account, "another good password")


def test_a_hash_is_made_anew_when_more_work_is_asked_for(office: Office, nurse: Worker) -> None:
    """At the next sign-in, which alone knows the password."""
    dearer = Office(office.node, cost=PasswordCost(64, 1, 1), signer=office.signer)

    def hashed() -> str | None:
        with read_transaction(office.node.engine) as connection:
            row = connection.execute(select(ACCOUNTS)).one()
        secrets = dearer.parts.accounts._secrets  # noqa: SLF001 -- what only the store sees
        return secrets.opened("password", row.account_id, row.password)

    assert f"m={CHEAP.memory_kib}," in str(hashed())
    refused(dearer, nurse.account, "wrong")
    assert f"m={CHEAP.memory_kib}," in str(hashed())
    dearer.sign_in(nurse.account)
    assert "m=64," in str(hashed())
    dearer.sign_in(nurse.account)


def test_a_second_factor_counts_once_it_is_confirmed(office: Office, nurse: Worker) -> None:
    """Then it is asked for, each code once, one step early or late."""
    accounts, clock = office.parts.accounts, office.node.clock
    caller = office.acting(nurse)
    with pytest.raises(SignInRefusedError):
        accounts.enrol_totp(caller, "wrong")
    _, secret = accounts.enrol_totp(caller, PASSWORD)
    office.sign_in(nurse.account)
    with pytest.raises(TotpRefusedError):
        accounts.confirm_totp(caller, "000000")
    accounts.confirm_totp(caller, code_at(secret, step_of(clock.ms)))

    refused(office, nurse.account)
    refused(office, nurse.account, code=code_at(secret, step_of(clock.ms)))
    clock.ms += 30_000
    code = code_at(secret, step_of(clock.ms))
    office.sign_in(nurse.account, code=code)
    refused(office, nurse.account, code=code)
    clock.ms += 60_000
    session = office.sign_in(nurse.account, code=code_at(secret, step_of(clock.ms) + 1))
    with pytest.raises(TotpRefusedError):
        accounts.enrol_totp(office.caller(session), PASSWORD)


def test_a_wrong_code_is_counted_like_a_wrong_password(office: Office, nurse: Worker) -> None:
    """A second factor is guessed no faster than a password."""
    accounts = office.parts.accounts
    caller = office.acting(nurse)
    _, secret = accounts.enrol_totp(caller, PASSWORD)
    accounts.confirm_totp(caller, code_at(secret, step_of(office.node.clock.ms)))
    for _ in range(5):
        refused(office, nurse.account, code="123456")
    office.node.clock.ms += 30_000
    refused(office, nurse.account, code=code_at(secret, step_of(office.node.clock.ms)))


def test_a_lost_second_factor_is_taken_away(office: Office, nurse: Worker) -> None:
    """By somebody who manages the account; its sessions are over."""
    accounts = office.parts.accounts
    session = office.sign_in(nurse.account)
    _, secret = accounts.enrol_totp(office.caller(session), PASSWORD)
    accounts.confirm_totp(office.caller(session), code_at(secret, step_of(office.node.clock.ms)))
    accounts.remove_totp(office.operator, nurse.account, "")
    with pytest.raises(SessionEndedError):
        office.caller(session)
    office.sign_in(nurse.account)


# -- sessions --------------------------------------------------------------------------------------


def test_a_token_ends_after_15_minutes_and_is_renewed_for_12_hours(
    office: Office, nurse: Worker
) -> None:
    """And no renewal reaches beyond the twelve hours."""
    clock, sessions = office.node.clock, office.parts.sessions
    begun = clock.ms
    session = office.sign_in(nurse.account)
    assert (session.token_ends_ms, session.renew_until_ms) == (begun + TOKEN_MS, begun + SESSION_MS)
    clock.ms += TOKEN_MS - 1
    office.caller(session)
    clock.ms += 1
    with pytest.raises(SessionEndedError):
        office.caller(session)

    session = office.sign_in(nurse.account)
    begun = clock.ms
    while clock.ms < begun + SESSION_MS - TOKEN_MS:
        clock.ms += TOKEN_MS - 1000
        found = sessions.looked_up(session.token, office.channel.principal)
        session = sessions.renew(found)
    assert session.token_ends_ms == begun + SESSION_MS
    clock.ms = begun + SESSION_MS
    with pytest.raises(SessionEndedError):
        office.caller(session)


def test_signing_out_ends_every_token_of_the_session(office: Office, nurse: Worker) -> None:
    """Also those that were renewed; another session stays."""
    sessions = office.parts.sessions
    session, other = office.sign_in(nurse.account), office.sign_in(nurse.account)
    found = sessions.looked_up(session.token, office.channel.principal)
    renewed = sessions.renew(found)
    sessions.sign_out(found.caller, found)
    for token in (session, renewed):
        with pytest.raises(SessionEndedError):
            office.caller(token)
    office.caller(other)


def test_a_token_of_a_session_that_is_over_is_looked_up_once(office: Office, nurse: Worker) -> None:
    """What is shown again, by whomever, is refused from memory until something changes."""
    sessions, desk = office.parts.sessions, office.channel.principal
    session, stolen = office.sign_in(nurse.account), office.sign_in(nurse.account)
    found = sessions.looked_up(session.token, desk)
    sessions.sign_out(found.caller, found)
    for each, channel in ((session, desk), (stolen, "another desk")):
        assert sessions.kept(each.token, channel) is None
        with pytest.raises(SessionEndedError):
            sessions.looked_up(each.token, channel)
        with pytest.raises(SessionEndedError):
            sessions.kept(each.token, channel)
    assert sessions.kept(stolen.token, desk) is not None


def test_a_disabled_account_is_out_at_once(office: Office, nurse: Worker) -> None:
    """And stays out when the account is opened again."""
    session = office.sign_in(nurse.account)
    office.caller(session)
    office.parts.accounts.disable(office.operator, nurse.account, "")
    with pytest.raises(SessionEndedError):
        office.caller(session)
    office.parts.accounts.enable(office.operator, nurse.account, "")
    with pytest.raises(SessionEndedError):
        office.caller(session)


def test_a_role_that_is_taken_counts_no_more_with_the_next_call(
    office: Office, hospital: str
) -> None:
    """And one that is given counts; without any the session is over."""
    worker = office.worker(hospital, Role.NURSE, Role.REGISTRAR)
    session = office.sign_in(worker.account)
    assert office.caller(session).roles == {Role.NURSE, Role.REGISTRAR}
    office.parts.registry.end(office.operator, "assignments", worker.assignments[0], "", "")
    assert office.caller(session).roles == {Role.REGISTRAR}
    office.give(worker.staff_id, Role.AUDITOR)
    assert office.caller(session).roles == {Role.REGISTRAR, Role.AUDITOR}
    office.parts.registry.end(office.operator, "assignments", worker.assignments[1], "", "")
    office.parts.registry.end(office.operator, "staff", worker.staff_id, "", "")
    with pytest.raises(SessionEndedError):
        office.caller(session)
    with pytest.raises(NoRoleTodayError):
        office.sign_in(worker.account)


def test_a_role_counts_from_its_first_day_to_its_last(office: Office, hospital: str) -> None:
    """Days are those of China, by the node's clock."""
    worker = office.worker(hospital, Role.NURSE)
    session = office.sign_in(worker.account)
    day = office.parts.sessions._book.day  # noqa: SLF001 -- the day by the node's clock
    office.give(worker.staff_id, Role.AUDITOR, from_on=day, until_on=day)
    assert Role.AUDITOR in office.caller(session).roles
    office.give(worker.staff_id, Role.ANALYST, from_on="2099-01-01")
    assert Role.ANALYST not in office.caller(session).roles
    office.node.clock.ms += DAY_MS
    assert office.acting(worker).roles == {Role.NURSE}


def test_a_closed_organization_has_no_roles(office: Office, hospital: str, nurse: Worker) -> None:
    """Whoever acted for it is out."""
    session = office.sign_in(nurse.account)
    office.parts.registry.end(office.operator, "organizations", hospital, "", "")
    with pytest.raises(SessionEndedError):
        office.caller(session)


def test_who_works_for_two_organizations_says_for_which(office: Office, hospital: str) -> None:
    """Roles of one organization never count for another."""
    other = office.organization(name="县妇幼保健院")
    worker = office.worker(hospital, Role.NURSE)
    office.give(worker.staff_id, Role.REGISTRAR, organization_id=other)
    with pytest.raises(OrganizationNeededError, match=other):
        office.sign_in(worker.account)
    session = office.sign_in(worker.account, organization_id=other)
    assert office.caller(session).roles == {Role.REGISTRAR}
    with pytest.raises(NoRoleTodayError):
        office.sign_in(worker.account, organization_id=office.organization(name="第三"))


def test_a_token_is_good_on_its_workstation_alone(office: Office, nurse: Worker) -> None:
    """Stolen, it is of no use under another certificate."""
    session = office.sign_in(nurse.account)
    office.caller(session)
    elsewhere = office.node.caller(CallerKind.CLIENT, "desk-2")
    with pytest.raises(SessionEndedError):
        office.caller(session, on=elsewhere)
    fresh = Office(office.node, signer=office.signer)
    with pytest.raises(SessionEndedError):
        fresh.caller(session, on=elsewhere)
    assert fresh.caller(session) == office.caller(session)


def test_a_store_that_was_put_back_knows_no_session(office: Office, nurse: Worker) -> None:
    """It has forgotten who signed out since."""
    session = office.sign_in(nurse.account)
    with office.node.engine.begin() as connection:
        connection.execute(update(SESSIONS).values(store_epoch=0))
    with pytest.raises(SessionEndedError):
        Office(office.node, signer=office.signer).caller(session)
    seen = office.parts.sessions.page(office.operator, "", 50, ended=True)
    assert "restored" in {each.state for each in seen}


def test_sessions_are_listed_and_ended(office: Office, hospital: str, nurse: Worker) -> None:
    """One's own by anybody, all by an administrator of the node's division."""
    sessions = office.parts.sessions
    other = office.worker(hospital, Role.REGISTRAR)
    mine, his = office.sign_in(nurse.account), office.sign_in(other.account)
    caller = office.caller(mine)
    assert {each.account for each in sessions.page(caller, "", 50, ended=False)} == {nurse.account}
    with pytest.raises(NotFoundError):
        sessions.end(caller, his.session_id, "")
    sessions.end(office.operator, his.session_id, "")
    with pytest.raises(SessionEndedError):
        office.caller(his)
    assert sessions.end(office.operator, his.session_id, "").count == 0
    sessions.end(caller, mine.session_id, "")
    with pytest.raises(SessionEndedError):
        office.caller(mine)


def test_sign_ins_and_failures_are_in_the_audit(office: Office, nurse: Worker) -> None:
    """A failure names the account if there is one, never what was typed."""
    refused(office, "nobody")
    refused(office, nurse.account, "wrong")
    session = office.sign_in(nurse.account)
    found = office.parts.sessions.looked_up(session.token, office.channel.principal)
    office.parts.sessions.sign_out(found.caller, found)
    (account,) = office.parts.accounts.page(office.operator, "", 10)
    assert deeds_of(office.node)[-5:-1] == [
        ("sign_in", "accounts", "refused", None),
        ("sign_in", "accounts", "refused", account.account_id),
        ("sign_in", "accounts", "done", account.account_id),
        ("sign_out", "sessions", "done", session.session_id),
    ]
