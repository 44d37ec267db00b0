"""What a node has to do after a switch, in small durable steps: log rows again, delete what left.

The place reached is noted in `region_epochs`, so that a death costs one step. The order to delete
is the root's, signed, and is looked at again before each life's first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hierarchy_config import HierarchyChange, NodeId
from node.logs import get_logger
from node.region.context import RegionContext, own_keys, parse_body, to_body
from node.region.errors import RegionNotNextError
from node.region.statements import read_purge_order
from node.region.store import EpochRow
from node.storage.moving import START, Position
from replication.core.model import Request

__all__ = ["CENSUS", "DRAIN", "PROGRESS", "PURGE", "Jobs"]

CENSUS: Final = "region.census"
DRAIN: Final = "region.drain"
PROGRESS: Final = "region.progress"
PURGE: Final = "region.purge"
_ROWS_A_STEP: Final = 500


class Jobs:
    """One node's. `step` does a little and blocks on the database."""

    def __init__(self, context: RegionContext) -> None:
        self._c = context
        self._log = get_logger("region")

    @property
    def handlers(self) -> dict[str, Any]:
        """Questions of the parent."""
        return {
            CENSUS: self._on_census,
            DRAIN: self._on_drain,
            PROGRESS: self._on_progress,
            PURGE: self._on_purge,
        }

    def step(self) -> bool:
        """Do the next step; False when there is nothing to do."""
        row = self._c.epochs.get(self._c.hierarchy.epoch)
        change = None if row is None else self._change(row)
        if row is None or change is None:
            return False
        if "resent_head" not in row.progress:
            return self._resend(row, change)
        if row.purge_order is not None and not row.progress.get("purged"):
            return self._purge(row, change)
        return False

    def _change(self, row: EpochRow) -> HierarchyChange | None:
        """From the epoch that was in force here before; None if there was none."""
        before = self._c.epochs.get(int(row.progress.get("from", 0)))
        return None if before is None else HierarchyChange(before.hierarchy, self._c.hierarchy)

    def _resend(self, row: EpochRow, change: HierarchyChange) -> bool:
        duties = change.resending(self._c.node_id)
        number, table, row_id = row.progress.get("resend", [0, *_flat(START)])
        if number >= len(duties):
            head = self._c.durable_head()
            self._c.epochs.note(row.epoch, {"resent_head": head})
            if duties:
                self._log.info("rows are logged again", epoch=row.epoch, head=head)
            return True
        duty = duties[number]
        following = self._c.storage.moving.log_again(
            duty.homes, duty.authors, Position(table, row_id), _ROWS_A_STEP
        )
        reached = [number + 1, *_flat(START)] if following is None else [number, *_flat(following)]
        self._c.epochs.note(row.epoch, {"resend": reached})
        return True

    def _purge(self, row: EpochRow, change: HierarchyChange) -> bool:
        homes = change.leaving(self._c.node_id)
        if not homes:
            self._c.epochs.note(row.epoch, {"purged": True})
            return True
        table, row_id = row.progress.get("purge", _flat(START))
        if table >= 0:
            following = self._c.storage.moving.purge(homes, Position(table, row_id), _ROWS_A_STEP)
            reached = [-1, ""] if following is None else _flat(following)
            self._c.epochs.note(row.epoch, {"purge": reached})
            return True
        if self._c.storage.moving.purge_log(homes, _ROWS_A_STEP) == 0:
            self._c.epochs.note(row.epoch, {"purged": True})
            self._log.info("rows of homes that left are deleted", epoch=row.epoch, homes=len(homes))
        return True

    # --- answers ----------------------------------------------------------------------------------

    async def _on_census(self, _peer: NodeId, request: Request) -> bytes:
        homes = parse_body(request.body).get("homes")
        asked = frozenset(NodeId(str(each)) for each in homes) if isinstance(homes, list) else ()
        counts = await self._c.blocking(self._c.storage.moving.counts, asked)
        key, _ = own_keys(self._c.base)
        return to_body({"residents": counts.residents, "rows": counts.rows, "key": key})

    async def _on_progress(self, _peer: NodeId, _request: Request) -> bytes:
        return to_body(await self.progress())

    async def progress(self) -> Mapping[str, Any]:
        """How far this node is with the epoch in force."""
        return await self._c.blocking(self._progress)

    def _progress(self) -> Mapping[str, Any]:
        epoch = self._c.hierarchy.epoch
        row = self._c.epochs.get(epoch)
        facts = {} if row is None else row.progress
        resent = "resent_head" in facts
        return {
            "epoch": epoch,
            "renewed": not self._c.base.credentials.is_former,
            "resent": resent,
            "seeded": resent and self._is_delivered(int(facts["resent_head"])),
            "purged": bool(facts.get("purged")),
            "taken": "inherited_head" in facts and self._is_delivered(int(facts["inherited_head"])),
        }

    def _is_delivered(self, head: int) -> bool:
        """Whether the parent's receipts cover the log up to a sequence, in every lane.

        A lane without entries may never be read, so that nothing is confirmed of it.
        """
        parent = self._c.hierarchy.parent(self._c.node_id)
        if parent is None:
            return True
        link = self._c.figures.link(parent)
        pruned_to = self._c.pruned_to()
        return link.connected and all(
            lane.delivered_to >= head
            or (not lane.lag_entries and not lane.at_least and lane.delivered_to >= pruned_to)
            for lane in link.lanes
        )

    async def _on_drain(self, _peer: NodeId, request: Request) -> bytes:
        said = parse_body(request.body).get("head")
        return to_body(await self._c.blocking(self._drained, said if isinstance(said, int) else 0))

    def _drained(self, asked: int) -> Mapping[str, Any]:
        """Whether the parent has the log up to a place; 0: up to where it ends now."""
        head = asked or self._c.durable_head()
        return {"head": head, "drained": self._is_delivered(head)}

    async def _on_purge(self, _peer: NodeId, request: Request) -> bytes:
        raw = parse_body(request.body).get("order")
        await self._c.blocking(self.order, str(raw).encode())
        return to_body(await self.progress())

    def order(self, raw: bytes) -> None:
        """Note the root's order; the next step begins to carry it out.

        Raises:
            RegionStatementError: The root did not sign it.
            RegionNotNextError: It is for another epoch than the one in force here.
        """
        order = read_purge_order(raw, self._c.judge())
        if order.epoch != self._c.hierarchy.epoch:
            raise RegionNotNextError(f"the order is for epoch {order.epoch}")
        self._c.epochs.keep_purge_order(order.epoch, raw)


def _flat(position: Position) -> list[Any]:
    return [position.table, position.row_id]
