"""Prunes the change log: what everybody has, and what is too much for whoever is not there.

Rows are in the tables, so a neighbour, a replica or a backup that is left behind loses nothing: it
is seeded from them. Letters are in no table; those that are not handed on stay in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine

from hardware_profiles import HardwareProfile
from hierarchy_config import Hierarchy, NodeId
from node.clock import Clock
from node.link_store import protocol_fact
from node.links import LinkHub
from node.logs import get_logger
from node.storage.snapshot_place import Place
from node.storage.tables import CHANGELOG
from replication.changelog import (
    ChangeLog,
    LetterEntries,
    LinkState,
    LogReaders,
    StoreState,
    read_transaction,
    write_transaction,
)
from replication.changelog.pruning import (
    Cut,
    LogFigures,
    LogReader,
    cut_at,
    log_figures,
    sweep_letters,
)
from replication.core.model import PROTOCOL_MAX, Cursor, Lane

__all__ = ["ENTRIES_KEPT", "LogPruner", "PruningState"]

FIRST_S: Final = 5.0
PAUSE_S: Final = 30.0
ENTRIES_KEPT: Final = 1500
"""More than a link passes over before it writes its place down (core/outbound.py)."""
ENTRIES_A_STEP: Final = 1000
STEPS_A_PASS: Final = 200
FLUSH_BEHIND: Final = 5000
"""Entries by which the replica's files may lag before they are written for the log's sake."""
COLUMNAR: Final = "columnar"
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class PruningState:
    """How the log stood after the last pass."""

    log_bytes: int = 0
    pruned_to: int = 0
    left_behind: tuple[str, ...] = ()


class LogPruner:
    """A pass every half minute; each transaction deletes a bounded number of entries."""

    def __init__(
        self,
        engine: Engine,
        log: ChangeLog,
        links: LinkState,
        hub: LinkHub,
        *,
        hierarchy: Hierarchy,
        node_id: NodeId,
        profile: HardwareProfile,
        clock: Clock,
        threads: Executor,
        columnar: Callable[[], int | None],
        flush_columnar: Callable[[], Awaitable[None]],
    ) -> None:
        """Nothing happens before `run`.

        Args:
            engine: Of the node's database.
            log: The change log.
            links: What neighbours have confirmed.
            hub: Which links are up, and how far those have come.
            hierarchy: Who the neighbours are.
            node_id: This node.
            profile: `log_keep_mb` and `log_keep_days`.
            clock: How long a neighbour has been away.
            threads: For the database.
            columnar: Sequence up to which the columnar replica is on disk; None without one.
            flush_columnar: Brings the replica to disk.
        """
        self._engine = engine
        self._log = log
        self._links = links
        self._hub = hub
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._keep_bytes = profile.log_keep_mb << 20
        self._keep_ms = profile.log_keep_days * _DAY_MS
        self._clock = clock
        self._threads = threads
        self._columnar = columnar
        self._flush_columnar = flush_columnar
        self._readers = LogReaders(CHANGELOG)
        self._state = StoreState(CHANGELOG)
        self._letters = LetterEntries(CHANGELOG)
        self._told: tuple[str, ...] = ()
        self._said = get_logger("pruning")
        self.standing = PruningState()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(FIRST_S)
        while True:
            on_disk = self._columnar()
            if on_disk is not None and self._hub.head() - on_disk > FLUSH_BEHIND:
                await self._flush_columnar()
            live = {peer: dict(state.delivered_to) for peer, state in self._hub.states.items()}
            await loop.run_in_executor(self._threads, self.prune, live)
            await asyncio.sleep(PAUSE_S)

    def prune(self, live: dict[NodeId, dict[Lane, int]]) -> PruningState:
        """One pass; blocks on the database. `live`: places of links that are up, by lane."""
        with read_transaction(self._engine) as connection:
            figures = log_figures(connection, CHANGELOG)
            readers = self.readers(connection, live)
        cut = cut_at(figures, readers, keep_bytes=self._keep_bytes, entries_min=ENTRIES_KEPT)
        for _ in range(STEPS_A_PASS):
            with write_transaction(self._engine) as connection:
                if not self._step(connection, cut.up_to):
                    break
        return self._note(cut, figures)

    def readers(
        self, connection: Connection, live: dict[NodeId, dict[Lane, int]]
    ) -> list[LogReader]:
        """Everybody who reads the log, and where."""
        now_ms = self._clock.now_ms()
        facts = self._state.load(connection)
        parent = self._hierarchy.parent(self._node_id)
        neighbours = [*([parent] if parent else []), *self._hierarchy.children(self._node_id)]
        found = [LogReader(name, at) for name, at in self._readers.load(connection).items()]
        on_disk = self._columnar()
        if on_disk is not None:
            found.append(LogReader(COLUMNAR, on_disk))
        for peer in neighbours:
            saved = self._links.load_outbound(connection, peer)
            confirmed_ms = max(self._links.receipt_times(connection, peer).values(), default=0)
            is_old = int(facts.get(protocol_fact(peer), PROTOCOL_MAX)) < PROTOCOL_MAX
            at = _place(saved, live.get(peer, {}), every_lane=is_old)
            # 0: confirmed before times were kept.
            away = not live.get(peer) and 0 < confirmed_ms < now_ms - self._keep_ms
            is_absent = not saved or (away and peer != parent)
            old = is_old and bool(saved)
            found.append(LogReader(peer, at, is_absent and not old, takes_log_only=old))
        return found

    def _step(self, connection: Connection, up_to: int) -> bool:
        """Delete some; whether there may be more."""
        pruned = self._log.pruned_to(connection)
        last = min(up_to, pruned + ENTRIES_A_STEP)
        waiting = self._letters.waiting(connection, pruned, last)
        self._log.prune(
            connection,
            up_to,
            entries_max=ENTRIES_A_STEP,
            keep=[letter.sequence for letter in waiting],
        )
        swept = sweep_letters(connection, CHANGELOG, entries_max=ENTRIES_A_STEP)
        return last < up_to or swept == ENTRIES_A_STEP

    def _note(self, cut: Cut, before: LogFigures) -> PruningState:
        with read_transaction(self._engine) as connection:
            pruned = self._log.pruned_to(connection)
        size = max(0, before.head - pruned) * before.entry_bytes
        self.standing = PruningState(size, pruned, cut.left_behind)
        if cut.left_behind != self._told:
            self._told = cut.left_behind
            if self._told:
                self._said.warning(
                    "log pruned beyond readers", left_behind=list(self._told), pruned_to=pruned
                )
        return self.standing


def _place(saved: dict[Lane, Cursor], live: dict[Lane, int], *, every_lane: bool) -> int:
    """The least place of a neighbour's lanes; one in the midst of a snapshot stands at its begin.

    A lane in which nothing was ever sent counts for nothing: what there is comes as a snapshot.
    Unless the neighbour is of a release that takes none.
    """
    places = []
    for lane in Lane:
        cursor = saved.get(lane)
        if cursor is None and lane not in live and not every_lane:
            continue
        at = 0
        if cursor is not None:
            place = Place.parse(cursor.position)
            at = max(cursor.covers_to, place.head if place is not None else 0)
        places.append(max(at, live.get(lane, 0)))
    return min(places, default=0)
