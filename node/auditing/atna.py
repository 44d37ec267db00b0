"""Entries as audit messages: DICOM PS3.15 A.5 (2024), after IHE ATNA and RFC 3881; XML, UTF-8.

One message a line, so that a collector may read them one by one. What the standard has no code for
is said in a code of our own beside the nearest of DICOM's (codeSystemName Fenhe). No message holds
more than its entry: ids, names of callers, numbers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar
from xml.sax.saxutils import escape, quoteattr  # writes, reads nothing  # nosec B406

from node.auditing.search import Found
from node.storage.audit import Action, Outcome

__all__ = ["message"]

W = TypeVar("W", bound=StrEnum)

_ILLEGAL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DCM: Final = "DCM"
_OURS: Final = "Fenhe"
_ACTIVITY: Final = ("110100", "Application Activity")
_USED: Final = ("110101", "Audit Log Used")
_EXPORT: Final = ("110106", "Export")
_IMPORT: Final = ("110107", "Import")
_NETWORK: Final = ("110108", "Network Entry")
_PATIENT: Final = ("110110", "Patient Record")
_QUERY: Final = ("110112", "Query")
_ALERT: Final = ("110113", "Security Alert")

_EVENTS: Final[Mapping[Action | None, tuple[tuple[str, str], str]]] = MappingProxyType(
    {
        Action.FIND: (_QUERY, "E"),
        Action.QUESTION: (_QUERY, "E"),
        Action.COUNT: (_QUERY, "E"),
        Action.WHERE: (_QUERY, "E"),
        Action.PUT: (_PATIENT, "C"),
        Action.PURGE: (_PATIENT, "D"),
        Action.MERGE: (_PATIENT, "U"),
        Action.LINK: (_PATIENT, "U"),
        Action.UNLINK: (_PATIENT, "U"),
        Action.TELL_APART: (_PATIENT, "U"),
        Action.MOVE: (_PATIENT, "U"),
        Action.REPAIR: (_PATIENT, "U"),
        Action.SEARCH: (_USED, "R"),
        Action.ABOUT: (_USED, "R"),
        Action.VERIFY: (_USED, "R"),
        Action.EXPORT: (_EXPORT, "R"),
        Action.BACKUP: (_EXPORT, "R"),
        Action.LEND: (_EXPORT, "R"),
        Action.SHIP: (_EXPORT, "R"),
        Action.IMPORT: (_IMPORT, "C"),
        Action.RESTORE: (_IMPORT, "C"),
        Action.TAKE_OVER: (_IMPORT, "C"),
        Action.JOIN: (_NETWORK, "E"),
        Action.INVITE: (_ALERT, "C"),
        Action.WITHDRAW: (_ALERT, "D"),
        Action.GRANT: (_ALERT, "U"),
        Action.RENEW: (_ALERT, "U"),
        Action.CONTRADICTED: (_ALERT, "R"),
        Action.RECOGNISE: (_ALERT, "U"),
        Action.BREAK_GLASS: (_ALERT, "E"),
        Action.DENY: (_ALERT, "E"),
        Action.START: (_ACTIVITY, "E"),
        Action.STOP: (_ACTIVITY, "E"),
    }
)
_TYPES: Final[Mapping[Action | None, tuple[str, str]]] = MappingProxyType(
    {Action.START: ("110120", "Application Start"), Action.STOP: ("110121", "Application Stop")}
)
_OUTCOMES: Final[Mapping[Outcome | None, str]] = MappingProxyType(
    {Outcome.REFUSED: "8", Outcome.NOT_FOUND: "4"}
)
"""EventOutcomeIndicator: 0 success, 4 minor failure, 8 serious failure."""


def message(found: Found, here: str, region: str) -> str:
    """One AuditMessage, in one line.

    Args:
        found: The entry.
        here: Whose audit it is.
        region: Name of the region.
    """
    entry = found.entry
    action, outcome = _word(Action, entry.action), _word(Outcome, entry.outcome)
    (code, text), verb = _EVENTS.get(action, (_PATIENT, "R"))
    kind = _TYPES.get(action)
    event = _attributes(
        EventActionCode=verb,
        EventDateTime=entry.at,
        EventOutcomeIndicator=_OUTCOMES.get(outcome, "0"),
    )
    who = _attributes(
        UserID=entry.principal, UserIsRequestor="true", AlternativeUserID=entry.node_id
    )
    source = _attributes(AuditSourceID=here, AuditEnterpriseSiteID=region)
    parts = [
        f"<AuditMessage><EventIdentification{event}>",
        _code("EventID", code, _DCM, text),
        "" if kind is None else _code("EventTypeCode", kind[0], _DCM, kind[1]),
        _code("EventTypeCode", entry.action, _OURS, entry.action),
        f"<EventOutcomeDescription>{escape(_legal(entry.outcome))}</EventOutcomeDescription>",
        _code("PurposeOfUse", entry.purpose, _OURS, entry.purpose) if entry.purpose else "",
        f"</EventIdentification><ActiveParticipant{who}>",
        _code("RoleIDCode", entry.kind, _OURS, entry.kind),
        f"</ActiveParticipant><AuditSourceIdentification{source}>",
        _code("AuditSourceTypeCode", "4", _DCM, "Application Server process"),
        "</AuditSourceIdentification>",
        _patient(entry.resident_id),
        _object(found),
        "</AuditMessage>",
    ]
    return "".join(parts)


def _patient(resident_id: str | None) -> str:
    if resident_id is None:
        return ""
    said = _attributes(
        ParticipantObjectID=resident_id,
        ParticipantObjectTypeCode="1",
        ParticipantObjectTypeCodeRole="1",
    )
    kind = _code("ParticipantObjectIDTypeCode", "2", "RFC-3881", "Patient Number")
    return _element("ParticipantObjectIdentification", said, kind)


def _object(found: Found) -> str:
    """What it was done to, and the entry's place in the chain."""
    entry = found.entry
    said = _attributes(
        ParticipantObjectID=entry.object_id or entry.object_table,
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    kind = _code("ParticipantObjectIDTypeCode", entry.object_table, _OURS, entry.object_table)
    details = _detail("rows", entry.row_count) + _detail("position", found.position)
    if entry.grant_id is not None:
        details += _detail("break_glass", entry.grant_id)
    return _element("ParticipantObjectIdentification", said, kind + details)


def _detail(name: str, value: int | str) -> str:
    packed = base64.b64encode(str(value).encode()).decode()
    return f"<ParticipantObjectDetail{_attributes(type=name, value=packed)}/>"


def _code(element: str, code: str, system: str, text: str) -> str:
    said = _attributes(**{"csd-code": code, "codeSystemName": system, "originalText": text})
    return f"<{element}{said}/>"


def _element(name: str, attributes: str, inner: str) -> str:
    return f"<{name}{attributes}>{inner}</{name}>"


def _attributes(**said: str) -> str:
    return "".join(f" {name}={quoteattr(_legal(value))}" for name, value in said.items())


def _legal(text: str) -> str:
    """Without what XML cannot hold: a question's purpose may be any text."""
    return _ILLEGAL.sub("\ufffd", text)


def _word(words: type[W], said: str) -> W | None:
    """A word of ours; None: of a newer release."""
    try:
        return words(said)
    except ValueError:
        return None
