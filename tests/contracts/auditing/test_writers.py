"""The chain while many write and more than one process links it."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from node.storage.tables import AUDIT
from tests.contracts.auditing.place import Place

WRITERS, LINKERS, TRANSACTIONS = 4, 2, 25


def test_every_entry_has_one_place_however_many_write_and_link(place: Place) -> None:
    """Writers commit in any order, two linkers compete: no gap, no double, nothing left out."""
    side = place.village
    held = len(side.actions())

    def write(_writer: int) -> None:
        for number in range(TRANSACTIONS):
            side.read(*(str(uuid.uuid4()) for _ in range(1 + number % 3)))

    def link(_linker: int) -> None:
        for _ in range(TRANSACTIONS):
            side.link()

    with ThreadPoolExecutor(WRITERS + LINKERS) as pool:
        work = [pool.submit(write, each) for each in range(WRITERS)]
        work += [pool.submit(link, each) for each in range(LINKERS)]
        for each in work:
            each.result()
    side.link()
    held += WRITERS * sum(1 + number % 3 for number in range(TRANSACTIONS))
    with side.engine.connect() as connection:
        assert side.ground.auditor.verify(connection) is None
        count, last, places = connection.execute(
            select(
                func.count(),
                func.max(AUDIT.c.chain_position),
                func.count(AUDIT.c.chain_position.distinct()),
            )
        ).one()
    assert (count, last, places) == (held, held, held)
    assert place.village.anchor()
    assert place.village.verify().holds
