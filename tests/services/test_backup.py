"""A real backup and a real restore, with the command and under load: killed, put back, linked."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from hierarchy_config import NodeId
from tests.services.command import fenhe
from tests.services.people import Person, put_request
from tests.services.region import Region, database_file, nodes
from tests.services.waiting import until

TOWNSHIP, VILLAGE = nodes("141002100", "141002100200")
DATABASES = ["sqlite", pytest.param("mysql", marks=pytest.mark.mariadb)]


def run(*words: str | Path, fails: bool = False) -> Any:
    """Run the command; its JSON, or what it said on stderr if it was to fail."""
    done = fenhe(*words)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else json.loads(done.stdout)


class Load(threading.Thread):
    """Registers one person after the other until told to stop, or until the node is gone."""

    def __init__(self, region: Region) -> None:
        super().__init__()
        self._region = region
        self._enough = threading.Event()
        self.acknowledged = 0
        self.fault = ""

    def run(self) -> None:
        import grpc

        while not self._enough.is_set():
            number = self.acknowledged + 1
            request = put_request(f"load-{number:06d}", Person(number, VILLAGE))
            try:
                self._region.put(VILLAGE, request)
            except grpc.RpcError as error:
                self.fault = str(error)
                return
            self.acknowledged = number

    def finish(self) -> None:
        """Stop and wait."""
        self._enough.set()
        self.join(60)


def taken(region: Region) -> bool:
    """Whether the restored node takes a bundle with ids of its own again."""
    try:
        region.put(VILLAGE, put_request("after-restore", Person(15_000, VILLAGE)))
    except grpc.RpcError as error:
        if "RECOVERING" in str(error):
            return False
        raise
    return True


def residents(region: Region, node: NodeId) -> int:
    """Residents held."""
    return region.rows(node)["residents"]


def settled(region: Region, node: NodeId) -> int:
    """Residents held once the link of a child that was killed is seen to be down."""
    until("the link is down", lambda: not any(x.connected for x in region.fleet.status(node).links))
    return residents(region, node)


def both(region: Region) -> tuple[int, int]:
    """Residents held by the township and by the village."""
    return residents(region, TOWNSHIP), residents(region, VILLAGE)


@pytest.mark.parametrize("database", DATABASES)
def test_a_node_is_backed_up_and_restored_under_load(tmp_path: Path, database: str) -> None:
    """Backups while it writes, SIGKILL, the folder gone, restored into epoch 2, linked again."""
    key, shelf = tmp_path / "backup.key", tmp_path / "shelf"
    with Region(tmp_path / "region", (TOWNSHIP, VILLAGE), database) as region:
        region.start()
        region.linked(VILLAGE)
        folder = region.place.node_dir(VILLAGE)
        assert fenhe("backup", "key", "new", key).returncode == 0
        words = ("backup", "--data", folder, "--to", shelf, "--key", key, "--json")
        load = Load(region)
        load.start()
        until("some are there", lambda: load.acknowledged >= 10 or load.fault != "")
        assert load.fault == ""
        first = run(*words)
        until("more are there", lambda: load.acknowledged >= first["head"] // 2 + 20)
        before = load.acknowledged
        second = run(*words)
        assert (first["kind"], second["kind"]) == ("full", "incremental")
        until("some are not in it", lambda: load.acknowledged >= before + 20)
        region.fleet.kill(VILLAGE)
        load.finish()
        # Its disk is gone with it: what was on its way up at that moment is in neither place.
        elsewhere = max(before, settled(region, TOWNSHIP))
        made = run("backup", "check", "--from", shelf, "--key", key, "--json")
        assert [each["whole"] for each in made["backups"]] == [True, True]

        new = tmp_path / "new"
        more: tuple[str | Path, ...] = ()
        if database == "mysql":
            file = database_file(tmp_path / "url", region.new_database("restored"))
            more = ("--database", file)
        put_back = ("restore", "--from", shelf, "--data", new, "--key", key, "--json", *more)
        done = run(*put_back)
        assert (done["store_epoch"], done["backups"]) == (2, 2)
        assert "RESTORE_TARGET_IN_USE" in run(*put_back, fails=True)
        shutil.rmtree(folder)
        new.rename(folder)

        region.start(VILLAGE)
        region.linked(VILLAGE)
        assert region.fleet.status(VILLAGE).store_epoch == 2
        assert residents(region, VILLAGE) >= before
        until("it has recovered", lambda: taken(region), 60)
        # Numbers rise one by one, so the two together hold as many as the greater part.
        held = elsewhere + 1
        until("both have all", lambda: both(region)[0] >= held and len(set(both(region))) == 1)
        assert region.fleet.status(TOWNSHIP).quarantined == 0
