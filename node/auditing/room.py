"""The room put together for one life of the node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.model import NodeId
from node.auditing.about import ABOUT_METHOD, AboutResident
from node.auditing.anchors import AnchorStore, StoredFinding
from node.auditing.denials import Denials
from node.auditing.events import NodeEvents
from node.auditing.gate import BULK_MS, AuditGate, under_glass
from node.auditing.gauges import AuditGauges
from node.auditing.ground import AuditGround
from node.auditing.holding import AnchorHolder
from node.auditing.keeper import ANCHOR_METHOD, COUNTED_FACT, AnchorKeeper
from node.auditing.looks import held_findings, own_findings
from node.auditing.model import FindingKind
from node.auditing.proof import AuditProof
from node.auditing.reserve import AuditReserve
from node.auditing.search import AuditSearch
from node.auditing.standing import AnchorClock, SavedStanding
from node.auditing.verifying import ANCHORS_METHOD, AuditVerifier
from node.clock import Clock
from node.doctor.findings import Finding
from node.foundations import Foundations
from node.guards import DiskGuard
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.links.rates import Rate
from node.logs import get_logger
from node.metrics import NodeMetrics
from node.opening import OpenStore
from node.security.identity import NameJudge
from node.storage.tables import AUDITING, CHANGELOG
from node.watch.alarms import Alarm, AlarmKind
from replication.changelog import StoreState, read_transaction
from replication.core.model import Request

__all__ = ["AuditRoom", "AuditState"]

RESERVE_FILE: Final = "audit.reserve"
RESERVE_S: Final = 60.0
RATES: Final = {
    # Six rounds every five seconds until the first success, then once a minute.
    ANCHOR_METHOD: Rate(60, 2.0),
    ANCHORS_METHOD: Rate(60, 1.0),
    # People ask, and each question is an entry at every node on its way.
    ABOUT_METHOD: Rate(60, 0.2, by_node=True),
}
"""How often a child may ask."""
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_LOST_DAYS: Final = 7
"""How long what a restore left behind is an alarm; it stays in the findings."""


class AuditState(StrEnum):
    """How the audit stands, in one word."""

    ANCHORED = "anchored"
    UNANCHORED = "unanchored"
    BULK_STOPPED = "bulk_stopped"
    READS_STOPPED = "reads_stopped"
    ALONE = "alone"


class AuditRoom:
    """`keeper.run` and `run` are tasks; the rest is for the services and for neighbours."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        disk: DiskGuard,
        *,
        threads: Executor,
        clock: Clock,
        utc: Callable[[], datetime],
        former: NameJudge | None = None,
    ) -> None:
        """Blocks on the database. From now on the gate is in force and neighbours are answered."""
        context = store.storage.context
        self._clock = clock
        self._limit_hours = base.profile.audit_unanchored_hours
        self._log = get_logger("audit")
        self._gauges: AuditGauges | None = None
        self.region = base.hierarchy.region
        self.ground = AuditGround(
            base.node_id,
            base.hierarchy,
            store.epoch,
            context.transactions,
            context.auditor,
            AnchorStore(AUDITING),
            AuditProof(base.credentials, base.hierarchy, utc, former, store.revoked),
            clock,
            _counted(store, clock),
            store.storage.link_audit,
            threads,
            disk.is_full,
        )
        self.reserve = AuditReserve(
            base.paths.data / RESERVE_FILE, base.profile.disk_free_min_mb, disk.free_bytes, clock
        )
        self.gate = AuditGate(
            lambda: self.ground.unanchored_ms,
            self._limit_hours,
            has_room=self.reserve.has_room,
            exempt=under_glass,
        )
        self.events = NodeEvents(self.ground)
        self.holding = AnchorHolder(self.ground)
        self.search = AuditSearch(self.ground)
        self.denials = Denials(self.ground, self.reserve.has_room)

        async def ask(to: NodeId, method: str, body: bytes, remaining_ms: int) -> bytes:
            return await hub.ask(to, method, body, remaining_ms=remaining_ms)

        self.keeper = AnchorKeeper(self.ground, ask)
        self.verifier = AuditVerifier(self.ground, ask)
        self.residents = AboutResident(self.ground, ask, self.search)
        self._findings: Sequence[StoredFinding] = ()
        handlers: Mapping[str, RequestHandler] = {
            ANCHOR_METHOD: self._on_anchor,
            ANCHORS_METHOD: self._on_anchors,
            ABOUT_METHOD: self.residents.answer,
        }
        hub.handlers = {**hub.handlers, **handlers}
        hub.child_handlers = {**hub.child_handlers, **handlers}
        hub.child_rates = {**hub.child_rates, **RATES}
        context.auditor.gate = self.gate

    def begin(self) -> None:
        """Write down that the node starts, and make the reserve; blocks, before anything serves."""
        self.events.started()
        self.reserve.make()

    async def end(self) -> None:
        """Write down that the node stops in order."""
        try:
            await self.ground.blocking(self.events.stopped)
        except SQLAlchemyError as error:
            # The next start is in the audit without a stop before it, which says as much.
            self._log.warning("the stop is not in the audit", reason=type(error).__name__)

    async def run(self, metrics: NodeMetrics) -> None:
        """Bring the figures into the metrics, and keep the reserve, until cancelled."""
        self._gauges = self._gauges or AuditGauges(metrics.registry)
        while True:
            self._findings = await self.ground.blocking(self.holding.findings)
            await self.ground.blocking(self.reserve.make)
            self._gauges.show(
                self.unanchored_ms,
                self.keeper.end.position,
                {peer: each.anchored.position for peer, each in self.keeper.states.items()},
                self.reserve.bytes_kept,
            )
            await asyncio.sleep(RESERVE_S)

    @property
    def unanchored_ms(self) -> int:
        """For how long no other node holds the end of the audit; 0: one does, or there is none."""
        return 0 if self.keeper.is_alone else self.ground.unanchored_ms

    @property
    def state(self) -> AuditState:
        """In one word."""
        if self.keeper.is_alone:
            return AuditState.ALONE
        unanchored_ms = self.unanchored_ms
        if unanchored_ms >= self._limit_hours * _HOUR_MS:
            return AuditState.READS_STOPPED
        if unanchored_ms >= BULK_MS:
            return AuditState.BULK_STOPPED
        held = any(not each.error and each.at_ms for each in self.keeper.states.values())
        return AuditState.ANCHORED if held else AuditState.UNANCHORED

    def alarms(self) -> Sequence[Alarm]:
        """What is wrong with this node's audit, or with a neighbour's."""
        return tuple(self._alarms())

    def _alarms(self) -> Iterator[Alarm]:
        now_ms = self._clock.now_ms()
        yield from self._unanchored(now_ms)
        for holder, state in self.keeper.states.items():
            if state.error == "AUDIT_CONTRADICTED":
                yield Alarm(
                    AlarmKind.AUDIT_CONTRADICTED,
                    holder,
                    f"{holder} does not anchor this node's audit: {state.message}.",
                    "Run `fenhe audit verify` here: it names the first entry that differs.",
                    now_ms,
                )
        yield from self._found(now_ms)
        if not self.reserve.bytes_kept:
            yield Alarm(
                AlarmKind.AUDIT_RESERVE,
                "",
                "No room is kept on the disk for the audit: when the disk is full, reads stop.",
                "Make room on the node's disk; the reserve is made again by itself.",
                now_ms,
            )

    def _unanchored(self, now_ms: int) -> Iterator[Alarm]:
        if self.state not in {AuditState.BULK_STOPPED, AuditState.READS_STOPPED}:
            return
        hours = self.unanchored_ms // _HOUR_MS
        what = (
            "reading has stopped"
            if self.state is AuditState.READS_STOPPED
            else f"questions and exports have stopped, and reading does at {self._limit_hours} h"
        )
        whom = ", ".join(self.keeper.states)
        yield Alarm(
            AlarmKind.AUDIT_UNANCHORED,
            "",
            f"No other node holds the end of this node's audit, for {hours} h; {what}.",
            f"See that the line to {whom} is up, and that it is of a release that anchors.",
            now_ms - self.unanchored_ms,
        )

    def _found(self, now_ms: int) -> Iterator[Alarm]:
        for each in {each.node_id: each for each in self._findings if self._stands(each, now_ms)}:
            mine = [one for one in self._findings if one.node_id == each]
            last = [one for one in mine if self._stands(one, now_ms)][-1]
            if last.finding.kind is FindingKind.LOST:
                yield Alarm(
                    AlarmKind.AUDIT_LOST,
                    each,
                    f"Store epoch {last.finding.store_epoch} of {each} began without "
                    f"{last.finding.entries} entries of its audit that were anchored here.",
                    "If its store was put back from a backup, that is why; if not, find out who "
                    "changed it. The anchors stay.",
                    last.at_ms,
                )
            else:
                yield Alarm(
                    AlarmKind.AUDIT_CONTRADICTED,
                    each,
                    f"The audit of {each} is {last.finding.kind.value} at position "
                    f"{last.finding.position}, against what was anchored here.",
                    f"Run `fenhe audit verify` at {each}, and find out who changed its database; "
                    "then `fenhe audit accept` here lets it begin anew.",
                    last.at_ms,
                )

    @staticmethod
    def _stands(each: StoredFinding, now_ms: int) -> bool:
        if each.finding.kind is FindingKind.LOST:
            return abs(now_ms - each.at_ms) < _LOST_DAYS * _DAY_MS
        return each.accepted_ms is None

    def checked(self) -> Iterator[Finding]:
        """For `fenhe doctor`: this node's anchors and those that it holds. Blocks."""
        position = self.keeper.end.position
        yield from own_findings(dict(self.keeper.states), position, self.unanchored_ms)
        yield from held_findings(self.holding.findings())

    def look_again(self) -> None:
        """Read the findings now; blocks on the database."""
        self._findings = self.holding.findings()

    async def _on_anchor(self, peer: NodeId, request: Request) -> bytes:
        try:
            return await self.ground.blocking(self.holding.anchor, peer, request.body)
        finally:
            with contextlib.suppress(SQLAlchemyError):
                await self.ground.blocking(self.look_again)

    async def _on_anchors(self, peer: NodeId, request: Request) -> bytes:
        return await self.ground.blocking(self.holding.told, peer)


def _counted(store: OpenStore, clock: Clock) -> AnchorClock:
    with read_transaction(store.engine) as connection:
        said = StoreState(CHANGELOG).load(connection).get(COUNTED_FACT, "")
    return AnchorClock(SavedStanding.read(said), clock.now_ms(), clock.monotonic_ms())
