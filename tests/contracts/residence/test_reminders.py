"""Who was put back from before a move is told of it, though nobody writes about the resident."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select

from hierarchy_config import NodeId
from node.residence.homes import SignedGrant
from node.residence.moves import shipping
from node.storage.tables import REPLICATED
from replication.core.codec import decode_changes
from replication.core.config import PeerRole
from replication.core.model import Form, Hello, Lane, LogEntry
from tests.contracts.residence.region import (
    ABOVE,
    CITY,
    COUNTY,
    FAR_TOWNSHIP,
    FAR_VILLAGE,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
)
from tests.contracts.residence.test_moves import settle
from tests.contracts.residence.test_partitions import listed
from tests.contracts.storage.region import observation, person

_Held = dict[str, list[dict[str, Any]]]


def _held(node: MovingNode, resident_id: str) -> _Held:
    """His rows in every table, as a backup has them."""

    def work(connection: Connection) -> _Held:
        found: _Held = {}
        for name, t in REPLICATED.items():
            rows = connection.execute(select(t).where(t.c.resident_id == resident_id)).mappings()
            found[name] = [dict(row) for row in rows]
        return found

    held: _Held = node.read(work)
    return held


def _put_back(node: MovingNode, resident_id: str, backup: _Held, *lost: SignedGrant) -> None:
    """The tables as they were: no log says so, and the grants have never come."""

    def work(connection: Connection) -> None:
        for signed in lost:
            node.residence.homes.forget(connection, signed.grant)
            node.residence.moves.drop(connection, resident_id, signed.grant.home_epoch)
        for name, t in REPLICATED.items():
            connection.execute(delete(t).where(t.c.resident_id == resident_id))
            if backup[name]:
                connection.execute(insert(t), backup[name])

    node.write(work)


def _greets(child: NodeId, above: MovingNode, *, epoch: int, before: int = 1) -> None:
    """The child's link comes up, in that life of its store."""
    hello = Hello(child, 1, 2, 2, epoch, f"life {epoch}", 1, 1)
    above.write(partial(above.reminders.greeted, peer=child, hello=hello, epoch_before=before))


def test_an_old_home_put_back_lets_go_of_who_left_it(region: MovingRegion) -> None:
    """It says nothing about him; its new life is enough to be told."""
    resident_id = settle(region)
    old = region.node(VILLAGE)
    backup = _held(old, resident_id)
    granted = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    _put_back(old, resident_id, backup, granted)
    region.flow()
    assert old.home(resident_id) == (VILLAGE, 1)

    _greets(VILLAGE, region.node(TOWNSHIP), epoch=2)
    region.flow()
    assert old.rows(resident_id, "residents") == []
    assert old.state(resident_id) == "settled"
    assert {row.home_node for row in old.rows(resident_id)} == {VILLAGE_3}
    assert region.node(VILLAGE_3).home(resident_id) == (VILLAGE_3, 2)
    assert region.node(TOWNSHIP).count(resident_id) == 0


def test_an_old_home_put_back_from_before_he_was_registered_has_nothing_to_do(
    region: MovingRegion,
) -> None:
    """It ships nothing, and the new home said long ago that it holds him: nobody says it again."""
    resident_id = settle(region)
    old = region.node(VILLAGE)
    granted = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    _put_back(old, resident_id, {name: [] for name in REPLICATED}, granted)

    _greets(VILLAGE, region.node(TOWNSHIP), epoch=2)
    region.flow()
    assert old.count(resident_id) == 0
    assert old.state(resident_id) == "settled"
    assert region.node(VILLAGE_3).home(resident_id) == (VILLAGE_3, 2)


def _put_back_while_it_ships(region: MovingRegion, onward: Sequence[NodeId] = ()) -> str:
    """An old home as it was before the new home's word came; all it had sent was confirmed.

    `onward`: where he has moved since.
    """
    resident_id = settle(region)
    old = region.node(VILLAGE)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow(only=(COUNTY, TOWNSHIP, VILLAGE))
    assert old.state(resident_id) == "shipping"
    backup = _held(old, resident_id)
    (shipped,) = old.read(lambda c: old.residence.moves.of_resident(c, resident_id))
    region.flow()
    assert old.state(resident_id) == "settled"
    for to in onward:
        region.node(CITY if to == FAR_VILLAGE else COUNTY).grant(resident_id, to)
        region.flow()
    _put_back(old, resident_id, backup)
    old.write(lambda c: old.residence.moves.save(c, shipped))
    region.flow()
    assert old.state(resident_id) == "shipping"
    return resident_id


def _has_let_go(region: MovingRegion, resident_id: str) -> bool:
    old = region.node(VILLAGE)
    return old.state(resident_id) == "settled" and not old.rows(resident_id, "residents")


def test_an_old_home_put_back_while_it_ships_hears_the_word_again(region: MovingRegion) -> None:
    """Its new life hands over once more, as soon as it has recovered and not before."""
    resident_id = _put_back_while_it_ships(region)
    old = region.node(VILLAGE)
    old.storage.recovery.active = True
    old.steps.begin()
    region.flow()
    assert old.state(resident_id) == "shipping"
    old.storage.recovery.active = False
    region.clock.ms += 30_000
    region.flow()
    assert _has_let_go(region, resident_id)
    assert region.node(VILLAGE_3).home(resident_id) == (VILLAGE_3, 2)
    assert region.node(VILLAGE_3).waiting() == 0
    assert listed(region.node(VILLAGE_3), resident_id) == []


def test_a_home_put_back_from_before_he_came_passes_on_what_his_former_home_ships(
    region: MovingRegion,
) -> None:
    """It has heard of the move away alone; the history brings the grant under which he had come.

    And his former home, which was put back as well, hears that the next one holds him.
    """
    resident_id = settle(region)
    old, between, new = (region.node(each) for each in (VILLAGE, FAR_VILLAGE, FAR_TOWNSHIP))
    backup = _held(old, resident_id)
    first = region.node(CITY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    region.node(FAR_TOWNSHIP).grant(resident_id, FAR_TOWNSHIP)
    region.flow()
    _put_back(between, resident_id, {name: [] for name in REPLICATED}, first)
    _put_back(old, resident_id, backup, first)
    old.write(lambda c: old.residence.learn(c, first))
    region.flow()
    epochs = [
        each.grant.home_epoch
        for each in between.read(lambda c: between.residence.homes.of_resident(c, resident_id))
    ]
    assert (epochs, between.waiting(), new.waiting()) == ([2, 3], 0, 0)
    assert _has_let_go(region, resident_id)
    for node in (between, new):
        moves = node.read(partial(node.residence.moves.of_resident, resident_id=resident_id))
        assert {move.state.value for move in moves} == {"settled"}
    assert new.home(resident_id) == (FAR_TOWNSHIP, 3)
    assert between.rows(resident_id, "residents") == []
    assert listed(new, resident_id) == []


@pytest.mark.parametrize("onward", [(FAR_VILLAGE,), (VILLAGE_2, VILLAGE_3)])
def test_an_old_home_put_back_while_it_ships_lets_go_of_who_has_moved_on(
    region: MovingRegion, onward: tuple[NodeId, ...]
) -> None:
    """The home he had next answers for what it took and let go; or he has come back to it."""
    resident_id = _put_back_while_it_ships(region, onward)
    old, home, epoch = region.node(VILLAGE), onward[-1], 2 + len(onward)
    old.write(partial(_wake, old))
    late = old.put("late-visit", observation(resident_id, 155.0)).record_ids[0]
    region.flow()
    assert _has_let_go(region, resident_id)
    assert region.node(home).home(resident_id) == (home, epoch)
    assert late in {row.row_id for row in region.node(home).rows(resident_id)}
    for node in region.nodes(*ABOVE):
        moves = node.read(partial(node.residence.moves.of_resident, resident_id=resident_id))
        assert {move.state.value for move in moves} <= {"settled"}, node.node_id
    assert listed(region.node(home), resident_id) == []


def test_a_home_he_has_come_back_to_waits_for_nobody(region: MovingRegion) -> None:
    """Put back while it shipped him on: it was his home again before it heard the word."""
    resident_id = settle(region)
    for to in (VILLAGE_3, VILLAGE):
        region.node(COUNTY).grant(resident_id, to)
        region.flow()
    home = region.node(VILLAGE)
    first, _ = home.read(lambda c: home.residence.moves.of_resident(c, resident_id))
    home.write(lambda c: home.residence.moves.save(c, shipping(first, region.clock.ms)))
    home.write(partial(_wake, home))
    region.flow()
    states = home.read(lambda c: home.residence.moves.of_resident(c, resident_id))
    assert [move.state.value for move in states] == ["settled", "settled"]
    assert home.home(resident_id) == (VILLAGE, 3)


@pytest.mark.parametrize("rows_first", [True, False])
def test_a_new_home_put_back_has_who_came_back_to_it_from_above(
    region: MovingRegion, *, rows_first: bool
) -> None:
    """Its former home has let him go: nobody hands him over again, and it waits for nobody."""
    resident_id = settle(region)
    granted = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    new = region.node(VILLAGE_3)
    backup = _held(new, resident_id)
    new.store_epoch = 2
    new.storage = new.open_storage_again()
    _put_back(new, resident_id, backup if rows_first else {name: [] for name in backup}, granted)
    new.write(lambda c: new.residence.learn(c, granted))
    if not rows_first:
        region.flow(only=[VILLAGE_3])
        assert new.state(resident_id) == "granted"
        _put_back(new, resident_id, backup)
    region.clock.ms += 600_000
    region.flow(only=[VILLAGE_3])
    assert new.state(resident_id) in {"holding", "settled"}
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert new.read(new.residence.moves.in_transfer) == {}


def test_a_home_he_passed_through_that_was_put_back_waits_for_no_word(
    region: MovingRegion,
) -> None:
    """The next home's word came to its former life; it has nothing of him."""
    resident_id = settle(region)
    first = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    second = region.node(CITY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    between = region.node(VILLAGE_3)
    between.store_epoch = 2
    between.storage = between.open_storage_again()
    _put_back(between, resident_id, {name: [] for name in REPLICATED}, first, second)
    for signed in (first, second):
        between.write(partial(between.residence.learn, signed=signed))
    region.flow()
    moves = between.read(partial(between.residence.moves.of_resident, resident_id=resident_id))
    assert [move.state.value for move in moves] == ["settled", "settled"]
    assert between.read(between.residence.moves.in_transfer) == {}


def _wake(node: MovingNode, connection: Connection) -> None:
    node.residence.moves.wake(connection, node.clock.ms)


def test_who_waits_for_a_word_that_was_lost_asks_for_it(region: MovingRegion) -> None:
    """Whatever became of it: after ten minutes without the word he is handed over once more."""
    resident_id = _put_back_while_it_ships(region)
    region.clock.ms += 10 * 60_000
    region.flow()
    assert _has_let_go(region, resident_id)


def test_an_old_branch_put_back_together_is_told_as_well(region: MovingRegion) -> None:
    """The township learns of it from the county, and tells the village."""
    resident_id = settle(region)
    branch = region.nodes(VILLAGE, TOWNSHIP)
    backups = [_held(node, resident_id) for node in branch]
    granted = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    for node, backup in zip(branch, backups, strict=True):
        _put_back(node, resident_id, backup, granted)
    _greets(VILLAGE, region.node(TOWNSHIP), epoch=2)
    region.flow((VILLAGE, TOWNSHIP))
    _greets(TOWNSHIP, region.node(COUNTY), epoch=2)
    region.flow()
    assert region.node(VILLAGE).rows(resident_id, "residents") == []
    assert region.node(TOWNSHIP).count(resident_id) == 0
    assert region.node(VILLAGE_3).home(resident_id) == (VILLAGE_3, 2)


def test_only_a_later_life_is_told_and_only_of_who_is_still_away(region: MovingRegion) -> None:
    """A link that comes up again costs nothing; somebody who came back is at home."""
    away, back = settle(region), settle_another(region)
    county, above = region.node(COUNTY), region.node(TOWNSHIP)
    county.grant(away, VILLAGE_3)
    county.grant(back, VILLAGE_3)
    region.flow()
    county.grant(back, VILLAGE)
    region.flow()
    _greets(VILLAGE, above, epoch=1)
    _greets(VILLAGE, above, epoch=2, before=0)
    assert not above.reminders.step()

    head = above.durable_head()
    _greets(VILLAGE, above, epoch=2)
    assert above.reminders.step()
    assert above.durable_head() == head + 1
    assert not above.reminders.step()


def test_a_new_parent_hears_only_of_who_lives_below(region: MovingRegion) -> None:
    """The log has rows of somebody who has moved away since; no grant would tell the new parent."""
    moved, stayed = settle(region), settle_another(region)
    township = region.node(TOWNSHIP)
    region.node(CITY).grant(moved, FAR_VILLAGE)
    region.flow()
    assert moved in _people(township.entries())

    told = {who for lane in Lane for who in _people(_from_the_start(township, COUNTY, lane))}
    assert stayed in told
    assert moved not in told


def settle_another(region: MovingRegion) -> str:
    """Somebody else at the same home."""
    ids = region.node(VILLAGE).put("register-2", person("142601198001010028")).resident_ids
    region.flow()
    return str(ids[0])


def _from_the_start(node: MovingNode, to: NodeId, lane: Lane) -> list[LogEntry]:
    """What a parent is sent that holds nothing of this node yet."""
    after, position = 0, ""
    sent: list[LogEntry] = []
    while True:
        part = node.storage.outgoing_part(
            to, PeerRole.PARENT, lane, after, 1 << 20, position=position
        )
        sent += part.entries
        if not part.position and part.scanned_to == after:
            return sent
        after, position = part.scanned_to, part.position


def _people(entries: Iterable[LogEntry]) -> set[str]:
    """Whose rows these are; letters have none."""
    open_ones = [entry for entry in entries if entry.form is not Form.SEALED]
    return {
        row.resident_id for entry in open_ones for row in decode_changes(entry.codec, entry.rows)
    }
