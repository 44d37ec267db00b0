"""How often an address may knock, and which conversations are open. Knows no network.

Both are bounded: a door that anybody can reach must not be filled by anybody. Lives on one event
loop; time is a parameter.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from node.joining.errors import DoorBusyError
from node.joining.proof import StretchCost

__all__ = ["Conversations", "Knocks", "Opened", "address_of"]

KNOCKS_MAX: Final = 10
WINDOW_MS: Final = 60_000
OPEN_MS: Final = 120_000
_ADDRESSES_MAX: Final = 4096
_OPEN_MAX: Final = 1024
_IPV6_PREFIX: Final = 64


@lru_cache(maxsize=1024)
def address_of(peer: str) -> str:
    """Whom a knock counts for, from gRPC's name of a peer: an IPv4 address, or 64 bits of IPv6."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "elsewhere"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)


class Knocks:
    """At most ten in any minute from one address."""

    def __init__(self) -> None:
        self._at: OrderedDict[str, deque[int]] = OrderedDict()

    def count(self, address: str, now_ms: int) -> None:
        """Count one.

        Raises:
            DoorBusyError: It is one too many; it is not counted.
        """
        self._forget(now_ms)
        times = self._at.get(address)
        if times is None:
            if len(self._at) >= _ADDRESSES_MAX:
                raise DoorBusyError("the door is busy")
            times = self._at[address] = deque()
        while times and now_ms - times[0] >= WINDOW_MS:
            times.popleft()
        if len(times) >= KNOCKS_MAX:
            wait_s = 1 + (WINDOW_MS - (now_ms - times[0])) // 1000
            raise DoorBusyError(
                f"{KNOCKS_MAX} tries a minute are taken from one address; wait {wait_s} s"
            )
        times.append(now_ms)
        self._at.move_to_end(address)

    def _forget(self, now_ms: int) -> None:
        """Drop addresses that were last heard a minute ago: they stand first."""
        while self._at:
            address, times = next(iter(self._at.items()))
            if times and now_ms - times[-1] < WINDOW_MS:
                return
            del self._at[address]


@dataclass(frozen=True, slots=True)
class Opened:
    """What Begin said. `invitation_id` is empty where nobody is invited."""

    node_id: str
    child_nonce: bytes
    parent_nonce: bytes
    salt: bytes
    cost: StretchCost
    invitation_id: str


class Conversations:
    """Conversations that have begun, each good for one proof within two minutes."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, tuple[int, Opened]] = OrderedDict()

    def begin(self, opened: Opened, now_ms: int) -> None:
        """Remember one. Raises DoorBusyError: there are too many."""
        while self._open and next(iter(self._open.values()))[0] <= now_ms:
            self._open.popitem(last=False)
        if len(self._open) >= _OPEN_MAX:
            raise DoorBusyError("the door is busy")
        self._open[opened.parent_nonce] = (now_ms + OPEN_MS, opened)

    def take(self, node_id: str, parent_nonce: bytes, now_ms: int) -> Opened:
        """The conversation of a nonce, for the only time.

        Raises:
            DoorBusyError: It is not known: over, used, or of a life of the node before.
        """
        until_ms, opened = self._open.pop(parent_nonce, (0, None))
        if opened is None or until_ms <= now_ms or opened.node_id != node_id:
            raise DoorBusyError("the door does not know this conversation any more")
        return opened
