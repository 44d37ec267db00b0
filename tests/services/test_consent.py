"""Consents between real nodes: written by the command, obeyed by gRPC at the home and above it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.control.v1.consent_pb2 as pb
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId
from node.cli.client import connected
from node.security.methods import PURPOSE_HEADER
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.control.v1 import consent_pb2_grpc
from tests.services.command import fenhe
from tests.services.people import Person, put_request
from tests.services.region import Region, nodes
from tests.services.waiting import until

ALL = nodes("1410", "141002", "141002100", "141002100200")
CITY, COUNTY, TOWNSHIP, VILLAGE = ALL
ROOT: Final = Path(__file__).parents[2]
WHO: Final = Person(8100, VILLAGE)
EVERYTHING: Final = {"resident", "timeline"}
NOTHING: Final[set[str]] = set()


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A village and a township that are linked, and somebody of the village."""
    with Region(tmp_path_factory.mktemp("consent") / "region", ALL, "sqlite") as region:
        region.start(TOWNSHIP, VILLAGE)
        region.linked(VILLAGE)
        region.put(VILLAGE, put_request("consent-who", WHO))
        until("the township knows him", lambda: _shown(region, TOWNSHIP) == EVERYTHING)
        yield region


def _shown(region: Region, node: NodeId, purpose: str = "", kind: str = "client") -> frozenset[str]:
    """Which readers show him to a clinic's system, for a purpose."""
    metadata = ((PURPOSE_HEADER, purpose),) if purpose else ()
    his = care.TimelineRequest(resident_id=WHO.resident_id)
    with connected(region.credentials(kind, node)) as channel:
        records = care_pb2_grpc.RecordServiceStub(channel)
        page = records.Timeline(his, metadata=metadata, timeout=30)
        timeline = {"timeline"} if page.records else set()
        get = channel.unary_unary(
            "/fenhe.empi.v1.ResidentService/Get",
            request_serializer=empi.GetResidentRequest.SerializeToString,
            response_deserializer=empi.Resident.FromString,
        )
        request = empi.GetResidentRequest(resident_id=WHO.resident_id)
        try:
            get(request, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return frozenset(timeline)
    return frozenset({"resident", *timeline})


def _command(region: Region, node: NodeId, *words: str, code: int = 0) -> Any:
    folder = region.place.credentials_dir(f"client-{node}")
    done = fenhe(*words, "--as", str(folder), "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_a_consent_is_obeyed_at_home_at_once_and_above_when_it_has_come(region: Region) -> None:
    """Written, listed and revoked by the command; a node that is not his home refuses."""
    said = _command(region, VILLAGE, "consent", "add", WHO.resident_id, "deny", "--note", "paper 7")
    assert _shown(region, VILLAGE) == NOTHING
    until("the township obeys", lambda: _shown(region, TOWNSHIP) == NOTHING)
    (listed,) = _command(region, TOWNSHIP, "consent", "list", WHO.resident_id)
    assert (listed["consent_id"], listed["note"]) == (said["consent_id"], "paper 7")

    words = ("consent", "revoke", said["consent_id"])
    assert f"CONSENT_NOT_AT_HOME: the resident's home is {VILLAGE}" in _command(
        region, TOWNSHIP, *words, code=1
    )
    assert _command(region, VILLAGE, *words)["revoked_at"]
    assert _shown(region, VILLAGE) == EVERYTHING
    until("the township shows him", lambda: _shown(region, TOWNSHIP) == EVERYTHING)


def test_a_consent_binds_the_purpose_that_is_stated(region: Region) -> None:
    """Forbidden for public health, and for nothing else; another purpose has no such method."""
    said = _command(
        region, VILLAGE, "consent", "add", WHO.resident_id, "deny", "--purpose", "public_health"
    )
    assert _shown(region, VILLAGE) == EVERYTHING
    assert _shown(region, VILLAGE, "public_health") == NOTHING
    with pytest.raises(grpc.RpcError) as raised:
        _shown(region, VILLAGE, "curiosity")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "curiosity" not in str(raised.value.details())
    _command(region, VILLAGE, "consent", "revoke", said["consent_id"])


def test_a_certificate_breaks_no_glass(region: Region) -> None:
    """Neither a clinic's system nor an operator: somebody has to answer for it."""
    request = pb.BreakGlassRequest(
        request_id="b", resident_id=WHO.resident_id, reason="unconscious"
    )
    for kind in ("client", "operator"):
        with connected(region.credentials(kind, VILLAGE)) as channel:
            stub = consent_pb2_grpc.AccessServiceStub(channel)
            with pytest.raises(grpc.RpcError) as raised:
                stub.BreakGlass(request, timeout=30)
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
