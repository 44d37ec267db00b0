"""How much is held: for status, and as the denominator of coverage."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from sqlalchemy import Connection, func, select, union

from node.records.canaries import are_people
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.model import Counts
from node.storage.scope import form_of, placed
from node.storage.specs import RESIDENT_INDEX, RESIDENTS
from node.storage.tables import REPLICATED, RESIDENCE
from replication.core.model import Form

__all__ = ["Counter"]

_M = RESIDENCE.moves
_MOVING: Final = select(_M.c.resident_id, _M.c.home_node, _M.c.home_epoch).where(
    _M.c.state.in_(("granted", "shipping")), _M.c.home_epoch > 0
)
_R = REPLICATED[RESIDENTS.name]
_X = REPLICATED[RESIDENT_INDEX.name]


class Counter:
    """Counts rows."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    def counts(self) -> Counts:
        """See Storage.counts."""

        def work(connection: Connection) -> Counts:
            rows = {
                name: connection.execute(
                    select(func.count())
                    .select_from(table)
                    .where(table.c.deleted.is_(False), are_people(table))
                ).scalar_one()
                for name, table in REPLICATED.items()
            }
            in_full = connection.execute(
                select(func.count()).where(
                    _R.c.form == Form.FULL.value, _R.c.deleted.is_(False), are_people(_R)
                )
            ).scalar_one()
            return Counts(in_full + rows[RESIDENT_INDEX.name], rows)

        return self._store.transactions.read(work)

    def residents_by_home(self, caller: Caller) -> dict[str, int]:
        """See Storage.residents_by_home."""
        scope = self._store.scopes.parameters(caller)
        large = form_of(caller).large
        known = union(
            select(_R.c.row_id, _R.c.home_node).where(
                _R.c.form == Form.FULL.value, _R.c.deleted.is_(False), placed(_R, large=large)
            ),
            select(_X.c.row_id, _X.c.home_node).where(
                _X.c.deleted.is_(False), placed(_X, large=large)
            ),
        ).subquery("known")
        query = select(known.c.home_node, func.count()).group_by(known.c.home_node)

        def work(connection: Connection) -> dict[str, int]:
            found = {str(home): int(count) for home, count in connection.execute(query, scope)}
            for home, change in self._in_transfer(connection, caller).items():
                found[home] = max(0, found.get(home, 0) + change)
            deed = Deed(Action.COUNT, RESIDENTS.name, Outcome.DONE, sum(found.values()))
            self._store.auditor.write(connection, caller, deed)
            return found

        return self._store.transactions.write(work)

    def _in_transfer(self, connection: Connection, caller: Caller) -> dict[str, int]:
        """What moves under way change: who is on his way belongs to the new home already.

        He is known there and nowhere counted until his history has come, so that no answer that
        lacks him is complete.
        """
        changes: dict[str, int] = defaultdict(int)
        for resident_id, home_node, home_epoch in connection.execute(_MOVING).all():
            held = [
                row
                for t in (_R, _X)
                for row in connection.execute(
                    select(t.c.home_node, t.c.home_epoch).where(t.c.row_id == resident_id)
                )
            ]
            if any(row.home_epoch >= home_epoch for row in held):
                continue
            for row in held[:1]:
                changes[row.home_node] -= 1
            if home_node in caller.scope:
                changes[home_node] += 1
        return changes
