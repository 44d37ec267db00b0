"""What each neighbour still has to get, as status, alarms and metrics say it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hierarchy_config.model import NodeId
from node.links.hub import LinkState as Link
from node.storage.tables import CHANGELOG
from node.watch.figures import Figures, LaneFigure
from replication.changelog import LetterEntries, LinkState, NewEntry, write_transaction
from replication.core.model import Audience, Cursor, Form, Lane, StreamEpoch
from tests.contracts.storage.region import (
    COUNTY,
    NOW_MS,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
)
from tests.contracts.storage.seeding import prune_all


class Hub:
    """Knows the township's links, none of which is up."""

    def __init__(self) -> None:
        children = {each: Link(each, "child") for each in (VILLAGE, VILLAGE_2)}
        self.states = {COUNTY: Link(COUNTY, "parent"), **children}


def bulk(node: NodeStore, peer: NodeId, *, recovering: bool = False) -> LaneFigure:
    """How the lane bulk towards a peer stands."""
    hub = cast(Any, Hub())
    figures = Figures(node.node_id, node.tree, node.engine, hub, lambda _: recovering)
    [lane] = [each for each in figures.link(peer).lanes if each.lane is Lane.BULK]
    assert lane in next(each for each in figures.links() if each.peer == peer).lanes
    return lane


def log(
    node: NodeStore,
    audience: Audience,
    *,
    origin: NodeId = VILLAGE,
    home: NodeId = VILLAGE,
    form: Form = Form.FULL,
) -> None:
    """One entry of bulk."""
    entry = NewEntry(
        origin_node=origin,
        origin_epoch=1,
        origin_sequence=0,
        lane=Lane.BULK,
        home_node=home,
        form=form,
        codec=1,
        schema_version=1,
        committed_at_ms=NOW_MS,
        row_count=1,
        rows=b"[]",
        audience=audience,
    )
    with write_transaction(node.engine) as connection:
        node.log.append(connection, [entry])


@pytest.fixture
def township(region: Region) -> NodeStore:
    """A township, whose log is empty."""
    return region.node(TOWNSHIP)


def test_what_came_back_is_owed_to_whom_it_goes_on_to(township: NodeStore) -> None:
    """After a recovery: what a child gave back is owed to the parent, and the other way round."""
    for audience in Audience:
        log(township, audience)
    log(township, Audience.BELOW, origin=COUNTY)
    log(township, Audience.ABOVE, origin=COUNTY)

    assert bulk(township, COUNTY).lag_entries == 2
    assert bulk(township, VILLAGE).lag_entries == 1
    assert bulk(township, VILLAGE_2).lag_entries == 0


def test_a_recovering_peer_is_owed_what_it_gave_too(township: NodeStore) -> None:
    """It has lost that since."""
    log(township, Audience.BELOW)

    assert bulk(township, COUNTY).lag_entries == 0
    assert bulk(township, COUNTY, recovering=True).lag_entries == 1


def test_a_letter_handed_on_is_owed_to_nobody(township: NodeStore) -> None:
    """Its entry stays as a number, and waits no more."""
    log(township, Audience.EVERYBODY, home=OTHER_COUNTY, form=Form.SEALED)
    before = bulk(township, COUNTY).lag_entries
    with write_transaction(township.engine) as connection:
        LetterEntries(CHANGELOG).erase(connection, [1])

    assert (before, bulk(township, COUNTY).lag_entries) == (1, 0)


def test_a_peer_that_pruning_left_behind_is_owed_a_snapshot(township: NodeStore) -> None:
    """The log counts nothing any more; that is not "nothing waits"."""
    log(township, Audience.EVERYBODY)
    log(township, Audience.EVERYBODY)
    with write_transaction(township.engine) as connection:
        LinkState(CHANGELOG).save_outbound(
            connection, COUNTY, Cursor(Lane.BULK, StreamEpoch(1, 1), 1, 1)
        )
    before = bulk(township, COUNTY)
    prune_all(township)
    after = bulk(township, COUNTY)

    assert (before.lag_entries, before.owes_snapshot, before.is_behind) == (1, False, True)
    assert (after.lag_entries, after.owes_snapshot, after.is_behind) == (0, True, True)
