"""How each link and lane stands: receipts, lag, backlog, refusals. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, select

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.links import LinkHub, LinkState
from node.storage.tables import CHANGELOG
from replication.changelog import LinkState as LinkCursors
from replication.changelog import read_transaction
from replication.changelog.backlog import Backlog, Waiting, backlog
from replication.core.config import PeerRole
from replication.core.greeting import Versions
from replication.core.model import Lane
from replication.core.outbound import LaneView
from replication.core.routing import goes_down, goes_up

__all__ = ["Figures", "LaneFigure", "LinkFigure"]

LOOK_ENTRIES_MAX: Final = 20_000
"""How far into a lane's backlog is looked; beyond, figures are "at least"."""
_NO_VIEW: Final = LaneView(0, 0, "")


@dataclass(frozen=True, slots=True)
class LaneFigure:
    """One lane outwards. `delivered_to` is a sequence of this node's log; times are ms UTC.

    `oldest_ms`: when the oldest entry that the peer has not confirmed was committed, by the clock
    of its origin; 0: there is none. `at_least`: the backlog is longer than was looked at.
    `owes_snapshot`: the log no longer reaches back to where the peer stands, so that rows of the
    tables come in its place; how many, the log does not say.
    """

    lane: Lane
    state: str
    receipt_number: int
    receipt_ms: int
    delivered_to: int
    applied_to: int
    lag_entries: int
    oldest_ms: int
    backlog_bytes: int
    at_least: bool
    refusals: int
    refused: str
    owes_snapshot: bool = False

    @property
    def is_behind(self) -> bool:
        """Whether the peer lacks something of this lane."""
        return self.lag_entries > 0 or self.owes_snapshot

    def lag_s(self, now_ms: int) -> int:
        """Age of the oldest entry not confirmed, seconds; 0 if there is none."""
        return max(now_ms - self.oldest_ms, 0) // 1000 if self.lag_entries else 0


@dataclass(frozen=True, slots=True)
class LinkFigure:
    """One link. `changed_ms`: since when it is up or down, 0: since the start."""

    peer: NodeId
    role: str
    connected: bool
    changed_ms: int
    bytes_per_s: int
    clock_skew_ms: int
    last_error: str
    next_step: str
    lanes: tuple[LaneFigure, ...]
    versions: Versions | None = None
    """Of the peer's last greeting, refused or not; None: none since the start."""

    @property
    def lag_entries(self) -> int:
        """Entries of all lanes that the peer has not confirmed."""
        return sum(lane.lag_entries for lane in self.lanes)


class _Look:
    """One look at the log and the cursors: hundreds of children mostly stand at the same place."""

    def __init__(self, connection: Connection, cursors: LinkCursors) -> None:
        self._connection = connection
        self._backlogs: dict[tuple[Lane, int], Backlog] = {}
        self.inbound, self.outbound = cursors.all_cursors(connection)
        pruned = select(CHANGELOG.sequencer.c.pruned_to)
        self.pruned_to = int(connection.execute(pruned).scalar() or 0)

    def backlog(self, lane: Lane, after: int) -> Backlog:
        """What of a lane lies after a sequence."""
        key = (lane, after)
        if key not in self._backlogs:
            self._backlogs[key] = backlog(
                self._connection, CHANGELOG, lane, after, LOOK_ENTRIES_MAX
            )
        return self._backlogs[key]


class Figures:
    """Collects the figures of all links. `links` blocks on the database."""

    def __init__(
        self,
        node_id: NodeId,
        hierarchy: Hierarchy,
        engine: Engine,
        hub: LinkHub,
        is_recovering: Callable[[NodeId], bool],
    ) -> None:
        """Reads nothing yet. `is_recovering`: whether a peer said so when its link came up."""
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._engine = engine
        self._hub = hub
        self._is_recovering = is_recovering
        self._cursors = LinkCursors(CHANGELOG)

    def links(self) -> tuple[LinkFigure, ...]:
        """The parent's first, then the children's by division code."""
        with read_transaction(self._engine) as connection:
            look = _Look(connection, self._cursors)
            return tuple(self._link(look, state) for state in self._hub.states.values())

    def link(self, peer: NodeId) -> LinkFigure:
        """Of one link."""
        with read_transaction(self._engine) as connection:
            return self._link(_Look(connection, self._cursors), self._hub.states[peer])

    def _link(self, look: _Look, state: LinkState) -> LinkFigure:
        runner = state.runner if state.connected else None
        views = runner.lane_views if runner is not None else {}
        live = state.delivered_to
        hint = state.last_hint
        return LinkFigure(
            peer=state.peer,
            role=state.role,
            connected=state.connected,
            changed_ms=state.changed_ms,
            bytes_per_s=runner.bytes_per_s if runner is not None else 0,
            clock_skew_ms=state.clock_skew_ms,
            last_error=state.last_error.removesuffix(f" ({hint})"),
            next_step=hint,
            lanes=self._lanes(look, state, views, live),
            versions=state.versions,
        )

    def _lanes(
        self,
        look: _Look,
        state: LinkState,
        views: Mapping[Lane, LaneView],
        live: Mapping[Lane, int],
    ) -> tuple[LaneFigure, ...]:
        inbound, outbound = look.inbound.get(state.peer, {}), look.outbound.get(state.peer, {})
        lanes = []
        for lane in Lane:
            saved, receipt_ms = outbound.get(lane, (None, 0))
            # A live stream has passed entries for others that no receipt speaks of.
            delivered = max(saved.covers_to if saved else 0, live.get(lane, 0))
            part = look.backlog(lane, delivered)
            waiting = [way for way in part.waiting if self._is_for(state, way)]
            view = views.get(lane, _NO_VIEW)
            entries = sum(way.entries for way in waiting)
            # A lane in which nothing was ever sent may be empty: what there is comes as it is read.
            owes = saved is not None and delivered < look.pruned_to
            lanes.append(
                LaneFigure(
                    lane=lane,
                    state=_state(state.connected, view, entries or owes),
                    receipt_number=saved.number if saved else 0,
                    receipt_ms=receipt_ms,
                    delivered_to=delivered,
                    applied_to=inbound[lane].covers_to if lane in inbound else 0,
                    lag_entries=entries,
                    oldest_ms=min((way.oldest_ms for way in waiting), default=0),
                    backlog_bytes=sum(way.bytes for way in waiting),
                    at_least=part.is_cut,
                    refusals=view.refusals,
                    refused=view.refused,
                    owes_snapshot=owes,
                )
            )
        return tuple(lanes)

    def _is_for(self, state: LinkState, way: Waiting) -> bool:
        everything = self._is_recovering(state.peer)
        if state.role == PeerRole.CHILD:
            if not (everything or way.audience.has_children):
                return False
            below = self._hierarchy.subtree(state.peer)
            return goes_down(way.origin_node, way.home_node, way.form, below)
        if not (everything or way.audience.has_parent):
            return False
        here = self._hierarchy.subtree(self._node_id)
        return goes_up(way.origin_node, way.home_node, way.form, here)


def _state(connected: bool, view: LaneView, owed: bool | int) -> str:
    if not connected:
        return "down"
    if view.refusals:
        return "refused"
    return "sending" if view.waiting or owed else "idle"
