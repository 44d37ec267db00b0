"""Hierarchies that were in force here, for what was signed under them and comes late.

A grant that was on its way when the hierarchy changed is its granter's word as it stood. It is
believed for thirty days after the change, as long as letters wait: the former ancestor of a
township must not move its people for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, select

from hierarchy_config import Hierarchy, parse_region
from node.storage.tables import REGION_EPOCHS

__all__ = ["BELIEVED_MS", "FormerHierarchies"]

BELIEVED_MS: Final = 30 * 24 * 3_600_000


class FormerHierarchies:
    """Reads `region_epochs` in the caller's transaction; what was in force never changes."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._kept: dict[int, Hierarchy] = {}

    def __call__(self, connection: Connection, epoch: int) -> Hierarchy | None:
        """The hierarchy of an epoch that was replaced at most thirty days ago, by this clock."""
        t = REGION_EPOCHS
        later = (
            select(t.c.activated_at)
            .where(t.c.epoch > epoch, t.c.activated_at.is_not(None))
            .order_by(t.c.epoch)
            .limit(1)
        )
        replaced_ms = connection.execute(later).scalar()
        if replaced_ms is None or self._now_ms() - int(replaced_ms) > BELIEVED_MS:
            return None
        if epoch not in self._kept:
            was_in_force = (t.c.epoch == epoch, t.c.activated_at.is_not(None))
            query = select(t.c.region_text).where(*was_in_force)
            row = connection.execute(query).first()
            if row is None:
                return None
            text = bytes(row.region_text).decode("utf-8")
            self._kept[epoch] = parse_region(text, file=f"epoch {epoch}")
        return self._kept[epoch]
