"""What the parent hands over when a child has proven the code: JSON, proven as the bytes it is.

Texts are PEM or YAML as they lie in files; the letter with the pseudonym key is base64. Whoever
reads it has checked the parent's proof; what is read is checked for its shape all the same, since
two releases may differ.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Final

from hierarchy_config.model import NodeId
from node.joining.errors import JoinAnswerError

__all__ = ["NEW_PSEUDONYM", "JoinAnswer", "SignedEpochText", "read_answer", "write_answer"]

NEW_PSEUDONYM: Final = "new"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SignedEpochText:
    """The root's statements about the epoch in force, as they travel (node/region)."""

    offer: str
    decision: str


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """All that a child lacks.

    `at_ms`: the parent's wall clock. `parent_address`: host:port, or :port at the host where the
    door was found. `signed`: None for an epoch that nobody signed (the first). `known_before`: a
    child of this name was linked here in a former life. Of a county: `regional_index_key` is the
    key file's text, `pseudonym` "new" if it makes the key, `pseudonym_letter` the key sealed to the
    child by another county; all empty for others.
    """

    node_id: NodeId
    parent_id: NodeId
    at_ms: int
    tls_chain: str
    authority_chain: str
    root: str
    region_text: str
    parent_address: str
    known_before: bool
    signed: SignedEpochText | None = None
    regional_index_key: str = ""
    pseudonym: str = ""
    pseudonym_letter: bytes = b""


def write_answer(answer: JoinAnswer) -> bytes:
    """The bytes that the parent proves."""
    signed = answer.signed
    said = {
        "version": _VERSION,
        "node_id": answer.node_id,
        "parent_id": answer.parent_id,
        "at_ms": answer.at_ms,
        "tls_chain": answer.tls_chain,
        "authority_chain": answer.authority_chain,
        "root": answer.root,
        "region_text": answer.region_text,
        "parent_address": answer.parent_address,
        "known_before": answer.known_before,
        "offer": signed.offer if signed else "",
        "decision": signed.decision if signed else "",
        "regional_index_key": answer.regional_index_key,
        "pseudonym": answer.pseudonym,
        "pseudonym_letter": base64.b64encode(answer.pseudonym_letter).decode("ascii"),
    }
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def read_answer(raw: bytes) -> JoinAnswer:
    """What write_answer made; keys that a later release adds are left alone.

    Raises:
        JoinAnswerError: It has another shape.
    """
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("version") != _VERSION:
        raise JoinAnswerError("the parent's answer is of a form that this release does not know")
    offer, decision = _text(said, "offer"), _text(said, "decision")
    return JoinAnswer(
        NodeId(_text(said, "node_id")),
        NodeId(_text(said, "parent_id")),
        _value(said, "at_ms", int),
        _text(said, "tls_chain"),
        _text(said, "authority_chain"),
        _text(said, "root"),
        _text(said, "region_text"),
        _text(said, "parent_address"),
        _value(said, "known_before", bool),
        SignedEpochText(offer, decision) if offer else None,
        _text(said, "regional_index_key"),
        _text(said, "pseudonym"),
        _letter(said),
    )


def _value(said: dict[str, Any], key: str, kind: type[Any]) -> Any:
    value = said.get(key)
    if type(value) is not kind:
        raise JoinAnswerError(f"the parent's answer lacks `{key}`")
    return value


def _text(said: dict[str, Any], key: str) -> str:
    return str(_value(said, key, str))


def _letter(said: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(_text(said, "pseudonym_letter"), validate=True)
    except ValueError:
        raise JoinAnswerError("the parent's answer lacks `pseudonym_letter`") from None
