"""The whole join with the commands an operator types: real processes and doors, both databases."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.node.v1.joining_pb2 as pb
from hierarchy_config import NodeId
from node.joining.code import new_code
from node.security.door_tls import door_channel, read_door_certificate
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings, save_settings
from protos.fenhe.node.v1 import joining_pb2_grpc, node_pb2, node_pb2_grpc
from tests.services.command import fenhe
from tests.services.people import Person, observation, put_request
from tests.services.region import Region, database_file, nodes
from tests.services.seeding import ROOT, recovering
from tests.services.stores import opened
from tests.services.waiting import CLOCK, until

CITY, COUNTY, COUNTY_2 = nodes("1410", "141002", "141024")
TOWNSHIP, VILLAGE, VILLAGE_2 = nodes("141002100", "141002100200", "141002100203")
PEOPLE = 20


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.mariadb)])
def region(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Region]:
    """A township with the data of a village whose machine burnt, and one that never had one."""
    with Region(tmp_path / "region", (TOWNSHIP, VILLAGE, VILLAGE_2), request.param) as made:
        shutil.rmtree(made.place.node_dir(VILLAGE_2))
        made.start(TOWNSHIP, VILLAGE)
        people = [Person(each, VILLAGE) for each in range(PEOPLE)]
        made.put(VILLAGE, put_request("of-the-village", *people))
        until("the township has them", lambda: made.rows(TOWNSHIP)["residents"] == PEOPLE)
        made.fleet.kill(VILLAGE)
        made.place.node_dir(VILLAGE).rename(made.place.root / "burnt")
        yield made


def door_of(region: Region, node: NodeId) -> str:
    """Where a running node says its door is."""
    said = json.loads((region.place.node_dir(node) / "run.json").read_text())
    return str(said["door"])


def operator(region: Region, node: NodeId) -> Path:
    """The operator's credentials at a node."""
    return region.place.credentials_dir(f"operator-{node}")


def invite(region: Region, parent: NodeId, child: NodeId, *more: str) -> dict[str, Any]:
    """What `fenhe node invite` says."""
    done = fenhe("node", "invite", child, "--as", operator(region, parent), "--json", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def listed(region: Region, parent: NodeId) -> list[dict[str, Any]]:
    """What `fenhe node invite --list` says, newest first."""
    done = fenhe("node", "invite", "--list", "--as", operator(region, parent), "--json")
    assert done.returncode == 0, done.stderr
    said: list[dict[str, Any]] = json.loads(done.stdout)
    return said


def join(
    region: Region, node: NodeId, said: dict[str, Any], *more: Any, data: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `fenhe node join` on the machine of a node."""
    listen = region.credentials("operator", node).address
    return fenhe(
        *("node", "join", "--parent", said["door"], "--code", said["code"]),
        *("--data", data or region.place.node_dir(node), "--listen", listen, *more),
    )


def audited(region: Region, node: NodeId) -> list[tuple[str, str]]:
    """Deeds of joining in a node's audit, oldest first."""
    with opened(region.place, node) as store:
        rows = store.connection.exec_driver_sql(
            "SELECT action, outcome FROM audit WHERE object_table IN ('invitations', 'keys') "
            "ORDER BY audit_id"
        )
        return [(str(action), str(outcome)) for action, outcome in rows]


def new_database(region: Region, name: str) -> tuple[str, ...]:
    """The option that names a new node's database."""
    if region.place.database == "sqlite":
        return ()
    return ("--database", database_file(region.place.root / name, region.new_database(name)))


def test_a_new_machine_joins_and_gets_the_residents_of_its_village(region: Region) -> None:
    """Invited, joined, started: it links and everything comes back."""
    said = invite(region, TOWNSHIP, VILLAGE)
    assert said["known_before"]
    assert said["door"] == door_of(region, TOWNSHIP)
    more = new_database(region, "joined")
    begun = CLOCK.monotonic_ms()
    done = join(region, VILLAGE, said, *more, "--json")
    took_s = (CLOCK.monotonic_ms() - begun) / 1000
    assert done.returncode == 0, done.stdout + done.stderr
    # Seen with `pytest -s`; node/joining/DESIGN.md says what was measured on a machine at rest.
    print(f"a join took {took_s:.1f} s")
    assert json.loads(done.stdout)["rebuilt"]
    assert json.loads(done.stdout)["root_digest"] == said["root_digest"]
    assert not region.place.node_dir(VILLAGE).with_name(f"{VILLAGE}.joining").exists()
    settings = load_settings(region.place.node_dir(VILLAGE))
    assert settings.parent_endpoint == region.place.address(TOWNSHIP)
    assert settings.database.startswith("mysql" if more else "sqlite")

    region.start(VILLAGE)
    region.linked(VILLAGE)
    until("it has its residents", lambda: region.rows(VILLAGE)["residents"] == PEOPLE)
    until("and their records", lambda: region.rows(VILLAGE)["observations"] == PEOPLE)
    until("it is whole", lambda: not recovering(region, VILLAGE))
    region.put(VILLAGE, put_request("of-its-own-1", Person(PEOPLE, VILLAGE)))
    until("and sends its own", lambda: region.rows(TOWNSHIP)["residents"] == PEOPLE + 1)
    assert [each["state"] for each in listed(region, TOWNSHIP)] == ["used"]
    assert audited(region, TOWNSHIP) == [("invite", "done"), ("join", "done")]


def test_a_village_that_never_had_a_machine_joins_and_sends(region: Region) -> None:
    """It begins as any first life: what it registers climbs, what is written above comes."""
    said = invite(region, TOWNSHIP, VILLAGE_2)
    assert not said["known_before"]
    done = join(region, VILLAGE_2, said, *new_database(region, "second"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert said["root_digest"][:4] in done.stdout
    region.start(VILLAGE_2)
    region.linked(VILLAGE_2)
    first = Person(5_000, VILLAGE_2)
    region.put(VILLAGE_2, put_request("of-the-second", first))
    until("the township has him", lambda: region.rows(TOWNSHIP)["residents"] == PEOPLE + 1)
    above = care.PutBundleRequest(
        request_id="from-above-1", records=[observation(first, "above", 111.0)]
    )
    region.put(TOWNSHIP, above)
    until("it has his record", lambda: region.rows(VILLAGE_2)["observations"] == 2)


@pytest.fixture
def township(tmp_path: Path) -> Iterator[Region]:
    """A township on SQLite with two villages that have no machines yet."""
    with Region(tmp_path / "region", (TOWNSHIP, VILLAGE, VILLAGE_2)) as made:
        for village in (VILLAGE, VILLAGE_2):
            shutil.rmtree(made.place.node_dir(village))
        made.start(TOWNSHIP)
        yield made


def test_every_refusal_has_its_next_step(township: Region, tmp_path: Path) -> None:
    """Wrong, used, withdrawn, another node's, at another port, into a full folder: each is told."""

    def refused(done: subprocess.CompletedProcess[str], code: str) -> None:
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stderr.startswith(code + ":"), done.stderr
        assert "Next: " in done.stderr

    said = invite(township, TOWNSHIP, VILLAGE)
    data = tmp_path / "machine"
    typed = said["code"][:-1] + ("0" if said["code"][-1] != "0" else "1")
    refused(join(township, VILLAGE, {**said, "code": typed}, data=data), "JOIN_CODE_INVALID")
    wrong = new_code(VILLAGE, os.urandom).spoken
    refused(join(township, VILLAGE, {**said, "code": wrong}, data=data), "JOIN_REFUSED")
    other = new_code(VILLAGE_2, os.urandom).spoken
    stray = tmp_path / "stray"
    refused(join(township, VILLAGE, {**said, "code": other}, data=stray), "JOIN_REFUSED")
    nobody = {**said, "door": "127.0.0.1:1"}
    refused(join(township, VILLAGE, nobody, data=data), "DOOR_UNREACHABLE")
    no_door = {**said, "door": township.place.address(TOWNSHIP)}
    refused(join(township, VILLAGE, no_door, data=data), "DOOR_UNREACHABLE")
    words = {**said, "door": "nowhere"}
    refused(join(township, VILLAGE, words, data=data), "SETTINGS_INVALID")
    full = tmp_path / "full"
    full.mkdir()
    (full / "a letter").touch()
    refused(join(township, VILLAGE, said, data=full), "JOIN_FOLDER")

    assert join(township, VILLAGE, said, data=data).returncode == 0
    refused(join(township, VILLAGE, said, data=data), "JOIN_FOLDER")
    refused(join(township, VILLAGE, said, data=tmp_path / "other"), "JOIN_USED")
    taken = invite(township, TOWNSHIP, VILLAGE_2, "--for", "5")
    back = fenhe("node", "invite", "--withdraw", VILLAGE_2, "--as", operator(township, TOWNSHIP))
    assert back.returncode == 0, back.stderr
    stray_2 = tmp_path / "stray-2"
    refused(join(township, VILLAGE_2, taken, data=stray_2), "JOIN_WITHDRAWN")
    states = {each["node_id"]: each["state"] for each in listed(township, TOWNSHIP)}
    assert states == {VILLAGE: "used", VILLAGE_2: "withdrawn"}
    refused(
        fenhe("node", "invite", COUNTY, "--as", operator(township, TOWNSHIP)), "INVITE_NOT_CHILD"
    )
    assert ("join", "refused") in audited(township, TOWNSHIP)


def test_a_join_that_is_killed_goes_on_with_its_keys(township: Region) -> None:
    """Whenever it dies, the same words again make the node; the invitation knows its keys."""
    said = invite(township, TOWNSHIP, VILLAGE)
    folder = township.place.node_dir(VILLAGE)
    words = [
        *(sys.executable, "-m", "node", "node", "join", "--parent", said["door"]),
        *("--code", said["code"], "--data", str(folder)),
        *("--listen", township.credentials("operator", VILLAGE).address),
    ]
    deaths = 0
    draft = folder.with_name(f"{folder.name}.joining")
    for marker in ("joining.json", "keys/ca.key", "certs/root.pem", "profile.yaml"):
        started = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE)
        until(
            f"{marker} is there",
            lambda started=started, marker=marker: (  # type: ignore[misc]
                (draft / marker).exists() or started.poll() is not None
            ),
            120,
        )
        started.send_signal(signal.SIGKILL)
        started.communicate()
        deaths += started.returncode == -signal.SIGKILL
        if folder.exists():
            break
    assert deaths >= 2
    if not folder.exists():
        done = join(township, VILLAGE, said)
        assert done.returncode == 0, done.stdout + done.stderr
    township.start(VILLAGE)
    township.linked(VILLAGE)


def test_the_door_is_no_way_into_the_node(township: Region) -> None:
    """No other method is at the door, the door's methods are on no other server, and it counts."""
    host, _, port = door_of(township, TOWNSHIP).rpartition(":")
    certificate = read_door_certificate(host, int(port), 5)
    with door_channel(f"{host}:{port}", certificate) as channel:
        with pytest.raises(grpc.RpcError) as status:
            node_pb2_grpc.NodeServiceStub(channel).Status(node_pb2.StatusRequest(), timeout=5)
        assert status.value.code() is grpc.StatusCode.UNIMPLEMENTED
        invitations = joining_pb2_grpc.InvitationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as listing:
            invitations.ListInvitations(pb.ListInvitationsRequest(), timeout=5)
        assert listing.value.code() is grpc.StatusCode.UNIMPLEMENTED
        door = joining_pb2_grpc.DoorServiceStub(channel)
        knock = pb.BeginRequest(node_id=VILLAGE, nonce=bytes(32))
        for _ in range(10):
            assert len(door.Begin(knock, timeout=5).salt) == 16
        with pytest.raises(grpc.RpcError, match="DOOR_BUSY"):
            door.Begin(knock, timeout=5)
    who = township.credentials("operator", TOWNSHIP)
    options = channel_options(who.server_name, GrpcLimits())
    with grpc.secure_channel(who.address, channel_credentials(who.tls), options=options) as inside:
        with pytest.raises(grpc.RpcError) as denied:
            joining_pb2_grpc.DoorServiceStub(inside).Begin(pb.BeginRequest(), timeout=5)
        assert denied.value.code() in {
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.PERMISSION_DENIED,
        }


def test_a_closed_door_invites_nobody(township: Region) -> None:
    """With door_listen: off the node serves, and says why nobody can be invited."""
    township.fleet.stop((TOWNSHIP,))
    folder = township.place.node_dir(TOWNSHIP)
    save_settings(folder, load_settings(folder).model_copy(update={"door_listen": "off"}))
    township.start(TOWNSHIP)
    assert door_of(township, TOWNSHIP) == ""
    done = fenhe("node", "invite", VILLAGE, "--as", operator(township, TOWNSHIP))
    assert done.returncode == 1
    assert done.stderr.startswith("DOOR_CLOSED:")
    assert "off" in done.stderr


def test_a_county_takes_the_pseudonym_key_from_another_past_the_city(tmp_path: Path) -> None:
    """The city carries it sealed: the two counties have one key, and the city has none."""
    with Region(tmp_path / "region", (CITY, COUNTY, COUNTY_2)) as region:
        folder = region.place.node_dir(COUNTY_2)
        shutil.rmtree(folder)
        region.start(CITY)
        asked = ("node", "invite", COUNTY_2, "--as", operator(region, CITY))
        assert fenhe(*asked).stderr.startswith("INVALID_REQUEST:")
        said = invite(region, CITY, COUNTY_2, "--pseudonym-from", COUNTY)
        away = join(region, COUNTY_2, said)
        assert away.stderr.startswith("JOIN_PSEUDONYM:"), away.stderr
        region.start(COUNTY)
        region.linked(COUNTY)
        done = join(region, COUNTY_2, said)
        assert done.returncode == 0, done.stdout + done.stderr
        lent = region.place.node_dir(COUNTY) / "keys" / "pseudonym.key"
        assert (folder / "keys" / "pseudonym.key").read_bytes().strip() == (
            lent.read_bytes().strip()
        )
        assert not (region.place.node_dir(CITY) / "keys" / "pseudonym.key").exists()
        regional = [
            (region.place.node_dir(each) / "keys" / "regional_index.key").read_bytes().strip()
            for each in (CITY, COUNTY_2)
        ]
        assert regional[0] == regional[1]
        region.start(COUNTY_2)
        region.linked(COUNTY_2)
        assert audited(region, COUNTY) == [("lend", "done")]
