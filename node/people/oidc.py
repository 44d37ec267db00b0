"""Another issuer's token in place of a password (OpenID Connect, RFC 7519, RFC 8725).

The extra `oidc` brings pyjwt. Of a token everything is fixed before it is looked at: the issuer,
the audience, the key by its id, and the algorithm by that key, never by what the token says. Times
are judged by this node's clock. Nothing else of a token is believed.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

from node.clock import Clock
from node.people.errors import OidcKeysError, OidcMissingError, OidcOffError

__all__ = ["Issuer", "OidcSettings", "key_source"]

_AGAIN_MS: Final = 60_000
_KEYS_MS: Final = 10 * 60_000
_SKEW_S: Final = 60
_AGE_S_MAX: Final = 600
"""A token is shown soon after it was issued; the one of an hour ago lay somewhere."""
_KEYS_BYTES_MAX: Final = 256 << 10
_FETCH_S: Final = 5
_TOKEN_CHARACTERS_MAX: Final = 16 << 10
_ALGORITHMS: Final[Mapping[tuple[str, str], str]] = {
    ("RSA", ""): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
"""By key type and curve. There is no symmetric one: who can check such a token can make it."""


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Of node.yaml."""

    issuer: str
    audience: str
    jwks: str


class _Judge(Protocol):
    def subject_of(self, token: str) -> str | None:
        """See Issuer."""


class Issuer:
    """Judges tokens of one issuer. Blocks while it fetches keys; safe from several threads."""

    def __init__(
        self,
        settings: OidcSettings,
        fetch: Callable[[], bytes],
        clock: Clock,
    ) -> None:
        """`fetch`: the issuer's key set as JSON; raises OidcKeysError.

        Raises:
            OidcMissingError: pyjwt is not installed.
        """
        self._jwt = _pyjwt()
        self._settings = settings
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[Any, str]] = {}
        self._fetched_ms = -_KEYS_MS

    @staticmethod
    def off() -> _Judge:
        """What stands where no issuer is configured: raises OidcOffError."""
        return _Off()

    def subject_of(self, token: str) -> str | None:
        """Whom a token is about; None: it is refused.

        Raises:
            OidcKeysError: The issuer's keys cannot be read, so that nobody can tell.
        """
        key_id = self._key_id(token)
        found = None if key_id is None else self._key(key_id)
        if found is None:
            return None
        key, algorithm = found
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key=key,
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options={
                    "require": ["iss", "aud", "sub", "exp", "iat"],
                    # By this node's clock, below.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (self._jwt.PyJWTError, ValueError, TypeError):
            return None
        return self._subject(claims)

    def _subject(self, claims: Mapping[str, Any]) -> str | None:
        now_s = self._clock.now_ms() // 1000
        times = [claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)]
        if not all(isinstance(each, int | float) for each in times):
            return None
        issued, ends, begins = (float(each) for each in times if each is not None)
        is_now = issued - _SKEW_S <= now_s < ends + _SKEW_S and begins - _SKEW_S <= now_s
        if not is_now or now_s > issued + _AGE_S_MAX:
            return None
        # A token for several audiences names the one that asked for it.
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if several and claims.get("azp") != self._settings.audience:
            return None
        subject = claims["sub"]
        return subject if isinstance(subject, str) and 0 < len(subject) <= 255 else None

    def _key_id(self, token: str) -> str | None:
        if len(token) > _TOKEN_CHARACTERS_MAX:
            return None
        try:
            header = self._jwt.get_unverified_header(token)
        except (self._jwt.PyJWTError, ValueError, TypeError):
            return None
        key_id = header.get("kid")
        return key_id if isinstance(key_id, str) else None

    def _key(self, key_id: str) -> tuple[Any, str] | None:
        """The key of an id; one that is not known makes the set be fetched, once a minute."""
        with self._lock:
            now_ms = self._clock.monotonic_ms()
            age = now_ms - self._fetched_ms
            if age >= _KEYS_MS or (key_id not in self._keys and age >= _AGAIN_MS):
                self._fetched_ms = now_ms
                try:
                    self._keys = self._read(self._fetch())
                except OidcKeysError:
                    # The next sign-in tries again; meanwhile the keys of before are as good.
                    self._fetched_ms = now_ms - _KEYS_MS
                    if key_id not in self._keys:
                        raise
            return self._keys.get(key_id)

    def _read(self, text: bytes) -> dict[str, tuple[Any, str]]:
        """Signing keys by their ids; keys of other kinds are left out."""
        try:
            said = json.loads(text)["keys"]
            entries = [each for each in said if isinstance(each, dict)]
        except (ValueError, KeyError, TypeError):
            raise OidcKeysError("the issuer's key set is not one") from None
        found: dict[str, tuple[Any, str]] = {}
        for entry in entries:
            kind = str(entry.get("kty")), str(entry.get("crv", "")) if entry.get("crv") else ""
            algorithm = _ALGORITHMS.get(kind)
            is_for_signing = entry.get("use", "sig") == "sig"
            is_of_it = entry.get("alg", algorithm) == algorithm
            if algorithm is None or not is_for_signing or not is_of_it:
                continue
            try:
                key = self._jwt.PyJWK.from_dict(entry, algorithm=algorithm).key
            except (self._jwt.PyJWTError, ValueError, TypeError, KeyError):
                continue
            if isinstance(entry.get("kid"), str) and not _is_private(entry):
                found[entry["kid"]] = (key, algorithm)
        return found


class _Off:
    def subject_of(self, token: str) -> str | None:
        raise OidcOffError("this node takes no tokens of other issuers")


def key_source(where: str, data_dir: Path) -> Callable[[], bytes]:
    """Reads the key set of an https address, or of a file (relative: in the data folder)."""
    if where.startswith("https://"):
        return lambda: _fetched(where)
    path = data_dir / where
    return lambda: _file(path)


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()[:_KEYS_BYTES_MAX]
    except OSError as error:
        raise OidcKeysError(f"{path} cannot be read: {error.strerror}") from None


def _fetched(url: str) -> bytes:
    try:
        with _OPENER.open(url, timeout=_FETCH_S) as answer:
            data: bytes = answer.read(_KEYS_BYTES_MAX)
    except (OSError, urllib.error.URLError, ValueError):
        raise OidcKeysError("the issuer's keys cannot be fetched") from None
    return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that sends elsewhere is not the one that was configured."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirect)


def _is_private(entry: Mapping[str, Any]) -> bool:
    return "d" in entry or "k" in entry


def _pyjwt() -> ModuleType:
    try:
        import jwt
    except ModuleNotFoundError:
        raise OidcMissingError(
            "oidc_issuer is set, and the extra `oidc` is not installed"
        ) from None
    return jwt
