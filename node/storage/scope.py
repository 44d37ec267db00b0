"""Which rows a caller may see, as part of the statement that reads them.

A row is visible if its home is in the caller's scope or the caller's node wrote it, and it is of a
person: canaries (node/records/canaries.py) are seen by nobody. A few homes are
spelled out; larger sets are kept once in a table under their hash, because a county's scope has
hundreds of homes and a statement should not.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, bindparam, func, insert, or_, select

from hierarchy_config.model import NodeId
from node.records.canaries import are_people
from node.security.caller import Caller
from node.storage.tables import SCOPE_HOMES
from node.storage.transactions import Transactions

__all__ = ["Scopes", "is_large", "sees", "visible"]

_SPELLED_OUT_MAX: Final = 8
_KEYS_KEPT: Final = 1024


def is_large(caller: Caller) -> bool:
    """Whether the caller's scope is looked up in a table rather than spelled out."""
    return len(caller.scope) > _SPELLED_OUT_MAX


def visible(table: Table, large: bool) -> ColumnElement[bool]:
    """The condition on `table`; its parameters come from Scopes.parameters."""
    if large:
        homes = select(SCOPE_HOMES.c.home_node).where(
            SCOPE_HOMES.c.scope_key == bindparam("scope_key")
        )
        in_scope = table.c.home_node.in_(homes)
    else:
        in_scope = table.c.home_node.in_(bindparam("scope_homes", expanding=True))
    mine = table.c.author_node == bindparam("scope_author")
    return and_(or_(mine, in_scope), are_people(table))


def sees(caller: Caller, *, home_node: str, author_node: str) -> bool:
    """The same rule for a row in hand, such as an answer that a cache kept."""
    return author_node == caller.node_id or home_node in caller.scope


class Scopes:
    """Knows which large scopes the database holds already."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._held: dict[frozenset[NodeId], str] = {}

    def parameters(self, caller: Caller) -> dict[str, Any]:
        """Parameters of `visible`. Stores a large scope first, in a transaction of its own."""
        if not is_large(caller):
            return {"scope_author": caller.node_id, "scope_homes": sorted(caller.scope)}
        key = self._held.get(caller.scope)
        if key is None:
            key = self._store(caller.scope)
        return {"scope_author": caller.node_id, "scope_key": key}

    def _store(self, homes: frozenset[NodeId]) -> str:
        key = hashlib.sha256(",".join(sorted(homes)).encode()).hexdigest()
        held = select(func.count()).select_from(SCOPE_HOMES).where(SCOPE_HOMES.c.scope_key == key)
        # One transaction writes a scope whole, so that a count above zero is all of it.
        self._transactions.write(
            lambda connection: (
                connection.execute(held).scalar_one()
                or connection.execute(
                    insert(SCOPE_HOMES),
                    [{"scope_key": key, "home_node": home} for home in sorted(homes)],
                ).rowcount
            )
        )
        if len(self._held) >= _KEYS_KEPT:
            self._held.clear()
        self._held[homes] = key
        return key
