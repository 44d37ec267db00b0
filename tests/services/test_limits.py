"""A caller gone wild: refused with the time to wait, replication untouched, recovered at once."""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Final

import grpc
import pytest

import protos.fenhe.empi.v1.empi_pb2 as empi
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings, save_settings
from protos.fenhe.empi.v1 import empi_pb2_grpc
from tests.services.people import Person, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.waiting import CLOCK, until

COUNTY, TOWNSHIP, VILLAGE = NODES = nodes("141002", "141002100", "141002100200")
FLOOD: Final = 1_500
AT_ONCE: Final = 120
RECOVERY_S: Final = 10
PLACES: Final = 8
LOOKUPS: Final = 5


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """County, township, village; the village has few places and few lookups."""
    with Region(tmp_path_factory.mktemp("limits") / "region", NODES) as region:
        folder = region.place.node_dir(VILLAGE)
        profile = folder / "profile.yaml"
        kept = [
            line
            for line in profile.read_text(encoding="utf-8").splitlines()
            if not line.startswith(("calls_", "lookups_"))
        ]
        limits = [f"calls_at_once: {PLACES}", "calls_per_s: 100", f"lookups_per_minute: {LOOKUPS}"]
        profile.write_text("\n".join([*kept, *limits, ""]), encoding="utf-8")
        changes = {"metrics_listen": region.place.address(COUNTY)}  # it does not run
        save_settings(folder, load_settings(folder).model_copy(update=changes))
        region.start(TOWNSHIP, VILLAGE)
        region.linked(VILLAGE)
        yield region


def metrics(region: Region) -> str:
    """What the village tells Prometheus."""
    address = load_settings(region.place.node_dir(VILLAGE)).metrics_listen
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=CALL_S) as answer:
        return str(answer.read().decode())


async def _flood(region: Region, resident_id: str) -> tuple[Counter[str], list[int]]:
    """Reads without a pause from one caller; what they ended with, and the waits told."""
    who = region.credentials("client", VILLAGE)
    codes: Counter[str] = Counter()
    waits: list[int] = []
    options = channel_options(who.server_name, GrpcLimits())
    async with grpc.aio.secure_channel(
        who.address, channel_credentials(who.tls), options=options
    ) as channel:
        stub = empi_pb2_grpc.ResidentServiceStub(channel)

        async def work(count: int) -> None:
            for _ in range(count):
                try:
                    await stub.Get(empi.GetResidentRequest(resident_id=resident_id), timeout=CALL_S)
                    codes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    trailing = dict(error.trailing_metadata() or ())
                    codes[str(trailing.get("fenhe-code", error.code().name))] += 1
                    waits.append(int(str(trailing.get("grpc-retry-pushback-ms", -1))))

        await asyncio.gather(*(work(FLOOD // AT_ONCE) for _ in range(AT_ONCE)))
    return codes, waits


async def test_a_flood_is_refused_and_the_link_goes_on(region: Region) -> None:
    """Most calls are refused at once and say when; rows written meanwhile reach the township."""
    person = Person(71, VILLAGE)
    region.put(VILLAGE, put_request("limits-1", person))
    before = region.rows(TOWNSHIP).get("residents", 0)
    flood = asyncio.create_task(_flood(region, person.resident_id))
    # Another caller, who asks as people do, is served in between.
    await asyncio.to_thread(
        until, "another caller is served", lambda: _put(region, "limits-2", Person(72, VILLAGE))
    )
    codes, waits = await flood

    assert set(codes) <= {"OK", "TOO_MANY_CALLS", "RATE_LIMITED", "OVERLOADED"}
    assert codes["OK"] >= 1
    assert codes["TOO_MANY_CALLS"] + codes["RATE_LIMITED"] > FLOOD // 4
    assert all(0 < wait <= 60_000 for wait in waits)
    until("it is above", lambda: region.rows(TOWNSHIP).get("residents", 0) > before)
    assert region.fleet.is_connected(VILLAGE)

    began = CLOCK.monotonic_ms()
    until("the caller is served again", lambda: _served(region, person), RECOVERY_S)
    assert CLOCK.monotonic_ms() - began < RECOVERY_S * 1000
    said = metrics(region)
    assert "fenhe_calls_refused_total{code=" in said
    assert 'fenhe_calls_under_way{pool="neighbours"}' in said


def _put(region: Region, request_id: str, person: Person) -> bool:
    try:
        region.put(VILLAGE, put_request(request_id, person))
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


def _served(region: Region, person: Person) -> bool:
    try:
        asked = empi.GetResidentRequest(resident_id=person.resident_id)
        found = region.residents(VILLAGE, "Get", asked, "client")
    except grpc.RpcError:
        return False
    return bool(found.name == person.name)


def test_numbers_cannot_be_tried_one_after_the_other(region: Region) -> None:
    """After five in a row the sixth waits, whether it is somebody's or not."""
    with region.open_channel(VILLAGE, "operator") as channel:
        stub = empi_pb2_grpc.ResidentServiceStub(channel)
        said: list[str] = []
        wanted = [Person(71 + number, VILLAGE).identity_number for number in range(LOOKUPS + 3)]
        for number in wanted:
            identifier = empi.Identifier(system="identity_number", value=number)
            asked = empi.FindResidentRequest(identifier=identifier)
            try:
                stub.Find(asked, timeout=CALL_S)
            except grpc.RpcError as error:
                said.append(str(error))
    assert len(said) >= 2
    assert all("LOOKUPS_LIMITED" in each for each in said)
    assert not any(number in each for number in wanted for each in said)
