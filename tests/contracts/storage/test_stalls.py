"""Since when lanes stand still outlives the process, and costs nothing while none does."""

from __future__ import annotations

from sqlalchemy import Engine, event

from node.storage.tables import CHANGELOG
from node.watch.alarms import LaneKey, Stall
from node.watch.stalls import StallFacts
from replication.changelog import StoreState, read_transaction
from replication.core.model import Lane
from tests.contracts.storage.region import COUNTY, TOWNSHIP, VILLAGE, Region

UP: LaneKey = (COUNTY, Lane.CARE.value)
DOWN: LaneKey = (VILLAGE, Lane.BULK.value)
STALLS = {UP: Stall(7, 3, 1_795_000_000_000), DOWN: Stall(2**62, 2**62, 1)}


def statements(engine: Engine) -> list[str]:
    """What is sent to the database from now on."""
    sent: list[str] = []
    event.listen(
        engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: sent.append(statement)
    )
    return sent


def test_a_start_finds_what_was_saved_before_it(region: Region) -> None:
    """And forgets what has moved; other facts of the store stay."""
    node = region.node(TOWNSHIP)
    with read_transaction(node.engine) as connection:
        others = StoreState(CHANGELOG).load(connection)
    first = StallFacts(node.engine)
    assert first.load() == {}
    first.save(STALLS)

    second = StallFacts(node.engine)
    assert second.load() == STALLS
    second.save({UP: Stall(8, 4, 5)})

    third = StallFacts(node.engine)
    assert third.load() == {UP: Stall(8, 4, 5)}
    third.save({})
    assert StallFacts(node.engine).load() == {}
    with read_transaction(node.engine) as connection:
        assert StoreState(CHANGELOG).load(connection) == others


def test_nothing_is_written_while_nothing_changes(region: Region) -> None:
    """Neither at idle nor while a lane goes on standing."""
    node = region.node(TOWNSHIP)
    facts = StallFacts(node.engine)
    facts.load()
    sent = statements(node.engine)
    facts.save({})
    assert sent == []
    facts.save(STALLS)
    assert sent != []
    sent.clear()
    facts.save(dict(STALLS))
    assert sent == []
