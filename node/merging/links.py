"""Reads events over pairs of residents, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, bindparam, select

from node.merging.fold import Decision, Group, Half, Part, group_of
from node.storage.ready import ReadySelect, padded
from node.storage.specs import IDENTITY_LINKS, RESIDENTS
from node.storage.tables import REPLICATED
from replication.core.model import Form

__all__ = ["group", "groups", "halves_of", "held_in_full"]

_L: Final = REPLICATED[IDENTITY_LINKS.name]
_R: Final = REPLICATED[RESIDENTS.name]
_HALVES: Final = ReadySelect(
    select(
        _L.c.event_id, _L.c.resident_id, _L.c.other_id, _L.c.decision, _L.c.part, _L.c.ends
    ).where(
        _L.c.resident_id.in_(bindparam("ids", expanding=True)),
        _L.c.form == Form.FULL.value,
        _L.c.deleted.is_(False),
    )
)
_HELD: Final = ReadySelect(
    select(_R.c.row_id).where(
        _R.c.row_id.in_(bindparam("ids", expanding=True)),
        _R.c.form == Form.FULL.value,
        _R.c.deleted.is_(False),
    )
)
_DECISIONS: Final = frozenset(Decision)
_PARTS: Final = frozenset(Part)


def halves_of(connection: Connection, ids: Collection[str]) -> list[Half]:
    """Halves of events about some residents. A decision that this release does not know is none."""
    rows = _HALVES.execute(connection, {"ids": padded(sorted(ids))})
    return [
        Half(
            row.event_id,
            row.resident_id,
            row.other_id,
            Decision(row.decision),
            Part(row.part),
            frozenset((row.ends or "").split()),
        )
        for row in rows
        if row.decision in _DECISIONS and row.part in _PARTS and row.event_id and row.other_id
    ]


def held_in_full(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Those of some residents who are held here in full."""
    return frozenset(_HELD.execute(connection, {"ids": padded(sorted(ids))}).scalars())


def group(connection: Connection, resident_id: str) -> Group:
    """Everybody who is one person with a resident."""
    return group_of(
        resident_id,
        lambda ids: halves_of(connection, ids),
        lambda ids: held_in_full(connection, ids),
    )


def groups(connection: Connection, ids: Collection[str]) -> dict[str, Group]:
    """Groups of those of some residents who are in one with somebody else: mostly nobody."""
    touched = {half.resident_id for half in halves_of(connection, ids)} if ids else set()
    found = {each: group(connection, each) for each in sorted(touched)}
    return {each: whose for each, whose in found.items() if len(whose.members) > 1}
