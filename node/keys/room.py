"""The room put together for one life of the node: what operators ask, what goes on by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.backup.making import BACKUP_LOCK
from node.clock import Clock
from node.errors import DataFolderInUseError
from node.foundations import Foundations, utc_now
from node.guards import folder_locked
from node.keys.errors import EscrowInvalidError, KeysBusyError
from node.keys.escrow import (
    Deposit,
    Deposits,
    EscrowMark,
    HeldEscrow,
    body_of,
    goes_to_parent,
    key_set_of,
    node_caller,
    parse_body,
)
from node.keys.keeper import KeyGround, KeyKeeper, KeyStanding, RotationLimits
from node.keys.node_key import find_node_key
from node.keys.recovery import Approved, Recoveries
from node.keys.service import service_of
from node.keys.work import ResealWork
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.opening import OpenStore
from node.security.caller import Caller, local_operator
from node.security.folders import NodeFolder
from node.security.sealing import unwrap_key
from node.storage.audit import Action, Deed, Outcome
from node.storage.data_keys import StoredKeys, wrapped_of
from node.transit.keys import FolderKeys, NodeVerifier
from replication.channel import AskError
from replication.core.model import Request

__all__ = ["EscrowStanding", "KeysRoom"]

T = TypeVar("T")

DEPOSIT: Final = "keys.escrow.deposit"
RECIPIENT: Final = "keys.escrow.recipient"
RECOVERED: Final = "keys.escrow.recovered"
_STEPS_A_SECOND: Final = 4
_TEND_S: Final = 60.0
_SCAN_EVERY: Final = 10
_ASK_MS: Final = 10_000
_ESCROW_S: Final = 5.0
_ASK_AGAIN_S: Final = 3600.0
_SAID_MS: Final = 10 * 60_000
_SAID_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class EscrowStanding:
    """Where this node's keys are deposited, and whose it holds. `parent` empty: nowhere, `why`."""

    parent: str
    why: str
    mark: EscrowMark | None
    is_whole: bool
    held: tuple[HeldEscrow, ...]


class KeysRoom:
    """`keeper` for operators, `handlers` and `child_handlers` for neighbours, `run` for itself."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        *,
        thread: Executor,
        clock: Clock,
        disk_is_full: Callable[[], bool],
    ) -> None:
        """`thread`: one of its own, which re-sealing may keep busy."""
        self._base = base
        self._hub = hub
        self._thread = thread
        self._clock = clock
        self._disk_is_full = disk_is_full
        self._log = get_logger("keys")
        self._told = ""
        self._asked = (float("-inf"), "")
        self._said: dict[tuple[str, ...], tuple[int, Any]] = {}
        context = store.storage.context
        self._context = context
        self._folder = NodeFolder(base.paths.data)
        self._stored = StoredKeys(store.engine, clock)
        self._service = service_of(base.settings.key_command)
        self.keeper = KeyKeeper(
            KeyGround(
                base.node_id,
                self._folder,
                store.keys,
                self._stored,
                context.transactions,
                context.auditor,
                clock,
                os.urandom,
                self._service,
            )
        )
        own = FolderKeys(self._folder.tls)
        verifier = NodeVerifier(
            self._folder.tls.root.read_bytes, base.hierarchy, lambda: utc_now(clock)
        )
        self._own = own
        self._deposit = Deposit(base.node_id, own, verifier, clock, context.ids)
        self._deposits = Deposits(
            base.node_id,
            base.hierarchy,
            own,
            verifier,
            context.transactions,
            context.auditor,
            clock,
        )
        self._recoveries = Recoveries(self._deposits)
        self._limits = RotationLimits(
            base.settings.key_rotation_days, base.settings.key_rotation_seals
        )

    # -- what operators ask ---------------------------------------------------------------------

    @property
    def rows_a_second(self) -> int:
        """At most so many rows are re-sealed."""
        return self._base.profile.reseal_rows_s

    async def standing(self) -> tuple[list[KeyStanding], list[ResealWork]]:
        """Every data key, and the work on every table."""
        return await self._blocking(self.keeper.standing)

    async def rotate(self, caller: Caller, tables: list[str], request_id: str) -> list[str]:
        """New keys from now on; ids of the keys."""
        asked = (caller.principal, request_id, *tables)
        return await self._once(asked, lambda: self.keeper.rotate(caller, tables))

    async def rotate_node_key(self, caller: Caller, request_id: str, *, to_file: bool) -> int:
        """A new node key. Raises KeysBusyError: a backup is being made."""

        def work() -> int:
            with self._no_backup():
                return self.keeper.rotate_node_key(caller, to_file=to_file)

        return await self._once((caller.principal, request_id, "--node"), work)

    async def _once(self, asked: tuple[str, ...], work: Callable[[], T]) -> T:
        """The answer of `work`, or what the same request was answered within ten minutes.

        `asked`: who, the request's id, and what.
        """

        def remembered() -> T:
            now_ms = self._clock.monotonic_ms()
            for old in [key for key, (until, _) in self._said.items() if until <= now_ms]:
                del self._said[old]
            if asked in self._said:
                said: T = self._said[asked][1]
                return said
            answer = work()
            if asked[1] and len(self._said) < _SAID_MAX:
                self._said[asked] = (now_ms + _SAID_MS, answer)
            return answer

        # One thread: no second request of the same id can be under way.
        return await self._blocking(remembered)

    async def recover(self, caller: Caller, child: str, *, approve_only: bool) -> Approved:
        """Approve, or get, a child's keys."""
        ask = partial(self._recoveries.ask, caller, NodeId(child), approve_only=approve_only)
        return await self._blocking(ask)

    async def escrow(self) -> EscrowStanding:
        """Where this node's keys lie, and whose lie here."""
        return await self._blocking(self._escrow)

    def _escrow(self) -> EscrowStanding:
        hierarchy, here = self._base.hierarchy, self._base.node_id
        parent, why = hierarchy.parent(here) or "", ""
        if not parent:
            why = "nobody is above this node: its keys are in its backups only"
        elif not goes_to_parent(hierarchy, here):
            why = f"{parent} does not get everything in full: the keys are in the backups only"
        mark = self._context.transactions.read(EscrowMark.load)
        key_set = key_set_of(key.key_id for key in self._stored.load())
        whole = mark is not None and (mark.parent, mark.key_set) == (parent, key_set)
        return EscrowStanding(
            "" if why else parent, why, mark, whole and not why, tuple(self._deposits.all())
        )

    # -- what neighbours ask ----------------------------------------------------------------------

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the parent."""
        return {RECOVERED: self._on_recovered}

    @property
    def child_handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the children."""
        return {RECIPIENT: self._on_recipient, DEPOSIT: self._on_deposit}

    async def _on_recipient(self, _child: NodeId, _request: Request) -> bytes:
        chain = (await self._blocking(self._own.own)).chain_pem
        return body_of({"chain": chain.decode("ascii")})

    async def _on_deposit(self, child: NodeId, request: Request) -> bytes:
        said = parse_body(request.body)
        letter, key_set = said.get("letter", ""), said.get("key_set", "")
        try:
            raw = bytes.fromhex(letter)
            bytes.fromhex(key_set)
        except ValueError:
            raise EscrowInvalidError("a deposit cannot be read") from None
        await self._blocking(self._deposits.take, child, raw, key_set)
        return body_of({"key_set": key_set})

    async def _on_recovered(self, parent: NodeId, request: Request) -> bytes:
        """The parent has given this node's keys out: it stands in the audit here too."""
        parse_body(request.body)
        self._log.warning("this node's keys were recovered at its parent", parent=parent)
        caller = node_caller(self._base.hierarchy, parent)
        deed = Deed(Action.RECOVER, "data_keys", Outcome.DONE, 1, object_id=parent)
        await self._blocking(
            self._context.transactions.write,
            lambda connection: self._context.auditor.write(connection, caller, deed),
        )
        return body_of({})

    # -- what goes on by itself -------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: re-seal at the profile's rate; once a minute, what is due."""
        loop = asyncio.get_running_loop()
        rows = max(1, self.rows_a_second // _STEPS_A_SECOND)
        tended, turn, was_busy = float("-inf"), 0, False
        while True:
            if loop.time() - tended >= _TEND_S:
                tended = loop.time()
                await self._tend(scan=turn % _SCAN_EVERY == 0)
                turn += 1
            done = None if self._disk_is_full() else await self._blocking(self.keeper.step, rows)
            if done is None and was_busy:
                # All is re-sealed: look at once for keys that may go.
                tended, turn = float("-inf"), 0
            was_busy = done is not None
            await asyncio.sleep(1.0 if done is None else 1 / _STEPS_A_SECOND)

    async def run_escrow(self) -> None:
        """Until cancelled: keep the deposit above whole, and tell children of recoveries."""
        while True:
            try:
                await self._blocking(self._deposits.drop_strangers)
                await self._renew_escrow()
                await self._tell_recoveries()
            except (FenheError, OSError) as error:
                self._say(error.code if isinstance(error, FenheError) else type(error).__name__)
            else:
                self._say("")
            await asyncio.sleep(_ESCROW_S)

    async def _tend(self, *, scan: bool) -> None:
        here = local_operator(self._base.node_id, self._base.hierarchy, "keys")
        await self._blocking(self.keeper.count_seals)
        if self._disk_is_full():
            return
        due = await self._blocking(self.keeper.rotate_due, here, self._limits)
        if due:
            self._log.info("data keys rotated by age or count", tables=due)
        if scan:
            gone = await self._blocking(self.keeper.destroy_unnamed, here)
            if gone:
                self._log.info("data keys destroyed", keys=gone)

    async def _renew_escrow(self) -> None:
        """Deposit the keys above, if that is due and the parent is there."""
        hierarchy, here = self._base.hierarchy, self._base.node_id
        parent = hierarchy.parent(here)
        if parent is None or not goes_to_parent(hierarchy, here):
            return
        now = asyncio.get_running_loop().time()
        held = await self._blocking(self._stored.load)
        key_set = key_set_of(key.key_id for key in held)
        is_settled = self._asked[1] == key_set and now - self._asked[0] < _ASK_AGAIN_S
        if is_settled or not self._hub.states[parent].connected:
            return
        answer = await self._hub.ask(parent, RECIPIENT, body_of({}), remaining_ms=_ASK_MS)
        chain = parse_body(answer).get("chain", "").encode()
        wanted, letter = await self._blocking(self._wanted, chain, parent)
        if letter:
            said = body_of({"letter": letter.hex(), "key_set": wanted.key_set})
            answer = await self._hub.ask(parent, DEPOSIT, said, remaining_ms=_ASK_MS)
            if parse_body(answer).get("key_set") != wanted.key_set:
                raise EscrowInvalidError("the parent does not say that it holds the keys")
            await self._blocking(self._context.transactions.write, wanted.save)
            self._log.info("keys deposited in escrow", parent=parent)
        self._asked = (now, wanted.key_set)

    def _wanted(self, chain: bytes, parent: NodeId) -> tuple[EscrowMark, bytes]:
        """What is to be deposited; no letter if it lies there already."""
        held = wrapped_of(self._stored.load())
        wanted = EscrowMark(
            parent,
            self._deposit.recipient(chain, parent),
            key_set_of(key.key_id for key in held),
            self._clock.now_ms(),
        )
        mark = self._context.transactions.read(EscrowMark.load)
        if mark is not None and mark.is_fresh(wanted):
            return wanted, b""
        here = self._base.node_id
        node_key = find_node_key(self._folder, here, held, self._service)
        return wanted, self._deposit.letter(
            chain, parent, held, lambda key: unwrap_key(here, node_key, key)
        )

    async def _tell_recoveries(self) -> None:
        """Tell children whose keys were given out here."""
        for each in await self._blocking(self._recoveries.untold):
            state = self._hub.states.get(each.node_id)
            if state is None or not state.connected:
                continue
            said = body_of({"principal": each.principal, "at": str(each.used_ms)})
            try:
                await self._hub.ask(each.node_id, RECOVERED, said, remaining_ms=_ASK_MS)
            except AskError as error:
                # Of an earlier release, or gone meanwhile: others are told all the same.
                self._say(error.code)
                continue
            await self._blocking(self._recoveries.told, each.number)

    def _say(self, code: str) -> None:
        """One line when the reason changes, not one a minute."""
        if code and code != self._told:
            self._log.warning("keys in escrow wait", code=code)
        self._told = code

    @contextmanager
    def _no_backup(self) -> Iterator[None]:
        try:
            with folder_locked(self._base.paths.data / BACKUP_LOCK):
                yield
        except DataFolderInUseError:
            raise KeysBusyError("a backup of this node is being made") from None

    async def _blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
