"""Hierarchies that were in force here, for what was signed under them and comes late.

A grant that was on its way when the hierarchy changed is its granter's word as it stood. It is
believed for thirty days after the change, as long as letters wait: the former ancestor of a
township must not move its people for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
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
        """The hierarchy of an epoch, or of the first after it that is believed; None: all are past.

        Believed is what was replaced at most thirty days ago, by this clock: who was above both
        homes then could have granted the move anew, whatever changed elsewhere in between.
        """
        t = REGION_EPOCHS
        query = (
            select(t.c.epoch, t.c.activated_at)
            .where(t.c.epoch >= epoch, t.c.activated_at.is_not(None))
            .order_by(t.c.epoch)
        )
        in_force = [(int(row.epoch), int(row.activated_at)) for row in connection.execute(query)]
        if not in_force or in_force[0][0] != epoch:
            return None
        now_ms = self._now_ms()
        for (each, _), (_, replaced_ms) in pairwise(in_force):
            if now_ms - replaced_ms <= BELIEVED_MS:
                return self._hierarchy(connection, each)
        return None

    def _hierarchy(self, connection: Connection, epoch: int) -> Hierarchy:
        if epoch not in self._kept:
            t = REGION_EPOCHS
            text = connection.execute(
                select(t.c.region_text).where(t.c.epoch == epoch)
            ).scalar_one()
            self._kept[epoch] = parse_region(bytes(text).decode("utf-8"), file=f"epoch {epoch}")
        return self._kept[epoch]
