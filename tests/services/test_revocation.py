"""A village's machine is stolen: revoked at the city, it is cut off everywhere at once."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import protos.fenhe.node.v1.node_pb2 as node_pb
from hierarchy_config import NodeId
from node.security.authority import load_authority
from node.security.certificates import (
    Validity,
    certificates_to_pem,
    new_private_key,
    private_key_to_pem,
    sign_leaf,
)
from node.security.folders import CredentialsFolder, NodeFolder, TlsFiles
from node.security.key_files import write_public, write_secret
from node.security.principal import Principal
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from protos.fenhe.node.v1 import node_pb2_grpc, region_pb2, region_pb2_grpc
from tests.services.command import fenhe
from tests.services.people import Person, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.waiting import CLOCK, until
from tests.unit.security.region import GOOD

CITY, COUNTY, TOWNSHIP, VILLAGE, VILLAGE_2 = NODES = nodes(
    "1410", "141002", "141002100", "141002100200", "141002100203"
)
MINUTE_S = 60


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    """One branch from the city to two villages, linked."""
    with Region(tmp_path / "region", NODES) as made:
        made.start()
        made.linked()
        yield made


def operator(region: Region, node: NodeId) -> Path:
    """The operator's credentials at a node."""
    return region.place.credentials_dir(f"operator-{node}")


def revoke(region: Region, node: NodeId, *more: str) -> dict[str, Any]:
    """What `fenhe node revoke` says at a node."""
    done = fenhe(
        *("node", "revoke", *more, "--reason", "stolen", "--as", operator(region, node), "--json")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def revoked(region: Region, node: NodeId) -> list[str]:
    """Whose revocations a node knows."""
    done = fenhe("node", "revoked", "--as", operator(region, node), "--json")
    assert done.returncode == 0, done.stderr
    return [str(each["node_id"]) for each in json.loads(done.stdout)]


def link(region: Region, node: NodeId, peer: NodeId) -> node_pb.LinkStatus:
    """How a node says that one of its links is."""
    return next(each for each in region.fleet.status(node).links if each.peer == peer)


def epochs(region: Region, files: TlsFiles) -> str:
    """What a call that every node of the region may make is answered with at the township."""
    options = channel_options(region.place.hierarchy.dns_name(TOWNSHIP), GrpcLimits())
    with grpc.secure_channel(
        region.place.address(TOWNSHIP), channel_credentials(files), options=options
    ) as channel:
        stub = region_pb2_grpc.RegionServiceStub(channel)
        try:
            stub.Epochs(region_pb2.EpochsRequest(), timeout=CALL_S)
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()}"
    return "OK"


def stolen_files(folder: Path) -> TlsFiles:
    """The thief's keys, where the stolen folder was put."""
    return NodeFolder(folder / "stolen").tls


def minted(region: Region, folder: Path) -> TlsFiles:
    """A new key that the thief certifies himself, with the authority on the stolen disk."""
    authority = load_authority(region.place.node_dir(VILLAGE))
    key = new_private_key()
    who = Principal(region.place.hierarchy.region, VILLAGE)
    dns_name = region.place.hierarchy.dns_name(VILLAGE)
    leaf = sign_leaf(authority, who, dns_name, key.public_key(), Validity(*_validity()))
    folder.mkdir()
    files = CredentialsFolder(folder).tls
    write_secret(files.private_key, private_key_to_pem(key))
    write_public(files.chain, certificates_to_pem((leaf, *authority.chain)))
    root = NodeFolder(region.place.node_dir(VILLAGE)).tls.root
    write_public(files.root, root.read_bytes())
    return files


def _validity() -> tuple[Any, Any]:
    return GOOD.not_before, GOOD.not_after


def test_a_revoked_village_is_cut_off_and_a_new_machine_takes_its_place(
    region: Region, tmp_path: Path
) -> None:
    """Stream, calls and own certificates of the thief end; the village joins with other keys."""
    people = [Person(each, VILLAGE) for each in range(5)]
    region.put(VILLAGE, put_request("of-the-village", *people))
    until("the township has them", lambda: region.rows(TOWNSHIP)["residents"] == len(people))
    stolen = NodeFolder(region.place.node_dir(VILLAGE)).tls
    assert epochs(region, stolen) == "OK"
    assert epochs(region, minted(region, tmp_path / "early")).startswith("UNAUTHENTICATED")
    begun = CLOCK.monotonic_ms()
    said = revoke(region, CITY, VILLAGE)
    until("its stream has ended", lambda: not link(region, TOWNSHIP, VILLAGE).connected, MINUTE_S)
    for node in (CITY, COUNTY, TOWNSHIP, VILLAGE_2):
        until(f"{node} knows", lambda node=node: revoked(region, node) == [VILLAGE], MINUTE_S)  # type: ignore[misc]
    took_s = (CLOCK.monotonic_ms() - begun) / 1000
    print(f"a revocation was known everywhere after {took_s:.1f} s")
    assert took_s < MINUTE_S
    assert len(said["revocation"]["keys"]) == 2
    assert revoke(region, CITY, VILLAGE)["repeated"]
    assert epochs(region, stolen).startswith("PERMISSION_DENIED PEER_REVOKED")
    own_make = minted(region, tmp_path / "minted")
    assert epochs(region, own_make).startswith("PERMISSION_DENIED PEER_REVOKED")
    until(
        "the village is told why",
        lambda: "PEER_REVOKED" in link(region, VILLAGE, TOWNSHIP).last_error,
    )
    # Its disk still serves whoever stands before it; its neighbours are as before.
    region.put(VILLAGE, put_request("of-the-thief", Person(90, VILLAGE)))
    assert link(region, VILLAGE_2, TOWNSHIP).connected

    region.fleet.kill(VILLAGE)
    region.place.node_dir(VILLAGE).rename(tmp_path / "stolen")
    door = json.loads((region.place.node_dir(TOWNSHIP) / "run.json").read_text())["door"]
    done = fenhe("node", "invite", VILLAGE, "--as", operator(region, TOWNSHIP), "--json")
    assert done.returncode == 0, done.stderr
    done = fenhe(
        *("node", "join", "--parent", door, "--code", json.loads(done.stdout)["code"]),
        *("--data", region.place.node_dir(VILLAGE)),
        *("--listen", region.credentials("operator", VILLAGE).address),
    )
    assert done.returncode == 0, done.stderr
    region.start(VILLAGE)
    until("the new machine is linked", lambda: link(region, TOWNSHIP, VILLAGE).connected)
    assert epochs(region, stolen_files(tmp_path)).startswith("PERMISSION_DENIED PEER_REVOKED")


def test_a_caller_is_revoked_by_name_with_his_call_open(region: Region) -> None:
    """His open stream ends, and his next call is denied; others of the village work on."""
    with region.open_channel(VILLAGE, "client") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        next(iter(watch))
        revoke(region, VILLAGE, "--caller", "client/demo")
        with pytest.raises(grpc.RpcError) as ended:
            list(watch)
        assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
        status = node_pb2_grpc.NodeServiceStub(channel).Status
        with pytest.raises(grpc.RpcError) as denied:
            status(node_pb.StatusRequest(), timeout=CALL_S)
        assert "PEER_REVOKED" in str(denied.value.details())
    assert region.rows(VILLAGE) is not None
    until("the city keeps it too", lambda: revoked(region, CITY) == [VILLAGE])


def test_what_a_node_missed_it_learns_when_it_is_back(region: Region) -> None:
    """Switched off while a place was revoked: known after its next greeting."""
    region.fleet.kill(VILLAGE_2)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(region.place.node_dir(VILLAGE_2) / "columnar")
    revoke(region, TOWNSHIP, VILLAGE)
    region.start(VILLAGE_2)
    until("it knows", lambda: revoked(region, VILLAGE_2) == [VILLAGE])
    until("so does the city", lambda: revoked(region, CITY) == [VILLAGE])
