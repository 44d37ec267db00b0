"""One entry of a list of revoked keys: what is signed, as bytes that travel and are kept for ever.

    {"body": "{…}", "signature": base64, "chain": PEM}

The body is JSON text, kept as it was signed; its SHA-256 names the entry. An entry outlives the
certificate of its signer, so a chain is judged at the end of its validity. An ancestor's word
counts for its subtree: who revokes a node stands above it; who revokes a caller, at his node or
above.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.revocation.errors import RevocationInvalidError
from node.revocation.facts import CertificateFacts, facts_of
from node.security.caller import CallerKind
from node.security.certificates import certificates_from_pem
from node.security.errors import (
    CertificateUnusableError,
    PeerIdentityError,
    SignatureInvalidError,
)
from node.security.principal import parse_principal
from node.security.signatures import Signer, chain_end, verify_chain

__all__ = [
    "ENTRY_BYTES_MAX",
    "KEYS_MAX",
    "Entry",
    "Target",
    "Word",
    "read_entry",
    "read_kept",
    "sign_entry",
]

ENTRY_BYTES_MAX: Final = 16_384
_TAG: Final = b"fenhe-revocation-1\0"
_KEY: Final = re.compile(r"[0-9a-f]{64}")
KEYS_MAX: Final = 16
_PRINCIPALS_MAX: Final = 8
_TEXT_MAX: Final = 200
_NUMBER_MAX: Final = 2**53


class Target(StrEnum):
    """Whose keys are revoked."""

    NODE = "node"
    CALLER = "caller"


@dataclass(frozen=True, slots=True)
class Word:
    """What a signer says.

    `keys`: digests of revoked keys, of a node's connections and of its authority, or of a caller.
    `principals`: callers who are revoked by name, for good. `issued_before_ms`: of a node whose
    authority's key nobody knows: whatever was issued to it by then is revoked; 0: only `keys`.
    `at_ms`: from when on, by the signer's clock; what was signed before it counts.
    """

    signer: NodeId
    number: int
    target: Target
    node_id: NodeId
    keys: tuple[str, ...]
    principals: tuple[str, ...]
    issued_before_ms: int
    reason: str
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A word with its signature. `signers`: the chain that proves it, leaf first."""

    word: Word
    digest: str
    signers: tuple[CertificateFacts, ...]
    raw: bytes


def sign_entry(signer: Signer, word: Word) -> Entry:
    """Sign a word with this node's own key."""
    body = {
        "signer": word.signer,
        "number": word.number,
        "target": word.target.value,
        "node": word.node_id,
        "keys": sorted(word.keys),
        "principals": sorted(word.principals),
        "issued_before_ms": word.issued_before_ms,
        "reason": word.reason,
        "by": word.by,
        "at_ms": word.at_ms,
    }
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    envelope = {
        "body": text,
        "signature": base64.b64encode(signer.sign(_TAG + text.encode())).decode(),
        "chain": signer.chain_pem.decode("ascii"),
    }
    raw = json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()
    return read_kept(raw)


def read_kept(raw: bytes) -> Entry:
    """An entry that this node has verified before, or has just signed.

    Raises:
        RevocationInvalidError: It has another shape.
    """
    text, _, chain = _parts(raw)
    try:
        certificates = certificates_from_pem(chain)
    except CertificateUnusableError as error:
        raise RevocationInvalidError(error.message) from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Entry(_word(_json(text)), digest, facts_of(certificates), raw)


def read_entry(raw: bytes, root_pem: bytes, hierarchy: Hierarchy) -> Entry:
    """An entry that somebody hands over, proven to be its signer's, who may say it.

    Raises:
        RevocationInvalidError: It is not.
    """
    entry = read_kept(raw)
    text, signature, chain = _parts(raw)
    word = entry.word
    try:
        moment = chain_end(certificates_from_pem(chain))
        peer = verify_chain(chain, root_pem, hierarchy, moment)
        peer.verify(_TAG + text.encode(), signature)
    except (SignatureInvalidError, PeerIdentityError) as error:
        raise RevocationInvalidError(f"a revocation is not proven: {error.message}") from None
    identity = peer.identity
    if identity.kind is not CallerKind.NODE or identity.node_id != word.signer:
        raise RevocationInvalidError(f"{identity.principal} signed in the name of {word.signer}")
    refuse_beyond(word, hierarchy)
    return entry


def refuse_beyond(word: Word, hierarchy: Hierarchy) -> None:
    """Raise RevocationInvalidError unless what is revoked lies below its signer."""
    node_id, signer = word.node_id, word.signer
    known = node_id in hierarchy and signer in hierarchy
    below = known and hierarchy.is_in_subtree(node_id, signer)
    if not below or (word.target is Target.NODE and node_id == signer):
        raise RevocationInvalidError(f"{signer} cannot revoke what is of {node_id}")
    for each in word.principals:
        said = parse_principal(each)
        if said.kind is CallerKind.NODE or said.node_id != node_id:
            raise RevocationInvalidError(f"a revocation at {node_id} names somebody else")


def _parts(raw: bytes) -> tuple[str, bytes, bytes]:
    """Body, signature, chain."""
    if len(raw) > ENTRY_BYTES_MAX:
        raise RevocationInvalidError("a revocation is larger than one can be")
    envelope = _json(raw)
    body, signature, chain = (envelope.get(key) for key in ("body", "signature", "chain"))
    try:
        signed = base64.b64decode(_text(signature), validate=True)
        text, pem = _text(body), _text(chain).encode("ascii")
        text.encode("utf-8")
    except ValueError:
        raise RevocationInvalidError("a revocation cannot be read") from None
    return text, signed, pem


def _word(body: Mapping[str, Any]) -> Word:
    word = Word(
        NodeId(_text(body.get("signer"))),
        _number(body.get("number")),
        _target(body.get("target")),
        NodeId(_text(body.get("node"))),
        _texts(body.get("keys"), KEYS_MAX),
        _texts(body.get("principals"), _PRINCIPALS_MAX),
        _number(body.get("issued_before_ms")),
        _text(body.get("reason")),
        _text(body.get("by")),
        _number(body.get("at_ms")),
    )
    if len(word.reason) > _TEXT_MAX or len(word.by) > _TEXT_MAX:
        raise RevocationInvalidError("a revocation says more than it can")
    if not all(_KEY.fullmatch(each) for each in word.keys):
        raise RevocationInvalidError("a revocation names what is no digest of a key")
    try:
        for each in word.principals:
            parse_principal(each)
    except PeerIdentityError as error:
        raise RevocationInvalidError(error.message) from None
    if word.target is Target.NODE and word.principals:
        raise RevocationInvalidError("a node is revoked by its keys, not by name")
    if word.target is Target.CALLER and word.issued_before_ms:
        raise RevocationInvalidError("a caller is revoked by name or key, not by time")
    return word


def _json(raw: str | bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RevocationInvalidError("a revocation cannot be read")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RevocationInvalidError("a revocation has another shape")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _NUMBER_MAX:
        raise RevocationInvalidError("a revocation has another shape")
    return value


def _texts(value: Any, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > most:
        raise RevocationInvalidError("a revocation has another shape")
    texts = tuple(_text(each) for each in value)
    if any(len(each) > _TEXT_MAX for each in texts):
        raise RevocationInvalidError("a revocation has another shape")
    return texts


def _target(value: Any) -> Target:
    try:
        return Target(_text(value))
    except ValueError:
        raise RevocationInvalidError("a revocation is of another kind than are known") from None
