"""Tokens: good as they were issued, and in no other spelling, place or time."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from node.people.errors import SessionEndedError
from node.people.tokens import TOKEN_MS, Tokens
from node.security.certificates import new_private_key
from node.services.interceptor import bearer_of

NOW = 1_800_000_000_000
SESSION = "00000000-0000-7000-8000-000000000001"
LATER = NOW + 12 * 3_600_000


class KeySigner:
    """A node's key."""

    def __init__(self) -> None:
        self._key = new_private_key()
        self.public_key = self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


SIGNER = KeySigner()
TOKENS = Tokens("141002", SIGNER)
TOKEN, ENDS = TOKENS.issue(SESSION, NOW, LATER)


def is_refused(token: str, now: int = NOW, tokens: Tokens = TOKENS) -> bool:
    """Whether the token is none."""
    try:
        tokens.session_of(token, now)
    except SessionEndedError:
        return True
    return False


def test_a_token_names_its_session_until_it_ends() -> None:
    """To the millisecond."""
    assert ENDS == NOW + TOKEN_MS
    assert TOKENS.session_of(TOKEN, NOW) == (SESSION, ENDS)
    assert TOKENS.session_of(TOKEN, ENDS - 1) == (SESSION, ENDS)
    assert is_refused(TOKEN, ENDS)
    assert TOKENS.issue(SESSION, NOW, NOW + 5)[1] == NOW + 5


def test_every_byte_that_is_altered_makes_it_none() -> None:
    """Each character replaced by each other of the alphabet and some beyond; each left out."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \x00"
    tried = 0
    for at, was in enumerate(TOKEN):
        assert is_refused(TOKEN[:at] + TOKEN[at + 1 :])
        for other in alphabet:
            if other != was:
                tried += 1
                assert is_refused(TOKEN[:at] + other + TOKEN[at + 1 :]), (at, other)
    assert tried > 10_000


@pytest.mark.parametrize("more", ["", ".", "=", "A", "\n", " "])
def test_nothing_before_or_behind_it_is_overlooked(more: str) -> None:
    """One spelling is right."""
    assert not more or (is_refused(TOKEN + more) and is_refused(more + TOKEN))
    assert is_refused(more)


def test_a_token_of_another_node_or_key_is_none() -> None:
    """Signed for this node alone, by this node alone."""
    assert is_refused(Tokens("141024", SIGNER).issue(SESSION, NOW, LATER)[0])
    assert is_refused(Tokens("141002", KeySigner()).issue(SESSION, NOW, LATER)[0])


def test_a_signature_of_the_node_over_something_else_is_no_token() -> None:
    """What is signed begins with what it is."""
    body = base64.urlsafe_b64decode(TOKEN.split(".")[1] + "==")
    said = base64.urlsafe_b64encode(SIGNER.sign(body)).decode().rstrip("=")
    assert is_refused(f"fenhe1.{TOKEN.split('.')[1]}.{said}")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"n":"141002"}', b"\xff", b'{"n":1,"s":2}'])
def test_what_this_node_signed_otherwise_is_no_token(body: bytes) -> None:
    """As another release might have."""
    signature = SIGNER.sign(b"fenhe.session.1\x00" + body)
    parts = [base64.urlsafe_b64encode(each).decode().rstrip("=") for each in (body, signature)]
    assert is_refused("fenhe1." + ".".join(parts))


def test_a_token_from_the_future_is_none() -> None:
    """A clock that went back must not make fifteen minutes years."""
    assert is_refused(TOKEN, NOW - 3_600_000)
    assert not is_refused(TOKEN, NOW - 2_000)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=700))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    """Whatever is shown: refused, and nothing else."""
    assert is_refused(text)
    assert is_refused(f"fenhe1.{text}.{text}")


def test_a_token_says_nothing_but_which_session() -> None:
    """No name, no role: they are looked up."""
    body = base64.urlsafe_b64decode(TOKEN.split(".")[1] + "==")
    assert json.loads(body) == {"n": "141002", "s": SESSION, "i": NOW, "e": ENDS}


def test_authorization_is_a_bearer_token_or_an_error() -> None:
    """Never none, once it is shown."""
    assert bearer_of([("user-agent", "x")]) is None
    assert bearer_of([("authorization", "Bearer abc")]) == "abc"
    assert bearer_of([("authorization", "bearer abc")]) == "abc"
    for shown in (
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "Basic abc")],
        [("authorization", b"Bearer abc")],
        [("authorization", "Bearer abc"), ("authorization", "Bearer abc")],
    ):
        with pytest.raises(SessionEndedError):
            bearer_of(shown)
