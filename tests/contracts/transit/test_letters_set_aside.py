"""How a letter that was set aside leaves the quarantine: its author sends it again, as another."""

from __future__ import annotations

from dataclasses import replace

from replication.changelog import QuarantineExit
from replication.core.config import PeerRole
from tests.contracts.transit.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    KeyedNode,
    KeyedRegion,
)
from tests.contracts.transit.test_letters import BACK, THERE, arrives, causes, post, taking

DAY_MS = 24 * 3_600_000


def _tried_again(node: KeyedNode, now_ms: int) -> set[str]:
    """What became of everything that is due."""
    desk = node.storage.desk
    return {desk.retry(item).outcome for item in desk.due(now_ms, 100)}


def test_what_was_not_proven_leaves_once_a_later_sending_was_taken(region: KeyedRegion) -> None:
    """As a letter signed under a former name does, when its author has a new one."""
    village, addressee = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(addressee)
    taken = taking(addressee)
    post(village)
    entry = region.travel(*THERE[:-1])[-1]
    flipped = entry.rows[:-1] + bytes([entry.rows[-1] ^ 1])
    unproven = replace(entry, rows=flipped, origin_sequence=99)
    assert arrives(addressee, CITY, PeerRole.PARENT, unproven) == {"LETTER_SIGNATURE": 1}
    region.clock.ms += DAY_MS
    assert _tried_again(addressee, region.clock.ms) == {"waiting"}

    assert arrives(addressee, CITY, PeerRole.PARENT, entry) == {"LETTER_SIGNATURE": 1}
    assert len(taken) == 1
    region.clock.ms += DAY_MS
    assert _tried_again(addressee, region.clock.ms) == {QuarantineExit.SUPERSEDED}
    assert causes(addressee) == {}
    assert len(taken) == 1


def test_a_letter_that_came_the_wrong_way_waits_a_day(region: KeyedRegion) -> None:
    """A relay needs no letter that its author sends again; what it said stays to be looked at."""
    village, second, county = (region.node(code) for code in (VILLAGE, VILLAGE_2, COUNTY))
    village.knows(second)
    post(village, to=VILLAGE_2)
    [entry] = region.travel(VILLAGE, TOWNSHIP)
    assert arrives(county, TOWNSHIP, PeerRole.CHILD, entry) == {"LETTER_TURNED_BACK": 1}
    region.clock.ms += DAY_MS
    assert _tried_again(county, region.clock.ms) == {"waiting"}
    region.clock.ms += DAY_MS
    assert _tried_again(county, region.clock.ms) == {QuarantineExit.SUPERSEDED}
    assert causes(county) == {}


def test_a_receipt_that_was_not_proven_waits_a_day(region: KeyedRegion) -> None:
    """No receipt is remembered as taken; the addressee answers every sending of its letter."""
    village, addressee = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(addressee)
    taking(addressee)
    post(village)
    region.travel(*THERE)
    receipt = region.travel(*BACK[:-1])[-1]
    flipped = receipt.rows[:-1] + bytes([receipt.rows[-1] ^ 1])
    unproven = replace(receipt, rows=flipped)
    assert arrives(village, TOWNSHIP, PeerRole.PARENT, unproven) == {"LETTER_SIGNATURE": 1}
    region.clock.ms += DAY_MS
    assert _tried_again(village, region.clock.ms) == {"waiting"}
    region.clock.ms += DAY_MS
    assert _tried_again(village, region.clock.ms) == {QuarantineExit.SUPERSEDED}
    assert causes(village) == {}
