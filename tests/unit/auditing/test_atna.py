"""An entry as an audit message: well formed whatever is in it, and nothing beyond the entry."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from node.auditing.atna import message
from node.auditing.search import Found
from node.storage.audit import Action, Outcome
from node.storage.model import AuditEntry

RESIDENT = "0190f1a2-0000-7000-8000-000000000001"


def read_xml(text: str | bytes) -> ET.Element:
    """What a collector reads; the text is our own."""
    return ET.fromstring(text)  # noqa: S314


def found(**values: object) -> Found:
    """An entry of a read."""
    said = {
        "at": "2026-11-23T08:00:00.000Z",
        "principal": "spiffe://linfen/141002/staff/zhang",
        "kind": "staff",
        "node_id": "141002",
        "purpose": "/fenhe.empi.v1.ResidentService/Get",
        "action": "read",
        "object_table": "residents",
        "object_id": RESIDENT,
        "resident_id": RESIDENT,
        "outcome": "done",
        "row_count": 1,
        **values,
    }
    return Found(7, 5, AuditEntry(**said))  # type: ignore[arg-type]


def test_a_read_is_a_patient_record_event() -> None:
    """Who, what, when, whose, in the places that the standard has for them."""
    parsed = read_xml(message(found(), "141002", "linfen"))
    event = parsed.find("EventIdentification")
    assert event is not None
    assert event.attrib == {
        "EventActionCode": "R",
        "EventDateTime": "2026-11-23T08:00:00.000Z",
        "EventOutcomeIndicator": "0",
    }
    event_id = event.find("EventID")
    assert event_id is not None
    assert event_id.attrib["csd-code"] == "110110"
    who = parsed.find("ActiveParticipant")
    assert who is not None
    assert who.attrib["UserID"] == "spiffe://linfen/141002/staff/zhang"
    patient = parsed.find("ParticipantObjectIdentification")
    assert patient is not None
    assert patient.attrib["ParticipantObjectID"] == RESIDENT
    order = [each.tag for each in parsed]
    assert order == [
        "EventIdentification",
        "ActiveParticipant",
        "AuditSourceIdentification",
        "ParticipantObjectIdentification",
        "ParticipantObjectIdentification",
    ]


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_deed_is_a_message(action: Action, outcome: Outcome) -> None:
    """One line, well formed."""
    text = message(found(action=action.value, outcome=outcome.value), "141002", "linfen")
    assert "\n" not in text
    assert read_xml(text).tag == "AuditMessage"


@pytest.mark.parametrize(
    "text",
    ['"><x/>', "a\nb", "\x00\x0b\x1f", "\ud800", "\ufffe", "&amp;", "</AuditMessage>", "患者"],
)
def test_what_others_typed_cannot_break_a_message(text: str) -> None:
    """A question's purpose and principal come from afar."""
    said = message(found(purpose=text, principal=text, outcome=text), "141002", "linfen")
    assert "\n" not in said or text == "a\nb"
    parsed = read_xml(said.encode("utf-8"))
    assert next(each.tag for each in parsed) == "EventIdentification"


def test_a_word_of_a_newer_release_is_passed_on() -> None:
    """An action unknown here is a message all the same."""
    assert "teleport" in message(found(action="teleport"), "141002", "linfen")
