"""What an older release kept aside of a newer one's rows fills the columns after the upgrade."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from sqlalchemy import Connection, select, update

from node.storage.adopting import adopt_columns
from node.storage.specs import TABLES
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import StoreState
from tests.contracts.storage.region import NodeStore, bundle, observation, person

_TABLE = "observations"
_T = REPLICATED[_TABLE]


def _record(node: NodeStore) -> str:
    (resident_id,) = node.storage.put_bundle(node.caller(), bundle("put-1", person())).resident_ids
    stored = node.storage.put_bundle(node.caller(), bundle("put-2", observation(resident_id)))
    return str(stored.record_ids[0])


def _kept_aside(node: NodeStore, row_id: str, **kept: str) -> None:
    """As a release has the row that does not know these columns."""

    def work(connection: Connection) -> None:
        cell = node.storage.context.cells.seal_cell(
            _TABLE, "unknown_fields", row_id, json.dumps(kept)
        )
        known = {name: None for name in kept if name in TABLES[_TABLE].names}
        connection.execute(
            update(_T).where(_T.c.row_id == row_id).values(unknown_fields=cell, **known)
        )
        StoreState(CHANGELOG).forget(connection, "columns_adopted")

    node.storage.context.transactions.write(work)


def _row(node: NodeStore, row_id: str) -> Any:
    def work(connection: Connection) -> Any:
        row = connection.execute(select(_T).where(_T.c.row_id == row_id)).mappings().one()
        return row, node.storage.unknown_fields(_TABLE, row)

    return node.storage.context.transactions.read(work)


def test_a_column_that_is_known_now_is_filled(village: NodeStore) -> None:
    """What is still unknown stays aside; the version is the same, for nobody wrote anything."""
    row_id = _record(village)
    before, _ = _row(village, row_id)
    _kept_aside(village, row_id, author_organization="ORG-1", later="x")
    assert adopt_columns(village.storage.context) == 1
    row, unknown = _row(village, row_id)
    assert (row["author_organization"], unknown) == ("ORG-1", {"later": "x"})
    assert (row["value"], row["version_number"]) == (before["value"], before["version_number"])


def test_it_is_done_once_a_schema_and_again_after_a_death(village: NodeStore) -> None:
    """The fact is written last."""
    row_id = _record(village)
    _kept_aside(village, row_id, author_organization="ORG-1")
    assert adopt_columns(village.storage.context) == 1
    _, unknown = _row(village, row_id)
    assert unknown == {}
    assert adopt_columns(village.storage.context) == 0
    village.storage.context.transactions.write(
        partial(StoreState(CHANGELOG).forget, name="columns_adopted")
    )
    assert adopt_columns(village.storage.context) == 0


def test_a_row_that_does_not_open_keeps_no_other_from_it(village: NodeStore) -> None:
    """It waits aside, with an alarm, as everything that does not open."""
    broken = _record(village)
    (resident_id,) = village.storage.put_bundle(
        village.caller(), bundle("put-3", person("142601198001010028"))
    ).resident_ids
    stored = village.storage.put_bundle(village.caller(), bundle("put-4", observation(resident_id)))
    whole = str(stored.record_ids[0])
    for row_id in (broken, whole):
        _kept_aside(village, row_id, author_organization="ORG-1")
    village.storage.context.transactions.write(
        lambda connection: connection.execute(
            update(_T).where(_T.c.row_id == broken).values(unknown_fields=b"\x01not a cell")
        )
    )
    assert adopt_columns(village.storage.context) == 1
    row, _ = _row(village, whole)
    assert row["author_organization"] == "ORG-1"
    assert village.storage.context.aside.keys(_TABLE, 10) == [broken]
