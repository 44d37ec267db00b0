"""The watch of one running node: put together once, looking every few seconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from node.clock import Clock
from node.consent.reviews import glasses_waiting
from node.foundations import Foundations
from node.guards import DiskGuard
from node.links import LinkHub
from node.logs import get_logger
from node.metrics import NodeMetrics
from node.opening import OpenStore
from node.security.certificates import certificates_from_pem
from node.storage.stored import look_again
from node.transit.model import Unanswered
from node.watch.alarms import Alarm, AlarmBook, Look
from node.watch.figures import Figures, LinkFigure
from node.watch.gauges import WatchGauges
from node.watch.stalls import StallFacts
from node.watch.tending import QuarantineKeeper
from replication.changelog import read_transaction

__all__ = ["Seen", "WatchRoom"]

LOOK_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look saw: links, the quarantine by cause, letters not confirmed, items aside."""

    links: Sequence[LinkFigure]
    causes: Mapping[str, int]
    letters: Sequence[Unanswered]
    aside: Mapping[str, int]


class WatchRoom:
    """Figures, alarms and the quarantine's keeper."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        figures: Figures,
        disk: DiskGuard,
        *,
        threads: Executor,
        clock: Clock,
        notify: Callable[[], None],
    ) -> None:
        """Answers neighbours' questions from now on; looks at nothing before `run`."""
        self._base = base
        self._storage = store.storage
        self._engine = store.engine
        self._outbox = store.post.outbox
        self._disk = disk
        self._threads = threads
        self._clock = clock
        self._log = get_logger("watch")
        self._lock = threading.Lock()
        self._gauges: WatchGauges | None = None
        self.node_id = base.node_id
        self.figures = figures
        self.audit: Callable[[], Sequence[Alarm]] = tuple
        """Asked at each look for what is wrong with the audit (node/auditing)."""
        self.book = AlarmBook(base.settings.alarm_after_s, self._said)
        self._stalls = StallFacts(store.engine)
        self._recalled = False
        self.desk = store.storage.desk
        self.notify = notify
        self.strays: Callable[[], Mapping[str, str]] = dict
        """Canaries where they must not be, by who holds them (node/doctor)."""
        self.keeper = QuarantineKeeper(
            base.node_id,
            base.hierarchy,
            store.storage,
            hub,
            threads=threads,
            clock=clock,
            notify=notify,
        )
        hub.handlers = {**hub.handlers, **self.keeper.handlers}
        hub.child_handlers = {**hub.child_handlers, **self.keeper.handlers}

    async def run(self, metrics: NodeMetrics) -> None:
        """Look again and again until cancelled."""
        loop = asyncio.get_running_loop()
        # Once: the loop begins again after the database was away.
        self._gauges = gauges = self._gauges or WatchGauges(metrics.registry)
        pause_s = min(LOOK_S_MAX, self._base.settings.alarm_after_s / 3)
        while True:
            seen = await loop.run_in_executor(self._threads, self.look)
            gauges.show(
                seen.links,
                seen.causes,
                seen.letters,
                aside=seen.aside,
                alarms=self.book.standing,
                now_ms=self._clock.now_ms(),
            )
            await asyncio.sleep(pause_s)

    def look(self) -> Seen:
        """Take one look and judge it; the figures. Blocks on the database."""
        with self._lock:
            return self._look()

    def _look(self) -> Seen:
        if not self._recalled:
            self.book.recall(self._stalls.load())
            self._recalled = True
        links = self.figures.links()
        with read_transaction(self._engine) as connection:
            letters = self._outbox.unanswered(connection)
            glasses = glasses_waiting(connection, self.node_id)
        causes = self.desk.by_cause()
        look_again(self._storage.context)
        aside = self._storage.context.aside.counts()
        self.book.look(
            Look(
                self._clock.now_ms(),
                links,
                sum(causes.values()),
                self._disk.room(),
                self._certificate_ends(),
                letters,
                aside,
                self.audit(),
                self.strays(),
                glasses,
                self._base.credentials.limited,
            )
        )
        self._keep_stalls()
        return Seen(links, causes, letters, aside)

    def _keep_stalls(self) -> None:
        """A store that takes no write now is tried again at the next look; alarms go on."""
        try:
            self._stalls.save(self.book.lasting)
        except SQLAlchemyError as error:
            self._log.warning("stalls are not saved", error=type(error).__name__)

    def log_head(self) -> int:
        """The last number of the change log. Blocks on the database."""
        return self._storage.log_state().head

    def _certificate_ends(self) -> datetime:
        """When the certificate in the data folder ends; it may have been renewed meanwhile."""
        pem = self._base.credentials.tls.chain.read_bytes()
        return certificates_from_pem(pem)[0].not_valid_after_utc

    def _said(self, alarm: Alarm, is_raised: bool) -> None:
        if is_raised:
            self._log.warning(
                "alarm",
                kind=alarm.kind.value,
                peer=alarm.peer,
                message=alarm.message,
                next_step=alarm.next_step,
            )
        else:
            self._log.info("alarm is over", kind=alarm.kind.value, peer=alarm.peer)
