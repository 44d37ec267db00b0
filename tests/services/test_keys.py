"""Keys at real nodes, with the commands that an operator types."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import protos.fenhe.node.v1.keys_pb2 as pb
from node.security.folders import NodeFolder
from node.security.key_files import create_key
from protos.fenhe.node.v1 import keys_pb2_grpc
from tests.services.command import fenhe
from tests.services.people import Person, put_request
from tests.services.region import Region, nodes
from tests.services.stores import opened
from tests.services.waiting import until

TOWNSHIP, VILLAGE = nodes("141002100", "141002100200")
PEOPLE = 60


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A township and a village that has residents."""
    with Region(tmp_path_factory.mktemp("keys") / "region", (TOWNSHIP, VILLAGE)) as made:
        made.start()
        made.linked(VILLAGE)
        people = [Person(each, VILLAGE) for each in range(PEOPLE)]
        made.put(VILLAGE, put_request("of-the-village", *people))
        until("the township has them", lambda: made.rows(TOWNSHIP)["residents"] == PEOPLE)
        yield made


def keys(region: Region, node: str, *words: Any, who: Path | None = None) -> dict[str, Any]:
    """What a `fenhe keys` command says as JSON."""
    chosen = who or region.place.credentials_dir(f"operator-{node}")
    done = fenhe("keys", *words, "--as", chosen, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def standing(region: Region) -> pb.KeysStatusResponse:
    """The village's keys."""
    with region.open_channel(VILLAGE) as channel:
        stub = keys_pb2_grpc.KeysServiceStub(channel)
        said: pb.KeysStatusResponse = stub.Status(pb.KeysStatusRequest(), timeout=20)
    return said


def deposited(region: Region) -> bool:
    """Whether all the village's keys lie at the township."""
    with region.open_channel(VILLAGE) as channel:
        stub = keys_pb2_grpc.KeysServiceStub(channel)
        said: pb.EscrowStatusResponse = stub.EscrowStatus(pb.EscrowStatusRequest(), timeout=20)
    return said.complete


def test_a_rotation_under_kills_ends_and_nothing_is_lost(region: Region) -> None:
    """Asked for once; the node dies on the way and goes on by itself, while rows are written."""
    before = {each["key_id"] for each in keys(region, VILLAGE, "status")["keys"]}
    made = keys(region, VILLAGE, "rotate")["key_ids"]
    assert len(made) == len(before)
    for life in range(2):
        region.put(VILLAGE, put_request(f"meanwhile-{life}", Person(PEOPLE + life, VILLAGE)))
        region.fleet.kill(VILLAGE)
        region.start(VILLAGE)
    until(
        "everything is re-sealed",
        lambda: {each.state for each in standing(region).work} == {"done"},
        60,
    )
    # The keys before were retired in an earlier life: nobody can still be sealing with them.
    until(
        "the old keys are destroyed",
        lambda: {each.key_id for each in standing(region).keys} == set(made),
        60,
    )
    region.linked(VILLAGE)
    until("the township has all", lambda: region.rows(TOWNSHIP)["residents"] == PEOPLE + 2)
    again = fenhe(
        "keys",
        "rotate",
        "--table",
        "nowhere",
        "--as",
        region.place.credentials_dir(f"operator-{VILLAGE}"),
    )
    assert again.stderr.startswith("KEY_PURPOSE:")


def test_a_lost_node_key_is_made_good_from_escrow(region: Region, tmp_path: Path) -> None:
    """Two operators of the township, one file, one command at the village; both audits have it."""
    until("the keys lie at the township", lambda: deposited(region), 60)
    held = keys(region, TOWNSHIP, "escrow", "status")["held"]
    assert [each["node_id"] for each in held] == [VILLAGE]
    assert keys(region, VILLAGE, "rotate", "--node")["wrapped"] == len(standing(region).keys)

    second = tmp_path / "second"
    folder = region.place.node_dir(TOWNSHIP)
    address = region.place.address(TOWNSHIP)
    issued = fenhe(
        *("node", "credentials", "operator", "li", "--data", folder),
        *("--out", second, "--address", address),
    )
    assert issued.returncode == 0, issued.stderr
    file = tmp_path / "recovered"
    for _ in range(2):
        said = keys(region, TOWNSHIP, "recover", VILLAGE, "--out", file)
        assert said["written"] == ""
    assert not file.exists()
    said = keys(region, TOWNSHIP, "recover", VILLAGE, "--out", file, who=second)
    assert said["written"] == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    until("the village's audit has it", lambda: "recover" in audited(region, VILLAGE))
    assert audited(region, TOWNSHIP)[-3:] == ["approve", "approve", "recover"]

    region.fleet.kill(VILLAGE)
    lost = NodeFolder(region.place.node_dir(VILLAGE))
    refused = fenhe("keys", "restore", file, "--data", lost.path)
    assert refused.stderr.startswith("RECOVERY_FILE:"), refused.stderr
    lost.node_key.unlink()
    create_key(lost.node_key, os.urandom)
    done = fenhe("keys", "restore", file, "--data", lost.path)
    assert done.returncode == 0, done.stdout + done.stderr
    region.start(VILLAGE)
    region.linked(VILLAGE)
    assert region.rows(VILLAGE)["residents"] == PEOPLE + 2
    region.put(VILLAGE, put_request("afterwards", Person(PEOPLE + 9, VILLAGE)))
    until("rows climb", lambda: region.rows(TOWNSHIP)["residents"] == PEOPLE + 3)


def audited(region: Region, node: str) -> list[str]:
    """What was done with keys at a node, oldest first."""
    with opened(region.place, node) as store:  # type: ignore[arg-type]
        rows = store.connection.exec_driver_sql(
            "SELECT action FROM audit WHERE object_table IN ('data_keys', 'key_escrow') "
            "AND action IN ('approve', 'recover') ORDER BY audit_id"
        )
        return [str(action) for (action,) in rows]
