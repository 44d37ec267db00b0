"""Anchors, signers, epochs and findings in the database; every method takes a connection.

Anchors are thinned: of the last two days all are kept, of the last sixty the first of an hour,
beyond the first of a day, and the newest of each life always. The newest alone shows that anything
before it was changed; the others say sooner where. A clock that is wrong thins too much or too
little, and costs nothing but that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, func, insert, select
from sqlalchemy import update as sql_update

from hierarchy_config.model import NodeId
from node.auditing.model import (
    NOWHERE,
    Finding,
    FindingKind,
    Held,
    KeptAnchor,
    Life,
    Point,
    Signed,
    bound_of,
)
from node.auditing.statements import anchor_in, head_in
from node.auditing.tables import AuditingTables
from node.storage.tables import AUDIT, AUDIT_CHAIN
from replication.changelog.dialects import upsert

__all__ = ["AnchorStore", "StoredFinding"]

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_KEPT_MS: Final = {0: 2 * _DAY_MS, 1: 60 * _DAY_MS}
_FINDINGS_MAX: Final = 100
_CHANGED: Final = (
    "hash",
    "head",
    "head_signature",
    "head_key",
    "anchor",
    "anchor_signature",
    "anchor_key",
    "anchored_at",
)


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """A finding as it is kept. `accepted_ms` None: it stands."""

    number: int
    node_id: NodeId
    finding: Finding
    at_ms: int
    accepted_ms: int | None
    accepted_by: str
    reason: str


class AnchorStore:
    """The room's tables."""

    def __init__(self, tables: AuditingTables) -> None:
        self._t = tables

    # -- the node's own chain ------------------------------------------------------------------

    @staticmethod
    def end(connection: Connection) -> Point:
        """Where the chain ends."""
        row = connection.execute(select(AUDIT_CHAIN.c.position, AUDIT_CHAIN.c.hash)).one()
        return Point(row.position, row.hash)

    @staticmethod
    def at(connection: Connection, position: int) -> Point:
        """What the chain holds at a position."""
        if position == 0:
            return NOWHERE
        found = connection.execute(
            select(AUDIT.c.hash).where(AUDIT.c.chain_position == position)
        ).scalar()
        return Point(position, found or "")

    def begin_life(self, connection: Connection, epoch: int, now_ms: int) -> bool:
        """Note where this life of the store begins in the chain; False: it is noted already."""
        t = self._t.epochs
        if connection.execute(select(t.c.position).where(t.c.store_epoch == epoch)).first():
            return False
        end = self.end(connection)
        connection.execute(
            insert(t),
            {
                "store_epoch": epoch,
                "position": end.position,
                "hash": end.hash,
                "began_at": now_ms,
            },
        )
        return True

    def lives(self, connection: Connection) -> tuple[Life, ...]:
        """Where each life of the store began, oldest first."""
        t = self._t.epochs
        rows = connection.execute(select(t).order_by(t.c.store_epoch))
        return tuple(Life(row.store_epoch, row.position) for row in rows)

    # -- anchors -------------------------------------------------------------------------------

    def line(self, connection: Connection, node_id: NodeId) -> int:
        """Which line of a node's heads is anchored here now."""
        t = self._t.findings
        accepted = connection.execute(
            select(func.count(func.distinct(t.c.accepted_at))).where(
                t.c.node_id == node_id, t.c.accepted_at.is_not(None)
            )
        ).scalar_one()
        return 1 + int(accepted)

    def newest(
        self, connection: Connection, node_id: NodeId, holder: NodeId, line: int
    ) -> Held | None:
        """The newest head of a node that a holder keeps."""
        t = self._t.anchors
        row = (
            connection.execute(
                select(t)
                .where(self._of(node_id, holder), t.c.line == line)
                .order_by(t.c.store_epoch.desc(), t.c.position.desc())
                .limit(1)
            )
            .mappings()
            .first()
        )
        if row is None:
            return None
        kept = _kept(row)
        return Held(kept.head.store_epoch, kept.head.end, kept.head.lives, kept.anchor.at_ms)

    def below(
        self,
        connection: Connection,
        node_id: NodeId,
        holder: NodeId,
        line: int,
        lives: Iterable[Life],
    ) -> Point:
        """The newest anchor, of any life, that must be in a chain whose store had these lives."""
        t = self._t.anchors
        mine = and_(self._of(node_id, holder), t.c.line == line)
        held = tuple(lives)
        found = NOWHERE
        for (epoch,) in connection.execute(select(t.c.store_epoch).where(mine).distinct()):
            query = select(t.c.position, t.c.hash).where(mine, t.c.store_epoch == epoch)
            bound = bound_of(held, epoch)
            if bound is not None:
                query = query.where(t.c.position <= bound)
            row = connection.execute(query.order_by(t.c.position.desc()).limit(1)).first()
            if row is not None and row.position > found.position:
                found = Point(row.position, row.hash)
        return found

    def put(self, connection: Connection, kept: KeptAnchor, instead_of: Held | None = None) -> None:
        """Keep an anchor; the same head again takes the place of the one before.

        `instead_of`: of the same life and line; its row goes, and the new one has its grade.
        """
        t = self._t.anchors
        head, anchor = kept.head, kept.anchor
        grade = self._grade(connection, kept)
        if instead_of is not None and instead_of.end.position != head.end.position:
            old = and_(
                self._of(head.node_id, anchor.holder),
                t.c.line == anchor.line,
                t.c.store_epoch == head.store_epoch,
                t.c.position == instead_of.end.position,
            )
            held = connection.execute(select(t.c.grade).where(old)).scalar()
            grade = max(grade, held or 0)
            connection.execute(delete(t).where(old))
        upsert(
            connection,
            t,
            [
                {
                    "node_id": head.node_id,
                    "holder": anchor.holder,
                    "line": anchor.line,
                    "store_epoch": head.store_epoch,
                    "position": head.end.position,
                    "hash": head.end.hash,
                    "head": kept.head_signed.statement,
                    "head_signature": kept.head_signed.signature,
                    "head_key": kept.head_signed.key_id,
                    "anchor": kept.anchor_signed.statement,
                    "anchor_signature": kept.anchor_signed.signature,
                    "anchor_key": kept.anchor_signed.key_id,
                    "anchored_at": anchor.at_ms,
                    "grade": grade,
                }
            ],
            _CHANGED,
        )

    def kept(
        self, connection: Connection, node_id: NodeId, *, holder: NodeId | None, limit: int
    ) -> list[KeptAnchor]:
        """Anchors of a node, the newest of each life first; `holder` None: of all holders."""
        t = self._t.anchors
        whose = t.c.node_id == node_id if holder is None else self._of(node_id, holder)
        rows = connection.execute(
            select(t).where(whose).order_by(t.c.anchored_at.desc()).limit(limit)
        ).mappings()
        found = [_kept(row) for row in rows]
        last = (
            select(t.c.holder, t.c.line, t.c.store_epoch, func.max(t.c.position).label("position"))
            .where(whose)
            .group_by(t.c.holder, t.c.line, t.c.store_epoch)
            .subquery()
        )
        ends = connection.execute(
            select(t).join(
                last,
                and_(
                    t.c.node_id == node_id,
                    *(t.c[name] == last.c[name] for name in last.c.keys()),  # noqa: SIM118
                ),
            )
        ).mappings()
        return list({_place(each): each for each in (*found, *map(_kept, ends))}.values())

    def thin(self, connection: Connection, now_ms: int) -> int:
        """Delete what the thinning does not keep; how many."""
        t = self._t.anchors
        newest = (
            select(
                t.c.node_id.label("n"),
                t.c.holder.label("h"),
                t.c.line.label("l"),
                t.c.store_epoch.label("e"),
                func.max(t.c.position).label("p"),
            )
            .group_by(t.c.node_id, t.c.holder, t.c.line, t.c.store_epoch)
            .subquery()
        )
        gone = 0
        for grade, kept_ms in _KEPT_MS.items():
            old = connection.execute(
                select(t.c.node_id, t.c.holder, t.c.line, t.c.store_epoch, t.c.position)
                .join(
                    newest,
                    and_(
                        newest.c.n == t.c.node_id,
                        newest.c.h == t.c.holder,
                        newest.c.l == t.c.line,
                        newest.c.e == t.c.store_epoch,
                    ),
                )
                .where(
                    t.c.grade == grade,
                    t.c.anchored_at < now_ms - kept_ms,
                    t.c.position < newest.c.p,
                )
            ).all()
            for row in old:
                wanted = and_(*(t.c[name] == value for name, value in row._mapping.items()))  # noqa: SLF001
                gone += connection.execute(delete(t).where(wanted)).rowcount
        return gone

    def _grade(self, connection: Connection, kept: KeptAnchor) -> int:
        """2: the first of a day, 1: of an hour, 0: neither."""
        t = self._t.anchors
        before = connection.execute(
            select(func.max(t.c.anchored_at)).where(self._of(kept.head.node_id, kept.anchor.holder))
        ).scalar()
        at = kept.anchor.at_ms
        if before is None or at // _DAY_MS != before // _DAY_MS:
            return 2
        return int(at // _HOUR_MS != before // _HOUR_MS)

    def _of(self, node_id: NodeId, holder: NodeId) -> ColumnElement[bool]:
        t = self._t.anchors
        return and_(t.c.node_id == node_id, t.c.holder == holder)

    # -- signers -------------------------------------------------------------------------------

    def signer(self, connection: Connection, key_id: str) -> bytes | None:
        """The chain of a certificate, PEM."""
        t = self._t.signers
        found = connection.execute(select(t.c.chain).where(t.c.key_id == key_id)).scalar()
        return None if found is None else bytes(found)

    def learn_signer(
        self, connection: Connection, key_id: str, node_id: NodeId, chain: bytes
    ) -> None:
        """Keep a chain that was verified."""
        row = {"key_id": key_id, "node_id": node_id, "chain": chain}
        upsert(connection, self._t.signers, [row], ["node_id", "chain"])

    # -- findings ------------------------------------------------------------------------------

    def note(
        self, connection: Connection, node_id: NodeId, found: Finding, head: Signed, now_ms: int
    ) -> bool:
        """Keep a finding with its evidence; False: it is kept already, or there are too many."""
        t = self._t.findings
        mine = select(func.count()).select_from(t).where(t.c.node_id == node_id)
        same = mine.where(
            t.c.kind == found.kind.value,
            t.c.store_epoch == found.store_epoch,
            t.c.position == found.position,
            t.c.accepted_at.is_(None),
        )
        standing = mine.where(t.c.accepted_at.is_(None))
        if connection.execute(same).scalar_one():
            return False
        if connection.execute(standing).scalar_one() >= _FINDINGS_MAX:
            return False
        connection.execute(
            insert(t),
            {
                "node_id": node_id,
                "kind": found.kind.value,
                "store_epoch": found.store_epoch,
                "position": found.position,
                "entries": found.entries,
                "expected": found.expected,
                "found": found.found,
                "head": head.statement,
                "head_signature": head.signature,
                "head_key": head.key_id,
                "at": now_ms,
            },
        )
        return True

    def findings(
        self, connection: Connection, node_id: NodeId | None = None
    ) -> list[StoredFinding]:
        """Findings of a node, or of all, oldest first."""
        t = self._t.findings
        query = select(t).order_by(t.c.number)
        if node_id is not None:
            query = query.where(t.c.node_id == node_id)
        return [_finding(row) for row in connection.execute(query).mappings()]

    def accept(
        self, connection: Connection, node_id: NodeId, by: str, reason: str, now_ms: int
    ) -> int:
        """Close what stands of a node, so that a new line of its heads begins; how many."""
        t = self._t.findings
        last = connection.execute(
            select(func.max(t.c.accepted_at)).where(t.c.node_id == node_id)
        ).scalar()
        # Each acceptance has a time of its own, whatever the clock says: lines are counted by it.
        at = now_ms if last is None else max(now_ms, last + 1)
        return connection.execute(
            sql_update(t)
            .where(
                t.c.node_id == node_id,
                t.c.accepted_at.is_(None),
                t.c.kind != FindingKind.LOST.value,
            )
            .values(accepted_at=at, accepted_by=by, reason=reason)
        ).rowcount


def _kept(row: RowMapping) -> KeptAnchor:
    head = Signed(bytes(row["head"]), bytes(row["head_signature"]), row["head_key"])
    anchor = Signed(bytes(row["anchor"]), bytes(row["anchor_signature"]), row["anchor_key"])
    return KeptAnchor(head_in(head.statement), anchor_in(anchor.statement), head, anchor)


def _place(kept: KeptAnchor) -> Sequence[object]:
    head, anchor = kept.head, kept.anchor
    return (anchor.holder, anchor.line, head.store_epoch, head.end.position)


def _finding(row: RowMapping) -> StoredFinding:
    return StoredFinding(
        row["number"],
        NodeId(row["node_id"]),
        Finding(
            FindingKind(row["kind"]),
            row["store_epoch"],
            row["position"],
            row["expected"],
            row["found"],
            row["entries"],
        ),
        row["at"],
        row["accepted_at"],
        row["accepted_by"] or "",
        row["reason"] or "",
    )
