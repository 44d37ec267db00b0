"""The token of a session: signed by this node for this node, good for 15 minutes. Pure.

    fenhe1.BODY.SIGNATURE     base64url without padding, in the one spelling that encoding gives
    BODY = {"n": node, "s": session, "i": issued at, "e": ends at}      JSON, milliseconds
    SIGNATURE over "fenhe.session.1" | 0x00 | BODY's bytes              ECDSA P-256, SHA-256

It names a session and holds nothing else: who it is, and what he may, is looked up at every call.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from node.people.errors import SessionEndedError
from node.security.certificates import PublicKey

__all__ = ["TOKEN_MS", "TokenSigner", "Tokens"]

TOKEN_MS: Final = 15 * 60_000
_BEGIN: Final = "fenhe1"
_TAG: Final = b"fenhe.session.1\x00"
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_CHARACTERS_MAX: Final = 600
_SKEW_MS: Final = 5_000
_VERIFIED_MAX: Final = 4_096


class TokenSigner(Protocol):
    """The node's own key: node/security's Signer."""

    @property
    def public_key(self) -> PublicKey:
        """What its signatures are checked with."""

    def sign(self, data: bytes) -> bytes:
        """A signature, DER."""


@dataclass(frozen=True, slots=True)
class _Body:
    node_id: str
    session_id: str
    issued_ms: int
    ends_ms: int


class Tokens:
    """Issues and reads. Safe from several threads.

    A signature is checked once for a token: it comes with every call for 15 minutes, and checking
    costs more than all else that is asked about a caller. Only what this node has signed is kept.
    """

    def __init__(self, node_id: str, signer: TokenSigner) -> None:
        self._node_id = node_id
        self._signer = signer
        self._verified: dict[str, _Body] = {}

    def issue(self, session_id: str, now_ms: int, until_ms: int) -> tuple[str, int]:
        """A token and when it ends: in 15 minutes, or with its session."""
        ends_ms = min(now_ms + TOKEN_MS, until_ms)
        said = {"n": self._node_id, "s": session_id, "i": now_ms, "e": ends_ms}
        body = json.dumps(said, separators=(",", ":")).encode()
        return f"{_BEGIN}.{_encoded(body)}.{_encoded(self._signer.sign(_TAG + body))}", ends_ms

    def session_of(self, token: str, now_ms: int) -> tuple[str, int]:
        """The session that a token names, and when the token ends.

        Raises:
            SessionEndedError: It is not a token of this node, or not of now.
        """
        said = self._verified.get(token)
        if said is None:
            said = self._verify(token)
            if len(self._verified) >= _VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = said
        # A token from the future was issued before a clock went back: nobody knows for how long.
        if now_ms >= said.ends_ms or now_ms < said.issued_ms - _SKEW_MS:
            raise SessionEndedError("the token has run out")
        return said.session_id, said.ends_ms

    def _verify(self, token: str) -> _Body:
        """What a token says, whenever that was. Raises SessionEndedError: it is none of here."""
        parts = token.split(".")
        if len(token) > _CHARACTERS_MAX or len(parts) != 3 or parts[0] != _BEGIN:
            raise SessionEndedError("what was shown is not a token of a session")
        body, signature = _decoded(parts[1]), _decoded(parts[2])
        try:
            self._signer.public_key.verify(signature, _TAG + body, _ALGORITHM)
        except InvalidSignature:
            raise SessionEndedError("the token was not signed by this node") from None
        said = _read(body)
        if said.node_id != self._node_id:
            raise SessionEndedError("the token is of another node")
        return said


def _read(body: bytes) -> _Body:
    """What this node has signed; an older release may have written something else."""
    try:
        said = json.loads(body)
        return _Body(str(said["n"]), str(said["s"]), int(said["i"]), int(said["e"]))
    except (ValueError, KeyError, TypeError):
        raise SessionEndedError("the token is of another release") from None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    # The last character has bits that decode to nothing: one spelling is right, not four.
    if _encoded(data) != text:
        raise SessionEndedError("what was shown is not a token of a session")
    return data
