"""Refused calls in the audit: each kind of refusal at once, its repetitions once a minute.

Whoever is refused asks again, a program in a loop ten thousand times a second. So a refusal is told
apart by who was refused what and why; the first of a minute is written within a second, what comes
again is counted and written as one entry when the minute is over. More kinds than `KINDS_MAX` a
minute are one entry together. What was counted and not written is lost by a crash: the first was
written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.model import NodeId
from node.auditing.ground import AuditGround
from node.logs import get_logger
from node.security.caller import Caller, CallerKind
from node.security.identity import PeerIdentity
from node.storage.audit import Action, Deed, Outcome

__all__ = ["ENTRIES_A_MINUTE_MAX", "KINDS_MAX", "Denials", "Denied"]

KINDS_MAX: Final = 256
ENTRIES_A_MINUTE_MAX: Final = 2 * (KINDS_MAX + 1)
_MINUTE_MS: Final = 60_000
_TICK_S: Final = 1.0
_OBJECT: Final = "method"
_METHOD_MAX: Final = 64
_NOBODY: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Denied:
    """A kind of refusal. `principal` and `node_id` are empty for whoever proved nothing."""

    principal: str
    kind: str
    node_id: str
    method: str
    code: str


_OTHERS: Final = Denied("", "", "", "", "more than are told apart")


@dataclass(slots=True)
class _Kind:
    waiting: int = 0
    since_ms: int | None = None
    """When the first of this minute was written."""


class Denials:
    """`note` belongs to the event loop, as `run` does, and costs it nothing."""

    def __init__(self, ground: AuditGround, has_room: Callable[[], bool]) -> None:
        """`has_room`: whether an entry may take the room that is kept for the audit."""
        self._g = ground
        self._has_room = has_room
        self._kinds: dict[Denied, _Kind] = {}
        self._failed = False
        self._log = get_logger("audit")

    def note(self, caller: Caller | PeerIdentity | None, method: str, code: str) -> None:
        """A call was refused; `caller` None: nobody knows who made it."""
        named = method.removeprefix("/").removeprefix("fenhe.")[:_METHOD_MAX]
        denied = Denied("", "", "", named, code)
        if caller is not None:
            denied = Denied(caller.principal, caller.kind.value, caller.node_id, named, code)
        if denied not in self._kinds and len(self._kinds) >= KINDS_MAX:
            denied = _OTHERS
        self._kinds.setdefault(denied, _Kind()).waiting += 1

    async def run(self) -> None:
        """Write what is due, every second, until cancelled; then what is left."""
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                await self._g.blocking(self.write_due, self.taken())
        except asyncio.CancelledError:
            self.write_due(self.taken(everything=True))
            raise

    def taken(self, *, everything: bool = False) -> dict[Denied, int]:
        """What is to be written now, which waits no more; how often it was."""
        now_ms = self._g.clock.monotonic_ms()
        due: dict[Denied, int] = {}
        for denied, kind in list(self._kinds.items()):
            is_over = kind.since_ms is None or now_ms - kind.since_ms >= _MINUTE_MS
            if not is_over and not everything:
                continue
            if kind.waiting:
                due[denied] = kind.waiting
                self._kinds[denied] = _Kind(0, now_ms)
            else:
                del self._kinds[denied]
        return due

    def write_due(self, due: dict[Denied, int]) -> None:
        """One entry each, in one transaction; blocks. What cannot be written is said in the log."""
        if not due:
            return
        try:
            if not self._has_room():
                self._say("no room is left on the disk", sum(due.values()))
                return
            self._g.transactions.write(lambda connection: self._entries(connection, due))
            self._failed = False
        except SQLAlchemyError as error:
            self._say(type(error).__name__, sum(due.values()))

    def _entries(self, connection: Connection, due: dict[Denied, int]) -> None:
        for denied, count in due.items():
            deed = Deed(Action.DENY, _OBJECT, Outcome.REFUSED, count, denied.method or None)
            self._g.auditor.write(connection, _as_caller(denied), deed)

    def _say(self, reason: str, count: int) -> None:
        if not self._failed:
            self._failed = True
            self._log.warning("refused calls are not in the audit", reason=reason, calls=count)


def _as_caller(denied: Denied) -> Caller:
    """Who was refused, as the audit names him; his purpose is the reason why not."""
    kind = CallerKind(denied.kind) if denied.kind else CallerKind.NODE
    principal = denied.principal or _NOBODY
    return Caller(kind, principal, NodeId(denied.node_id or _NOBODY), denied.code, frozenset())
