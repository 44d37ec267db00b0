"""Bad inputs at the side door, which anybody can reach: its three methods refuse them as all do.

The door's own server and guard over a store of its own, with a clock that lets every knock in. Half
of what is said to Join and Renew is said in a conversation that the door has begun, so that it
is read further than its first line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import DecodeError

import protos.fenhe.node.v1.joining_pb2 as pb
from node.joining.proof import NONCE_BYTES
from node.security.door_tls import door_options
from node.security.methods import DOOR_METHODS
from node.services.door_server import DoorGuard
from node.services.joining import DoorServicer
from node.storage import EngineLimits, open_engine
from protos.fenhe.node.v1 import joining_pb2_grpc
from tests.contracts.joining.place import HIERARCHY, Place
from tests.property.bad_input.generator import MARKER, BadInputs
from tests.schema import migrated
from tests.unit.security.region import TOWNSHIP, VILLAGE

A_METHOD: Final = 250
FAULTS: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
BEGIN: Final = "/fenhe.node.v1.DoorService/Begin"
SERVICE: Final = pb.DESCRIPTOR.services_by_name["DoorService"]
ASKED: Final[dict[str, Any]] = {
    BEGIN: pb.BeginRequest,
    "/fenhe.node.v1.DoorService/Join": pb.JoinRequest,
    "/fenhe.node.v1.DoorService/Renew": pb.RenewRequest,
}


class Door:
    """A line to the door, and the clock behind it."""

    def __init__(self, place: Place, channel: grpc.aio.Channel) -> None:
        self._place = place
        self._channel: Any = channel
        self.incidents = 0

    async def sent(self, name: str, data: bytes) -> grpc.aio.AioRpcError | None:
        """Send one input; the error it ends with. Nobody has knocked for a while."""
        self._place.clock.ms += 10_000
        try:
            await self._channel.unary_unary(name)(data, timeout=20)
        except grpc.aio.AioRpcError as error:
            return error
        return None

    async def begun(self) -> bytes:
        """The nonce of a conversation that is open."""
        self._place.clock.ms += 10_000
        asked = pb.BeginRequest(node_id=VILLAGE, nonce=b"n" * NONCE_BYTES)
        said = await self._channel.unary_unary(BEGIN)(asked.SerializeToString(), timeout=20)
        return bytes(pb.BeginResponse.FromString(said).nonce)


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A township's, which has invited its village."""
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}", EngineLimits(connections=4))
    migrated(engine)
    place = Place(tmp_path, engine)
    place.invite()

    def incident() -> str:
        made.incidents += 1
        return "an incident"

    guard = DoorGuard(TOWNSHIP, HIERARCHY, incident, lambda _method, _code: None)
    server = grpc.aio.server(interceptors=(guard,), options=door_options())
    joining_pb2_grpc.add_DoorServiceServicer_to_server(DoorServicer(place.door), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        made = Door(place, channel)
        yield made
    await server.stop(None)
    place.threads.shutdown()
    engine.dispose()


def _in_conversation(asked: Any, data: bytes, nonce: bytes) -> bytes:
    """The same input, said by the village in an open conversation, if it can be read at all."""
    try:
        message = asked.FromString(data)
    except DecodeError:
        return data
    message.node_id, message.nonce = VILLAGE, nonce
    return bytes(message.SerializeToString())


@pytest.mark.parametrize("name", sorted(DOOR_METHODS))
async def test_the_door_refuses_bad_input_in_its_own_words(door: Door, name: str) -> None:
    """No incident, no status outside the catalogue, nothing repeated of what was said."""
    kinds = [each.input_type for each in SERVICE.methods]
    inputs = iter(BadInputs(ASKED[name].DESCRIPTOR, kinds, f"{name}/1"))
    statuses: Counter[str] = Counter()
    for number, data in enumerate(islice(inputs, A_METHOD)):
        said = data
        if name != BEGIN and number % 2:
            said = _in_conversation(ASKED[name], data, await door.begun())
        error = await door.sent(name, said)
        statuses["OK" if error is None else error.code().name] += 1
        if error is not None:
            assert error.code() not in FAULTS, (said[:300], error.details())
            told = (error.details() or "", *map(str, error.trailing_metadata() or ()))
            assert MARKER not in " ".join(told)
    assert sum(statuses.values()) == A_METHOD
    assert statuses["INVALID_ARGUMENT"], statuses
    assert door.incidents == 0
    assert await door.begun(), "the door has closed"


def test_every_method_of_the_door_has_its_inputs() -> None:
    """One that is new fails here."""
    assert ASKED.keys() == DOOR_METHODS
    assert {f"/{SERVICE.full_name}/{each.name}" for each in SERVICE.methods} == DOOR_METHODS
