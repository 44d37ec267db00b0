"""The hand-over of a history: shipped in letters, taken when it has come whole, merged when late.

Everything happens in the transaction of whoever calls: a node ships in the one that fences it, a
new home takes over in the one that applies the last letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.clock import Ids
from node.logs import get_logger
from node.residence.errors import HandoverInvalidError
from node.residence.fence import RowFence
from node.residence.homes import Homes, SignedGrant
from node.residence.moves import Move, Moves, MoveState, shipping
from node.residence.papers import HANDOVER, fingerprint, piece_in, piece_out, pieces_of
from node.residence.pieces import History, Pieces
from node.residence.proposals import FORWARDED, Proposals
from node.residence.rows import IDENTITY_TABLES, ResidentRows
from node.security.caller import local_operator
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.shapes import fits_schema, refuse_unspeakable
from node.storage.specs import PEOPLE_NAMES, RESIDENT_INDEX, RESIDENTS, TABLES
from node.transit import Letter, Subject
from replication.core.model import Form, Lane, RowChange, Version
from replication.core.residence import (
    Grant,
    LateEdit,
    common_ancestor,
    judge_late_edit,
    taken_over,
)
from replication.errors import RemoteProtocolError

__all__ = ["Handover"]

GRANT_UNKNOWN: Final = "GRANT_UNKNOWN"
"""Refused for now: the grant has not come here. It waits in the quarantine and is tried again."""
_PROPOSALS_MAX: Final = 10_000
_HANDED: Final = "handed_over"
_NEVER_SHIPPED: Final = frozenset({RESIDENT_INDEX.name, *PEOPLE_NAMES})


@dataclass(frozen=True, slots=True)
class _Said:
    """What another node says it held of him."""

    changes: Sequence[RowChange]
    judged: bool


class Handover:
    """Ships and takes histories."""

    def __init__(
        self,
        store: StoreContext,
        *,
        homes: Homes,
        moves: Moves,
        rows: ResidentRows,
        pieces: Pieces,
        proposals: Proposals,
        ids: Ids,
    ) -> None:
        self._store = store
        self._homes = homes
        self._moves = moves
        self._rows = rows
        self._pieces = pieces
        self._proposals = proposals
        self._ids = ids
        self._fence = RowFence(store)
        self._log = get_logger("residence")
        self.learn: Callable[[Connection, SignedGrant], None] = lambda _c, _s: None
        """Proves and records the grant that a history brings along."""
        self.arrived_late: Callable[[Connection, Move, NodeId], None] = lambda _c, _m, _n: None
        """Told of a whole history that came after the take-over was confirmed, and its sender."""

    # -- the side that ships --------------------------------------------------------------------

    def ship(
        self,
        connection: Connection,
        grant: Grant,
        changes: Sequence[RowChange],
        *,
        whole: bool,
        judged: bool = False,
    ) -> None:
        """Send rows to the new home; they must be confirmed before anything here goes."""
        pieces = pieces_of(
            changes,
            grant.resident_id,
            grant.home_epoch,
            handover_id=self._ids.mint(),
            whole=whole,
            judged=judged,
            grant=self._homes.signed(connection, grant.resident_id, grant.home_epoch),
        )
        about = Subject(RESIDENTS.name, grant.resident_id, grant.resident_id, Version(0, 0))
        sent = [
            self._store.post.send(
                connection,
                to=NodeId(grant.home_node),
                kind=HANDOVER,
                body=piece_out(piece),
                lane=Lane.BULK,
                subject=about,
            )
            for piece in pieces
        ]
        self._moves.note_letters(connection, grant.resident_id, grant.home_epoch, sent)
        self._audit(connection, Action.SHIP, grant.resident_id, len(changes))

    def ship_all(self, connection: Connection, grant: Grant) -> int:
        """Send everything held of him, and the proposals that wait for a decision; rows sent."""
        changes = self._rows.read(connection, grant.resident_id)
        if changes:
            self.ship(connection, grant, changes, whole=True)
        waiting = self._proposals.listed(
            connection, resident_id=grant.resident_id, limit=_PROPOSALS_MAX
        )
        if waiting:
            late = [each.change for each in waiting]
            self.ship(connection, grant, late, whole=False, judged=True)
            for each in waiting:
                self._proposals.decide(
                    connection,
                    each.proposal_id,
                    FORWARDED,
                    by=str(self._store.node_id),
                    reason=f"the resident's home is {grant.home_node}",
                    now_ms=self._store.clock.now_ms(),
                )
        return len(changes)

    # -- the new home ---------------------------------------------------------------------------

    def take(self, connection: Connection, letter: Letter) -> str:
        """Take a letter of a hand-over. Returns "" or the code of the refusal.

        Raises:
            HandoverInvalidError: It is none, or not the sender's to send.
        """
        piece = piece_in(letter.body)
        held = self._homes.signed(connection, piece.resident_id, piece.home_epoch)
        if held is None and piece.grant is not None:
            # The lanes are not in step, and the grant itself may still be on its way; or this node
            # was put back from before it, and knows of a later move alone.
            self.learn(connection, piece.grant)
        grant = self._homes.newest(connection, [piece.resident_id]).get(piece.resident_id)
        if grant is None or grant.home_epoch < piece.home_epoch:
            return GRANT_UNKNOWN
        known = self._homes.of_resident(connection, piece.resident_id)
        if not any(self._may_ship(letter.sender, signed.grant) for signed in known):
            raise HandoverInvalidError(f"{letter.sender} has no part in this resident's moves")
        for change in piece.changes():
            _refuse_unfit(change, piece.resident_id)
        now_ms = self._store.clock.now_ms()
        self._pieces.keep(connection, letter.sender, piece, now_ms)
        for history in self._pieces.complete(connection, piece.resident_id):
            if history.handover_id == piece.handover_id:
                self._use(connection, grant, history)
            else:
                self._use_waiting(connection, grant, history)
        return ""

    def _use_waiting(self, connection: Connection, grant: Grant, history: History) -> None:
        """Use a set that came whole before. What is wrong with it is not this letter's fault.

        Its sender was told that it is here, so it stays, and is tried again with the next letter.
        """

        def use() -> str:
            self._use(connection, grant, history)
            return ""

        code = self._store.post.attempt(connection, use)
        if code:
            said = {"handover": history.handover_id, "sender": history.sender, "code": code}
            self._log.error("a history that has come may not be taken", **said)

    def _use(self, connection: Connection, grant: Grant, history: History) -> None:
        """Do with a set that is whole what is to be done with it; a late one waits for the first.

        Raises:
            HandoverInvalidError: Some of it may not be written here.
        """
        move = self._moves.get(connection, grant.resident_id, grant.home_epoch)
        if grant.home_node != self._store.node_id:
            self._pass_on(connection, grant, history)
        elif move is not None and move.state is MoveState.GRANTED:
            if not history.whole or not _says_who_he_is(history):
                return
            self._take_over(connection, grant, move, history)
        else:
            self._merge(connection, grant, _Said(history.changes, history.judged), _base_of(move))
            if history.whole and move is not None and move.state is MoveState.SETTLED:
                # He may have come back since: the word is about the move for which it was sent.
                then = self._moves.get(connection, grant.resident_id, history.home_epoch) or move
                then = replace(then, home_epoch=history.home_epoch)
                self.arrived_late(connection, then, NodeId(history.sender))
        self._pieces.drop(connection, history.handover_id)

    def _may_ship(self, sender: NodeId, grant: Grant) -> bool:
        """The old home's side, up to the granter; whoever else lies there may have been his home.

        Nodes above the new home may hold him in any case. A granter may be the old home itself.
        """
        path = self._store.hierarchy.path_to_root
        if sender not in self._store.hierarchy:
            return False
        if sender == grant.granted_by or sender in path(NodeId(grant.home_node)):
            return True
        above = common_ancestor(sender, grant.from_node, lambda node: path(NodeId(node)))
        return above != grant.granted_by and above in self._store.hierarchy.subtree(
            NodeId(grant.granted_by)
        )

    def _take_over(
        self, connection: Connection, grant: Grant, move: Move, history: History
    ) -> None:
        """Become his home: identity rows are this node's from here on, records keep their author.

        What this node holds of him already is taken over with the rest. A row that may not be
        written here is left out: whoever shipped it misses it in what this home says it holds, and
        sends it again by itself, to be refused.
        """
        newest: dict[tuple[str, str], RowChange] = {}
        own = self._rows.read(connection, grant.resident_id, before_epoch=grant.home_epoch)
        for change in (*own, *history.changes):
            key = (change.table, change.row_id)
            held = newest.get(key)
            if held is None or change.version > held.version:
                newest[key] = change
        taken = [self._as_home(change, grant) for change in newest.values()]
        newer, unfit = self._fence.judged(connection, taken)
        if unfit:
            said = {"handover": history.handover_id, "sender": history.sender, "rows": len(unfit)}
            self._log.error("rows of a history may not be written here", **said)
        refused = {(change.table, change.row_id) for change in unfit}
        base = {
            change.row_id: [change.version.author_epoch, change.version.number]
            for change in newest.values()
            if change.table in IDENTITY_TABLES and (change.table, change.row_id) not in refused
        }
        self._rows.write(connection, newer)
        now_ms = self._store.clock.now_ms()
        holding = replace(
            move,
            state=MoveState.HOLDING,
            changed_at=now_ms,
            next_at=now_ms,
            sequence=0,
            base=json.dumps(base).encode(),
        )
        self._moves.save(connection, holding)
        self._audit(connection, Action.TAKE_OVER, grant.resident_id, len(newest) - len(unfit))

    def _merge(
        self,
        connection: Connection,
        grant: Grant,
        said: _Said,
        base: Mapping[str, Version],
    ) -> None:
        """Take what came after the history: newer records are stored, identity edits proposed.

        Raises:
            HandoverInvalidError: A row of it may not be written here; nothing was written.
        """
        came = [self._as_home(change, grant) for change in said.changes]
        newer, unfit = self._fence.judged(connection, came)
        if unfit:
            raise HandoverInvalidError("a row came under another author or resident")
        proposed = 0
        for change in said.changes:
            late = said.judged or self._is_late(change, base)
            if change.table in IDENTITY_TABLES and late:
                now_ms = self._store.clock.now_ms()
                proposed += self._proposals.add(connection, self._ids.mint(), change, now_ms)
        stored = [change for change in newer if change.table not in IDENTITY_TABLES]
        self._rows.write(connection, stored)
        if stored or proposed:
            self._audit(connection, Action.MERGE, grant.resident_id, len(stored) + proposed)

    def _pass_on(self, connection: Connection, grant: Grant, history: History) -> None:
        """He has moved on since: what came late goes after him, judged here where that can be."""
        judged = history.judged
        changes: Sequence[RowChange] = history.changes
        former = [
            move
            for move in self._moves.of_resident(connection, grant.resident_id)
            if move.base is not None and move.home_epoch < grant.home_epoch
        ]
        if former and not judged:
            base = _base_of(former[-1])
            changes = [
                change
                for change in changes
                if change.table not in IDENTITY_TABLES or self._is_late(change, base)
            ]
            judged = True
        whole = history.whole and not judged
        if changes:
            self.ship(connection, grant, changes, whole=whole, judged=judged)
        if history.whole:
            self._owe_word(connection, grant, history, will_be_answered=whole and bool(changes))

    def _owe_word(
        self, connection: Connection, grant: Grant, history: History, *, will_be_answered: bool
    ) -> None:
        """Owe whoever sent a whole history here the word that he is held, once that is true.

        It was sent by a node that was put back, or to one: the word of then is lost, and this
        node's part in both moves is over. A history that went on whole is answered by the next
        home. Of one that was judged here only what was late went on: once that is confirmed there,
        and if there was none at once, everything of it is held.
        """
        signed = self._homes.signed(connection, grant.resident_id, history.home_epoch)
        here, now_ms = str(self._store.node_id), self._store.clock.now_ms()
        if signed is None or signed.grant.home_node != here:
            return
        came = self._moves.get(connection, grant.resident_id, history.home_epoch)
        if came is None:
            by = signed.grant
            came = Move(
                by.resident_id,
                by.home_epoch,
                by.home_node,
                by.from_node,
                MoveState.GRANTED,
                since=now_ms,
                changed_at=now_ms,
            )
        left = self._moves.get(connection, grant.resident_id, grant.home_epoch)
        self._moves.save(connection, replace(came, state=MoveState.GRANTED, changed_at=now_ms))
        if left is None or left.state not in {MoveState.GRANTED, MoveState.SETTLED}:
            return
        if will_be_answered:
            self._moves.save(connection, shipping(left, now_ms))
        elif left.state is MoveState.SETTLED:
            held = b"".join(sorted(fingerprint(change) for change in history.changes))
            left = replace(left, state=MoveState.PURGING, sequence=1, held=held)
            self._moves.save(connection, replace(left, changed_at=now_ms, next_at=now_ms))

    def as_shipped(self, changes: Sequence[RowChange], move: Move) -> list[RowChange]:
        """A new home's rows with the versions under which they were handed over to it."""
        base = _base_of(move)
        return [
            replace(change, version=base[change.row_id])
            if change.table in IDENTITY_TABLES and change.row_id in base
            else change
            for change in changes
        ]

    def _is_late(self, change: RowChange, base: Mapping[str, Version]) -> bool:
        if change.author_node == self._store.node_id:
            return False
        return judge_late_edit(base.get(change.row_id), change.version) is LateEdit.PROPOSAL

    def _as_home(self, change: RowChange, grant: Grant) -> RowChange:
        home = replace(change, home_node=grant.home_node, home_epoch=grant.home_epoch)
        if change.table not in IDENTITY_TABLES:
            return home
        return replace(
            home, author_node=str(self._store.node_id), version=taken_over(change.version)
        )

    def _audit(self, connection: Connection, action: Action, resident_id: str, count: int) -> None:
        operator = local_operator(self._store.node_id, self._store.hierarchy, "move of a resident")
        deed = Deed(action, _HANDED, Outcome.DONE, count, resident_id, resident_id)
        self._store.auditor.write(connection, operator, deed)


def _says_who_he_is(history: History) -> bool:
    """Whether a set has the resident himself.

    All that a home holds has not, where his history never came to it and he has records there.
    """
    return any(change.table == RESIDENTS.name for change in history.changes)


def _base_of(move: Move | None) -> Mapping[str, Version]:
    if move is None or move.base is None:
        return {}
    return {
        row_id: Version(epoch, number) for row_id, (epoch, number) in json.loads(move.base).items()
    }


def _refuse_unfit(change: RowChange, resident_id: str) -> None:
    """Raise HandoverInvalidError unless the row is one of his that can be stored."""
    try:
        refuse_unspeakable(change)
    except RemoteProtocolError:
        raise HandoverInvalidError("a row of a history is not of this protocol") from None
    known = change.table in TABLES and change.table not in _NEVER_SHIPPED
    his = change.resident_id == resident_id and change.form is Form.FULL
    if not known or not his or not fits_schema(change):
        raise HandoverInvalidError("a history holds a row that is not the resident's")
