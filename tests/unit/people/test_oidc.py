"""Another issuer's token: every claim right, the key's own algorithm, this node's clock."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from node.people.errors import OidcKeysError, OidcMissingError, OidcOffError
from node.people.oidc import Issuer, OidcSettings, key_source

NOW_S = 1_800_000_000
SETTINGS = OidcSettings("https://login.example", "fenhe", "oidc.json")
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def jwk(key: Any, key_id: str, **more: str) -> dict[str, Any]:
    """A public key as it stands in a set."""
    algorithm = jwt.algorithms.RSAAlgorithm
    maker: Any = algorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(maker.to_jwk(key.public_key())), "kid": key_id, **more}


KEYS = {
    "keys": [
        jwk(RSA_KEY, "rsa-1", use="sig", alg="RS256"),
        jwk(EC_KEY, "ec-1"),
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"},
        jwk(OTHER_KEY, "for-encryption", use="enc"),
    ]
}


@dataclass
class HandClock:
    """Set by hand."""

    ms: int = NOW_S * 1000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms


def claims(**more: Any) -> dict[str, Any]:
    """Of a good token; None leaves one out."""
    good = {
        "iss": SETTINGS.issuer,
        "aud": "fenhe",
        "sub": "user-1",
        "iat": NOW_S,
        "exp": NOW_S + 300,
        **more,
    }
    return {name: value for name, value in good.items() if value is not None}


def token(key: Any = RSA_KEY, key_id: str = "rsa-1", algorithm: str = "RS256", **more: Any) -> str:
    """Signed by the issuer, or by whoever has that key."""
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers={"kid": key_id})


def by_hand(header: dict[str, Any], signature: bytes = b"") -> str:
    """A token that no library would make."""
    parts = [json.dumps(header).encode(), json.dumps(claims()).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts)


def issuer(fetch: Callable[[], bytes] | None = None, clock: HandClock | None = None) -> Issuer:
    """One that has those keys."""
    return Issuer(SETTINGS, fetch or (lambda: json.dumps(KEYS).encode()), clock or HandClock())


def test_a_token_of_the_issuer_names_its_subject() -> None:
    """By either kind of key, also among several audiences if it is the one that asked."""
    assert issuer().subject_of(token()) == "user-1"
    assert issuer().subject_of(token(EC_KEY, "ec-1", "ES256")) == "user-1"
    several = token(aud=["fenhe", "other"], azp="fenhe")
    assert issuer().subject_of(several) == "user-1"


@pytest.mark.parametrize(
    "more",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["fenhe", "other"]},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"exp": NOW_S - 120},
        {"exp": None},
        {"iat": NOW_S + 3600},
        {"iat": NOW_S - 3600, "exp": NOW_S + 3600},
        {"iat": None},
        {"nbf": NOW_S + 3600},
    ],
)
def test_a_claim_that_is_wrong_refuses_it(more: dict[str, Any]) -> None:
    """Issuer, audience, subject, times: all of them, by this node's clock."""
    assert issuer().subject_of(token(**more)) is None


def test_the_key_decides_the_algorithm() -> None:
    """None, a secret that is the public key, another algorithm of the same key, a symmetric key."""
    forged = issuer()
    for header in (
        {"alg": "none", "kid": "rsa-1"},
        {"alg": "None", "kid": "rsa-1"},
        {"alg": "HS256", "kid": "rsa-1"},
        {"alg": "RS256"},
        {"alg": "RS256", "kid": 7},
        {"alg": "RS256", "kid": "rsa-1", "crit": ["x"], "x": 1},
    ):
        assert forged.subject_of(by_hand(header, b"x")) is None
    unsigned = by_hand({"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}).rpartition(".")[0]
    mac = hmac.digest(PUBLIC_PEM, unsigned.encode(), hashlib.sha256)
    assert (
        forged.subject_of(f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}")
        is None
    )
    assert forged.subject_of(token(algorithm="RS512")) is None
    shared = b"secret-secret-secret-secret-secret"
    assert forged.subject_of(token(shared, "shared", "HS256")) is None
    assert forged.subject_of(token(OTHER_KEY, "for-encryption")) is None
    assert forged.subject_of(token(OTHER_KEY, "rsa-1")) is None


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "无", token()[:-4], "A" * 20_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    """And nothing else happens."""
    assert issuer().subject_of(text) is None


def test_an_unknown_key_is_asked_for_once_a_minute() -> None:
    """A new key is found; whoever makes ids up does not make this node ask all day."""
    asked: list[int] = []
    clock = HandClock()
    known: dict[str, Any] = {"keys": [jwk(EC_KEY, "ec-1")]}

    def fetch() -> bytes:
        asked.append(clock.ms)
        return json.dumps(known).encode()

    judged = issuer(fetch, clock)
    for _ in range(20):
        assert judged.subject_of(token()) is None
    assert len(asked) == 1
    known["keys"] = KEYS["keys"]
    clock.ms += 61_000
    assert judged.subject_of(token()) == "user-1"
    assert len(asked) == 2


def test_keys_that_cannot_be_read_are_said_and_those_of_before_go_on() -> None:
    """The issuer is away: who is known stays known, of others nobody can tell."""
    clock, away = HandClock(), [False]

    def fetch() -> bytes:
        if away[0]:
            raise OidcKeysError("away")
        return json.dumps(KEYS).encode()

    judged = issuer(fetch, clock)
    assert judged.subject_of(token()) == "user-1"
    away[0] = True
    clock.ms += 200_000
    assert judged.subject_of(token(iat=NOW_S + 200, exp=NOW_S + 500)) == "user-1"
    with pytest.raises(OidcKeysError):
        judged.subject_of(token(key_id="new-one"))
    for wrong in (b"", b"[]", b'{"keys": 3}', b"\xff"):
        with pytest.raises(OidcKeysError):
            issuer(lambda wrong=wrong: wrong).subject_of(token())  # type: ignore[misc]


def test_keys_lie_in_a_file_of_the_data_folder(tmp_path: Path) -> None:
    """Or say that they do not."""
    read = key_source("oidc.json", tmp_path)
    with pytest.raises(OidcKeysError):
        read()
    (tmp_path / "oidc.json").write_text(json.dumps(KEYS))
    assert issuer(read).subject_of(token()) == "user-1"


def test_without_an_issuer_no_token_is_taken() -> None:
    """And a missing extra is one clear sentence."""
    with pytest.raises(OidcOffError):
        Issuer.off().subject_of(token())


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start of the node, not at the first sign-in."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(OidcMissingError) as raised:
        issuer()
    assert "pip install 'fenhe[oidc]'" in raised.value.hint
