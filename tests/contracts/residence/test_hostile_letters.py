"""Letters about moves from a node that lies, or that nobody can prove any more."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from node.reconcile.model import Cause, Direction, Slice
from node.residence.homes import SignedGrant
from node.residence.papers import (
    GRANT,
    HANDOVER,
    SETTLED,
    grant_out,
    piece_out,
    pieces_of,
    statement_of,
)
from node.storage.purging import ROWS_PURGED
from node.storage.tables import CHANGELOG
from replication.changelog import StoreState
from replication.core.model import Lane
from replication.core.residence import Grant
from tests.contracts.reconcile.links import side_of
from tests.contracts.residence.region import (
    COUNTY,
    FAR_TOWNSHIP,
    FAR_VILLAGE,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    VILLAGE_3,
    MovingRegion,
)
from tests.contracts.residence.test_moves import settle


def test_a_township_moves_nobody_of_another_one_to_itself(region: MovingRegion) -> None:
    """It is the common ancestor of the two homes it names, and he never lived in either."""
    resident_id = settle(region)
    thief, old = region.node(FAR_TOWNSHIP), region.node(VILLAGE)
    before = old.count(resident_id)
    grant = Grant(resident_id, 2, FAR_VILLAGE, FAR_TOWNSHIP, FAR_TOWNSHIP, 5)
    statement = statement_of(grant)
    signature, chain = thief.residence._seal.sign(statement)  # noqa: SLF001
    body = grant_out(SignedGrant(grant, statement, signature, chain))
    thief.write(
        lambda c: thief.post.send(
            c, to=VILLAGE, kind=GRANT, body=body, lane=Lane.CONTROL, open_letter=True
        )
    )
    region.flow()
    for node in region.nodes(OTHER_COUNTY, COUNTY, TOWNSHIP, VILLAGE):
        assert node.read(partial(node.residence.homes.of_resident, resident_id=resident_id)) == []
    assert old.home(resident_id) == (VILLAGE, 1)
    assert (old.count(resident_id), old.state(resident_id)) == (before, "")
    assert old.waiting() == 1
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    assert region.node(VILLAGE_3).home(resident_id) == (VILLAGE_3, 2)


@pytest.mark.parametrize("kind", [GRANT, SETTLED])
def test_a_letter_that_a_relay_does_not_believe_stops_no_lane(
    region: MovingRegion, kind: str
) -> None:
    """It goes on to its addressee, who refuses it, and what comes behind it arrives."""
    resident_id = settle(region)
    sender = region.node(VILLAGE_3)
    sender.write(
        lambda c: sender.post.send(
            c, to=FAR_VILLAGE, kind=kind, body=b"{}", lane=Lane.CONTROL, open_letter=True
        )
    )
    region.flow()
    assert region.node(FAR_VILLAGE).waiting() == 1
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    assert sender.home(resident_id) == (VILLAGE_3, 2)


def test_a_comparison_brings_nobody_back_who_has_moved_away(region: MovingRegion) -> None:
    """His old home, put back from before the move, misses him at its parent."""
    resident_id = settle(region)
    old, township = region.node(VILLAGE), region.node(TOWNSHIP)
    before = old.read(lambda c: old.residence.rows.read(c, resident_id))
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    assert township.count(resident_id) == 0
    side = side_of(region, township, old)
    for change in before:
        (taken,) = side.take(Slice(Direction.UP, change.table, VILLAGE), [change])
        assert taken.cause in {Cause.REFUSED, Cause.HOME_MISMATCH}
    assert len(before) > 1
    assert township.count(resident_id) == 0


def test_a_broken_history_does_not_stop_the_sound_one(region: MovingRegion) -> None:
    """Somebody on the old home's side sends pieces that fit no digest, before he ships."""
    resident_id = settle(region)
    region.cut.add(VILLAGE)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    liar, new = region.node(VILLAGE_2), region.node(VILLAGE_3)
    handover_id = "01890000-0000-7000-8000-000000000001"
    (sound,) = pieces_of([], resident_id, 2, handover_id=handover_id, whole=True)
    broken = piece_out(replace(sound, digest="0" * 64))
    liar.write(
        lambda c: liar.post.send(c, to=VILLAGE_3, kind=HANDOVER, body=broken, lane=Lane.BULK)
    )
    region.flow()
    assert new.waiting() == 1
    region.cut.clear()
    region.flow()
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert new.count(resident_id) > 1


def test_a_backup_is_told_that_rows_have_another_home(region: MovingRegion) -> None:
    """An incremental one copies the rows that the log names; a new home changes more than those."""
    resident_id = settle(region)
    old = region.node(VILLAGE)

    def counted() -> str:
        return str(old.read(StoreState(CHANGELOG).load).get(ROWS_PURGED, "0"))

    before = counted()
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow((COUNTY, TOWNSHIP, VILLAGE))
    assert {row.home_node for row in old.rows(resident_id)} == {VILLAGE_3}
    assert counted() != before
