"""What a node's part in a move still needs, step by step; each step is one bounded transaction.

Driven by the clock of the desk and by nothing else: a step looks at the tables, does what can be
done, and says when it is to be looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, func, select

from hierarchy_config.model import NodeId
from node.residence.moves import (
    LONGEST_PAUSE_MS,
    PATIENCE_MS,
    Move,
    MoveState,
    settled,
    shipping,
)
from node.residence.papers import FINGERPRINT_BYTES, fingerprint
from node.residence.residence import AWAY_MS, Residence
from node.storage.context import StoreContext
from node.storage.tables import CHANGELOG
from replication.core.model import Audience, Lane, RowChange
from replication.core.residence import Duty, Grant, duty

__all__ = ["MoveSteps"]

_SOON_MS: Final = 1_000
_LATER_MS: Final = 30_000
_ROWS_A_STEP: Final = 500
_LANES: Final = (Lane.CARE, Lane.IDENTITY, Lane.BULK)


class MoveSteps:
    """Carries moves on. `is_connected`: whether a child's link is up."""

    def __init__(
        self,
        store: StoreContext,
        residence: Residence,
        *,
        is_connected: Callable[[NodeId], bool],
    ) -> None:
        self._store = store
        self._residence = residence
        self._is_connected = is_connected

    def due(self, limit: int = 100) -> list[tuple[str, int]]:
        """Moves to look at now."""
        now_ms = self._store.clock.now_ms()
        return self._store.transactions.read(
            lambda connection: self._residence.moves.due(connection, now_ms, limit)
        )

    def step(self, resident_id: str, home_epoch: int) -> None:
        """Do what can be done for one move."""

        def work(connection: Connection) -> None:
            move = self._residence.moves.get(connection, resident_id, home_epoch)
            if move is None or move.next_at is None:
                return
            match move.state:
                case MoveState.GRANTED:
                    self._stand_in(connection, move)
                case MoveState.SHIPPING:
                    self._ship_again(connection, move)
                case MoveState.HOLDING:
                    self._confirm(connection, move)
                case MoveState.PURGING:
                    self._let_go(connection, move)
                case _:
                    self._save(connection, replace(move, next_at=None))

        self._store.transactions.write(work)

    def put_off(self, resident_id: str, home_epoch: int) -> bool:
        """Look at a move again later, nothing could be done for it; False if nothing is due."""

        def work(connection: Connection) -> bool:
            move = self._residence.moves.get(connection, resident_id, home_epoch)
            if move is None or move.next_at is None:
                return False
            again_ms = self._store.clock.now_ms() + _LATER_MS
            self._residence.moves.save(connection, replace(move, next_at=again_ms))
            return True

        return self._store.transactions.write(work)

    def waits(self, resident_id: str) -> bool:
        """Whether anything is still to be done about a move of his, but to wait for the word."""
        return self._store.transactions.read(
            lambda connection: any(
                move.next_at is not None and move.state is not MoveState.SHIPPING
                for move in self._residence.moves.of_resident(connection, resident_id)
            )
        )

    # -- an ancestor in the old home's place ----------------------------------------------------

    def _stand_in(self, connection: Connection, move: Move) -> None:
        """Ship for an old home that is away: the node whose link towards it is down does."""
        grant = self._newest(connection, move)
        owed = None if grant is None else duty(self._here, grant, self._residence.path)
        if owed is Duty.OLD_HOME:
            self._without_rows(connection, move)
            return
        if owed is Duty.NEW_HOME:
            self._look_for_rows(connection, move)
            return
        if grant is None or owed not in {Duty.LEAVES, Duty.KEEPS}:
            self._save(connection, replace(move, next_at=None))
            return
        now_ms = self._store.clock.now_ms()
        towards = self._store.hierarchy.next_hop(NodeId(self._here), NodeId(grant.from_node))
        is_late = now_ms - move.since > PATIENCE_MS
        if self._is_connected(towards) and not is_late:
            self._save(connection, replace(move, next_at=now_ms + AWAY_MS))
            return
        shipped = self._residence.handover.ship_all(connection, grant)
        if not shipped:
            self._save(connection, replace(move, sequence=0, next_at=now_ms + _LATER_MS))
            return
        self._save(connection, shipping(move, now_ms))

    def _look_for_rows(self, connection: Connection, move: Move) -> None:
        """A new home that was put back: what it had taken over comes to it from above, as its own.

        Ever more seldom, for his history may come from his former home just as well.
        """
        now_ms = self._store.clock.now_ms()
        held = self._residence.rows.home(connection, move.resident_id)
        is_his = held is not None and (held.home_node, held.home_epoch) == (
            self._here,
            move.home_epoch,
        )
        if is_his and not self._store.recovery.active:
            holding = replace(move, state=MoveState.HOLDING, changed_at=now_ms, sequence=0)
            self._save(connection, replace(holding, next_at=now_ms))
            return
        pause_ms = min(max(AWAY_MS, now_ms - move.changed_at), LONGEST_PAUSE_MS)
        self._save(connection, replace(move, next_at=now_ms + pause_ms))

    def _without_rows(self, connection: Connection, move: Move) -> None:
        """An old home that has nothing of him, as one put back from before he was registered.

        The new home's word came to its former life and does not come again. What comes of him
        later under the old epoch is sent after him, whatever state the move is in. A home that he
        only passed through waits for that word: the home before lets go by it.
        """
        now_ms = self._store.clock.now_ms()
        if self._store.recovery.active:
            self._save(connection, replace(move, next_at=now_ms + _LATER_MS))
            return
        waits = self._residence.moves.never_held(connection, move, self._here)
        if self._store.changelog.store_epoch > 1:
            # That word may have come to a former life too. If the home before still ships, it does
            # so again, and is owed the word from then on.
            for each in waits:
                self._save(connection, settled(each, now_ms))
            waits = []
        is_held = self._residence.rows.is_held(connection, move.resident_id)
        state = move.state if waits or is_held else MoveState.SETTLED
        self._save(connection, replace(move, state=state, changed_at=now_ms, next_at=None))

    # -- whoever shipped ------------------------------------------------------------------------

    def begin(self) -> None:
        """At the start of a node that was put back: what it shipped in its former life is due.

        The new home's word may have come to that life, and is said again to whoever hands over
        after it.
        """
        if self._store.recovery.active:
            now_ms = self._store.clock.now_ms()
            self._store.transactions.write(
                lambda connection: self._residence.moves.wake(connection, now_ms)
            )

    def _ship_again(self, connection: Connection, move: Move) -> None:
        """Hand over once more where everything was confirmed and the new home's word is missing.

        It was lost with a former life of this store or of the new home's, or somebody on the way
        is away: each pause is as long as all of them before, so that a week costs a few looks.
        """
        now_ms = self._store.clock.now_ms()
        homes = self._residence.homes
        newest = homes.newest(connection, [move.resident_id]).get(move.resident_id)
        signed = homes.signed(connection, move.resident_id, move.home_epoch)
        if newest is None or signed is None:
            self._save(connection, replace(move, next_at=None))
            return
        is_back = self._here in self._residence.path(newest.home_node)
        if newest.home_epoch > move.home_epoch and is_back:
            # He lives here, or below, by now: whoever was to take him has let him go.
            self._end(connection, move)
            return
        if self._store.recovery.active:
            self._save(connection, replace(move, next_at=now_ms + _LATER_MS))
            return
        waits = self._residence.moves.unconfirmed(connection, move.resident_id, move.home_epoch)
        if not waits:
            self._residence.handover.ship_all(connection, signed.grant)
        least_ms = _LATER_MS if waits else PATIENCE_MS
        pause_ms = min(max(least_ms, now_ms - move.changed_at), LONGEST_PAUSE_MS)
        self._save(connection, replace(move, next_at=now_ms + pause_ms))

    # -- the new home ---------------------------------------------------------------------------

    def _confirm(self, connection: Connection, move: Move) -> None:
        """Say that he is held here once the node above has all of it."""
        now_ms = self._store.clock.now_ms()
        parent = self._store.hierarchy.parent(NodeId(self._here))
        if parent is not None:
            head = self._store.changelog.head(connection)
            if move.sequence == 0:
                # What the take-over logged has a number by now: it committed before.
                self._save(connection, replace(move, sequence=head, next_at=now_ms))
                return
            reached = self._store.links.load_outbound(connection, parent)
            for lane in _LANES:
                cursor = reached.get(lane)
                wanted = self._last_own(connection, lane, move.sequence)
                if wanted > (cursor.covers_to if cursor else 0):
                    self._save(connection, replace(move, next_at=now_ms + _SOON_MS))
                    return
        self._residence.say_settled(connection, move)

    def _last_own(self, connection: Connection, lane: Lane, up_to: int) -> int:
        """The last entry of this home's own rows; what is not for the parent is confirmed late."""
        log = CHANGELOG.change_log
        query = select(func.max(log.c.sequence)).where(
            log.c.lane == lane.value,
            log.c.origin_node == self._here,
            log.c.home_node == self._here,
            log.c.audience == Audience.EVERYBODY.value,
            log.c.sequence <= up_to,
        )
        return int(connection.execute(query).scalar() or 0)

    # -- the old path ---------------------------------------------------------------------------

    def _let_go(self, connection: Connection, move: Move) -> None:
        """Delete what the new home holds; what it does not is sent to it first."""
        now_ms = self._store.clock.now_ms()
        grant = self._newest(connection, move)
        if grant is None or self._here in self._residence.path(grant.home_node):
            # He has come back, or below, since.
            self._end(connection, move)
            return
        if move.sequence == 0:
            missing = self._not_held(connection, move)
            if missing:
                self._residence.handover.ship(connection, grant, missing, whole=False)
            self._save(connection, replace(move, sequence=1, next_at=now_ms))
            return
        if self._residence.moves.unconfirmed(connection, move.resident_id, move.home_epoch):
            self._save(connection, replace(move, next_at=now_ms + _SOON_MS))
            return
        if self._residence.rows.let_go(connection, grant, _ROWS_A_STEP):
            self._save(connection, replace(move, next_at=now_ms))
            return
        self._end(connection, move)

    def _end(self, connection: Connection, move: Move) -> None:
        """Nothing is left to be done here; a home that he only passed through passes it on."""
        now_ms = self._store.clock.now_ms()
        moves = self._residence.moves
        former = moves.never_held(connection, move, self._here)
        if former and moves.unconfirmed(connection, move.resident_id, move.home_epoch):
            self._save(connection, replace(move, next_at=now_ms + _SOON_MS))
            return
        for each in former:
            self._residence.pass_settled(connection, each, _marks(move))
        self._save(connection, replace(settled(move, now_ms), held=None))

    def _not_held(self, connection: Connection, move: Move) -> list[RowChange]:
        held = _marks(move)
        rows = self._residence.rows.read(connection, move.resident_id)
        return [change for change in rows if fingerprint(change) not in held]

    # -- small ----------------------------------------------------------------------------------

    @property
    def _here(self) -> str:
        return str(self._store.node_id)

    def _newest(self, connection: Connection, move: Move) -> Grant | None:
        """The move's grant, if no later one has come."""
        found = self._residence.homes.newest(connection, [move.resident_id])
        grant = found.get(move.resident_id)
        return grant if grant is not None and grant.home_epoch == move.home_epoch else None

    def _save(self, connection: Connection, move: Move) -> None:
        self._residence.moves.save(connection, move)


def _marks(move: Move) -> frozenset[bytes]:
    """Fingerprints of what the new home said it holds."""
    marks = move.held or b""
    starts = range(0, len(marks), FINGERPRINT_BYTES)
    return frozenset(marks[at : at + FINGERPRINT_BYTES] for at in starts)
