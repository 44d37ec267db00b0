"""What is amiss with a node, on the command line; a leak raises the alarm here and above."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, insert, select

from hierarchy_config import NodeId
from node.storage.tables import REPLICATED
from tests.services.people import Person, put_request
from tests.services.region import Region, nodes
from tests.services.test_commands import fenhe
from tests.services.waiting import until

TOWNSHIP, VILLAGE, SIBLING = NODES = nodes("141002104", "141002104200", "141002104201")


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A township with two villages."""
    with Region(tmp_path_factory.mktemp("doctor") / "region", NODES) as region:
        region.start()
        region.linked(VILLAGE, SIBLING)
        region.put(VILLAGE, put_request("doctor-1", Person(81, VILLAGE)))
        yield region


def checkup(region: Region, node: NodeId, *words: str) -> tuple[int, Any]:
    """The exit code of `fenhe doctor …` and its JSON."""
    folder = region.place.credentials_dir(f"operator-{node}")
    done = fenhe("doctor", *words, "--as", str(folder), "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def findings(said: Any) -> dict[str, set[str]]:
    """Topics by severity."""
    found: dict[str, set[str]] = {"good": set(), "warning": set(), "bad": set()}
    for each in said["findings"]:
        found[each["severity"]].add(each["topic"])
    return found


def alarms(region: Region, node: NodeId) -> set[tuple[str, str]]:
    """Kind and peer of the alarms of a node."""
    folder = region.place.credentials_dir(f"operator-{node}")
    said = fenhe("replication", "status", "--as", str(folder), "--json")
    return {(each["kind"], each["peer"]) for each in json.loads(said.stdout)["alarms"]}


def test_a_healthy_node_is_told_so(region: Region) -> None:
    """Nothing is bad; what is left to do is to plant a canary."""
    # The end of the audit is deposited at the parent a while after the link is up.
    until(
        "it is anchored",
        lambda: "ANCHORS" in findings(checkup(region, VILLAGE)[1])["good"],
        120,
    )
    code, said = checkup(region, VILLAGE, "--whole-audit")
    found = findings(said)
    assert (code, found["bad"]) == (0, set()), said
    assert found["warning"] == {"CANARY"}
    assert found["good"] >= {"AUDIT", "CERTIFICATE", "CLOCK", "DISK", "DURABILITY", "KEYS", "LINK"}
    assert all(each["next_step"] for each in said["findings"] if each["severity"] != "good")
    assert said["node_id"] == VILLAGE


def test_a_cut_off_node_and_an_exposed_key_are_bad(region: Region) -> None:
    """Exit code 5, each with its next step; also where the process does not run."""
    key = region.place.node_dir(VILLAGE) / "keys" / "ca.key"
    region.fleet.stop((TOWNSHIP,))
    key.chmod(0o644)
    try:
        until("it knows", lambda: not region.fleet.is_connected(VILLAGE))
        code, said = checkup(region, VILLAGE)
        assert code == 5
        assert findings(said)["bad"] >= {"LINK", "KEYS"}

        data = region.place.node_dir(TOWNSHIP)
        stopped = fenhe("doctor", "--data", str(data), "--whole-audit", "--json")
        assert stopped.returncode == 0, stopped.stdout
        assert findings(json.loads(stopped.stdout))["good"] >= {"AUDIT", "DURABILITY", "RUNNING"}
        shown = fenhe("doctor", "--data", str(region.place.node_dir(VILLAGE)))
        assert shown.returncode == 5
        assert "chmod 600" in shown.stdout
    finally:
        key.chmod(0o600)
        region.start(TOWNSHIP)
        region.linked(VILLAGE, SIBLING)


def test_a_leak_between_siblings_is_an_alarm_here_and_above(region: Region) -> None:
    """A canary planted in one village, copied into the other's tables: found, told, and over."""
    code, planted = checkup(region, VILLAGE, "canary", "plant")
    assert (code, planted["planted"]) == (0, True)
    assert checkup(region, VILLAGE, "canary", "plant")[1]["planted"] is False
    until("it is above", lambda: at_home(region, TOWNSHIP) == 1)
    assert region.rows(VILLAGE)["residents"] == 1
    for node in NODES:
        assert checkup(region, node, "canary", "look")[0] == 0, node

    _copied(region.place.node_dir(VILLAGE), region.place.node_dir(SIBLING))
    code, seen = checkup(region, SIBLING, "canary", "look")
    assert code == 5
    assert {(each["place"], each["home_node"]) for each in seen["strays"]} == {("rows", VILLAGE)}
    until("it stands here", lambda: ("CANARY_OUT_OF_PLACE", "") in alarms(region, SIBLING))
    until("it stands above", lambda: ("CANARY_OUT_OF_PLACE", SIBLING) in alarms(region, TOWNSHIP))
    assert "CANARY" in findings(checkup(region, TOWNSHIP)[1])["bad"]

    _removed(region.place.node_dir(SIBLING))
    assert checkup(region, SIBLING, "canary", "look")[1]["strays"] == []
    until("it is over above", lambda: alarms(region, TOWNSHIP) == set())


def at_home(region: Region, node: NodeId) -> int:
    """How many canaries a node holds where they may be."""
    return int(checkup(region, node, "canary", "look")[1]["at_home"])


def _copied(of: Path, to: Path) -> None:
    """The residents of one store in another's, as a wrong copy would leave them."""
    here = create_engine(f"sqlite:///{of / 'store.db'}")
    there = create_engine(f"sqlite:///{to / 'store.db'}")
    t = REPLICATED["residents"]
    with here.connect() as source, there.begin() as target:
        for row in source.execute(select(t)).mappings().all():
            target.execute(insert(t).values(**row))
    here.dispose()
    there.dispose()


def _removed(data: Path) -> None:
    engine = create_engine(f"sqlite:///{data / 'store.db'}")
    with engine.begin() as connection:
        connection.execute(REPLICATED["residents"].delete())
    engine.dispose()
