"""The table `region_epochs`: what this node was told of the region's configurations, and when.

One transaction a method. A decision, once written for an epoch, is never replaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from hierarchy_config import Hierarchy, NodeId, parse_region, region_text, shape_digest
from node.region.errors import RegionNotNextError
from node.region.statements import Offer
from node.storage.tables import CHANGELOG, REGION_EPOCHS
from node.storage.transactions import Transactions
from replication.changelog.tables import SEQUENCER_ROW

__all__ = ["EpochRow", "EpochState", "EpochStore"]

_T = REGION_EPOCHS


class EpochState(StrEnum):
    """What an epoch is at this node."""

    PENDING = "pending"
    ACTIVE = "active"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch. `progress` holds small facts of the work that followed the switch."""

    epoch: int
    state: EpochState
    shape_digest: str
    text: str
    offer: bytes | None
    decision: bytes | None
    purge_order: bytes | None
    received_ms: int
    activated_ms: int | None
    head_at_switch: int
    progress: Mapping[str, Any]

    @property
    def is_decided(self) -> bool:
        """Whether the root has signed it: in force, to be carried out, or waiting to be drained."""
        return self.decision is not None or bool(self.progress.get("draining"))

    @property
    def hierarchy(self) -> Hierarchy:
        """The hierarchy of its text."""
        return parse_region(self.text, file=f"epoch {self.epoch}")


class EpochStore:
    """Blocks on the database; safe from several threads."""

    def __init__(self, transactions: Transactions, now_ms: Callable[[], int]) -> None:
        self._transactions = transactions
        self._now_ms = now_ms

    def all(self) -> tuple[EpochRow, ...]:
        """Every epoch known, oldest first."""
        return self._transactions.read(
            lambda connection: tuple(
                _row(each) for each in connection.execute(select(_T).order_by(_T.c.epoch))
            )
        )

    def get(self, epoch: int) -> EpochRow | None:
        """One epoch."""
        return self._transactions.read(lambda connection: _get(connection, epoch))

    def decided_after(self, epoch: int) -> int:
        """The last epoch after one that is decided on and not in force here; 0: none."""
        query = select(_T).where(_T.c.epoch > epoch, _T.c.state == EpochState.PENDING.value)
        rows = self._transactions.read(
            lambda connection: [_row(each) for each in connection.execute(query)]
        )
        decided = (row for row in rows if row.decision or row.progress.get("draining"))
        return max((row.epoch for row in decided), default=0)

    def keep_offer(self, offer: Offer, digest: str) -> EpochRow:
        """Keep a configuration as pending; the same again changes nothing.

        Raises:
            RegionNotNextError: Another was decided on for the epoch.
        """
        values = {
            "state": EpochState.PENDING.value,
            "shape_digest": digest,
            "region_text": offer.text.encode(),
            "offer": offer.raw,
        }

        def work(connection: Connection) -> EpochRow:
            held = _get(connection, offer.epoch, lock=True)
            if held is None:
                row = {"epoch": offer.epoch, "received_at": self._now_ms(), **values}
                connection.execute(insert(_T).values(row))
            elif held.text == offer.text:
                return held
            elif held.is_decided or held.state is not EpochState.PENDING:
                raise RegionNotNextError(f"epoch {offer.epoch} was decided on with another content")
            else:
                connection.execute(update(_T).where(_T.c.epoch == offer.epoch).values(values))
            return _found(connection, offer.epoch)

        return self._transactions.write(work)

    def keep_decision(self, epoch: int, raw: bytes, text: str) -> bytes:
        """Note that an epoch with this content is decided on; returns what stands, the first one.

        Raises:
            RegionNotNextError: The epoch is held with another content by now; nothing is noted.
        """

        def work(connection: Connection) -> bytes:
            held = _get(connection, epoch, lock=True)
            if held is None or held.text != text:
                raise RegionNotNextError(f"epoch {epoch} is held with another content by now")
            free = (_T.c.epoch == epoch, _T.c.decision.is_(None))
            connection.execute(update(_T).where(*free).values(decision=raw))
            return _found(connection, epoch).decision or raw

        return self._transactions.write(work)

    def keep_purge_order(self, epoch: int, raw: bytes) -> None:
        """Note that what has left may be deleted."""

        def work(connection: Connection) -> None:
            free = (_T.c.epoch == epoch, _T.c.purge_order.is_(None))
            connection.execute(update(_T).where(*free).values(purge_order=raw))

        self._transactions.write(work)

    def note(self, epoch: int, facts: Mapping[str, Any]) -> None:
        """Add facts to an epoch's progress; a fact of the same name is replaced."""

        def work(connection: Connection) -> None:
            self.note_in(connection, epoch, facts)

        self._transactions.write(work)

    def note_in(self, connection: Connection, epoch: int, facts: Mapping[str, Any]) -> None:
        """The same in the caller's transaction."""
        held = _get(connection, epoch, lock=True)
        if held is not None:
            merged = {**held.progress, **facts}
            row = update(_T).where(_T.c.epoch == epoch)
            connection.execute(row.values(progress=json.dumps(merged, sort_keys=True).encode()))

    def settle(self, hierarchy: Hierarchy, lost: Callable[[Hierarchy], frozenset[NodeId]]) -> bool:
        """Make the table agree with the region file that this life of the node read.

        The file's epoch becomes the active one, the log's head is noted, and the cursors of
        neighbours that `lost` names, given the hierarchy before, are deleted: the next stream with
        one of them begins at 0 on both ends. Returns whether anything changed.
        """
        digest = shape_digest(hierarchy)

        def work(connection: Connection) -> bool:
            active, before = _active(connection), 0
            if active is not None and active.epoch == hierarchy.epoch:
                if active.shape_digest == digest:
                    return False
            elif active is not None and active.epoch < hierarchy.epoch:
                _forget(connection, lost(active.hierarchy))
                before = active.epoch
            self._activate(connection, hierarchy, digest)
            if before:
                self.note_in(connection, hierarchy.epoch, {"from": before})
            return True

        return self._transactions.write(work)

    def _activate(self, connection: Connection, hierarchy: Hierarchy, digest: str) -> None:
        epoch, now_ms = hierarchy.epoch, self._now_ms()
        # A file put in place by hand may be of any epoch: what is later here is void then.
        others = update(_T).where(
            or_(_T.c.state == EpochState.ACTIVE.value, _T.c.epoch < epoch), _T.c.epoch != epoch
        )
        connection.execute(others.values(state=EpochState.SUPERSEDED.value))
        values: dict[str, Any] = {
            "state": EpochState.ACTIVE.value,
            "activated_at": now_ms,
            "head_at_switch": _head(connection),
        }
        held = _get(connection, epoch, lock=True)
        if held is None or held.shape_digest != digest:
            values |= {
                "shape_digest": digest,
                "region_text": region_text(hierarchy).encode(),
                "offer": None,
                "decision": None,
                "purge_order": None,
                "progress": None,
            }
        if held is None:
            connection.execute(insert(_T).values(epoch=epoch, received_at=now_ms, **values))
        else:
            connection.execute(update(_T).where(_T.c.epoch == epoch).values(values))


def _get(connection: Connection, epoch: int, *, lock: bool = False) -> EpochRow | None:
    query = select(_T).where(_T.c.epoch == epoch)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _row(row)


def _found(connection: Connection, epoch: int) -> EpochRow:
    held = _get(connection, epoch)
    if held is None:
        raise RegionNotNextError(f"epoch {epoch} is not known here")
    return held


def _active(connection: Connection) -> EpochRow | None:
    query = select(_T).where(_T.c.state == EpochState.ACTIVE.value).order_by(_T.c.epoch.desc())
    row = connection.execute(query).first()
    return None if row is None else _row(row)


def _head(connection: Connection) -> int:
    """The last number given, or that will be given to what has committed by now."""
    t, s = CHANGELOG.change_log, CHANGELOG.sequencer
    head = connection.execute(select(s.c.head).where(s.c.id == SEQUENCER_ROW)).scalar() or 0
    waiting = connection.execute(select(t.c.entry_id).where(t.c.sequence.is_(None))).all()
    return int(head) + len(waiting)


def _forget(connection: Connection, peers: frozenset[NodeId]) -> None:
    for table in (CHANGELOG.link_inbound, CHANGELOG.link_outbound):
        for peer in sorted(peers):
            connection.execute(table.delete().where(table.c.peer == peer))


def _row(row: Row[Any]) -> EpochRow:
    return EpochRow(
        int(row.epoch),
        EpochState(row.state),
        row.shape_digest,
        bytes(row.region_text).decode("utf-8"),
        _bytes(row.offer),
        _bytes(row.decision),
        _bytes(row.purge_order),
        int(row.received_at),
        row.activated_at,
        int(row.head_at_switch or 0),
        json.loads(bytes(row.progress)) if row.progress else {},
    )


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
