"""Histories that contradict each other, or would write what is not the resident's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import delete, func, select, update

from hierarchy_config.model import NodeId
from node.errors import InvalidRequestError
from node.records.model import NewRecord
from node.residence.papers import HANDOVER, Piece, piece_out, pieces_of
from node.storage.tables import REPLICATED, RESIDENCE
from replication.core.codec import decode_changes
from replication.core.model import Form, Lane, RowChange, Version
from tests.contracts.residence.region import (
    ABOVE,
    COUNTY,
    TOWNSHIP,
    TOWNSHIP_2,
    VILLAGE,
    VILLAGE_2,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
)
from tests.contracts.residence.test_moves import settle
from tests.contracts.storage.region import observation, person

SET_ID = "01890000-0000-7000-8000-000000000001"
ROW_ID = "01890000-0000-7000-8000-000000000002"
OBSERVATIONS = REPLICATED["observations"]
PIECES = RESIDENCE.pieces


def tell(sender: MovingNode, *pieces: Piece) -> None:
    """Send pieces to the new home as they are."""
    for piece in pieces:
        body = piece_out(piece)
        sender.write(
            partial(sender.post.send, to=VILLAGE_3, kind=HANDOVER, body=body, lane=Lane.BULK)
        )


def carry(region: MovingRegion, *path: NodeId) -> None:
    """Over these links alone, so that nobody ships in the old home's place yet."""
    for sender, receiver in itertools.pairwise(path):
        region.ship(region.node(sender), region.node(receiver))


def away(resident_id: str) -> NewRecord:
    """A record of somebody who lives in the first village, written elsewhere."""
    return replace(observation(resident_id, 150.0), home_node=VILLAGE, home_epoch=1)


def history(resident_id: str, *rows: RowChange, whole: bool) -> list[Piece]:
    """Rows as the only piece of a set."""
    return pieces_of(rows, resident_id, 2, handover_id=SET_ID, whole=whole)


def read(node: MovingNode, resident_id: str) -> list[RowChange]:
    """Everything a node holds of somebody."""
    found: list[RowChange] = node.read(lambda c: node.residence.rows.read(c, resident_id))
    return found


def told(node: MovingNode) -> list[RowChange]:
    """Every row in a node's log, letters apart."""
    entries = [entry for entry in node.entries() if entry.form is not Form.SEALED]
    return [row for entry in entries for row in decode_changes(entry.codec, entry.rows)]


def pieces_held(node: MovingNode) -> int:
    """Pieces that wait for something."""
    return int(node.read(lambda c: c.execute(select(func.count()).select_from(PIECES)).scalar()))


def settle_there(region: MovingRegion) -> str:
    """Somebody of the new home, with a record."""
    node = region.node(VILLAGE_3)
    (resident_id,) = node.put("register-x", person("142601198001010028")).resident_ids
    node.put("visit-x001", observation(resident_id, 90.0))
    region.flow()
    return resident_id


def grant_unheard(region: MovingRegion, resident_id: str) -> None:
    """He is moved; his old home does not know yet."""
    region.cut.add(VILLAGE)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    carry(region, COUNTY, TOWNSHIP_2, VILLAGE_3)


@pytest.mark.parametrize("other", ["resident", "sender", "total", "digest", "whole", "epoch"])
def test_pieces_that_contradict_each_other_stop_no_lane(region: MovingRegion, other: str) -> None:
    """The second of them waits in the quarantine, and both residents arrive."""
    first, second = settle(region), settle_beside(region)
    grant_unheard(region, first)
    region.node(COUNTY).grant(second, VILLAGE_3)
    liar, again = region.node(VILLAGE_2), region.node(VILLAGE_2)
    (piece,) = history(first, whole=False)
    piece = replace(piece, total=2)
    said = {
        "resident": replace(piece, resident_id=second),
        "sender": piece,
        "total": replace(piece, total=1),
        "digest": replace(piece, digest="0" * 64),
        "whole": replace(piece, whole=True),
        "epoch": replace(piece, home_epoch=1),
    }[other]
    if other == "sender":
        again = region.node(TOWNSHIP_2)
    tell(liar, piece)
    region.flow()
    tell(again, said)
    region.flow()
    new = region.node(VILLAGE_3)
    assert new.storage.desk.by_cause() == {"HANDOVER_INVALID": 1}
    assert pieces_held(new) == 1
    region.cut.clear()
    region.flow()
    for resident_id in (first, second):
        assert new.home(resident_id) == (VILLAGE_3, 2)
        assert len(new.rows(resident_id)) == 3


def settle_beside(region: MovingRegion) -> str:
    """A second resident of the old home."""
    node = region.node(VILLAGE)
    (resident_id,) = node.put("register-2", person("142601198001010036")).resident_ids
    node.put("visit-0002", *(observation(resident_id, 110.0 + n) for n in range(3)))
    region.flow()
    return resident_id


@pytest.mark.parametrize("digest", ["", "0" * 63, "每" * 64, "G" * 64])
def test_a_digest_that_is_none_is_refused(region: MovingRegion, digest: str) -> None:
    """It would not fit its column."""
    resident_id = settle(region)
    grant_unheard(region, resident_id)
    (piece,) = history(resident_id, whole=False)
    tell(region.node(VILLAGE_2), replace(piece, total=2, digest=digest))
    region.flow()
    new = region.node(VILLAGE_3)
    assert new.storage.desk.by_cause() == {"HANDOVER_INVALID": 1}
    assert pieces_held(new) == 0


@pytest.mark.parametrize("table", ["observations", "identifiers"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_history_writes_no_row_of_another_resident(
    region: MovingRegion, table: str, whole: bool
) -> None:
    """A node above the new home knows its row ids, and may ship."""
    resident_id, other = settle(region), settle_there(region)
    new = region.node(VILLAGE_3)
    before = read(new, other)
    (target,) = [row for row in before if row.table == table]
    forged = replace(target, resident_id=resident_id, version=Version(1, 2**61))
    grant_unheard(region, resident_id)
    his = read(region.node(VILLAGE), resident_id)
    if not whole:
        region.cut.clear()
        region.flow()
    tell(region.node(TOWNSHIP_2), *history(resident_id, *his, forged, whole=whole))
    carry(region, TOWNSHIP_2, VILLAGE_3)
    region.flow()
    assert read(new, other) == before
    assert new.home(resident_id) == (VILLAGE_3, 2)
    logged = {(row.row_id, row.resident_id) for row in told(new)}
    assert (forged.row_id, resident_id) not in logged
    assert new.waiting() == (0 if whole else 1)
    region.cut.clear()
    region.flow()
    assert len(new.rows(resident_id)) == 3
    assert len(new.rows(resident_id, "identifiers")) == 1
    assert region.node(VILLAGE).rows(resident_id, "residents") == []


def test_a_proposal_for_a_row_of_another_resident_is_not_accepted(region: MovingRegion) -> None:
    """Whatever was believed when it came."""
    other = settle_there(region)
    resident_id = settle(region)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    new = region.node(VILLAGE_3)
    before = read(new, other)
    (target,) = [row for row in before if row.table == "identifiers"]
    late = replace(target, resident_id=resident_id, version=Version(1, 9), author_node=VILLAGE)
    new.write(lambda c: new.residence.proposals.add(c, SET_ID, late, region.clock.ms))
    with pytest.raises(InvalidRequestError):
        new.proposals.decide(new.caller(), SET_ID, accept=True, reason="")
    assert read(new, other) == before
    new.proposals.decide(new.caller(), SET_ID, accept=False, reason="not his")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_nobody_tells_a_new_home_what_it_wrote(
    region: MovingRegion, whole: bool, held: bool
) -> None:
    """What it holds of its own stays, and what it never wrote is not stored under its name."""
    resident_id = settle(region)
    old, new = region.node(VILLAGE), region.node(VILLAGE_3)
    (record_id,) = new.put("visit-away", away(resident_id)).record_ids
    region.flow()
    (row,) = [row for row in read(old, resident_id) if row.row_id == record_id]
    forged = replace(row, version=Version(1, 2**61), values={**row.values, "value": 1.0})
    if not held:
        forged = replace(forged, row_id=ROW_ID)
    grant_unheard(region, resident_id)
    his = read(old, resident_id)
    if not whole:
        region.cut.clear()
        region.flow()
    tell(region.node(TOWNSHIP_2), *history(resident_id, *his, forged, whole=whole))
    carry(region, TOWNSHIP_2, VILLAGE_3)
    region.flow()
    region.cut.clear()
    region.flow()
    kept = {row.row_id: row for row in new.rows(resident_id)}
    assert len(kept) == 4
    assert forged.version not in {row.version for row in told(new)}
    assert (kept[record_id].value, kept[record_id].home_node) == (150.0, VILLAGE_3)
    assert new.waiting() == (0 if whole else 1)


def test_what_a_new_home_wrote_and_still_has_comes_home(region: MovingRegion) -> None:
    """His old home ships it like everything else; it is the same version under another home."""
    resident_id = settle(region)
    new = region.node(VILLAGE_3)
    (record_id,) = new.put("visit-away", away(resident_id)).record_ids
    region.flow()
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    (row,) = [row for row in new.rows(resident_id) if row.row_id == record_id]
    assert (row.home_node, row.home_epoch, row.author_node) == (VILLAGE_3, 2, VILLAGE_3)
    assert all(node.waiting() == 0 for node in region.nodes(*ABOVE))


def test_what_a_new_home_wrote_away_and_lost_comes_back(region: MovingRegion) -> None:
    """It was put back from before it: only the old home has it, and no recovery would bring it."""
    resident_id = settle(region)
    new = region.node(VILLAGE_3)
    (record_id,) = new.put("visit-away", away(resident_id)).record_ids
    region.flow()
    new.write(lambda c: c.execute(delete(OBSERVATIONS).where(OBSERVATIONS.c.row_id == record_id)))
    new.log._store_epoch = 2  # noqa: SLF001  # what a restore makes of it
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    assert record_id in {row.row_id for row in new.rows(resident_id)}
    assert new.waiting() == 0


def waiting_set(region: MovingRegion, resident_id: str, rows: Sequence[RowChange]) -> None:
    """A set that came before the history, and waits for it."""
    grant_unheard(region, resident_id)
    tell(region.node(VILLAGE_2), *history(resident_id, *rows, whole=False))
    carry(region, VILLAGE_2, TOWNSHIP, COUNTY, TOWNSHIP_2, VILLAGE_3)
    assert region.node(VILLAGE_3).state(resident_id) == "granted"
    assert pieces_held(region.node(VILLAGE_3)) == 1


def test_a_waiting_set_that_may_not_be_taken_stops_no_other(region: MovingRegion) -> None:
    """It was confirmed, so it stays; whatever else comes for him is taken."""
    resident_id, other = settle(region), settle_there(region)
    old, new = region.node(VILLAGE), region.node(VILLAGE_3)
    (target,) = [row for row in read(new, other) if row.table == "observations"]
    forged = replace(target, resident_id=resident_id, version=Version(1, 2**61))
    waiting_set(region, resident_id, [forged])
    region.cut.clear()
    region.flow()
    assert new.home(resident_id) == (VILLAGE_3, 2)
    (late,) = old.put("visit-late", observation(resident_id, 150.0)).record_ids
    region.flow()
    assert late in {row.row_id for row in new.rows(resident_id)}
    assert pieces_held(new) == 1
    assert new.waiting() == 0


def test_a_waiting_piece_that_is_damaged_stops_no_other(region: MovingRegion) -> None:
    """A cell that does not open is one set's trouble."""
    resident_id = settle(region)
    new = region.node(VILLAGE_3)
    (row, *_) = [r for r in read(region.node(VILLAGE), resident_id) if r.table == "observations"]
    waiting_set(region, resident_id, [row])
    sealed = bytes(new.read(lambda c: c.execute(select(PIECES.c.body)).scalar_one()))
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    new.write(lambda c: c.execute(update(PIECES).values(body=broken)))
    region.cut.clear()
    region.flow()
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert len(new.rows(resident_id)) == 3
    assert new.waiting() == 0


def test_a_copy_under_a_code_that_was_closed_stops_no_history(region: MovingRegion) -> None:
    """The new home has the row of the node that succeeded its author; the old one has not."""
    resident_id = settle(region)
    new = region.node(VILLAGE_3)
    (row, *_) = [r for r in read(region.node(VILLAGE), resident_id) if r.table == "observations"]
    later = replace(row, author_node=VILLAGE_2, version=Version(2, 1))
    new.write(lambda c: new.residence.rows.write(c, [later]))
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    held = {r.row_id: r for r in new.rows(resident_id)}
    assert (len(held), held[row.row_id].author_node) == (3, VILLAGE_2)
    assert new.waiting() == 0
    assert region.node(VILLAGE).rows(resident_id, "residents") == []
