"""Moves while links are cut or the old home is dead: one owner, and nothing of anybody lost."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection, Table, delete

from hierarchy_config import NodeId
from node.errors import InvalidRequestError
from node.residence.errors import (
    GrantInvalidError,
    HandoverInvalidError,
    ProposalUnknownError,
    ResidentMovedError,
)
from node.residence.homes import SignedGrant
from node.residence.moves import Move
from node.residence.papers import grant_in, grant_out, piece_in, settled_in, statement_of
from node.storage.errors import RecoveringError
from node.storage.model import BundleResult
from node.storage.resend import Wanted
from node.storage.tables import REPLICATED
from replication.changelog import read_transaction
from replication.core.config import PeerRole
from replication.core.model import Form, Lane
from replication.core.residence import Grant, KnownHome
from tests.contracts.residence.region import (
    ABOVE,
    CITY,
    COUNTY,
    FAR_VILLAGE,
    TOWNSHIP,
    TOWNSHIP_2,
    VILLAGE,
    VILLAGE_2,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
)
from tests.contracts.residence.test_moves import NUMBER, settle
from tests.contracts.storage.region import observation, person, send


def edit(node: MovingNode, resident_id: str, request_id: str, phone: str) -> BundleResult:
    """A new telephone number."""
    return node.put(request_id, person(NUMBER, resident_id=resident_id, phone=phone))


def test_edits_at_both_ends_of_a_partition_leave_one_owner_and_proposals(
    region: MovingRegion,
) -> None:
    """The old home knew nothing of the move; what it wrote is at the new one, none lost."""
    resident_id = settle(region)
    old, new, county = region.node(VILLAGE), region.node(VILLAGE_3), region.node(COUNTY)
    region.cut.add(VILLAGE)
    county.grant(resident_id, VILLAGE_3)
    region.flow()
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert len(new.rows(resident_id)) == 3
    edit(new, resident_id, "edit-new-1", "13822222222")
    edit(old, resident_id, "edit-old-1", "13811111111")
    (late,) = old.put("visit-late", observation(resident_id, 199.0)).record_ids
    region.flow()
    region.cut.clear()
    region.flow()
    (owned,) = new.rows(resident_id, "residents")
    assert (owned.author_node, owned.version_epoch, owned.version_number) == (VILLAGE_3, 2, 2)
    assert late in {row.row_id for row in new.rows(resident_id)}
    assert late in {row.row_id for row in county.rows(resident_id)}
    (shown,) = listed(new, resident_id)
    assert shown.proposal.change.author_node == VILLAGE
    assert shown.changes == {"phone": ("13822222222", "13811111111")}
    with pytest.raises(ResidentMovedError):
        edit(old, resident_id, "edit-old-2", "13833333333")
    assert old.rows(resident_id, "residents") == []
    assert region.node(TOWNSHIP).count(resident_id) == 0
    assert all(node.waiting() == 0 for node in region.nodes(*ABOVE))


def listed(node: MovingNode, resident_id: str = "", state: str = "waiting"):  # type: ignore[no-untyped-def]
    """The proposals at a node."""
    return node.proposals.listed(
        node.caller(), resident_id=resident_id, state=state, after="", limit=100
    )


def test_a_proposal_that_is_accepted_is_the_next_version(region: MovingRegion) -> None:
    """It climbs like any edit of the home; the same decision again changes nothing."""
    resident_id, new = _with_proposal(region)
    (shown,) = listed(new, resident_id)
    accepted = new.proposals.decide(
        new.caller(), shown.proposal.proposal_id, accept=True, reason=""
    )
    assert (accepted.proposal.state, accepted.changes) == ("accepted", {})
    again = new.proposals.decide(new.caller(), shown.proposal.proposal_id, accept=True, reason="")
    assert again.proposal == accepted.proposal
    region.flow()
    found = region.node(COUNTY).storage.resident(region.node(COUNTY).caller(), resident_id)
    assert found is not None
    assert (found.phone, found.author_node) == ("13811111111", VILLAGE_3)
    assert (found.version.author_epoch, found.version.number) == (2, 2)


def test_a_proposal_is_rejected_with_a_reason_and_stays_on_record(region: MovingRegion) -> None:
    """Nobody else decides on it afterwards."""
    resident_id, new = _with_proposal(region)
    (shown,) = listed(new, resident_id)
    proposal_id = shown.proposal.proposal_id
    with pytest.raises(InvalidRequestError):
        new.proposals.decide(new.caller(), proposal_id, accept=False, reason=" ")
    new.proposals.decide(new.caller(), proposal_id, accept=False, reason="number of a relative")
    with pytest.raises(ProposalUnknownError):
        new.proposals.decide(new.caller(), proposal_id, accept=True, reason="")
    (kept,) = listed(new, resident_id, "rejected")
    assert (kept.proposal.reason, kept.proposal.decided_by) == (
        "number of a relative",
        new.caller().principal,
    )
    actions = {each.action for each in new.storage.audit_entries(limit=1000)}
    assert {"reject", "merge"} <= actions
    (owned,) = new.rows(resident_id, "residents")
    assert owned.version_number == 1


def _with_proposal(region: MovingRegion) -> tuple[str, MovingNode]:
    resident_id = settle(region)
    region.cut.add(VILLAGE)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    edit(region.node(VILLAGE), resident_id, "edit-old-1", "13811111111")
    region.cut.clear()
    region.flow()
    return resident_id, region.node(VILLAGE_3)


def test_proposals_that_wait_move_on_with_the_resident(region: MovingRegion) -> None:
    """His present home decides, whichever home the late edit came to."""
    resident_id, second = _with_proposal(region)
    region.node(COUNTY).grant(resident_id, VILLAGE_2)
    region.flow()
    (shown,) = listed(region.node(VILLAGE_2), resident_id)
    assert shown.proposal.change.values["phone"] == "13811111111"
    assert listed(second, resident_id) == []
    assert len(listed(second, resident_id, "forwarded")) == 1


def test_a_late_edit_follows_him_over_two_moves(region: MovingRegion) -> None:
    """The old home is back only after he has moved once more."""
    resident_id = settle(region)
    region.cut.add(VILLAGE)
    county = region.node(COUNTY)
    county.grant(resident_id, VILLAGE_3)
    region.flow()
    county.grant(resident_id, VILLAGE_2)
    region.flow()
    assert region.node(VILLAGE_2).home(resident_id) == (VILLAGE_2, 3)
    old = region.node(VILLAGE)
    edit(old, resident_id, "edit-old-1", "13811111111")
    (late,) = old.put("visit-late", observation(resident_id, 199.0)).record_ids
    region.cut.clear()
    region.flow()
    present = region.node(VILLAGE_2)
    assert late in {row.row_id for row in present.rows(resident_id)}
    (shown,) = listed(present, resident_id)
    assert shown.proposal.change.values["phone"] == "13811111111"
    assert region.node(TOWNSHIP_2).count(resident_id) == 0


@pytest.mark.parametrize(
    ("through", "to", "granter"),
    [(TOWNSHIP_2, VILLAGE_3, TOWNSHIP_2), (VILLAGE_3, VILLAGE_2, COUNTY)],
)
def test_who_moves_on_before_his_history_came_is_let_go_by_his_first_home(
    region: MovingRegion, through: NodeId, to: NodeId, granter: NodeId
) -> None:
    """The home he passed through never held him; the first one hears of the second from it."""
    resident_id = settle(region)
    county, township = region.node(COUNTY), region.node(TOWNSHIP_2)
    county.grant(resident_id, through)
    for node in region.nodes(COUNTY, TOWNSHIP_2, VILLAGE_3):
        node.work_off()
    region.ship(county, township)
    region.ship(township, region.node(VILLAGE_3))
    assert region.node(through).state(resident_id) == "granted"
    region.node(granter).grant(resident_id, to)
    region.flow()
    new = region.node(to)
    assert new.home(resident_id) == (to, 3)
    assert len(new.rows(resident_id)) == 3
    assert region.node(VILLAGE).rows(resident_id, "residents") == []
    kept = {VILLAGE, *region.tree.path_to_root(to)}
    for node in region.nodes(*ABOVE):
        if node.node_id not in kept:
            assert node.count(resident_id) == 0, node.node_id
        moves = node.read(partial(_moves_of, node, resident_id))
        assert {move.state.value for move in moves} <= {"settled"}, node.node_id
        assert node.read(node.residence.moves.in_transfer) == {}, node.node_id


def test_a_home_he_passed_through_says_nothing_before_the_next_one_holds_him(
    region: MovingRegion,
) -> None:
    """It has nothing of him and time passes; his first home must not let go for that."""
    resident_id = settle(region)
    county, township, through = region.nodes(COUNTY, TOWNSHIP_2, VILLAGE_3)
    county.grant(resident_id, VILLAGE_3)
    county.grant(resident_id, VILLAGE_2)
    county.work_off()
    region.ship(county, township)
    region.ship(township, through)
    region.flow((TOWNSHIP_2, VILLAGE_3))
    moves = through.read(partial(_moves_of, through, resident_id))
    assert [(move.home_epoch, move.state.value) for move in moves] == [
        (2, "granted"),
        (3, "granted"),
    ]
    region.flow()
    assert region.node(VILLAGE_2).home(resident_id) == (VILLAGE_2, 3)
    assert len(region.node(VILLAGE_2).rows(resident_id)) == 3
    assert region.node(VILLAGE).rows(resident_id, "residents") == []
    assert through.count(resident_id) == 0
    assert through.state(resident_id) == "settled"


def _moves_of(node: MovingNode, resident_id: str, connection: Connection) -> list[Move]:
    return node.residence.moves.of_resident(connection, resident_id)


def test_a_dead_old_home_is_replaced_by_the_node_that_heard_from_it_last(
    region: MovingRegion,
) -> None:
    """The township between them has all of it; the county is not needed."""
    resident_id = settle(region)
    region.cut.add(VILLAGE)
    region.node(CITY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    new = region.node(FAR_VILLAGE)
    assert new.home(resident_id) == (FAR_VILLAGE, 2)
    assert len(new.rows(resident_id)) == 3
    assert region.node(COUNTY).count(resident_id) == 0
    assert region.node(TOWNSHIP).count(resident_id) == 0
    assert region.node(CITY).home(resident_id) == (FAR_VILLAGE, 2)


def test_an_old_branch_that_is_cut_off_is_replaced_from_above(region: MovingRegion) -> None:
    """Village and township are away together; the county has him in full."""
    resident_id = settle(region)
    region.cut.add(TOWNSHIP)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    assert len(region.node(VILLAGE_3).rows(resident_id)) == 3
    edit(region.node(VILLAGE), resident_id, "edit-old-1", "13811111111")
    region.flow()
    region.cut.clear()
    region.flow()
    assert len(listed(region.node(VILLAGE_3), resident_id)) == 1
    assert region.node(TOWNSHIP).count(resident_id) == 0
    assert all(node.waiting() == 0 for node in region.nodes(*ABOVE))


def test_rows_on_their_way_when_the_grant_came_are_sent_after_him(region: MovingRegion) -> None:
    """The old home dies for good right after it passed them to a node that knew of the move."""
    resident_id = settle(region)
    old, township = region.node(VILLAGE), region.node(TOWNSHIP)
    (late,) = old.put("visit-late", observation(resident_id, 199.0)).record_ids
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.ship(region.node(COUNTY), township)
    region.ship(old, township)
    assert late not in {row.row_id for row in township.rows(resident_id)}
    region.cut.add(VILLAGE)
    region.flow()
    assert late in {row.row_id for row in region.node(VILLAGE_3).rows(resident_id)}
    assert township.waiting() == 0


def test_a_history_that_overtakes_its_grant_brings_it_along(region: MovingRegion) -> None:
    """Lanes are not in step: a node that was down may be sent the history first."""
    resident_id = settle(region)
    granted = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.cut.add(VILLAGE_3)
    region.flow()
    new, above = region.node(VILLAGE_3), region.node(TOWNSHIP_2)
    above.durable_head()
    entries, _ = above.storage.outgoing(VILLAGE_3, PeerRole.CHILD, Lane.BULK, 0, 1 << 20)
    assert entries
    send(new, TOWNSHIP_2, PeerRole.PARENT, *entries, lane=Lane.BULK)
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert new.read(lambda c: new.residence.homes.newest(c, [resident_id])) == {
        resident_id: granted.grant
    }
    assert new.waiting() == 0
    region.cut.clear()
    region.flow()
    assert region.node(VILLAGE).state(resident_id) == "settled"


def test_a_grant_of_anybody_but_the_common_ancestor_is_refused(region: MovingRegion) -> None:
    """A child cannot move a resident to itself, nor alter what was signed."""
    resident_id = settle(region)
    thief, old = region.node(TOWNSHIP_2), region.node(VILLAGE)
    with pytest.raises(GrantInvalidError):
        thief.grant(resident_id, VILLAGE_3, present=KnownHome(VILLAGE, 1))
    grant = Grant(resident_id, 2, VILLAGE_3, VILLAGE, COUNTY, 1)
    statement = statement_of(grant)
    signature, chain = thief.residence._seal.sign(statement)  # noqa: SLF001
    forged = SignedGrant(grant, statement, signature, chain)
    with pytest.raises(GrantInvalidError):
        old.write(lambda c: old.residence.learn(c, forged))
    good = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    other = replace(good.grant, home_node=str(VILLAGE_2), granted_by=str(COUNTY))
    altered = replace(good, grant=other, statement=statement_of(other))
    with pytest.raises(GrantInvalidError):
        old.write(lambda c: old.residence.learn(c, altered))
    assert old.home(resident_id) == (VILLAGE, 1)
    assert grant_in(grant_out(good)) == good


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"statement": "{}"}', b"{}\n"])
def test_papers_that_are_none_are_refused(body: bytes) -> None:
    """Whatever a peer sends, it is read or refused, never half of it."""
    with pytest.raises(GrantInvalidError):
        grant_in(body)
    with pytest.raises(HandoverInvalidError):
        piece_in(body)
    with pytest.raises(HandoverInvalidError):
        settled_in(body)


def test_a_history_from_a_stranger_is_refused(region: MovingRegion) -> None:
    """Only the old home's side may say what he had; the letter waits in the quarantine."""
    resident_id = settle(region)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.cut.add(VILLAGE)
    stranger = region.node(FAR_VILLAGE)
    grant = Grant(resident_id, 2, VILLAGE_3, VILLAGE, COUNTY, 1)
    invented = stranger.put("register-9", person("142601198001010028")).resident_ids[0]
    rows = stranger.read(lambda c: stranger.residence.rows.read(c, invented))
    his = [replace(row, row_id=resident_id, resident_id=resident_id) for row in rows[:1]]
    stranger.write(lambda c: stranger.residence.handover.ship(c, grant, his, whole=True))
    region.flow()
    new = region.node(VILLAGE_3)
    found = new.storage.resident(new.caller(), resident_id)
    assert found is not None
    assert [i.value for i in found.identifiers] == [NUMBER]
    assert new.waiting() == 1


def test_two_granters_of_one_epoch_leave_one_home(region: MovingRegion) -> None:
    """The township moved him while it was cut off; the county, too. The county's word holds."""
    resident_id = settle(region)
    region.cut.add(TOWNSHIP)
    local = (TOWNSHIP, VILLAGE, VILLAGE_2)
    region.node(TOWNSHIP).grant(resident_id, VILLAGE_2)
    region.flow(local)
    second = region.node(VILLAGE_2)
    assert second.home(resident_id) == (VILLAGE_2, 2)
    edit(second, resident_id, "edit-second", "13822222222")
    (there,) = second.put("visit-there", observation(resident_id, 177.0)).record_ids
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    region.cut.clear()
    region.flow()
    new = region.node(VILLAGE_3)
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert there in {row.row_id for row in new.rows(resident_id)}
    phones = {each.proposal.change.values.get("phone") for each in listed(new, resident_id)}
    assert "13822222222" in phones
    for node in region.nodes(TOWNSHIP, VILLAGE, VILLAGE_2):
        with read_transaction(node.engine) as connection:
            known = node.residence.known(connection, resident_id)
        assert known == KnownHome(VILLAGE_3, 2), node.node_id
    with pytest.raises(ResidentMovedError):
        edit(second, resident_id, "edit-again", "13855555555")
    assert second.rows(resident_id, "residents") == []


def test_a_granter_that_was_put_back_grants_nothing_while_it_recovers(
    region: MovingRegion,
) -> None:
    """It may have granted that very epoch in the life it lost."""
    resident_id = settle(region)
    county = region.node(COUNTY)
    county.storage.recovery.active = True
    with pytest.raises(RecoveringError):
        county.grant(resident_id, VILLAGE_3)
    county.storage.recovery.active = False


def test_a_granter_that_lost_its_grant_goes_on_from_the_rows(region: MovingRegion) -> None:
    """Its rows say under which epoch he lives now; no epoch is granted twice."""
    resident_id = settle(region)
    county = region.node(COUNTY)
    first = county.grant(resident_id, VILLAGE_3)
    region.flow()
    county.write(lambda c: county.residence.homes.forget(c, first.grant))
    region.clock.ms += 1000
    again = county.grant(resident_id, VILLAGE_2, present=KnownHome(VILLAGE_3, 2))
    region.flow()
    assert again.grant.home_epoch == 3
    assert region.node(VILLAGE_2).home(resident_id) == (VILLAGE_2, 3)
    assert region.node(VILLAGE_3).rows(resident_id, "residents") == []


def _delete_all(t: Table, resident_id: str, connection: Connection) -> None:
    connection.execute(delete(t).where(t.c.resident_id == resident_id))


def test_a_granter_put_back_keeps_what_comes_from_the_new_home(region: MovingRegion) -> None:
    """Its copies have the same versions under the former home: nothing is old history."""
    resident_id = settle(region)
    granter, new = region.node(TOWNSHIP), region.node(VILLAGE_2)
    before = granter.read(lambda c: granter.residence.rows.read(c, resident_id))
    granted = granter.grant(resident_id, VILLAGE_2)
    region.flow()
    granter.write(lambda c: granter.residence.homes.forget(c, granted.grant))
    for t in REPLICATED.values():
        granter.write(partial(_delete_all, t, resident_id))
    granter.write(lambda c: granter.residence.rows.write(c, before))
    for row in new.rows(resident_id):
        wanted = Wanted("observations", row.row_id, VILLAGE_2, Form.FULL)
        new.storage.resender.resend(TOWNSHIP, PeerRole.PARENT, wanted)
    region.ship(new, granter)
    desk = granter.storage.desk
    assert desk.by_cause() == {"HOME_NOT_GRANTED": 3}

    assert desk.close_superseded(0, 100) == (0, 0)

    granter.write(lambda c: granter.residence.homes.record(c, granted, region.clock.ms))
    region.clock.ms += 60_000
    done = [desk.retry(item_id).outcome for item_id in desk.due(region.clock.ms, 100)]
    assert done == ["released"] * 3
    held = {(row.home_node, row.home_epoch) for row in granter.rows(resident_id)}
    assert held == {(VILLAGE_2, 2)}


def test_an_old_home_put_back_from_before_the_move_learns_of_it_again(
    region: MovingRegion,
) -> None:
    """It forgot the grant; what it writes as his home goes after him, and the grant comes back."""
    resident_id = settle(region)
    old, new = region.node(VILLAGE), region.node(VILLAGE_3)
    before = old.read(lambda c: old.residence.rows.read(c, resident_id))
    granted = region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    old.write(lambda c: old.residence.homes.forget(c, granted.grant))
    old.write(lambda c: old.residence.moves.drop(c, resident_id, 2))
    t = REPLICATED["observations"]
    old.write(lambda c: c.execute(delete(t).where(t.c.resident_id == resident_id)))
    old.write(lambda c: old.residence.rows.write(c, before))
    edit(old, resident_id, "edit-again", "13844444444")
    region.flow()
    assert {each.proposal.change.values.get("phone") for each in listed(new)} == {"13844444444"}
    assert old.rows(resident_id, "residents") == []
    assert old.state(resident_id) == "settled"
    with pytest.raises(ResidentMovedError):
        edit(old, resident_id, "edit-more1", "13855555555")
    assert region.node(TOWNSHIP).count(resident_id) == 0


def test_a_resident_on_his_way_is_known_at_the_new_home_and_counted_at_none(
    region: MovingRegion,
) -> None:
    """So no answer that lacks him is complete, and none has him twice."""
    resident_id = settle(region)
    county, new, old = region.node(COUNTY), region.node(VILLAGE_3), region.node(VILLAGE)
    county.grant(resident_id, VILLAGE_3)
    region.ship(county, region.node(TOWNSHIP_2))
    region.ship(region.node(TOWNSHIP_2), new)
    region.ship(county, region.node(TOWNSHIP))
    region.ship(region.node(TOWNSHIP), old)
    for node in region.nodes(COUNTY, TOWNSHIP_2, VILLAGE_3):
        known = node.storage.residents_by_home(node.caller())
        assert (known.get(VILLAGE, 0), known.get(VILLAGE_3)) == (0, 1), node.node_id
    for node in (old, new):
        counted = node.storage.columnar_changes(0, 500).rows.get("residents", ())
        assert [row for row in counted if row["home"] == node.node_id] == []
    region.flow()
    assert county.storage.residents_by_home(county.caller()) == {VILLAGE_3: 1}
    counted = new.storage.columnar_changes(0, 500).rows["residents"]
    assert [row["home"] for row in counted] == [VILLAGE_3]


def test_control_travels_first(region: MovingRegion) -> None:
    """The grant and the new home's word are in the lane that nothing holds up."""
    resident_id = settle(region)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    entries = region.node(COUNTY).entries(Lane.CONTROL)
    assert len(entries) >= 3
