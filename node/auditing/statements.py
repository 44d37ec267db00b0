"""Heads and anchors as signed bytes, and as they travel over a link: JSON, additive.

The signed bytes are a tag and a JSON list in a fixed order, so that one statement has one form.
Everything read here comes from a neighbour, who may be hostile.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise
from typing import Any, Final

from hierarchy_config.model import NodeId
from node.auditing.errors import AuditStatementError
from node.auditing.model import Anchor, Head, KeptAnchor, Life, Point, Signed

__all__ = [
    "ANCHOR_TAG",
    "HEAD_TAG",
    "LIVES_MAX",
    "STATEMENT_BYTES_MAX",
    "anchor_bytes",
    "anchor_in",
    "digest_of",
    "head_bytes",
    "head_in",
    "kept_in",
    "kept_out",
    "read_json",
    "signed_in",
    "signed_out",
]

HEAD_TAG: Final = b"fenhe-audit-head-1\0"
ANCHOR_TAG: Final = b"fenhe-audit-anchor-1\0"
STATEMENT_BYTES_MAX: Final = 1024
LIVES_MAX: Final = 16
"""Of which a head speaks: the newest. An older one has been anchored, or will never be."""
_SIGNATURE_BYTES_MAX: Final = 128
_COUNT_MAX: Final = 2**62
_HASH: Final = re.compile(r"(?:[0-9a-f]{64})?")
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_NODE: Final = re.compile(r"[0-9]{1,16}")


def head_bytes(head: Head) -> bytes:
    """A head as JSON."""
    return _listed(
        head.node_id,
        head.store_epoch,
        head.end.position,
        head.end.hash,
        head.at_ms,
        [[each.store_epoch, each.position] for each in head.lives],
        head.seen.position,
        head.seen.hash,
    )


def head_in(data: bytes) -> Head:
    """The inverse of head_bytes.

    Raises:
        AuditStatementError: It is none.
    """
    node, epoch, position, digest, at, lives, seen, seen_hash = _list_of(data, 8)
    head = Head(
        NodeId(_text(node, _NODE)),
        _count(epoch),
        _point(position, digest),
        _count(at),
        _lives(lives),
        _point(seen, seen_hash),
    )
    if head.lives[-1].store_epoch != head.store_epoch:
        raise AuditStatementError("a head is not of the last of its lives")
    if head_bytes(head) != data:
        raise AuditStatementError("a head is not in its one form")
    return head


def anchor_bytes(anchor: Anchor) -> bytes:
    """An anchor as JSON."""
    return _listed(anchor.holder, anchor.head_digest, anchor.line, anchor.at_ms)


def anchor_in(data: bytes) -> Anchor:
    """The inverse of anchor_bytes.

    Raises:
        AuditStatementError: It is none.
    """
    holder, digest, line, at = _list_of(data, 4)
    anchor = Anchor(
        NodeId(_text(holder, _NODE)), _text(digest, _KEY), _count(line, 2**31 - 1), _count(at)
    )
    if anchor_bytes(anchor) != data:
        raise AuditStatementError("an anchor is not in its one form")
    return anchor


def digest_of(statement: bytes) -> str:
    """SHA-256 of a statement, hexadecimal."""
    return hashlib.sha256(statement).hexdigest()


def signed_out(signed: Signed) -> dict[str, str]:
    """A signed statement for a link."""
    return {
        "said": signed.statement.decode(),
        "signature": signed.signature.hex(),
        "key": signed.key_id,
    }


def signed_in(said: Any) -> Signed:
    """A signed statement from a link; the signature is not verified yet.

    Raises:
        AuditStatementError: It is none.
    """
    if not isinstance(said, dict):
        raise AuditStatementError("a signed statement is missing")
    text, signature = said.get("said"), said.get("signature")
    if not isinstance(text, str) or len(text) > STATEMENT_BYTES_MAX:
        raise AuditStatementError("a statement is no text, or too long")
    if not isinstance(signature, str) or len(signature) > 2 * _SIGNATURE_BYTES_MAX:
        raise AuditStatementError("a signature is no text, or too long")
    try:
        return Signed(text.encode(), bytes.fromhex(signature), _text(said.get("key"), _KEY))
    except ValueError:
        raise AuditStatementError("a signature cannot be read") from None


def kept_out(kept: KeptAnchor) -> dict[str, Any]:
    """An anchor with both statements for a link."""
    return {"head": signed_out(kept.head_signed), "anchor": signed_out(kept.anchor_signed)}


def kept_in(said: Any) -> KeptAnchor:
    """The inverse; neither signature is verified yet.

    Raises:
        AuditStatementError: It is none, or its parts do not belong together.
    """
    if not isinstance(said, dict):
        raise AuditStatementError("an anchor is missing")
    head_signed, anchor_signed = signed_in(said.get("head")), signed_in(said.get("anchor"))
    head, anchor = head_in(head_signed.statement), anchor_in(anchor_signed.statement)
    if anchor.head_digest != digest_of(head_signed.statement):
        raise AuditStatementError("an anchor is of another head")
    return KeptAnchor(head, anchor, head_signed, anchor_signed)


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a question or an answer.

    Raises:
        AuditStatementError: It is none.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise AuditStatementError("what a neighbour says of an audit is no JSON") from None
    if not isinstance(said, dict):
        raise AuditStatementError("what a neighbour says of an audit is no object")
    return said


def _lives(said: Any) -> tuple[Life, ...]:
    if not isinstance(said, list) or len(said) > LIVES_MAX:
        raise AuditStatementError("a head names too many lives")
    if not all(isinstance(each, list) and len(each) == 2 for each in said):
        raise AuditStatementError("a head names lives that are none")
    lives = tuple(Life(_count(epoch), _count(position)) for epoch, position in said)
    if not lives or any(one.store_epoch >= other.store_epoch for one, other in pairwise(lives)):
        raise AuditStatementError("a head's lives are not in their order")
    return lives


def _listed(*parts: object) -> bytes:
    return json.dumps(parts, separators=(",", ":")).encode()


def _list_of(data: bytes, length: int) -> list[Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        raise AuditStatementError("a statement is no JSON") from None
    if not isinstance(said, list) or len(said) != length:
        raise AuditStatementError("a statement has not its parts")
    return said


def _text(said: Any, form: re.Pattern[str]) -> str:
    if not isinstance(said, str) or form.fullmatch(said) is None:
        raise AuditStatementError("a statement names something that is no name")
    return said


def _count(said: Any, most: int = _COUNT_MAX) -> int:
    if not isinstance(said, int) or isinstance(said, bool) or not 0 <= said <= most:
        raise AuditStatementError("a number of a statement is out of range")
    return said


def _point(position: Any, digest: Any) -> Point:
    return Point(_count(position), _text(digest, _HASH))
