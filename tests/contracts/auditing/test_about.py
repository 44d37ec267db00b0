"""Who has looked at a resident is told to the side that he lives on, whatever a question claims."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from sqlalchemy import insert, select

from hierarchy_config import NodeId
from node.auditing.about import ABOUT_METHOD, AboutResident
from node.auditing.errors import AuditTryLaterError
from node.storage.audit import Action
from node.storage.specs import RESIDENT_INDEX
from node.storage.tables import AUDIT, REPLICATED
from replication.channel import AskRefusedError
from replication.core.model import Request
from tests.contracts.auditing.place import Place, Side
from tests.unit.security.region import COUNTY, SIBLING, TOWNSHIP, VILLAGE


class Around:
    """What a node asks of its neighbours, each of which is silent."""

    def __init__(self) -> None:
        self.asked: list[tuple[NodeId, Any]] = []

    async def ask(self, to: NodeId, _method: str, body: bytes, _remaining_ms: int) -> bytes:
        self.asked.append((to, json.loads(body)))
        raise AskRefusedError("UNKNOWN_METHOD", "silent")


def living(side: Side, home: NodeId) -> str:
    """A resident of whom the node has read once, living there by its own rows."""
    resident = str(uuid.uuid4())
    t = REPLICATED[RESIDENT_INDEX.name]
    row = {
        "row_id": resident,
        "resident_id": resident,
        "version_epoch": 1,
        "version_number": 1,
        "author_node": home,
        "home_node": home,
        "home_epoch": 1,
        "schema_version": 1,
        "recorded_at": "2027-01-15T08:00:00.000Z",
        "form": "1",
        "deleted": False,
    }
    with side.engine.begin() as connection:
        connection.execute(insert(t), row)
    side.read(resident)
    return resident


def asked(side: Side, around: Around, peer: NodeId, resident: str, home: NodeId) -> list[Any]:
    """The nodes of the answer to a neighbour."""
    room = AboutResident(side.ground, around.ask, side.search)
    body = json.dumps({"resident": resident, "home": home}).encode()
    answer = asyncio.run(room.answer(peer, Request(1, (), ABOUT_METHOD, 5_000, b"", body)))
    return list(json.loads(answer)["nodes"])


def told(side: Side, resident: str) -> list[tuple[str, int]]:
    """What the node's own audit says of such questions: how they ended, how much was told."""
    with side.engine.connect() as connection:
        rows = connection.execute(
            select(AUDIT.c.outcome, AUDIT.c.row_count)
            .where(AUDIT.c.action == Action.ABOUT, AUDIT.c.resident_id == resident)
            .order_by(AUDIT.c.audit_id)
        )
        return [(row.outcome, row.row_count) for row in rows]


def test_a_child_is_told_of_its_own_residents(place: Place) -> None:
    """And the question goes on up, with the home that this node knows."""
    around = Around()
    resident = living(place.village, VILLAGE)
    nodes = asked(place.village, around, TOWNSHIP, resident, VILLAGE)
    assert [len(each["entries"]) for each in nodes] == [1]
    side = place.township
    resident = living(side, VILLAGE)
    nodes = asked(side, around, VILLAGE, resident, VILLAGE)
    assert [each["node"] for each in nodes][:2] == [TOWNSHIP, COUNTY]
    assert len(nodes[0]["entries"]) == 1
    assert around.asked[0] == (COUNTY, {"resident": resident, "home": VILLAGE})


def test_a_child_that_claims_anothers_resident_is_refused(place: Place) -> None:
    """Nothing is told, nobody else is asked, and the question stands in the audit as refused."""
    around = Around()
    side = place.township
    resident = living(side, SIBLING)
    with pytest.raises(AskRefusedError) as refused:
        asked(side, around, VILLAGE, resident, VILLAGE)
    assert refused.value.status == "DENIED"
    assert around.asked == []
    assert told(side, resident) == [("refused", 0)]


def test_a_nearly_full_disk_keeps_no_entry_for_a_child(place: Place) -> None:
    """The entry is for ever, and the node's own readers need the room: it is to come later."""
    side = place.township
    resident = living(side, VILLAGE)
    side.full = True
    with pytest.raises(AuditTryLaterError):
        asked(side, Around(), VILLAGE, resident, VILLAGE)
    assert told(side, resident) == []
    side.full = False
    assert len(asked(side, Around(), VILLAGE, resident, VILLAGE)[0]["entries"]) == 1


def test_a_resident_who_is_not_known_here_is_nobodys(place: Place) -> None:
    """His entries here stay here, and what the question claims is not passed on."""
    around = Around()
    side = place.township
    resident = str(uuid.uuid4())
    side.read(resident)
    nodes = asked(side, around, VILLAGE, resident, VILLAGE)
    assert [(each["node"], each["fault"], each["entries"]) for each in nodes] == [
        (TOWNSHIP, "NOT_FOUND", [])
    ]
    assert around.asked == []
    assert told(side, resident) == [("not_found", 0)]
