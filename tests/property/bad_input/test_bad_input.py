"""Thirty thousand bad inputs at a running node: every method refuses them in its own words.

None ends as INTERNAL or UNKNOWN, none is answered with what it said of a patient, nothing of it
reaches the log, and the node serves afterwards as before.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from hierarchy_config import NodeId
from node.foundations import utc_now
from node.security.caller import CallerKind
from node.security.credentials import issue_credentials, load_credentials
from node.security.folders import NodeFolder
from node.security.methods import METHODS, rule_for
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings
from protos.fenhe.replication.v1 import replication_pb2
from tests.property.bad_input.generator import MARKER, BadInputs
from tests.services.region import Region, nodes
from tests.services.waiting import CLOCK

CITY, COUNTY = NODES = nodes("1410", "141002")
INPUTS: Final = 31_000
AT_ONCE: Final = 24
CALL_S: Final = 20.0
STREAM_S: Final = 0.05
"""A stream that the input does not end is left by its caller."""

FILES: Final = (
    "protos.fenhe.care.v1.care_pb2",
    "protos.fenhe.empi.v1.empi_pb2",
    "protos.fenhe.empi.v1.residence_pb2",
    "protos.fenhe.federation.v1.federation_pb2",
    "protos.fenhe.replication.v1.replication_pb2",
    "grpc_health.v1.health_pb2",
    "grpc_reflection.v1alpha.reflection_pb2",
)
WITHOUT_END: Final = {"/grpc.health.v1.Health/Watch"}
FAULTS: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
# Each costs its share of a second (64 MiB of memory, a look at everything), and its request has
# next to nothing in it: a few are as good as many.
DEAR: Final = {
    "/fenhe.node.v1.InvitationService/CreateInvitation": 10,
    "/fenhe.node.v1.DoctorService/Examine": 60,
    "/fenhe.node.v1.DoctorService/FindCanaries": 60,
}


def _methods() -> dict[str, MethodDescriptor]:
    found: dict[str, MethodDescriptor] = {}
    services = {method.split("/")[1] for method in METHODS}
    ours = [f"protos.{name.rpartition('.')[0]}" for name in services if name.startswith("fenhe.")]
    packages = {importlib.import_module(name) for name in ours}
    modules = {name for package in packages for name in _files_of(package.__name__)}
    for name in sorted({*FILES, *modules}):
        for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found[f"/{service.full_name}/{method.name}"] = method
    return {name: found[name] for name in sorted(METHODS)}


def _files_of(package: str) -> list[str]:
    from pathlib import Path

    folder = Path(*package.split("."))
    return [f"{package}.{path.stem}" for path in sorted(folder.glob("*_pb2.py"))]


ALL: Final = _methods()
A_METHOD: Final = -(-INPUTS // (len(ALL) - len(DEAR)))


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """The region's root runs, with limits that a flood of tests does not meet."""
    with Region(tmp_path_factory.mktemp("bad") / "region", NODES) as region:
        profile = region.place.node_dir(CITY) / "profile.yaml"
        text = profile.read_text(encoding="utf-8")
        kept = [line for line in text.splitlines() if not line.startswith(("calls_", "lookups_"))]
        limits = ["calls_per_s: 1000000", "calls_at_once: 1024", "lookups_per_minute: 100000"]
        profile.write_text("\n".join([*kept, *limits, ""]), encoding="utf-8")
        region.start(CITY)
        yield region


def _channel(region: Region, kind: CallerKind) -> grpc.aio.Channel:
    """A channel of a caller of that kind, with room for messages that are too large."""
    place = region.place
    server_name = place.hierarchy.dns_name(CITY)
    address = place.address(CITY)
    if kind is CallerKind.NODE:
        files = NodeFolder(place.node_dir(COUNTY)).tls
    else:
        folder = place.root / "callers" / kind.value
        if not folder.exists():
            issue_credentials(
                place.node_dir(CITY),
                kind,
                "0123456789abcdef",
                folder,
                address=address,
                server_name=server_name,
                now=utc_now(CLOCK),
                lifetime=timedelta(days=1),
            )
        files = load_credentials(folder).tls
    limits = GrpcLimits(message_bytes_max=64 << 20)
    options = channel_options(server_name, limits)
    return grpc.aio.secure_channel(address, channel_credentials(files), options=options)


def _caller(method: str) -> CallerKind:
    """Somebody who may call it, so that the input reaches the handler."""
    rule = rule_for(method)
    assert rule is not None
    return next(kind for kind in sorted(CallerKind, key=_first_operators) if kind in rule.kinds)


def _first_operators(kind: CallerKind) -> int:
    return 0 if kind is CallerKind.OPERATOR else 1


async def _sent(
    channel: grpc.aio.Channel, method: MethodDescriptor, name: str, data: bytes
) -> grpc.aio.AioRpcError | None:
    """Send one input; the error it ends with, if it ends with one."""
    seconds = STREAM_S if name in WITHOUT_END else CALL_S
    # Without serializers a message is its bytes, whatever the stubs think.
    untyped: Any = channel
    try:
        if method.client_streaming and method.server_streaming:
            async for _ in untyped.stream_stream(name)(iter([data]), timeout=seconds):
                pass
        elif method.client_streaming:
            await untyped.stream_unary(name)(iter([data]), timeout=seconds)
        elif method.server_streaming:
            async for _ in untyped.unary_stream(name)(data, timeout=seconds):
                pass
        else:
            await untyped.unary_unary(name)(data, timeout=seconds)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def _fault_of(error: grpc.aio.AioRpcError | None) -> str:
    """What is wrong with how a call ended; "" if it ended as it should."""
    if error is None:
        return ""
    trailing = b" ".join(
        value if isinstance(value, bytes) else value.encode()
        for _, value in error.trailing_metadata() or ()
    )
    said = (error.details() or "").encode() + b" " + trailing
    # The last is what this side's own gRPC says of a stream that ended while it was being opened.
    if error.code() in FAULTS and error.details() != "Internal error from Core":
        return f"{error.code()}: {error.details()}"
    return f"it says {said!r}" if MARKER.encode() in said else ""


async def _all(region: Region, name: str, count: int) -> tuple[Counter[str], list[str]]:
    """Send so many inputs; how often each status came, and what was wrong."""
    method = ALL[name]
    others: list[Descriptor] = [each.input_type for each in ALL.values()]
    inputs = iter(BadInputs(method.input_type, others, f"{name}/1"))
    statuses: Counter[str] = Counter()
    faults: list[str] = []
    async with _channel(region, _caller(name)) as channel:

        async def work(some: list[bytes]) -> None:
            for data in some:
                error = await _sent(channel, method, name, data)
                statuses["OK" if error is None else error.code().name] += 1
                if fault := _fault_of(error):
                    faults.append(f"{data[:300]!r}: {fault}")

        made = list(islice(inputs, count))
        await asyncio.gather(*(work(made[start::AT_ONCE]) for start in range(AT_ONCE)))
    return statuses, faults


@pytest.mark.parametrize("name", sorted(ALL))
async def test_bad_input_is_refused_in_the_methods_own_words(region: Region, name: str) -> None:
    """A thousand inputs each: a status of the catalogue, and no word about a patient."""
    count = DEAR.get(name, A_METHOD)
    statuses, faults = await _all(region, name, count)
    assert faults[:3] == []
    assert sum(statuses.values()) == count
    assert set(statuses) - {"DEADLINE_EXCEEDED"} or name in WITHOUT_END, statuses


def test_every_input_counts() -> None:
    """Thirty thousand at least, and every method of the table has its part."""
    sent = sum(DEAR.get(name, A_METHOD) for name in ALL)
    assert sent >= 30_000
    assert ALL.keys() == METHODS.keys()


def test_the_same_seed_makes_the_same_inputs() -> None:
    """So that what is found can be found again."""
    kind = replication_pb2.Frame.DESCRIPTOR
    assert [list(islice(BadInputs(kind, [kind], "seed"), 200)) for _ in range(2)] == [
        list(islice(BadInputs(kind, [kind], "seed"), 200))
    ] * 2


def test_the_node_goes_on_and_its_log_says_nothing(region: Region) -> None:
    """After all of them it answers; its log has no unexpected error and no word of a patient."""
    assert region.fleet.status(CITY).node_id == CITY
    folder = region.place.node_dir(CITY)
    log = (folder / "node.log").read_text(encoding="utf-8")
    log += (folder / "stderr.log").read_text(encoding="utf-8")
    assert MARKER not in log
    assert "unexpected error" not in log
    assert load_settings(folder).node_id == NodeId(CITY)
