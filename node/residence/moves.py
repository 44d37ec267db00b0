"""This node's part in moves, and the letters it sent for them; in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from node.residence.tables import ResidenceTables
from replication.changelog.dialects import upsert

__all__ = [
    "LONGEST_PAUSE_MS",
    "PATIENCE_MS",
    "REQUESTED_EPOCH",
    "Move",
    "MoveState",
    "Moves",
    "settled",
    "shipping",
]

REQUESTED_EPOCH: Final = 0
"""A move that was asked for here and is not granted yet has no epoch."""
PATIENCE_MS: Final = 10 * 60_000
"""After that a node that holds him ships, whatever it believes of those nearer to the old home; and
one that has shipped does it again if the new home has said nothing."""
LONGEST_PAUSE_MS: Final = 6 * 3_600_000
_COLUMNS: Final = (
    "home_node",
    "from_node",
    "state",
    "code",
    "reason",
    "asked_by",
    "since",
    "changed_at",
    "next_at",
    "sequence",
    "base",
    "held",
)


class MoveState(StrEnum):
    """How far a node is with its part."""

    REQUESTED = "requested"
    """Asked for here; whoever grants it has not answered yet."""
    REFUSED = "refused"
    GRANTED = "granted"
    """The grant is known; his history has not come, or is not known to have come."""
    SHIPPING = "shipping"
    """What this node holds of him is on its way to the new home."""
    HOLDING = "holding"
    """The new home has his history; the node above it has not confirmed all of it."""
    PURGING = "purging"
    """The new home holds him; here the rows are about to go."""
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Move:
    """A row of residence_moves; see the table."""

    resident_id: str
    home_epoch: int
    home_node: str
    from_node: str
    state: MoveState
    since: int
    changed_at: int
    code: str = ""
    reason: str = ""
    asked_by: str = ""
    next_at: int | None = None
    sequence: int = 0
    base: bytes | None = None
    held: bytes | None = None


def shipping(move: Move, now_ms: int) -> Move:
    """The move of a node that has just shipped; after a while without a word it looks again."""
    return replace(
        move,
        state=MoveState.SHIPPING,
        changed_at=now_ms,
        sequence=1,
        next_at=now_ms + PATIENCE_MS,
    )


def settled(move: Move, now_ms: int) -> Move:
    """The move of a node that owes nothing for it any more."""
    return replace(move, state=MoveState.SETTLED, changed_at=now_ms, next_at=None)


class Moves:
    """Statements on residence_moves and residence_letters."""

    def __init__(self, tables: ResidenceTables) -> None:
        self._m = tables.moves
        self._l = tables.letters

    def get(self, connection: Connection, resident_id: str, home_epoch: int) -> Move | None:
        """A move, locked until the commit."""
        m = self._m
        query = select(m).where(m.c.resident_id == resident_id, m.c.home_epoch == home_epoch)
        row = connection.execute(query.with_for_update()).first()
        return None if row is None else _move(row)

    def of_resident(self, connection: Connection, resident_id: str) -> list[Move]:
        """Every move of a resident, the newest last."""
        m = self._m
        query = select(m).where(m.c.resident_id == resident_id).order_by(m.c.home_epoch)
        return [_move(row) for row in connection.execute(query)]

    def never_held(self, connection: Connection, move: Move, here: str) -> list[Move]:
        """Earlier moves to this node whose history never came to stay: he had moved on before."""
        return [
            each
            for each in self.of_resident(connection, move.resident_id)
            if REQUESTED_EPOCH < each.home_epoch < move.home_epoch
            and each.home_node == here
            and each.state is MoveState.GRANTED
        ]

    def save(self, connection: Connection, move: Move) -> None:
        """Keep a move as it is now."""
        upsert(connection, self._m, [asdict(move) | {"state": move.state.value}], list(_COLUMNS))

    def drop(self, connection: Connection, resident_id: str, home_epoch: int) -> None:
        """Forget a move: a request that was granted, a grant that another outranks."""
        m = self._m
        connection.execute(
            delete(m).where(m.c.resident_id == resident_id, m.c.home_epoch == home_epoch)
        )

    def due(self, connection: Connection, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """Moves about which something is to be done by now; a clock that was put back too."""
        m = self._m
        overdue = or_(m.c.next_at <= now_ms, m.c.next_at > now_ms + LONGEST_PAUSE_MS)
        query = select(m.c.resident_id, m.c.home_epoch).where(overdue).order_by(m.c.next_at)
        return [(row[0], row[1]) for row in connection.execute(query.limit(limit))]

    def wake(self, connection: Connection, now_ms: int) -> None:
        """Make every move due for which this node has shipped, as if it had shipped now."""
        m = self._m
        shipped = m.c.state == MoveState.SHIPPING.value
        connection.execute(update(m).where(shipped).values(changed_at=now_ms, next_at=now_ms))

    def in_transfer(self, connection: Connection) -> dict[str, int]:
        """Residents whose history is not known to have come to the new home, by that home."""
        m = self._m
        waiting = (MoveState.GRANTED.value, MoveState.SHIPPING.value)
        query = (
            select(m.c.home_node, func.count())
            .where(m.c.state.in_(waiting), m.c.home_epoch > REQUESTED_EPOCH)
            .group_by(m.c.home_node)
        )
        return {str(home): int(count) for home, count in connection.execute(query)}

    def note_letters(
        self, connection: Connection, resident_id: str, home_epoch: int, ids: Sequence[str]
    ) -> None:
        """Remember letters that carry his rows: all must be confirmed before the rows go."""
        rows = [
            {
                "letter_id": letter_id,
                "resident_id": resident_id,
                "home_epoch": home_epoch,
                "state": "sent",
                "code": "",
            }
            for letter_id in ids
        ]
        if rows:
            connection.execute(insert(self._l), rows)

    def receipted(self, connection: Connection, letter_id: str, code: str) -> None:
        """Note the addressee's answer to a letter; "" confirms it."""
        t = self._l
        state = "refused" if code else "confirmed"
        connection.execute(
            update(t).where(t.c.letter_id == letter_id).values(state=state, code=code[:64])
        )

    def unconfirmed(self, connection: Connection, resident_id: str, home_epoch: int) -> int:
        """Letters of a move that are not confirmed."""
        t = self._l
        query = (
            select(func.count())
            .select_from(t)
            .where(
                t.c.resident_id == resident_id,
                t.c.home_epoch == home_epoch,
                t.c.state != "confirmed",
            )
        )
        return connection.execute(query).scalar_one()


def _move(row: Row[Any]) -> Move:
    return Move(
        resident_id=row.resident_id,
        home_epoch=row.home_epoch,
        home_node=row.home_node,
        from_node=row.from_node,
        state=MoveState(row.state),
        since=row.since,
        changed_at=row.changed_at,
        code=row.code,
        reason=row.reason,
        asked_by=row.asked_by,
        next_at=row.next_at,
        sequence=row.sequence,
        base=None if row.base is None else bytes(row.base),
        held=None if row.held is None else bytes(row.held),
    )
