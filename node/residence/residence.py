"""One node's part in moves: grants them, learns of them, and does what each then owes.

Each method that works is one transaction, so a death between any two leaves a state that the next
step finds in the tables. What a node owes is said in replication/core/residence.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.clock import Ids
from node.errors import NotFoundError
from node.residence.errors import (
    GrantInvalidError,
    MoveNotNeededError,
    ResidentMovedError,
)
from node.residence.handover import Handover
from node.residence.homes import Homes, SignedGrant
from node.residence.judge import FormerHierarchy, GrantJudge
from node.residence.moves import REQUESTED_EPOCH, Move, Moves, MoveState, settled, shipping
from node.residence.papers import (
    GRANT,
    HANDOVER,
    SETTLED,
    Ask,
    Settled,
    fingerprint,
    grant_in,
    grant_out,
    settled_in,
    settled_out,
    statement_of,
)
from node.residence.pieces import Pieces
from node.residence.proposals import PayloadSealer, Proposals
from node.residence.rows import ResidentRows
from node.residence.seal import GrantSeal
from node.residence.tables import ResidenceTables
from node.security.caller import Caller, local_operator
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.specs import RESIDENTS
from node.transit import Letter, SentLetter
from replication.core.admission import Cause
from replication.core.model import Lane, RowChange
from replication.core.residence import (
    Duty,
    Grant,
    KnownHome,
    MoveRequest,
    Step,
    decide,
    duty,
    is_genuine,
    lets_go,
    newest_home,
    outranks,
)

__all__ = ["Knowledge", "Residence"]

AWAY_MS: Final = 5_000
"""How long a node on the old path gives the old home before it looks whether it is there."""
_NOT_THE_HOME: Final = "NOT_THE_HOME"
_WAITS_FOR_A_GRANT: Final = frozenset(
    {Cause.HOME_NOT_GRANTED, Cause.HOME_DISPUTED, "GRANT_UNKNOWN", _NOT_THE_HOME}
)
"""Causes of quarantine; a row without a name does not say whose grant it waits for."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What this node knows of a resident's home. `held`: in full, here."""

    home: KnownHome | None
    grants: tuple[SignedGrant, ...]
    moves: tuple[Move, ...]
    held: bool


@dataclass(frozen=True, slots=True)
class ResidenceSealers:
    """What the room's two tables of payloads are sealed with."""

    proposals: PayloadSealer
    pieces: PayloadSealer


class Residence:
    """Moves of residents at one node."""

    def __init__(
        self,
        store: StoreContext,
        tables: ResidenceTables,
        *,
        seal: GrantSeal,
        sealers: ResidenceSealers,
        ids: Ids,
        former: FormerHierarchy,
    ) -> None:
        self._store = store
        self._seal = seal
        self.judge = GrantJudge(store, seal, former)
        self.homes: Homes = store.homes
        self.moves = Moves(tables)
        self.rows = ResidentRows(store)
        self.proposals = Proposals(tables, store.node_id, sealers.proposals)
        self.handover = Handover(
            store,
            homes=self.homes,
            moves=self.moves,
            rows=self.rows,
            pieces=Pieces(tables, store.node_id, sealers.pieces),
            proposals=self.proposals,
            ids=ids,
        )
        self.handover.learn = self._learn_here
        self.handover.arrived_late = self._say_settled_to
        self.homes.redirect = self._redirect
        post = store.post
        post.on_letter(GRANT, self._take_grant)
        post.on_passing(GRANT, self._see_grant)
        post.on_letter(HANDOVER, self.handover.take)
        post.on_receipt(HANDOVER, self._receipted)
        post.on_letter(SETTLED, self._take_settled)
        post.on_passing(SETTLED, self._see_settled)

    # -- knowledge ------------------------------------------------------------------------------

    def path(self, node: str) -> tuple[str, ...]:
        """A node and all above it; empty for a node that the region does not have."""
        tree = self._store.hierarchy
        return tree.path_to_root(NodeId(node)) if node in tree else ()

    def known(self, connection: Connection, resident_id: str) -> KnownHome | None:
        """His newest home, by rows and grants held here."""
        grant = self.homes.newest(connection, [resident_id]).get(resident_id)
        granted = KnownHome(grant.home_node, grant.home_epoch) if grant else None
        return newest_home((granted, self.rows.home(connection, resident_id)))

    def knowledge(self, connection: Connection, resident_id: str) -> Knowledge:
        """Everything this node knows of his home."""
        return Knowledge(
            self.known(connection, resident_id),
            tuple(self.homes.of_resident(connection, resident_id)),
            tuple(self.moves.of_resident(connection, resident_id)),
            self.rows.is_held(connection, resident_id),
        )

    # -- asking and granting --------------------------------------------------------------------

    def decide(self, request: MoveRequest, present: KnownHome | None) -> Step:
        """What this node does with a request."""
        return decide(self._store.node_id, request, present, self.path)

    def request(self, connection: Connection, caller: Caller, ask: Ask) -> Move:
        """Note that a move was asked for here; it is asked for until it is answered."""
        now_ms = self._store.clock.now_ms()
        move = Move(
            ask.resident_id,
            REQUESTED_EPOCH,
            ask.to_node,
            ask.known.home_node if ask.known else "",
            MoveState.REQUESTED,
            since=now_ms,
            changed_at=now_ms,
            reason=ask.reason,
            asked_by=caller.principal[:200],
            next_at=now_ms + AWAY_MS,
        )
        self.moves.save(connection, move)
        self.audit(connection, caller, Action.MOVE, ask.resident_id)
        return move

    def answered(self, connection: Connection, resident_id: str, code: str) -> None:
        """Note the answer to what was asked for here: "" it is granted, a code it is refused."""
        move = self.moves.get(connection, resident_id, REQUESTED_EPOCH)
        if move is None:
            return
        if not code:
            self.moves.drop(connection, resident_id, REQUESTED_EPOCH)
            return
        now_ms = self._store.clock.now_ms()
        refused = replace(
            move, state=MoveState.REFUSED, code=code[:64], changed_at=now_ms, next_at=None
        )
        self.moves.save(connection, refused)

    def grant(
        self, connection: Connection, caller: Caller, ask: Ask, present: KnownHome
    ) -> SignedGrant:
        """Grant the next home epoch: one grant for each, whoever asks first.

        `present` is the newest home that this node and those who asked know. A repeated request is
        given the same grant.

        Raises:
            ResidentMovedError: Somebody else was first.
            MoveNotNeededError: He lives there already.
            RecoveringError: This node does not know what it granted before.
        """
        store = self._store
        store.recovery.refuse()
        known = newest_home((self.known(connection, ask.resident_id), present))
        if known is None:
            raise NotFoundError("no such resident is known here")
        if known.home_node == ask.to_node:
            return self._granted_already(connection, ask, known)
        if known != present:
            raise ResidentMovedError(known.home_node, known.home_epoch)
        grant = Grant(
            ask.resident_id,
            known.home_epoch + 1,
            ask.to_node,
            known.home_node,
            str(store.node_id),
            store.clock.now_ms(),
            store.hierarchy.epoch,
        )
        if not is_genuine(grant, store.node_id, self.path):
            raise GrantInvalidError(f"{store.node_id} may not grant this move")
        statement = statement_of(grant)
        signature, chain = self._seal.sign(statement)
        signed = SignedGrant(grant, statement, signature, chain)
        self.audit(connection, caller, Action.GRANT, ask.resident_id)
        # Its key is (resident, epoch): of two at once the second fails, looks again and is told.
        self._learn(connection, signed, ask.reason)
        for to in (grant.from_node, grant.home_node):
            self.send_grant(connection, signed, to)
        return signed

    def _granted_already(self, connection: Connection, ask: Ask, known: KnownHome) -> SignedGrant:
        signed = self.homes.signed(connection, ask.resident_id, known.home_epoch)
        if signed is None or signed.grant.home_node != ask.to_node:
            raise MoveNotNeededError(f"the resident's home is {ask.to_node}")
        return signed

    def send_grant(self, connection: Connection, signed: SignedGrant, to: str) -> None:
        """Tell a node of a move; those on the way learn of it too."""
        if to == self._store.node_id:
            return
        self._store.post.send(
            connection,
            to=NodeId(to),
            kind=GRANT,
            body=grant_out(signed),
            lane=Lane.CONTROL,
            open_letter=True,
        )

    # -- learning of a grant --------------------------------------------------------------------

    def learn(self, connection: Connection, signed: SignedGrant) -> bool:
        """Record a grant and do what this node owes for it; whether it was news.

        Raises:
            GrantInvalidError, GrantEarlyError: See GrantJudge.
        """
        self.judge.prove(connection, signed)
        return self._learn(connection, signed, "")

    def learn_late(self, connection: Connection, signed: SignedGrant) -> bool:
        """As `learn`, of a move whose new home has spoken already, or may have.

        What is held here is shipped at once: who hands over hears the new home's word again. Who
        holds nothing waits for nothing.
        """
        if not self.learn(connection, signed):
            return False
        grant, now_ms = signed.grant, self._store.clock.now_ms()
        move = self.moves.get(connection, grant.resident_id, grant.home_epoch)
        part = (grant.from_node, grant.home_node)
        if move is not None and move.state is MoveState.GRANTED and self._store.node_id not in part:
            shipped = self.handover.ship_all(connection, grant)
            move = shipping(move, now_ms) if shipped else settled(move, now_ms)
            self.moves.save(connection, move)
        return True

    def _learn(self, connection: Connection, signed: SignedGrant, reason: str) -> bool:
        """Whether it was news."""
        grant = signed.grant
        held = self.homes.signed(connection, grant.resident_id, grant.home_epoch)
        if held is not None:
            if held.grant == grant or not outranks(grant, held.grant, self.path):
                return False
            self._overrule(connection, held.grant, signed)
        now_ms = self._store.clock.now_ms()
        self.homes.record(connection, signed, now_ms)
        self._store.quarantine.hurry(connection, grant.resident_id, _WAITS_FOR_A_GRANT, now_ms)
        self.answered(connection, grant.resident_id, "")
        newest = self.homes.newest(connection, [grant.resident_id])[grant.resident_id]
        if newest.home_epoch == grant.home_epoch:
            self._begin(connection, grant, reason, was_home=held is not None)
        return True

    def _overrule(self, connection: Connection, lost: Grant, signed: SignedGrant) -> None:
        """Two granters gave one epoch: the home that lost has to hear of it from somebody."""
        self.homes.forget(connection, lost)
        self.moves.drop(connection, lost.resident_id, lost.home_epoch)
        if lost.home_node not in (signed.grant.home_node, signed.grant.from_node):
            self.send_grant(connection, signed, lost.home_node)

    def _begin(self, connection: Connection, grant: Grant, reason: str, *, was_home: bool) -> None:
        """Do what this node owes, as far as it can be done at once."""
        here, now_ms = str(self._store.node_id), self._store.clock.now_ms()
        owed = duty(here, grant, self.path)
        move = Move(
            grant.resident_id,
            grant.home_epoch,
            grant.home_node,
            grant.from_node,
            MoveState.GRANTED,
            since=now_ms,
            changed_at=now_ms,
            reason=reason,
        )
        has_rows = self.rows.is_held(connection, grant.resident_id)
        mine = self.rows.home(connection, grant.resident_id)
        is_home = mine is not None and mine.home_node == here
        if owed is Duty.NEW_HOME:
            move = self._awaited(move, mine)
        elif owed is Duty.OLD_HOME or (has_rows and is_home):
            move = self._fence(connection, grant, move)
        elif has_rows and owed in {Duty.LEAVES, Duty.KEEPS}:
            move = replace(move, next_at=now_ms + AWAY_MS)
            if lets_go(here, grant, self.path):
                self.rows.rehome(connection, grant)
        elif has_rows and was_home:
            self.rows.rehome(connection, grant)
        self.moves.save(connection, move)
        operator = local_operator(self._store.node_id, self._store.hierarchy, "a home was granted")
        self.audit(connection, operator, Action.LEARN, grant.resident_id)

    def _awaited(self, move: Move, held: KnownHome | None) -> Move:
        """The new home: waits for the history, or has it: put back, it got his rows from above.

        Then nobody hands them over again. They may come after the grant, so it looks for them.
        """
        now_ms = self._store.clock.now_ms()
        if held is not None and (held.home_node, held.home_epoch) == (
            move.home_node,
            move.home_epoch,
        ):
            return replace(move, state=MoveState.HOLDING, next_at=now_ms)
        was_put_back = self._store.changelog.store_epoch > 1
        return replace(move, next_at=now_ms + AWAY_MS if was_put_back else None)

    def _fence(self, connection: Connection, grant: Grant, move: Move) -> Move:
        """The old home: ships what it holds and owns him no more, in one transaction.

        From here on the planner finds the grant and writes no identity data of his.
        """
        shipped = self.handover.ship_all(connection, grant)
        if self._store.node_id not in self.path(grant.home_node):
            self.rows.rehome(connection, grant)
        # Nothing to ship: somebody above may have it, and looks after a while, as this node does.
        if shipped:
            return shipping(move, self._store.clock.now_ms())
        return replace(move, next_at=self._store.clock.now_ms() + AWAY_MS)

    def _take_grant(self, connection: Connection, letter: Letter) -> str:
        signed = self._granted_above(connection, letter)
        grant, here = signed.grant, str(self._store.node_id)
        was_news = self.learn(connection, signed)
        if was_news and here not in (grant.from_node, grant.home_node):
            # Reminded after this node was put back: who lived below may have been as well.
            self.send_grant(connection, signed, grant.from_node)
        return ""

    def _see_grant(self, connection: Connection, letter: Letter) -> None:
        self.learn(connection, self._granted_above(connection, letter))

    def _learn_here(self, connection: Connection, signed: SignedGrant) -> None:
        self.judge.refuse_from_below(connection, signed, str(self._store.node_id))
        self.learn(connection, signed)

    def _granted_above(self, connection: Connection, letter: Letter) -> SignedGrant:
        """A letter's grant. Nobody but who is above a node may say that somebody left it.

        Otherwise a township could grant a move between two of its own villages for a resident of
        another one, and his home would hand his history over.
        """
        signed = grant_in(letter.body)
        self.judge.refuse_from_below(connection, signed, letter.to)
        return signed

    # -- rows that come late --------------------------------------------------------------------

    def _redirect(self, connection: Connection, change: RowChange, grant: Grant) -> None:
        """A row reached this node under a home that it knows to be a former one."""
        self.handover.ship(connection, grant, [change], whole=False)
        move = self.moves.get(connection, grant.resident_id, grant.home_epoch)
        if move is None or move.state is not MoveState.SETTLED:
            return
        # Long after the move somebody still writes as his home: put back from before it.
        signed = self.homes.signed(connection, grant.resident_id, grant.home_epoch)
        below = self._store.hierarchy.subtree(self._store.node_id)
        above = grant.granted_by in self.path(change.home_node)
        if signed is not None and above and change.home_node in below:
            self.send_grant(connection, signed, change.home_node)

    def _receipted(self, connection: Connection, letter: SentLetter, code: str) -> None:
        self.moves.receipted(connection, letter.letter_id, code)

    # -- the end --------------------------------------------------------------------------------

    def say_settled(self, connection: Connection, move: Move) -> None:
        """At the new home, once the node above confirmed: tell the old path that he is held."""
        self._say_settled_to(connection, move, NodeId(move.from_node))
        self.moves.save(connection, settled(move, self._store.clock.now_ms()))

    def _say_settled_to(self, connection: Connection, move: Move, node: NodeId) -> None:
        held = frozenset(fingerprint(change) for change in self._as_shipped(connection, move))
        self._send_settled(connection, move, node, held)

    def pass_settled(self, connection: Connection, move: Move, held: frozenset[bytes]) -> None:
        """At a home that he left before his history came: the next home has it, so it may go.

        `held`: what that home said it holds; whoever lets go sends what is not among it.
        """
        self._send_settled(connection, move, NodeId(move.from_node), held)
        self.moves.save(connection, settled(move, self._store.clock.now_ms()))

    def _send_settled(
        self, connection: Connection, move: Move, node: NodeId, held: frozenset[bytes]
    ) -> None:
        if node == self._store.node_id:
            return
        self._store.post.send(
            connection,
            to=node,
            kind=SETTLED,
            body=settled_out(Settled(move.resident_id, move.home_epoch, held)),
            lane=Lane.CONTROL,
            open_letter=True,
        )

    def _as_shipped(self, connection: Connection, move: Move) -> list[RowChange]:
        """His rows with the versions under which the old path knows them."""
        return self.handover.as_shipped(self.rows.read(connection, move.resident_id), move)

    def _take_settled(self, connection: Connection, letter: Letter) -> str:
        return self._note_settled(connection, letter)

    def _see_settled(self, connection: Connection, letter: Letter) -> None:
        self._note_settled(connection, letter)

    def _note_settled(self, connection: Connection, letter: Letter) -> str:
        word = settled_in(letter.body)
        move = self.moves.get(connection, word.resident_id, word.home_epoch)
        if move is None or letter.sender != move.home_node:
            return _NOT_THE_HOME
        if move.state in {MoveState.PURGING, MoveState.SETTLED}:
            return ""
        grant = self._grant_of(move)
        here = str(self._store.node_id)
        # Who shipped held him, whatever the grant says: a home that lost against another grant.
        goes = lets_go(here, grant, self.path) or (
            move.state is MoveState.SHIPPING and here not in self.path(grant.home_node)
        )
        # A home that he passed through tells the one before, once all it passed on is confirmed.
        goes = goes or bool(self.moves.never_held(connection, move, here))
        now_ms = self._store.clock.now_ms()
        self.moves.save(
            connection,
            replace(
                move,
                state=MoveState.PURGING if goes else MoveState.SETTLED,
                held=b"".join(sorted(word.held)) if goes else None,
                changed_at=now_ms,
                next_at=now_ms if goes else None,
            ),
        )
        return ""

    @staticmethod
    def _grant_of(move: Move) -> Grant:
        return Grant(
            move.resident_id, move.home_epoch, move.home_node, move.from_node, "", move.since
        )

    def audit(
        self, connection: Connection, caller: Caller, action: Action, resident_id: str
    ) -> None:
        """Write a deed about a move into the audit."""
        deed = Deed(action, RESIDENTS.name, Outcome.DONE, 1, resident_id, resident_id)
        self._store.auditor.write(connection, caller, deed)
