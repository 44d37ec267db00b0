"""A successor takes over a closed home's rows from the node above, and nothing that was forged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from node.storage.moving import START, Position, read_position
from node.storage.tables import REPLICATED
from replication.changelog import read_transaction
from replication.core.model import Form, RowChange, Version
from tests.contracts.storage.region import (
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    observation,
    person,
)

CLOSED = VILLAGE_2


def held(node: NodeStore, table: str) -> dict[str, Any]:
    """Rows of a table by id."""
    with read_transaction(node.engine) as connection:
        rows = connection.execute(select(REPLICATED[table])).mappings()
        return {row["row_id"]: dict(row) for row in rows}


def values_of(node: NodeStore, row_id: str) -> list[Any]:
    """The values of an observation in the node's log, oldest first."""
    return [each.values.get("value") for each in node.changes() if each.row_id == row_id]


def of_closed(row: int = 1, **more: Any) -> RowChange:
    """A record that the closed node wrote about its own resident."""
    return change(row=row, **{"author": CLOSED, "home": CLOSED, **more})


def test_rows_of_the_closed_home_become_the_successors(region: Region) -> None:
    """Twice does nothing more; what others wrote stays theirs."""
    heir = region.node(VILLAGE)
    rows = [
        change("residents", author=CLOSED, home=CLOSED, values={"name": "张三"}),
        of_closed(1),
        of_closed(2, author=TOWNSHIP, version=(1, 3)),
    ]

    first = heir.storage.moving.take_over(rows, CLOSED)
    again = heir.storage.moving.take_over(rows, CLOSED)

    assert (len(first.rows), first.refused, first.known) == (3, 0, 0)
    assert (len(again.rows), again.refused, again.known) == (0, 0, 3)
    authors = {(row.author_node, row.version, row.home_node, row.home_epoch) for row in first.rows}
    assert authors == {
        (VILLAGE, Version(2, 1), VILLAGE, 2),
        (TOWNSHIP, Version(1, 3), VILLAGE, 2),
    }
    assert len(heir.changes()) == 3


def test_rows_of_the_successors_own_people_stay_as_they_are(region: Region) -> None:
    """The node above may say that they are at home at the closed node, in any version."""
    heir = region.node(VILLAGE)
    put = heir.storage.put_bundle(heir.caller(), bundle("own", person()))
    [resident] = put.resident_ids
    put = heir.storage.put_bundle(heir.caller(), bundle("record", observation(resident)))
    before = held(heir, "residents"), held(heir, "observations")
    [record] = before[1]
    great: dict[str, Any] = {"version": (2**60, 1), "home_epoch": 9}
    forged = [
        replace(
            change("residents", author=CLOSED, home=CLOSED, values={"name": "x"}, **great),
            row_id=resident,
            resident_id=resident,
        ),
        replace(of_closed(values={"value": 1}, **great), row_id=record, resident_id=resident),
        replace(of_closed(values={"value": 1}, **great), row_id=record),
        replace(
            of_closed(author=VILLAGE, values={"value": 1}, **great),
            row_id=record,
            resident_id=resident,
        ),
    ]

    for each in forged:
        assert heir.storage.moving.take_over([each], CLOSED).rows == ()

    assert (held(heir, "residents"), held(heir, "observations")) == before


def test_what_the_successor_wrote_itself_is_taken_from_its_own_store(region: Region) -> None:
    """In no other content, and in no version that it never gave."""
    heir = region.node(VILLAGE)
    resident = change("residents", author=CLOSED, home=CLOSED, values={"name": "张三"})
    own = of_closed(1, author=VILLAGE, version=(1, 4), values={"value": 120})
    with heir.engine.begin() as connection:
        maker = heir.storage.moving._maker  # noqa: SLF001 - as it was written before
        connection.execute(REPLICATED["observations"].insert(), [maker.row(own)])

    newer = replace(own, version=Version(1, 5), values={"value": 1})
    refused = heir.storage.moving.take_over([resident, newer], CLOSED)
    altered = heir.storage.moving.take_over([replace(own, values={"value": 1})], CLOSED)
    unknown = heir.storage.moving.take_over([of_closed(7, author=VILLAGE)], CLOSED)

    assert (refused.refused, altered.refused, unknown.refused) == (1, 0, 1)
    assert values_of(heir, own.row_id) == [120]
    assert held(heir, "observations")[own.row_id]["home_node"] == VILLAGE


@pytest.mark.parametrize(
    "unfit",
    [
        of_closed(table="no_such_table"),
        of_closed(form=Form.DEIDENTIFIED),
        of_closed(home=TOWNSHIP),
        of_closed(values={"value": "a text"}),
        of_closed(values={"value": [1]}),
        of_closed(version=(2**62, 1), home_epoch=2**62),
        of_closed(version=(2**70, 1)),
        replace(of_closed(), row_id="1"),
    ],
)
def test_what_no_honest_node_gives_is_left_out(region: Region, unfit: RowChange) -> None:
    """The other rows of the page are taken."""
    heir = region.node(VILLAGE)

    taken = heir.storage.moving.take_over([unfit, of_closed(2)], CLOSED)

    assert [row.row_id for row in taken.rows] == [of_closed(2).row_id]
    assert taken.refused == 1
    assert set(held(heir, "observations")) == {of_closed(2).row_id}


@pytest.mark.parametrize(
    "said",
    [None, 5, [], [0], ["0", ""], [0, 5], [True, ""], [-1, ""], [99, ""], [0, "x"], [0, "", 1]],
)
def test_a_place_that_is_none_is_known(said: Any) -> None:
    """It goes into a table that is read at every start, or into a query."""
    assert read_position(said) is None


def test_places_are_in_order() -> None:
    """Of the table first, so that one can be seen to go on."""
    row_id = of_closed().row_id
    assert read_position([0, ""]) == START
    assert START < Position(0, row_id) < Position(1, "")
