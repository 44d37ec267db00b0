"""A letter that was under way when the hierarchy changed is sent again soon, and not for ever."""

from __future__ import annotations

from dataclasses import replace

from node.region.hurrying import AFTER_MS, LetterHurry
from node.region.store import EpochStore
from replication.core.model import Lane
from tests.contracts.residence.region import (
    CITY,
    COUNTY,
    VILLAGE,
    MovingNode,
    MovingRegion,
    moving_hierarchy,
)


def _letter(node: MovingNode) -> str:
    """A letter that was put into the log already; its next turn is minutes away."""
    letter_id: str = node.write(
        lambda c: node.post.send(c, to=VILLAGE, kind="rows", body=b"[]", lane=Lane.BULK)
    )
    node.work_off()
    return letter_id


def _attempts(node: MovingNode, letter_id: str) -> int:
    letter = node.read(lambda c: node.post.outbox.get(c, letter_id))
    return int(letter.parcel.attempts)


def test_letters_are_sent_again_some_times_after_a_switch(region: MovingRegion) -> None:
    """At the times named, each once, whatever becomes of the process between."""
    county = region.node(COUNTY)
    letter = _letter(county)
    switched_ms = region.clock.ms
    epochs = EpochStore(county.storage.context.transactions, region.clock.now_ms)

    def hurry() -> LetterHurry:
        transactions = county.storage.context.transactions
        return LetterHurry(epochs, 2, transactions, county.post, region.clock)

    epochs.settle(moving_hierarchy(), lambda _: frozenset())
    epochs.settle(replace(moving_hierarchy(), epoch=2), lambda _: frozenset())
    for number, after_ms in enumerate(AFTER_MS, start=1):
        before = _attempts(county, letter)
        region.clock.ms = switched_ms + after_ms - 1
        assert not hurry().step()
        region.clock.ms += 1
        assert hurry().step(), number
        assert not hurry().step()
        county.work_off()
        assert _attempts(county, letter) == before + 1
    region.clock.ms += AFTER_MS[-1]
    assert not hurry().step()


def test_a_node_that_was_off_meanwhile_hurries_once(region: MovingRegion) -> None:
    """The times that went by while it was off are one."""
    county = region.node(COUNTY)
    letter = _letter(county)
    transactions = county.storage.context.transactions
    epochs = EpochStore(transactions, region.clock.now_ms)
    epochs.settle(moving_hierarchy(), lambda _: frozenset())
    epochs.settle(replace(moving_hierarchy(), epoch=2), lambda _: frozenset())
    region.clock.ms += AFTER_MS[-1]
    hurry = LetterHurry(epochs, 2, transactions, county.post, region.clock)
    assert [hurry.step() for _ in AFTER_MS] == [True, False, False, False, False]
    county.work_off()
    assert _attempts(county, letter) == 2


def test_the_first_epoch_of_a_node_hurries_nothing(region: MovingRegion) -> None:
    """Nobody has switched."""
    city = region.node(CITY)
    transactions = city.storage.context.transactions
    epochs = EpochStore(transactions, region.clock.now_ms)
    epochs.settle(moving_hierarchy(), lambda _: frozenset())
    region.clock.ms += AFTER_MS[-1]
    assert not LetterHurry(epochs, 1, transactions, city.post, region.clock).step()
