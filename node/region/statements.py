"""What is signed when the region changes, as bytes that travel and are kept.

    {"body": "{…}", "signature": base64, "chain": PEM}

`body` is JSON text, kept as it was signed, so that nothing needs to be written alike twice. What a
signature covers begins with a tag of its kind, so that an offer is never taken for a decision. Owns
the kinds and their checks; who may sign what stands at each `read_…`. Trusts nobody who hands over.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hierarchy_config import Hierarchy, NodeId, RegionFileError, parse_region, shape_digest
from node.region.errors import RegionStatementError
from node.security.caller import CallerKind
from node.security.errors import PeerIdentityError, SignatureInvalidError
from node.security.identity import NameJudge
from node.security.signatures import Signer, verify_chain

__all__ = [
    "Decision",
    "Held",
    "Judge",
    "Offer",
    "PurgeOrder",
    "digest_of",
    "epoch_said",
    "read_decision",
    "read_held",
    "read_offer",
    "read_purge_order",
    "sign_decision",
    "sign_held",
    "sign_offer",
    "sign_purge_order",
]

STATEMENT_BYTES_MAX: Final = 3 << 20
_OFFER: Final = "fenhe-region-offer-1"
_DECISION: Final = "fenhe-region-decision-1"
_PURGE: Final = "fenhe-region-purge-1"
_HELD: Final = "fenhe-region-held-1"


@dataclass(frozen=True, slots=True)
class Judge:
    """What a signature is judged by: the region's root certificate, the hierarchy here, the time.

    `former` decides over signers under a former name.
    """

    root_pem: bytes
    hierarchy: Hierarchy
    now: datetime
    former: NameJudge | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A configuration: the region file of an epoch and the hierarchy it follows."""

    epoch: int
    digest: str
    follows: str
    text: str
    by: str
    at: str
    note: str
    hierarchy: Hierarchy
    raw: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """An epoch is put in force. `keys`: digests of the moved nodes' keys, TLS and authority."""

    epoch: int
    digest: str
    without: tuple[NodeId, ...]
    keys: Mapping[NodeId, tuple[str, str]]
    purge_after_s: int
    by: str
    at: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class PurgeOrder:
    """The old branches may delete what has left them by this epoch."""

    epoch: int
    digest: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """A node's own word that it holds a configuration, with the digests of its keys."""

    node_id: NodeId
    epoch: int
    digest: str
    keys: tuple[str, str]


def digest_of(text: str) -> str:
    """SHA-256, hexadecimal, of a configuration's text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sign_offer(
    signer: Signer, old: Hierarchy, text: str, *, by: str, at: str, note: str = ""
) -> bytes:
    """Sign the configuration that follows `old`, as the root."""
    body = {
        "epoch": old.epoch + 1,
        "digest": digest_of(text),
        "follows": shape_digest(old),
        "text": text,
        "by": by,
        "at": at,
        "note": note,
    }
    return _signed(signer, _OFFER, body)


def read_offer(raw: bytes, judge: Judge) -> Offer:
    """A configuration that the root of the judge's hierarchy signed.

    Raises:
        RegionStatementError: It did not, or the text is not the region file that it says.
    """
    body = _from_root(raw, _OFFER, judge)
    text, epoch = _text(body, "text"), _number(body, "epoch")
    if digest_of(text) != _text(body, "digest"):
        raise RegionStatementError("a configuration's digest is not that of its text")
    try:
        hierarchy = parse_region(text, file=f"configuration of epoch {epoch}")
    except RegionFileError as error:
        raise RegionStatementError(f"a configuration is no region file: {error.message}") from None
    if hierarchy.epoch != epoch or hierarchy.region != judge.hierarchy.region:
        raise RegionStatementError("a configuration's text is of another epoch or region")
    return Offer(
        epoch,
        _text(body, "digest"),
        _text(body, "follows"),
        text,
        _text(body, "by"),
        _text(body, "at"),
        _text(body, "note"),
        hierarchy,
        raw,
    )


def epoch_said(raw: bytes) -> int:
    """The epoch that a statement claims to be for; nothing is verified. RegionStatementError."""
    return _number(_json(_text(_json(raw), "body")), "epoch")


def sign_decision(
    signer: Signer,
    offer: Offer,
    *,
    without: tuple[NodeId, ...],
    keys: Mapping[NodeId, tuple[str, str]],
    purge_after_s: int,
    by: str,
    at: str,
) -> bytes:
    """Sign that a configuration comes into force, as the root; never twice for one epoch."""
    body = {
        "epoch": offer.epoch,
        "digest": offer.digest,
        "without": sorted(without),
        "keys": {node_id: list(pair) for node_id, pair in sorted(keys.items())},
        "purge_after_s": purge_after_s,
        "by": by,
        "at": at,
    }
    return _signed(signer, _DECISION, body)


def read_decision(raw: bytes, judge: Judge) -> Decision:
    """A decision that the root of the judge's hierarchy signed. Raises RegionStatementError."""
    body = _from_root(raw, _DECISION, judge)
    keys = body.get("keys")
    without = body.get("without")
    if not isinstance(keys, dict) or not isinstance(without, list):
        raise RegionStatementError("a decision has another shape")
    return Decision(
        _number(body, "epoch"),
        _text(body, "digest"),
        tuple(NodeId(str(each)) for each in without),
        {NodeId(node_id): _pair(pair) for node_id, pair in keys.items()},
        _number(body, "purge_after_s"),
        _text(body, "by"),
        _text(body, "at"),
        raw,
    )


def sign_purge_order(signer: Signer, epoch: int, digest: str) -> bytes:
    """Sign that old branches delete what has left them, as the root."""
    return _signed(signer, _PURGE, {"epoch": epoch, "digest": digest})


def read_purge_order(raw: bytes, judge: Judge) -> PurgeOrder:
    """An order that the root of the judge's hierarchy signed. Raises RegionStatementError."""
    body = _from_root(raw, _PURGE, judge)
    return PurgeOrder(_number(body, "epoch"), _text(body, "digest"), raw)


def sign_held(signer: Signer, node_id: NodeId, offer: Offer, keys: tuple[str, str]) -> bytes:
    """Sign, as a node, that it holds a configuration."""
    body = {"node": node_id, "epoch": offer.epoch, "digest": offer.digest, "keys": list(keys)}
    return _signed(signer, _HELD, body)


def read_held(raw: bytes, judge: Judge) -> Held:
    """A node's own word. Raises RegionStatementError: it is not the node's that it names."""
    body, signer = _opened(raw, _HELD, judge)
    node_id = NodeId(_text(body, "node"))
    if signer != node_id:
        raise RegionStatementError(f"{signer} cannot give the word of {node_id}")
    return Held(node_id, _number(body, "epoch"), _text(body, "digest"), _pair(body.get("keys")))


def _signed(signer: Signer, tag: str, body: Mapping[str, Any]) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    envelope = {
        "body": text,
        "signature": base64.b64encode(signer.sign(_covered(tag, text))).decode(),
        "chain": signer.chain_pem.decode("ascii"),
    }
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def _covered(tag: str, text: str) -> bytes:
    return tag.encode() + b"\0" + text.encode("utf-8")


def _from_root(raw: bytes, tag: str, judge: Judge) -> Mapping[str, Any]:
    body, signer = _opened(raw, tag, judge)
    if signer != judge.hierarchy.root:
        raise RegionStatementError(
            f"{signer} signed what only the root {judge.hierarchy.root} may sign"
        )
    return body


def _opened(raw: bytes, tag: str, judge: Judge) -> tuple[Mapping[str, Any], NodeId]:
    """The body, and the node that signed it."""
    if len(raw) > STATEMENT_BYTES_MAX:
        raise RegionStatementError("a statement is larger than one can be")
    envelope = _json(raw)
    try:
        text, chain = _text(envelope, "body"), _text(envelope, "chain").encode("ascii")
        signature = base64.b64decode(_text(envelope, "signature"), validate=True)
        peer = verify_chain(chain, judge.root_pem, judge.hierarchy, judge.now, judge.former)
        peer.verify(_covered(tag, text), signature)
        body = _json(text)
    except (SignatureInvalidError, PeerIdentityError) as error:
        raise RegionStatementError(f"a statement of the region: {error.message}") from None
    except ValueError:
        raise RegionStatementError("a statement of the region cannot be read") from None
    if peer.identity.kind is not CallerKind.NODE:
        raise RegionStatementError("a statement of the region is not signed by a node")
    return body, peer.identity.node_id


def _json(raw: str | bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RegionStatementError("a statement of the region cannot be read")
    return value


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise RegionStatementError(f"a statement of the region lacks `{key}`")
    return value


def _number(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RegionStatementError(f"a statement of the region lacks the number `{key}`")
    return value


def _pair(value: Any) -> tuple[str, str]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
        return value[0], value[1]
    raise RegionStatementError("a statement of the region names no pair of keys")
