"""A node starts whatever a death in the middle of a switch has left in its folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hierarchy_config import load_region
from node.app import Node
from node.foundations import read_foundations
from node.region.keeper import Keeper
from node.settings import load_settings, save_settings
from node.whereabouts import ParentAddressUnknownError
from tests.unit.node.region_place import CLOCK, Place, laid_out, moved, take
from tests.unit.security.region import TOWNSHIP

START_S = 60.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Every node's keys, certificates and region file; nobody's address is known anywhere."""
    with laid_out(tmp_path) as made:
        for folder in made.folders.values():
            settings = load_settings(folder).model_copy(update={"profile": "village"})
            save_settings(folder, settings)
        yield made


async def live(folder: Path) -> None:
    """Start a node on a folder, and wait until it wants to start again on what it has written."""
    node = Node(read_foundations(folder, CLOCK), CLOCK)
    try:
        await node.start()
        await asyncio.wait_for(node.restarting.wait(), START_S)
    finally:
        await node.stop()


def test_a_decision_is_carried_out_although_the_former_parent_has_no_address(place: Place) -> None:
    """The settings were written and the region file was not: the address is gone, the change not.

    Without a decision the same folder is refused.
    """
    folder = place.folders[TOWNSHIP]
    context = place.context(TOWNSHIP)
    with pytest.raises(ParentAddressUnknownError):
        asyncio.run(live(folder))
    offer = place.offer(moved())
    take(Keeper(context), (offer, place.decision(offer)))

    asyncio.run(live(folder))

    assert load_region(folder / "region.yaml") == moved()
