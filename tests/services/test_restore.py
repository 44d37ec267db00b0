"""A store put back from a backup: refused under its old epoch, taken up under a new one."""

from __future__ import annotations

import shutil
from pathlib import Path

from node.new_epoch import begin_new_epoch
from tests.services.people import Person, put_request
from tests.services.region import Region, nodes
from tests.services.seeding import recovering
from tests.services.waiting import until

TOWNSHIP, VILLAGE = nodes("141002100", "141002100200")


def delivered(region: Region, residents: int) -> bool:
    """Whether the township holds so many."""
    return region.rows(TOWNSHIP)["residents"] == residents


def last_error(region: Region) -> str:
    """What the village says of its link."""
    return "".join(link.last_error for link in region.fleet.status(VILLAGE).links)


def test_a_restored_node_goes_on_under_a_new_epoch(tmp_path: Path) -> None:
    """What it wrote after the backup comes back to it; what it writes now arrives above."""
    with Region(tmp_path / "region", (TOWNSHIP, VILLAGE)) as region:
        store = region.place.node_dir(VILLAGE) / "store.db"
        region.start()
        region.put(VILLAGE, put_request("before-backup-1", Person(1, VILLAGE)))
        until("the first arrives", lambda: delivered(region, 1))
        region.fleet.stop((VILLAGE,))
        shutil.copy(store, tmp_path / "backup.db")

        region.start(VILLAGE)
        region.put(VILLAGE, put_request("after-backup-2", Person(2, VILLAGE)))
        until("the second arrives", lambda: delivered(region, 2))
        region.fleet.stop((VILLAGE,))
        for rest in store.parent.glob("store.db-*"):
            rest.unlink()
        shutil.copy(tmp_path / "backup.db", store)

        region.start(VILLAGE)
        until("it is refused", lambda: "STORE_WENT_BACK" in last_error(region))
        region.fleet.stop((VILLAGE,))
        assert begin_new_epoch(store.parent).now == 2

        region.start(VILLAGE)
        region.linked(VILLAGE)
        assert region.fleet.status(VILLAGE).store_epoch == 2
        until("it has its rows back", lambda: region.rows(VILLAGE)["residents"] == 2)
        until("it is whole", lambda: not recovering(region, VILLAGE))
        region.put(VILLAGE, put_request("after-restore-3", Person(3, VILLAGE)))
        until("the third arrives", lambda: delivered(region, 3))
        assert region.rows(VILLAGE)["residents"] == 3
        assert region.fleet.status(TOWNSHIP).quarantined == 0
