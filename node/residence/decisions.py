"""The new home decides on proposals: accepted ones become the next version of the row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from node.clock import format_ms
from node.errors import InvalidRequestError
from node.residence.errors import ProposalUnknownError, ResidentMovedError
from node.residence.proposals import ACCEPTED, FORWARDED, REJECTED, WAITING, Proposal
from node.residence.residence import Residence
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.rows import held_rows
from node.storage.shapes import is_row_id
from replication.core.model import Operation, RowChange, Value, Version, next_version

__all__ = ["ProposalDesk", "ShownProposal"]

_OBJECT: Final = "proposals"
_STATES: Final = frozenset({WAITING, ACCEPTED, REJECTED, FORWARDED})
_LIMIT_MAX: Final = 500
_REASON_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class ShownProposal:
    """A proposal with what it would change: column → (present, proposed), "" for nothing."""

    proposal: Proposal
    changes: Mapping[str, tuple[str, str]]


class ProposalDesk:
    """Lists proposals and carries decisions out; every look and every decision is audited."""

    def __init__(self, store: StoreContext, residence: Residence) -> None:
        self._store = store
        self._residence = residence

    def listed(
        self, caller: Caller, *, resident_id: str, state: str, after: str, limit: int
    ) -> list[ShownProposal]:
        """A page in the order of arrival.

        Raises:
            InvalidRequestError: There is no such state.
        """
        if state not in _STATES:
            raise InvalidRequestError(f"state is one of {', '.join(sorted(_STATES))}")

        def work(connection: Connection) -> list[ShownProposal]:
            found = self._residence.proposals.listed(
                connection,
                resident_id=resident_id,
                state=state,
                after=after,
                limit=min(max(limit, 1), _LIMIT_MAX),
            )
            deed = Deed(Action.READ, _OBJECT, Outcome.DONE, len(found))
            seen = [(each.proposal_id, each.change.resident_id) for each in found]
            deeds = [Deed(Action.READ, _OBJECT, Outcome.DONE, 1, *ids) for ids in seen]
            self._store.auditor.write(connection, caller, deed, *deeds)
            return [self._shown(connection, each) for each in found]

        return self._store.transactions.write(work)

    def decide(
        self, caller: Caller, proposal_id: str, *, accept: bool, reason: str
    ) -> ShownProposal:
        """Accept or reject a proposal that waits. Durable on return; the same again does nothing.

        Raises:
            ProposalUnknownError: No such proposal waits here.
            ResidentMovedError: He has moved on: his present home decides.
            InvalidRequestError: A rejection without a reason.
        """
        reason = reason.strip()[:_REASON_MAX]
        if not accept and not reason:
            raise InvalidRequestError("a proposal is rejected with a reason")
        state = ACCEPTED if accept else REJECTED

        def work(connection: Connection) -> ShownProposal:
            proposal = self._waiting(connection, proposal_id, state)
            if proposal.state == state:
                return self._shown(connection, proposal)
            if accept:
                self._accept(connection, proposal)
            action = Action.ACCEPT if accept else Action.REJECT
            resident_id = proposal.change.resident_id
            deed = Deed(action, _OBJECT, Outcome.DONE, 1, proposal_id, resident_id)
            self._store.auditor.write(connection, caller, deed)
            self._residence.proposals.decide(
                connection,
                proposal_id,
                state,
                by=caller.principal,
                reason=reason,
                now_ms=self._store.clock.now_ms(),
            )
            return self._shown(connection, self._waiting(connection, proposal_id, state))

        return self._store.transactions.write(work)

    def _waiting(self, connection: Connection, proposal_id: str, state: str) -> Proposal:
        found = (
            self._residence.proposals.get(connection, proposal_id)
            if is_row_id(proposal_id)
            else None
        )
        if found is None or found.state not in {WAITING, state}:
            raise ProposalUnknownError("no such proposal waits here")
        return found

    def _accept(self, connection: Connection, proposal: Proposal) -> None:
        """Write the proposed row as this home's own next version of it."""
        change = proposal.change
        there = held_rows(connection, change.table, [change.row_id]).get(change.row_id)
        if there is not None and there.resident_id != change.resident_id:
            raise InvalidRequestError(
                "the proposed row is another resident's here",
                hint="Reject the proposal with a reason, and look at the node that sent it.",
            )
        known = self._residence.known(connection, change.resident_id)
        if known is None or known.home_node != self._store.node_id:
            raise ResidentMovedError(known.home_node if known else "", 0)
        rows = self._residence.rows.read(connection, change.resident_id)
        held = next((row for row in rows if row.row_id == change.row_id), None)
        owner = next(row for row in rows if row.row_id == change.resident_id)
        version = (
            next_version(held.version, self._store.changelog.store_epoch)
            if held
            else Version(owner.version.author_epoch, 1)
        )
        accepted = replace(
            change,
            version=version,
            author_node=str(self._store.node_id),
            home_node=known.home_node,
            home_epoch=known.home_epoch,
            recorded_at=format_ms(self._store.clock.now_ms()),
        )
        self._residence.rows.write(connection, [accepted])

    def _shown(self, connection: Connection, proposal: Proposal) -> ShownProposal:
        rows = self._residence.rows.read(connection, proposal.change.resident_id)
        held = next((row for row in rows if row.row_id == proposal.change.row_id), None)
        return ShownProposal(proposal, _differences(held, proposal.change))


def _differences(held: RowChange | None, proposed: RowChange) -> dict[str, tuple[str, str]]:
    present: Mapping[str, Value] = held.values if held else {}
    offered = {} if proposed.operation is Operation.DELETE else proposed.values
    names = sorted(present.keys() | offered.keys())
    return {
        name: (_text(present.get(name)), _text(offered.get(name)))
        for name in names
        if present.get(name) != offered.get(name)
    }


def _text(value: Value) -> str:
    return "" if value is None else str(value)
