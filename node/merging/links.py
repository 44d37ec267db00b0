"""Reads events over pairs of residents, in the caller's transaction.

A half counts only where its resident is held in full, and under the home that he has here: whoever
wrote it stood over that home, or it would not have been taken. So nobody prepares the ground for
somebody who is yet to come.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, select

from node.merging.fold import Decision, Group, Half, Part, group_of
from node.storage.context import StoreContext
from node.storage.ready import ReadySelect, padded
from node.storage.specs import IDENTITY_LINKS, RESIDENTS
from node.storage.tables import REPLICATED
from replication.core.model import Form

__all__ = [
    "HALVES_MAX",
    "group",
    "groups",
    "halves_around",
    "halves_between",
    "held_in_full",
    "lock_residents",
]

HALVES_MAX: Final = 500
"""Halves that are read of one resident: nobody is decided over so often, and a node below that
writes more over its own resident may part him from others, which it may anyway."""

_L: Final = REPLICATED[IDENTITY_LINKS.name]
_R: Final = REPLICATED[RESIDENTS.name]
_IS_HELD: Final = (_R.c.form == Form.FULL.value, _R.c.deleted.is_(False))
_COUNTS: Final = (
    _L.c.form == Form.FULL.value,
    _L.c.deleted.is_(False),
    _R.c.row_id == _L.c.resident_id,
    _R.c.home_node == _L.c.home_node,
    _R.c.home_epoch == _L.c.home_epoch,
    *_IS_HELD,
)
_COLUMNS: Final = (
    _L.c.event_id,
    _L.c.resident_id,
    _L.c.other_id,
    _L.c.decision,
    _L.c.part,
    _L.c.ends,
    _L.c.author_node,
)


def _halves_query() -> Select[Any]:
    return select(*_COLUMNS).where(*_COUNTS, _L.c.resident_id.in_(bindparam("ids", expanding=True)))


_OWN: Final = ReadySelect(_halves_query().order_by(_L.c.row_id).limit(HALVES_MAX))
_BACK: Final = ReadySelect(
    _halves_query()
    .where(_L.c.other_id.in_(bindparam("others", expanding=True)))
    .order_by(_L.c.row_id)
    .limit(2 * HALVES_MAX)
)
_TOUCHED: Final = ReadySelect(
    select(_L.c.resident_id)
    .where(*_COUNTS, _L.c.resident_id.in_(bindparam("ids", expanding=True)))
    .distinct()
)
_HELD: Final = ReadySelect(
    select(_R.c.row_id).where(_R.c.row_id.in_(bindparam("ids", expanding=True)), *_IS_HELD)
)
_LOCK: Final = (
    select(_R.c.row_id)
    .where(_R.c.row_id.in_(bindparam("ids", expanding=True)))
    .order_by(_R.c.row_id)
    .with_for_update()
)
_DECISIONS: Final = frozenset(Decision)
_PARTS: Final = frozenset(Part)


def halves_between(
    connection: Connection, ids: Collection[str], others: Collection[str]
) -> list[Half]:
    """Halves of events about some residents over others."""
    if not ids or not others:
        return []
    return _read(_BACK, connection, {"ids": _listed(ids), "others": _listed(others)})


def halves_around(connection: Connection, resident_id: str) -> list[Half]:
    """Halves about a resident, and those of the others over him."""
    own = _read(_OWN, connection, {"ids": [resident_id]})
    return [*own, *halves_between(connection, {half.other_id for half in own}, [resident_id])]


def held_in_full(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Those of some residents who are held here in full."""
    if not ids:
        return frozenset()
    return frozenset(_HELD.execute(connection, {"ids": _listed(ids)}).scalars())


def lock_residents(connection: Connection, ids: Collection[str]) -> None:
    """Keep whoever is held as he is to the commit, and other decisions over him waiting."""
    connection.execute(_LOCK, {"ids": sorted(ids)}).all()


def group(store: StoreContext, connection: Connection, resident_id: str) -> Group:
    """Everybody who is one person with a resident."""
    return group_of(
        resident_id,
        own=lambda each: _read(_OWN, connection, {"ids": [each]}),
        back=lambda ids, one: halves_between(connection, ids, [one]),
        held_of=lambda ids: held_in_full(connection, ids),
        above=frozenset(store.hierarchy.path_to_root(store.node_id)),
    )


def groups(store: StoreContext, connection: Connection, ids: Collection[str]) -> dict[str, Group]:
    """Groups of those of some residents who are known under other ids too: mostly nobody."""
    if not ids:
        return {}
    touched = sorted(set(_TOUCHED.execute(connection, {"ids": _listed(ids)}).scalars()))
    found = {each: group(store, connection, each) for each in touched}
    return {each: whose for each, whose in found.items() if whose.others_of(each)}


def _listed(ids: Collection[str]) -> list[str]:
    return padded(sorted(ids))


def _read(query: ReadySelect, connection: Connection, wanted: dict[str, Any]) -> list[Half]:
    """A decision that this release does not know is none."""
    return [
        Half(
            row.event_id,
            row.resident_id,
            row.other_id,
            Decision(row.decision),
            Part(row.part),
            frozenset((row.ends or "").split()),
            row.author_node,
        )
        for row in query.execute(connection, wanted)
        if row.decision in _DECISIONS and row.part in _PARTS and row.event_id and row.other_id
    ]
