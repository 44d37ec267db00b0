"""What accounts and sessions leave behind: nothing in clear, nothing in the log, nothing old."""

from __future__ import annotations

from sqlalchemy import select

from node.people.proving import SESSIONS
from replication.changelog import read_transaction
from tests.contracts.people.place import FIRST, PASSWORD, Office, Worker
from tests.contracts.storage.region import stored_files

DAY_MS = 86_400_000


def test_no_secret_and_no_name_is_clear_in_the_files(office: Office, nurse: Worker) -> None:
    """Password, hash, shared secret, token, the name and the number of a member of staff."""
    session = office.sign_in(nurse.account)
    _, secret = office.parts.accounts.enrol_totp(office.caller(session), PASSWORD)
    markers = [
        PASSWORD,
        FIRST,
        "argon2id",
        secret.hex(),
        session.token[-60:],
        "李四",
        "13900000001",
    ]
    for path in stored_files(office.node):
        held = path.read_bytes()
        found = [each for each in markers if each.encode() in held]
        assert found == [], path


def test_accounts_are_not_in_the_change_log(office: Office, nurse: Worker) -> None:
    """Accounts and sessions never leave: nothing of them is in the change log."""
    before = len(office.node.entries())
    office.sign_in(nurse.account)
    office.parts.accounts.set_password(office.operator, nurse.account, "another good one", "")
    assert len(office.node.entries()) == before
    assert {row.table for row in office.node.changes()} == {"organizations", "staff", "assignments"}


def test_forgotten_sessions_are_cleared_away(office: Office, nurse: Worker) -> None:
    """The table stays small."""
    office.sign_in(nurse.account)
    office.node.clock.ms += 40 * DAY_MS
    office.sign_in(nurse.account)
    with read_transaction(office.node.engine) as connection:
        assert len(connection.execute(select(SESSIONS)).all()) == 1
