"""Nodes that are seeded: a lost one made anew, one long away, one without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml

import protos.fenhe.care.v1.care_pb2 as care
from tests.services.command import fenhe
from tests.services.people import Person, observation, put_request
from tests.services.region import Region, nodes
from tests.services.seeding import recovering, standing
from tests.services.waiting import until

TOWNSHIP, VILLAGE, VILLAGE_2 = nodes("141002100", "141002100200", "141002100203")
PEOPLE = 40


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    """A township with two villages."""
    with Region(tmp_path / "region", (TOWNSHIP, VILLAGE, VILLAGE_2)) as made:
        yield made


def fill(region: Region, count: int = PEOPLE) -> dict[str, int]:
    """Residents of the village with visits, one amended, and a record by the township."""
    for n in range(0, count, 10):
        people = [Person(each, VILLAGE) for each in range(n, n + 10)]
        region.put(VILLAGE, put_request(f"people-{n:06d}", *people))
    first = Person(0, VILLAGE)
    region.put(
        VILLAGE,
        care.PutBundleRequest(
            request_id="amended-00001", records=[observation(first, "systolic", 177.0)]
        ),
    )
    until("the township has them", lambda: region.rows(TOWNSHIP)["residents"] == count)
    region.put(
        TOWNSHIP,
        care.PutBundleRequest(
            request_id="from-above-1", records=[observation(first, "above", 111.0)]
        ),
    )
    until("the village has it", lambda: region.rows(VILLAGE)["observations"] == count + 1)
    until("so has the township", lambda: region.rows(TOWNSHIP)["observations"] == count + 1)
    return region.rows(VILLAGE)


def rebuild(region: Region) -> None:
    """Lose the village's folder and make it anew, as an operator does."""
    folder = region.place.node_dir(VILLAGE)
    said = yaml.safe_load((folder / "node.yaml").read_text())
    kept = folder.with_name("lost")
    folder.rename(kept)
    done = fenhe(
        *("node", "init", VILLAGE, "--rebuild", "--data", folder),
        *("--listen", said["listen"], "--parent-endpoint", said["parent_endpoint"]),
        *("--region", kept / "region.yaml", "--parent-data", region.place.node_dir(TOWNSHIP)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(kept / "profile.yaml", folder / "profile.yaml")


def value_of(region: Region, record_id: str) -> float:
    """A record's value at the village."""
    answer = region.records(VILLAGE, "Get", care.GetRecordRequest(record_id=record_id))
    return float(answer.observation.value)


def test_a_lost_village_comes_back_with_all_its_rows(region: Region) -> None:
    """One command; its own rows and those from above return, and it amends where it left off."""
    region.start()
    whole = fill(region)
    region.fleet.stop((VILLAGE,))
    rebuild(region)

    region.start(VILLAGE)
    until("it is whole", lambda: not recovering(region, VILLAGE), 60)

    assert region.rows(VILLAGE) == whole
    first = Person(0, VILLAGE)
    assert value_of(region, first.record_id("systolic")) == 177.0
    region.put(
        VILLAGE,
        care.PutBundleRequest(
            request_id="amended-00002", records=[observation(first, "systolic", 178.0)]
        ),
    )
    fresh = [Person(n, VILLAGE) for n in range(PEOPLE, PEOPLE + 2)]
    region.put(VILLAGE, put_request("after-000001", *fresh))
    until("they arrive", lambda: region.rows(TOWNSHIP)["residents"] == PEOPLE + 2)
    for node in (TOWNSHIP, VILLAGE):
        assert region.fleet.status(node).quarantined == 0


def test_a_recovering_node_waits_until_its_operator_gives_a_neighbour_up(region: Region) -> None:
    """It amends nothing meanwhile; the command says for whom it waits, and ends it."""
    region.start()
    fill(region)
    region.fleet.stop()
    folder = region.place.node_dir(TOWNSHIP)
    assert fenhe("node", "new-epoch", "--yes", "--data", folder).returncode == 0
    region.start(TOWNSHIP, VILLAGE)
    until(
        "only the other village is waited for",
        lambda: [each.peer for each in standing(region, TOWNSHIP).waiting] == [VILLAGE_2],
    )
    amended = care.PutBundleRequest(
        request_id="amended-00009", records=[observation(Person(0, VILLAGE), "above", 115.0)]
    )
    with pytest.raises(grpc.RpcError, match="RECOVERING"):
        region.put(TOWNSHIP, amended)
    who = region.place.credentials_dir(f"operator-{TOWNSHIP}")
    said = fenhe("node", "recover", "--as", who)
    assert VILLAGE_2 in said.stdout

    done = fenhe("node", "recover", "--without", VILLAGE_2, "--as", who)

    assert done.returncode == 0, done.stderr
    until("it is whole", lambda: not recovering(region, TOWNSHIP))
    region.put(TOWNSHIP, amended)


def test_killed_while_it_is_seeded(region: Region) -> None:
    """Either end dies again and again; the recovery goes on and ends with every row."""
    region.start()
    whole = fill(region, 200)
    region.fleet.stop((VILLAGE,))
    rebuild(region)
    profile = region.place.node_dir(TOWNSHIP) / "profile.yaml"
    small = yaml.safe_load(profile.read_text()) | {"batch_bytes_max": 4096}
    region.fleet.stop((TOWNSHIP,))
    profile.write_text(yaml.safe_dump(small))
    region.start(TOWNSHIP)

    kills = 0
    region.start(VILLAGE)
    for node in (VILLAGE, TOWNSHIP, VILLAGE, TOWNSHIP, VILLAGE):
        before = region.rows(VILLAGE).get("residents", 0)
        if not recovering(region, VILLAGE):
            break
        until(
            "rows arrive",
            lambda before=before: (  # type: ignore[misc]
                region.rows(VILLAGE).get("residents", 0) > before or not recovering(region, VILLAGE)
            ),
        )
        region.fleet.kill(node)
        kills += 1
        region.start(node)
    until("it is whole", lambda: not recovering(region, VILLAGE), 90)

    assert kills
    assert region.rows(VILLAGE) == whole
    assert region.fleet.status(VILLAGE).quarantined == 0


def test_a_child_that_was_away_is_seeded_from_the_tables(region: Region) -> None:
    """The parent's log did not wait for it beyond its limit; nothing is missing when it is back."""
    profile = region.place.node_dir(TOWNSHIP) / "profile.yaml"
    kept = yaml.safe_load(profile.read_text()) | {"log_keep_mb": 1}
    profile.write_text(yaml.safe_dump(kept))
    region.start()
    fill(region)
    region.fleet.stop((VILLAGE,))
    first = Person(0, VILLAGE)
    for n in range(1700):
        region.put(
            TOWNSHIP,
            care.PutBundleRequest(
                request_id=f"while-away-{n:05d}", records=[observation(first, f"away-{n}", 90.0)]
            ),
        )
    region.fleet.stop((TOWNSHIP,))
    region.start(TOWNSHIP)
    until("the log is pruned", lambda: region.fleet.status(TOWNSHIP).log_pruned_to > 50, 60)

    region.start(VILLAGE)

    until(
        "the village has everything",
        lambda: region.rows(VILLAGE)["observations"] == PEOPLE + 1 + 1700,
        90,
    )
    assert region.fleet.status(VILLAGE).quarantined == 0


def test_a_stick_carries_what_no_link_does(region: Region, tmp_path: Path) -> None:
    """Both ways and with the receipts back, the first load included; the link then goes on."""
    region.start(TOWNSHIP, VILLAGE)
    region.linked(VILLAGE)
    fill(region)
    operators = {n: region.place.credentials_dir(f"operator-{n}") for n in (TOWNSHIP, VILLAGE)}
    cut_off(region)
    fresh = [Person(n, VILLAGE) for n in range(PEOPLE, PEOPLE + 5)]
    region.put(VILLAGE, put_request("by-stick-001", *fresh))
    first = Person(0, VILLAGE)
    region.put(
        TOWNSHIP,
        care.PutBundleRequest(
            request_id="by-stick-002", records=[observation(first, "down", 95.0)]
        ),
    )
    up, down = tmp_path / "up.bundle", tmp_path / "down.bundle"

    exported = fenhe("replication", "export", TOWNSHIP, up, "--as", operators[VILLAGE], "--json")
    assert exported.returncode == 0, exported.stderr
    written = {"file": str(up), "peer": TOWNSHIP, "bytes": up.stat().st_size}
    assert json.loads(exported.stdout) == written
    taken = fenhe("replication", "import", up, "--as", operators[TOWNSHIP], "--json")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    said = json.loads(taken.stdout)
    assert (said["kind"], said["peer"], said["receipts"]) == ("batches", VILLAGE, f"{up}.receipts")
    assert all(int(lane["applied"]) and not lane["refused"] for lane in said["lanes"])
    assert region.rows(TOWNSHIP)["residents"] == PEOPLE + 5
    back = fenhe("replication", "import", f"{up}.receipts", "--as", operators[VILLAGE])
    assert back.returncode == 0, back.stdout + back.stderr
    fenhe("replication", "export", VILLAGE, down, "--as", operators[TOWNSHIP])
    assert fenhe("replication", "import", down, "--as", operators[VILLAGE]).returncode == 0
    assert region.rows(VILLAGE)["observations"] == PEOPLE + 5 + 2
    again = fenhe("replication", "import", up, "--as", operators[TOWNSHIP])
    assert again.returncode == 0, again.stdout + again.stderr
    elsewhere = fenhe("replication", "import", up, "--as", operators[VILLAGE])
    assert "STICK_NOT_FOR_HERE" in elsewhere.stderr

    connect_again(region)
    region.linked(VILLAGE)
    late = [Person(n, VILLAGE) for n in range(PEOPLE + 5, PEOPLE + 8)]
    region.put(VILLAGE, put_request("by-link-0001", *late))
    until("the link goes on", lambda: region.rows(TOWNSHIP)["residents"] == PEOPLE + 8)


def cut_off(region: Region) -> None:
    """Let the village dial where nobody is."""
    _set_parent(region, "127.0.0.1:9")


def connect_again(region: Region) -> None:
    """Let it dial its parent."""
    _set_parent(region, region.place.address(TOWNSHIP))


def _set_parent(region: Region, address: str) -> None:
    region.fleet.stop((VILLAGE,))
    path = region.place.node_dir(VILLAGE) / "node.yaml"
    said = yaml.safe_load(path.read_text()) | {"parent_endpoint": address}
    path.write_text(yaml.safe_dump(said))
    region.start(VILLAGE)
