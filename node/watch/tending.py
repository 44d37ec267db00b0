"""What waits in the quarantine is tried again when its time has come, or asked for again.

A question `quarantine.resend` over the link asks the neighbour for the current version of a row; he
sends it through the lane like any other change. Each end answers for what is the other's alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.aside import ITEM_FAULTS, is_passing
from node.clock import Clock
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.security.caller import Caller
from node.storage import Storage
from node.storage.causes import retry_at
from node.storage.release import WAITING
from node.storage.resend import Wanted
from replication.changelog import QuarantinedItem
from replication.core.config import PeerRole
from replication.core.model import Form, Request
from replication.errors import RemoteProtocolError

__all__ = ["RESEND_METHOD", "QuarantineKeeper"]

RESEND_METHOD: Final = "quarantine.resend"
TEND_S: Final = 20.0
ASK_MS: Final = 15_000
DELETE_MS: Final = 3_600_000
_ITEMS_A_TIME: Final = 100
_ITEM: Final = "quarantine"


class QuarantineKeeper:
    """Tends the quarantine in the background, and asks neighbours on an operator's behalf."""

    def __init__(
        self,
        node_id: NodeId,
        hierarchy: Hierarchy,
        storage: Storage,
        hub: LinkHub,
        *,
        threads: Executor,
        clock: Clock,
        notify: Callable[[], None],
    ) -> None:
        """`notify` is called when rows were let out or logged again: the log has grown."""
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._storage = storage
        self._hub = hub
        self._threads = threads
        self._clock = clock
        self._notify = notify
        self._log = get_logger("quarantine")
        self._delete_at_ms = clock.monotonic_ms()

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of neighbours that are answered here, from above and from below."""
        return {RESEND_METHOD: self._answer}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TEND_S)
            await self._blocking(self.tend)

    def tend(self) -> int:
        """Close what is superseded, try again what is due; how many were closed. Blocks.

        Once an hour what was closed long ago is deleted.
        """
        desk, closed, after = self._storage.desk, 0, 0
        while True:
            some, after = desk.close_superseded(after, _ITEMS_A_TIME)
            closed += some
            if not after:
                break
        now_ms = self._clock.now_ms()
        tried: set[int] = set()
        while due := [each for each in desk.due(now_ms, _ITEMS_A_TIME) if each not in tried]:
            tried.update(due)
            closed += sum(self._retried(item_id) for item_id in due)
        self._forget_closed()
        self._delete_closed()
        if closed:
            self._log.info("let out of the quarantine", changes=closed)
            self._notify()
        return closed

    def _retried(self, item_id: int) -> bool:
        """Judge one item again; whether it left. One that cannot be judged holds no other back."""
        aside = self._storage.context.aside
        try:
            released = self._storage.desk.retry(item_id)
        except ITEM_FAULTS as error:
            if not is_passing(error):
                aside.add(_ITEM, str(item_id), error)
            self._put_off(item_id)
            return False
        aside.clear(_ITEM, str(item_id))
        return released.outcome != WAITING

    def _put_off(self, item_id: int) -> None:
        """Try an item again as late as after any other attempt in vain."""
        context = self._storage.context

        def work(connection: Connection) -> None:
            item = context.quarantine.item(connection, item_id)
            if item is not None:
                now_ms = self._clock.now_ms()
                context.quarantine.postpone(
                    connection,
                    item_id,
                    cause=item.cause,
                    now_ms=now_ms,
                    retry_at_ms=retry_at(item.cause, item.attempts + 1, now_ms),
                )

        context.transactions.write(work)

    def _forget_closed(self) -> None:
        """Items that were set aside and have left another way stand aside no more."""
        context = self._storage.context
        for key in context.aside.keys(_ITEM, _ITEMS_A_TIME):
            item = context.transactions.read(
                lambda connection, key=key: context.quarantine.item(connection, int(key))  # type: ignore[misc]
            )
            if item is None or item.closed_as:
                context.aside.clear(_ITEM, key)
            else:
                context.aside.again(_ITEM, key)

    def _delete_closed(self) -> None:
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._delete_at_ms:
            return
        while self._storage.desk.forget_closed(_ITEMS_A_TIME):
            pass
        self._delete_at_ms = now_ms + DELETE_MS

    async def ask(self, caller: Caller, item_id: int) -> tuple[str, int]:
        """Ask the neighbour an item came from to send it again; who, and how many rows he sends.

        Raises:
            QuarantineItemError: There is none of that number, or it is closed.
            AskError: He is not linked, does not answer in time, or has nothing for this node.
        """
        item = await self._blocking(self._storage.desk.note_asked, caller, item_id)
        answer = await self._hub.ask(
            NodeId(item.peer), RESEND_METHOD, _question(item), remaining_ms=ASK_MS
        )
        return item.peer, int(json.loads(answer)["rows"])

    async def _answer(self, peer: NodeId, request: Request) -> bytes:
        wanted = _wanted(request.body)
        is_parent = self._hierarchy.parent(self._node_id) == peer
        role = PeerRole.PARENT if is_parent else PeerRole.CHILD
        rows = await self._blocking(self._storage.resender.resend, peer, role, wanted)
        self._notify()
        return json.dumps({"rows": rows}).encode()

    async def _blocking(self, work: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _question(item: QuarantinedItem) -> bytes:
    if item.whole_entry:
        wanted = Wanted(
            "",
            "",
            item.home_node,
            item.form,
            item.origin_node,
            item.origin_epoch,
            item.origin_sequence,
        )
    else:
        wanted = Wanted(item.table, item.row_id, item.home_node, item.form)
    return json.dumps(asdict(wanted)).encode()


def _wanted(body: bytes) -> Wanted:
    """What a neighbour asks for.

    Raises:
        RemoteProtocolError: The question is not one of this protocol.
    """
    try:
        said = json.loads(body)
        return Wanted(
            str(said["table"]),
            str(said["row_id"]),
            str(said["home_node"]),
            Form(said["form"]),
            str(said["origin_node"]),
            int(said["origin_epoch"]),
            int(said["origin_sequence"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RemoteProtocolError("a question for a row is not of this protocol") from error
