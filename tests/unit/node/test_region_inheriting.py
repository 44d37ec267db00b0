"""A successor asks the node above for a closed node's rows: what it answers may be anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hierarchy_config import NodeId
from node.region.inheriting import INHERIT, Inheriting
from node.storage.succession import Taken
from replication.channel import AskRefusedError
from replication.core.model import Request
from tests.unit.security.region import COUNTY, HIERARCHY, SIBLING, TOWNSHIP, VILLAGE

_ENTRY = replace(HIERARCHY.entry(VILLAGE), succeeds=SIBLING)
TREE = replace(
    HIERARCHY,
    epoch=2,
    nodes={**{k: v for k, v in HIERARCHY.nodes.items() if k != SIBLING}, VILLAGE: _ENTRY},
)
ROW_ID = "00000000-0000-7000-8000-000000000001"


@dataclass
class Heir:
    """What a successor works with; the node above answers these, one after the other."""

    answers: list[Any]
    progress: dict[str, Any] = field(default_factory=dict)
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    taken: int = 0
    node_id: NodeId = VILLAGE
    hierarchy: Any = TREE
    recovery: Any = field(default_factory=lambda: SimpleNamespace(active=False))

    @property
    def hub(self) -> Any:
        return SimpleNamespace(states={TOWNSHIP: SimpleNamespace(connected=bool(self.answers))})

    @property
    def epochs(self) -> Any:
        row = SimpleNamespace(epoch=2, progress=self.progress)
        return SimpleNamespace(
            all=lambda: (row,), note=lambda _epoch, facts: self.progress.update(facts)
        )

    @property
    def storage(self) -> Any:
        return SimpleNamespace(
            moving=SimpleNamespace(take_over=self._take_over), recovery=self.recovery
        )

    def _take_over(self, _rows: Any, _closed: NodeId) -> Taken:
        self.taken += 1
        return Taken((), 0, 0)

    def durable_head(self) -> int:
        return 7

    async def blocking(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    async def ask(self, _to: NodeId, method: str, body: Mapping[str, Any], _ms: int) -> Any:
        assert method == INHERIT
        self.asked.append(body)
        return self.answers.pop(0)

    def take(self) -> None:
        """Take over what is due."""
        asyncio.run(Inheriting(cast(Any, self)).take())


def test_pages_are_asked_for_until_there_is_none() -> None:
    """Each from where the one before ended."""
    heir = Heir([{"rows": "[]", "next": [0, ROW_ID]}, {"rows": "[]", "next": None}])

    heir.take()

    assert [(each["table"], each["row_id"]) for each in heir.asked] == [(0, ""), (0, ROW_ID)]
    assert heir.progress["inherited"] == SIBLING


@pytest.mark.parametrize("following", [5, [], ["0", ""], [0, ""], [0, 7], [99, ""], [-1, ROW_ID]])
def test_a_page_that_leads_nowhere_is_not_noted(following: Any) -> None:
    """It would be read again at every start, or be asked for without an end."""
    heir = Heir([{"rows": "[]", "next": following}] * 3)

    heir.take()

    assert len(heir.asked) == 1
    assert heir.taken == 0
    assert heir.progress == {}


@pytest.mark.parametrize("rows", [None, 5, "{", "[5]", '[["x"]]'])
def test_rows_that_cannot_be_read_are_asked_for_again(rows: Any) -> None:
    """Nothing is stored, and the node goes on."""
    heir = Heir([{"rows": rows, "next": None}])

    heir.take()

    assert heir.progress == {}


def test_a_place_that_was_noted_wrongly_is_begun_anew() -> None:
    """Twice does no harm."""
    heir = Heir([{"rows": "[]", "next": None}], {"inherit": 5})

    heir.take()

    assert [(each["table"], each["row_id"]) for each in heir.asked] == [(0, "")]


def test_a_successor_that_recovers_waits() -> None:
    """What it wrote itself is still to come back."""
    heir = Heir([{"rows": "[]", "next": None}])
    heir.recovery.active = True

    heir.take()

    assert heir.asked == []


@pytest.mark.parametrize(
    "body",
    [b'{"code":"x","table":99,"row_id":""}', b'{"code":"x","table":true,"row_id":""}', b"{}"],
)
def test_a_child_that_asks_for_no_place_is_refused(body: bytes) -> None:
    """The tables are this node's, their number no child's to say."""
    above = Heir([], node_id=COUNTY)
    request = Request(1, (), INHERIT, 1000, body=body)

    with pytest.raises(AskRefusedError):
        asyncio.run(Inheriting(cast(Any, above)).on_inherit(VILLAGE, request))
