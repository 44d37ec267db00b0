"""What somebody changes of his own account, he may ask for again."""

from __future__ import annotations

import pytest

from node.people.errors import SignInRefusedError, TotpRefusedError
from node.people.totp import code_at, step_of
from node.storage.errors import RequestIdReusedError
from tests.contracts.people.place import PASSWORD, Office, Worker


def test_a_change_of_ones_own_is_carried_out_once_a_request(office: Office, nurse: Worker) -> None:
    """An answer was lost on the line: the same request says the same and changes nothing."""
    accounts, another = office.parts.accounts, "another good password"
    caller = office.acting(nurse)
    first = accounts.change_password(caller, PASSWORD, another, "request-1")
    session = office.sign_in(nurse.account, another)
    again = accounts.change_password(office.caller(session), PASSWORD, another, "request-1")
    assert (again.object_id, again.repeated) == (first.object_id, True)
    caller = office.caller(session)

    name, secret = accounts.enrol_totp(caller, another, "request-2")
    assert accounts.enrol_totp(caller, another, "request-2") == (name, secret)
    with pytest.raises(SignInRefusedError):
        accounts.enrol_totp(caller, "wrong", "request-2")
    code = code_at(secret, step_of(office.node.clock.ms))
    assert not accounts.confirm_totp(caller, code, "request-3").repeated
    assert accounts.confirm_totp(caller, code, "request-3").repeated
    with pytest.raises(TotpRefusedError):
        accounts.enrol_totp(caller, another, "request-2")
    with pytest.raises(RequestIdReusedError):
        accounts.confirm_totp(caller, code, "request-1")
