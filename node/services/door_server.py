"""The second server of a node that has children: the side door, and nothing else on it.

Its guard knows no callers: it lets the door's own methods through and turns errors into statuses as
everywhere. A door that cannot open is no reason not to serve care: unless node.yaml names its
address, the node runs without one and says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from node.errors import DeniedError, PortInUseError, SettingsError
from node.foundations import Foundations
from node.guards import bound_port_is_free
from node.joining.room import JoiningRoom
from node.logs import get_logger
from node.security.door_tls import door_credentials, door_options, make_door_certificate
from node.security.methods import DOOR_METHODS
from node.services.interceptor import GuardInterceptor, Shown
from node.services.joining import DoorServicer
from protos.fenhe.node.v1 import joining_pb2_grpc

__all__ = ["open_side_door"]

_CALLS_MAX: Final = 32


class DoorGuard(GuardInterceptor):
    """Errors as everywhere; callers are nobody, and only the door's methods are open to nobody."""

    async def _enter(
        self, method: str, context: grpc.aio.ServicerContext[Any, Any], shown: Shown
    ) -> None:
        if method not in DOOR_METHODS:
            raise DeniedError(f"{method} is not at the door")


async def open_side_door(
    base: Foundations,
    room: JoiningRoom,
    address: str,
    *,
    incident: Callable[[], str],
    count: Callable[[str, str], None],
) -> Callable[[float], Awaitable[None]] | None:
    """Open the door if this node is to have one; returns what closes it, None if it is closed.

    Args:
        base: Settings say whether and where.
        room: Is told where the door is, or why it is closed.
        address: Where the node itself serves.
        incident: Makes reference numbers of unexpected errors.
        count: Feeds the metrics with method and code.

    Raises:
        PortInUseError, SettingsError: node.yaml names an address that is not free, or not here.
    """
    listen = base.door_listen(address)
    if not listen:
        room.closed_because = base.door_closed_because
        return None
    try:
        if not listen.endswith(":0"):
            bound_port_is_free(listen)
    except (PortInUseError, SettingsError) as error:
        if base.settings.door_listen is not None:
            raise
        room.closed_because = error.message
        get_logger("door").warning(
            "the door is closed", reason=error.message, hint="Set door_listen in node.yaml."
        )
        return None
    made = make_door_certificate()
    guard = DoorGuard(base.node_id, base.hierarchy, incident, count)
    server = grpc.aio.server(
        interceptors=(guard,), options=door_options(), maximum_concurrent_rpcs=_CALLS_MAX
    )
    joining_pb2_grpc.add_DoorServiceServicer_to_server(
        DoorServicer(room.make_door(made.certificate)), server
    )
    port = server.add_secure_port(listen, door_credentials(made))
    await server.start()
    room.door_address = f"{listen.rpartition(':')[0]}:{port}"
    return server.stop
