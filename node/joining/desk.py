"""The operator's side: inviting a child, and what is to be told to its clinic. Blocks."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hierarchy_config.directory import split_endpoint
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId
from node.clock import Clock, RandomBytes
from node.errors import InvalidRequestError
from node.joining.answer import NEW_PSEUDONYM
from node.joining.code import new_code
from node.joining.errors import InviteNotChildError
from node.joining.invitations import Invitation, Invitations, NewInvitation
from node.joining.proof import SALT_BYTES, STRETCH, stretch
from node.security.caller import Caller
from node.security.certificates import certificate_hash, certificates_from_pem

__all__ = ["DeskGround", "InviteDesk", "Invited", "Wanted"]

_SAID_MS: Final = 10 * 60_000
_SAID_MAX: Final = 64
_MINUTES: Final = 24 * 60
_MINUTES_MAX: Final = 7 * 24 * 60
_HOST: Final = re.compile(r"[A-Za-z0-9_.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an operator asks for. `minutes` 0: a day; `address` empty: as this node knows it."""

    node_id: NodeId
    minutes: int = 0
    address: str = ""
    pseudonym_from: str = ""
    new_pseudonym_key: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Invited:
    """What is shown once. `door` has no host if this node does not know how it is reached."""

    code: str = field(repr=False)
    invitation: Invitation
    door: str
    root_digest: str
    known_before: bool
    replaced: bool


@dataclass(frozen=True, slots=True)
class DeskGround:
    """What the desk stands on.

    `door`: host:port of the open door; raises DoorClosedError if there is none. `address`: what
    children are told to dial, host:port or :port. `is_known`: if a child was linked here before.
    """

    node_id: NodeId
    hierarchy: Hierarchy
    root_pem: bytes
    door: Callable[[], str]
    address: Callable[[], str]
    is_known: Callable[[NodeId], bool]


class InviteDesk:
    """Creates, lists and withdraws."""

    def __init__(
        self,
        ground: DeskGround,
        invitations: Invitations,
        random_bytes: RandomBytes,
        clock: Clock,
    ) -> None:
        """Answers are kept for a while in memory, for callers whose line broke; nowhere else."""
        self._ground = ground
        self._invitations = invitations
        self._random_bytes = random_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._said: OrderedDict[tuple[str, Wanted], tuple[int, Invited]] = OrderedDict()

    def invite(self, caller: Caller, wanted: Wanted) -> Invited:
        """Make a code; the same request within ten minutes gets the one that was made.

        Takes as long as stretching it, about half a second; one after the other.

        Raises:
            InviteNotChildError: The node is not directly below this one.
            DoorClosedError: Nobody could use the code.
            InvalidRequestError: A value is out of its range, or a county's key is not decided on.
        """
        with self._lock:
            now_ms = self._clock.monotonic_ms()
            while self._said and (
                len(self._said) >= _SAID_MAX or next(iter(self._said.values()))[0] <= now_ms
            ):
                self._said.popitem(last=False)
            asked = (caller.principal, wanted)
            if asked in self._said:
                return self._said[asked][1]
            made = self._made(caller, wanted)
            if wanted.request_id:
                self._said[asked] = (now_ms + _SAID_MS, made)
            return made

    def _made(self, caller: Caller, wanted: Wanted) -> Invited:
        """An invitation that is new."""
        ground, child = self._ground, wanted.node_id
        if child not in ground.hierarchy or ground.hierarchy.parent(child) != ground.node_id:
            raise InviteNotChildError(f"{child} is not directly below {ground.node_id}")
        door = ground.door()
        if wanted.minutes > _MINUTES_MAX:
            raise InvalidRequestError(f"minutes: at most {_MINUTES_MAX}, seven days")
        known = ground.is_known(child)
        pseudonym = self._pseudonym(wanted, known=known)
        address = self._address(wanted.address)
        code, salt = new_code(child, self._random_bytes), self._random_bytes(SALT_BYTES)
        new = NewInvitation(
            code,
            stretch(code, salt, STRETCH),
            salt,
            STRETCH,
            (wanted.minutes or _MINUTES) * 60_000,
            address,
            pseudonym,
        )
        made, replaced = self._invitations.create(caller, new)
        host, _, _ = (address or ground.address()).rpartition(":")
        return Invited(
            code.spoken,
            made,
            f"{host}:{split_endpoint(door)[1]}",
            certificate_hash(certificates_from_pem(ground.root_pem)[0]),
            known,
            replaced,
        )

    def withdraw(self, caller: Caller, node_id: NodeId) -> bool:
        """Take an open invitation back; False if there is none."""
        with self._lock:
            for asked in [each for each in self._said if each[1].node_id == node_id]:
                del self._said[asked]
            return self._invitations.withdraw(caller, node_id)

    def page(self, after: str, limit: int) -> list[Invitation]:
        """Invitations, newest first."""
        return self._invitations.page(after, limit)

    def told_address(self, invitation: Invitation) -> str:
        """What the child of an invitation is told to dial."""
        return invitation.address or self._ground.address()

    def _address(self, said: str) -> str:
        """host:port from outside; a host alone gets this node's port; empty stays empty."""
        if not said:
            return ""
        host, colon, port = said.rpartition(":")
        if not colon or said.endswith("]"):
            host, port = said, self._ground.address().rpartition(":")[2]
        is_port = port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX
        if not _HOST.fullmatch(host) or not is_port:
            raise InvalidRequestError("address: host:port, as the child reaches this node")
        return f"{host}:{port}"

    def _pseudonym(self, wanted: Wanted, *, known: bool) -> str:
        """Where a county's pseudonym key comes from: a county's code, "new", or empty."""
        hierarchy, here, child = self._ground.hierarchy, self._ground.node_id, wanted.node_id
        lender = wanted.pseudonym_from
        if hierarchy.entry(child).level is not CareLevel.COUNTY:
            if lender or wanted.new_pseudonym_key:
                raise InvalidRequestError(
                    f"{child} has no pseudonym key: only a county below a city has one"
                )
            return ""
        others = [each for each in _counties(hierarchy, here) if each != child]
        if lender and lender not in others:
            raise InvalidRequestError(f"pseudonym_from: {lender[:16]} is not another county here")
        if bool(lender) == wanted.new_pseudonym_key and (others or lender):
            raise InvalidRequestError(
                "all counties share one pseudonym key, and it is not said where this one's comes "
                "from",
                hint="If another county has joined already, name it: --pseudonym-from CODE. If "
                "this is the first: --new-pseudonym-key.",
            )
        if known and not lender:
            raise InvalidRequestError(
                f"{child} was linked here before: under a new pseudonym key its residents would "
                "be strangers to what this node holds of them",
                hint="Name another county with --pseudonym-from, or put its backup back.",
            )
        return lender or NEW_PSEUDONYM


def _counties(hierarchy: Hierarchy, city: NodeId) -> list[NodeId]:
    return [
        each for each in hierarchy.children(city) if hierarchy.entry(each).level is CareLevel.COUNTY
    ]
