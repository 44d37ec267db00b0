"""Second factors by the RFC's own vectors, locks, and what is a good password."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InvalidRequestError
from node.people.accounts import account_name
from node.people.errors import PasswordWeakError
from node.people.locks import LOCK_MS_MAX, after_failure, is_locked, lock_ms
from node.people.passwords import PASSWORD_COST, PasswordCost, Passwords, refuse_weak
from node.people.totp import code_at, enrolment_uri, secret_text, step_of, used_step

SECRET = b"12345678901234567890"
CHEAP = PasswordCost(32, 1, 1)


@pytest.mark.parametrize(
    ("at_s", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_codes_are_those_of_rfc_6238(at_s: int, code: str) -> None:
    """Appendix B, SHA-1; six digits are the last six of the eight."""
    step = step_of(at_s * 1000)
    assert code_at(SECRET, step, 8) == code
    assert code_at(SECRET, step) == code[2:]


@given(st.integers(3, 10**8), st.integers(-3, 3))
def test_a_code_counts_one_step_early_or_late_and_once(step: int, skew: int) -> None:
    """The one of a step that was used, or of one before it, counts no more."""
    now_ms = step * 30_000 + 29_999
    code = code_at(SECRET, step + skew)
    near = {code_at(SECRET, step + each): step + each for each in (1, -1, 0)}
    used = used_step(SECRET, code, now_ms, 0)
    assert used == near.get(code)
    if used is not None:
        assert used_step(SECRET, code, now_ms, used) in {None, step, step + 1}
        assert used_step(SECRET, code, now_ms, step + 1) is None


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", "１２３４５６", " 123456"])
def test_what_is_no_code_is_wrong(code: str) -> None:
    """Six digits, and those of ASCII."""
    assert used_step(SECRET, code, 59_000, 0) is None


def test_a_telephone_is_told_the_secret() -> None:
    """As an address, and to be typed."""
    assert secret_text(SECRET) == "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ"
    uri = enrolment_uri(SECRET, "li.si", "Fenhe 141002")
    assert uri == (
        "otpauth://totp/Fenhe%20141002%3Ali.si"
        "?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Fenhe+141002"
    )


@dataclass
class Figures:
    failures: int
    locked_until: int


def test_a_lock_grows_and_ends() -> None:
    """Nothing for four, a minute for five, twice as long each time, a day at most."""
    assert [lock_ms(each) // 60_000 for each in (0, 4, 5, 6, 7)] == [0, 0, 1, 2, 4]
    assert lock_ms(10**6) == LOCK_MS_MAX
    figures, now = Figures(0, 0), 1_800_000_000_000
    for _ in range(40):
        figures = Figures(**after_failure(figures, now))
        if is_locked(figures.locked_until, now):
            assert after_failure(figures, now) == {
                "failures": figures.failures,
                "locked_until": figures.locked_until,
            }
            now = figures.locked_until
        assert not is_locked(figures.locked_until, now)


@pytest.mark.parametrize(
    "password",
    ["", "short", "elevenchars", "aaaaaaaaaaaaaaaa", "ababababababab", "my-li.si-word1", "x" * 129],
)
def test_a_password_that_is_soon_guessed_is_refused(password: str) -> None:
    """Short, plain, too long to be one, or with the account's name in it."""
    with pytest.raises(PasswordWeakError) as raised:
        refuse_weak(password, "Li.Si")
    assert not password or password not in str(raised.value)


def test_a_password_fits_its_hash_and_no_other() -> None:
    """Whatever keyboard it was typed on; a hash that is none fits nothing."""
    passwords = Passwords(lambda count: bytes(range(count)), CHEAP)
    kept = passwords.stretched("four words make one é")
    assert passwords.fits("four words make one e\u0301", kept)
    assert not passwords.fits("four words make one e", kept)
    assert not passwords.fits("\ud800 is no text at all", kept)
    for none in (None, "", "$argon2id$v=19$", "plain"):
        assert not passwords.fits("four words make one é", none)
    assert not passwords.is_outdated(kept)
    assert Passwords(bytes, PasswordCost(32, 2, 1)).is_outdated(kept)
    assert Passwords(bytes, PASSWORD_COST).is_outdated(kept)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "张三", "a" * 65, "a/b"])
def test_names_of_accounts_are_plain(name: str) -> None:
    """What would be written in two ways is refused; capitals are small ones."""
    with pytest.raises(InvalidRequestError):
        account_name(name)
    assert account_name(" Li.Si ") == "li.si"
