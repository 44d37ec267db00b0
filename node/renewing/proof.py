"""What is signed when a certificate is renewed at the door, and what is said. Pure.

    T  = SHA-256 of: tag, node id, child's nonce, parent's nonce, the door's certificate as the
                     child saw it, both certificate requests, both chains
    child's proof   = signature by the key of its chain over  "fenhe.renew.child.1"  | T
    parent's proof  = signature by the parent's own key over  "fenhe.renew.parent.1" | T | answer

Each part has its length before it. A relay in between shows another certificate, so its T is not
the parent's; the nonces keep an old answer, and the time in it, from being said again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from node.renewing.errors import RenewalAnswerError

__all__ = [
    "RenewAnswer",
    "RenewAsked",
    "Renewed",
    "child_words",
    "parent_words",
    "read_renewal",
    "transcript",
    "write_renewal",
]

_TAG: Final = b"fenhe.renew.transcript.1"
_CHILD: Final = b"fenhe.renew.child.1"
_PARENT: Final = b"fenhe.renew.parent.1"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class RenewAsked:
    """What a node asks at the door; PEM, but for nonce and signature."""

    node_id: str
    parent_nonce: bytes
    tls_request: bytes
    authority_request: bytes
    tls_chain: bytes
    authority_chain: bytes
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What it gets: the answer as bytes, with the parent's chain (PEM) and signature."""

    answer: bytes
    chain: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class RenewAnswer:
    """The answer. `at_ms`: the parent's clock. Chains are empty if the old ones hold by it."""

    node_id: str
    parent_id: str
    at_ms: int
    tls_chain: str = ""
    authority_chain: str = ""


def transcript(asked: RenewAsked, child_nonce: bytes, certificate: bytes) -> bytes:
    """T. `certificate`: the door's, DER."""
    parts = (
        _TAG,
        asked.node_id.encode(),
        child_nonce,
        asked.parent_nonce,
        certificate,
        asked.tls_request,
        asked.authority_request,
        asked.tls_chain,
        asked.authority_chain,
    )
    return hashlib.sha256(_sized(*parts)).digest()


def child_words(said: bytes) -> bytes:
    """What the child signs."""
    return _CHILD + said


def parent_words(said: bytes, answer: bytes) -> bytes:
    """What the parent signs."""
    return _PARENT + said + hashlib.sha256(answer).digest()


def write_renewal(answer: RenewAnswer) -> bytes:
    """The bytes that the parent signs."""
    said = {
        "version": _VERSION,
        "node_id": answer.node_id,
        "parent_id": answer.parent_id,
        "at_ms": answer.at_ms,
        "tls_chain": answer.tls_chain,
        "authority_chain": answer.authority_chain,
    }
    return json.dumps(said, separators=(",", ":")).encode()


def read_renewal(raw: bytes) -> RenewAnswer:
    """What write_renewal made. Raises RenewalAnswerError: it has another shape."""
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("version") != _VERSION:
        raise RenewalAnswerError("the door's answer is of a form that this release does not know")
    texts = [said.get(k) for k in ("node_id", "parent_id", "tls_chain", "authority_chain")]
    at_ms = said.get("at_ms")
    if not all(isinstance(each, str) for each in texts) or type(at_ms) is not int:
        raise RenewalAnswerError("the door's answer is not whole")
    node_id, parent_id, tls_chain, authority_chain = map(str, texts)
    return RenewAnswer(node_id, parent_id, at_ms, tls_chain, authority_chain)


def _sized(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
