"""What a caller is shown: candidates and pairs of residents whom he may see, audited.

Residents whom a caller may not see are in nothing that he is told: a page's end may lie at a pair
of them, so what he asks on with is sealed. Whom he sees is asked of the storage's scope in the
transaction that writes the audit.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

from node.matching.book import PairBook, Place
from node.matching.model import (
    Candidates,
    CandidateShown,
    Evidence,
    MatchOutcome,
    MatchPair,
    PairPage,
    PairState,
    Standing,
    evidence_of,
)
from node.merging.fold import Decision, standing
from node.merging.links import groups, halves_between
from node.security.caller import Caller
from node.security.errors import SecurityError
from node.security.sealing import cell_aad
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.errors import PageTokenError
from node.storage.scope import seen_residents
from node.storage.specs import RESIDENTS
from node.storage.tables import MATCHING

if TYPE_CHECKING:
    from node.empi.index import Answer

__all__ = ["Shower"]

_PAIRS: Final = MATCHING.pairs.name
_PAGE_MAX: Final = 200
_LOOKED_AT: Final = 200
_LOOKS: Final = 10
"""A page is given up after so many looks at so many pairs: a caller who sees few asks on."""
_TOKEN_MAX: Final = 1000


class Shower:
    """Filters by scope, and audits."""

    def __init__(self, store: StoreContext, book: PairBook) -> None:
        self._store = store
        self._book = book

    def candidates(
        self, caller: Caller, answer: Answer, standing: Standing, limit: int
    ) -> Candidates:
        """Those of an answer whom the caller sees."""
        scope = self._store.scopes.parameters(caller)
        ids = [each.resident_id for each in answer.candidates]

        def work(connection: Connection) -> tuple[CandidateShown, ...]:
            seen = seen_residents(connection, caller, scope, ids)
            shown = tuple(
                CandidateShown(each.resident_id, evidence_of(each))
                for each in answer.candidates
                if each.resident_id in seen
            )
            named = [each.resident_id for each in shown[:limit]]
            self._audit(connection, caller, RESIDENTS.name, named)
            return shown

        shown = self._store.transactions.write(work)
        is_partial = not standing.is_ready or bool(answer.oversized)
        outcome = _outcome([each.evidence for each in shown], is_partial)
        return Candidates(outcome, shown[:limit], is_partial, standing)

    def pairs(self, caller: Caller, state: PairState, after: str, limit: int) -> PairPage:
        """A page of the pairs of which the caller sees both."""
        limit = min(max(limit, 1), _PAGE_MAX)
        place = self._read_token(caller, after)
        if place is not None:
            self._store.auditor.gate.refuse_bulk()
        scope = self._store.scopes.parameters(caller)

        def work(connection: Connection) -> PairPage:
            page = self._page(connection, caller, scope, (state, place), limit)
            named = dict.fromkeys(i for pair in page.pairs for i in (pair.first_id, pair.second_id))
            self._audit(connection, caller, _PAIRS, list(named))
            return page

        return self._store.transactions.write(work)

    def _page(
        self,
        connection: Connection,
        caller: Caller,
        scope: Mapping[str, Any],
        where: tuple[PairState, Place | None],
        limit: int,
    ) -> PairPage:
        state, place = where
        now_ms = self._store.clock.now_ms()
        found: list[MatchPair] = []
        for _ in range(_LOOKS):
            pairs = self._book.page(connection, state, place, _LOOKED_AT)
            ids = {i for pair in pairs for i in (pair.first_id, pair.second_id)}
            seen = seen_residents(connection, caller, scope, ids)
            is_done = _is_done(self._store, connection, ids)
            for pair in pairs:
                if state is PairState.WAITING and is_done(pair):
                    # At another node: what is done there is not met again here.
                    self._book.decide(connection, pair.first_id, pair.second_id, now_ms)
                    continue
                if len(found) == limit:
                    return PairPage(tuple(found), self._token(caller, _place(found[-1])))
                if seen >= {pair.first_id, pair.second_id}:
                    found.append(pair)
            if len(pairs) < _LOOKED_AT:
                return PairPage(tuple(found), "")
            place = _place(pairs[-1])
        return PairPage(tuple(found), "" if place is None else self._token(caller, place))

    def _token(self, caller: Caller, place: Place) -> str:
        """A place in the pairs, for this caller alone; it says nothing to him."""
        sealer = self._store.cells.sealer_of(_PAIRS)
        sealed = sealer.seal(json.dumps(place).encode(), self._aad(caller))
        return base64.urlsafe_b64encode(sealed).decode()

    def _read_token(self, caller: Caller, token: str) -> Place | None:
        """The inverse of `_token`; None for no token. Raises PageTokenError."""
        if not token:
            return None
        if len(token) > _TOKEN_MAX:
            raise PageTokenError
        sealer = self._store.cells.sealer_of(_PAIRS)
        try:
            clear = sealer.open(base64.urlsafe_b64decode(token), self._aad(caller))
        except (ValueError, SecurityError):
            raise PageTokenError from None
        probability, first_id, second_id = json.loads(clear)
        return float(probability), str(first_id), str(second_id)

    def _aad(self, caller: Caller) -> bytes:
        return cell_aad(self._store.node_id, _PAIRS, "next", caller.principal)

    def _audit(
        self, connection: Connection, caller: Caller, table: str, named: Sequence[str]
    ) -> None:
        """One deed a resident who is shown, or one that nobody was found."""
        deeds = [Deed(Action.FIND, table, Outcome.DONE, 1, each, each) for each in named]
        nobody = Deed(Action.FIND, table, Outcome.NOT_FOUND, 0)
        self._store.auditor.write(connection, caller, *(deeds or [nobody]))


def _outcome(found: Sequence[Evidence], is_partial: bool) -> MatchOutcome:
    """As the index decides, by what the caller sees alone."""
    if sum(each.outcome is MatchOutcome.LINK for each in found) == 1:
        return MatchOutcome.LINK
    return MatchOutcome.REVIEW if found or is_partial else MatchOutcome.NEW


def _is_done(
    store: StoreContext, connection: Connection, ids: Collection[str]
) -> Callable[[MatchPair], bool]:
    """Whether a pair of these was told apart or is one person already, wherever it was decided."""
    halves = standing(halves_between(connection, ids, ids))
    parted = {half.pair for half in halves if half.decision is Decision.DIFFERENT}
    joined = groups(store, connection, ids)

    def is_done(pair: MatchPair) -> bool:
        group = joined.get(pair.first_id)
        is_one = group is not None and pair.second_id in group.members
        return is_one or frozenset({pair.first_id, pair.second_id}) in parted

    return is_done


def _place(pair: MatchPair) -> Place:
    return pair.evidence.probability, pair.first_id, pair.second_id
