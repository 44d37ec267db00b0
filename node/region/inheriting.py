"""A successor takes over the residents of a closed node: from those above both, over the link.

The closed node has delivered everything before the change came into force, so the lowest node above
both holds its rows in full. The successor asks for them page by page; who does not hold them asks
further up. What it stores it logs as its own, and so it climbs.
"""

from __future__ import annotations

from typing import Any, Final

from hierarchy_config import NodeId
from hierarchy_config.errors import FenheError
from node.logs import get_logger
from node.region.context import RegionContext, parse_body, to_body
from node.region.errors import RegionStatementError
from node.storage.moving import START, Position, read_position
from replication.channel import AskRefusedError
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import Request

__all__ = ["INHERIT", "Inheriting"]

INHERIT: Final = "region.inherit"
_ROWS_A_PAGE: Final = 200
_ASK_MS: Final = 20_000
_UP_SHARE: Final = 0.8


class Inheriting:
    """Both ends of the question."""

    def __init__(self, context: RegionContext) -> None:
        self._c = context
        self._log = get_logger("region")
        self._told = ""

    async def take(self) -> None:
        """Take over everything that is due; returns early if nobody answers, to be called again.

        Not while this node recovers: what it wrote itself is still to come back.
        """
        closed = self._c.hierarchy.entry(self._c.node_id).succeeds
        if closed is None or self._c.storage.recovery.active:
            return
        while (after := await self._c.blocking(self._place, closed)) is not None:
            try:
                if not await self._page(closed, after):
                    return
            except FenheError as error:
                self._say(error)
                return

    def _place(self, closed: NodeId) -> Position | None:
        """Where the next page begins; None when all is taken over."""
        rows = self._c.epochs.all()
        if any(row.progress.get("inherited") == closed for row in rows):
            return None
        here = next(row for row in rows if row.epoch == self._c.hierarchy.epoch)
        return read_position(here.progress.get("inherit")) or START

    async def _page(self, closed: NodeId, after: Position) -> bool:
        parent = self._c.hierarchy.parent(self._c.node_id)
        if parent is None or not self._c.hub.states[parent].connected:
            return False
        asked = {"code": closed, "table": after.table, "row_id": after.row_id}
        answer = await self._c.ask(parent, INHERIT, asked, _ASK_MS)
        await self._c.blocking(self._store, closed, after, answer)
        return True

    def _store(self, closed: NodeId, after: Position, answer: Any) -> None:
        rows, following = answer.get("rows"), answer.get("next")
        if not isinstance(rows, str):
            raise RegionStatementError("the rows of a closed node cannot be read")
        place = read_position(following)
        if following is not None and (place is None or place <= after):
            raise RegionStatementError("the rows of a closed node go on nowhere")
        taken = self._c.storage.moving.take_over(decode_changes(CODEC_JSON, rows.encode()), closed)
        if taken.refused:
            self._log.error("rows of a closed node are refused", code=closed, rows=taken.refused)
        epoch = self._c.hierarchy.epoch
        if following is None:
            head = self._c.durable_head()
            self._c.epochs.note(epoch, {"inherited": closed, "inherited_head": head})
            self._log.info("a closed node is taken over", code=closed, head=head)
        else:
            self._c.epochs.note(epoch, {"inherit": following})

    async def on_inherit(self, child: NodeId, request: Request) -> bytes:
        """Give a child the rows of a code that is succeeded below it, or ask further up."""
        body = parse_body(request.body)
        code, after = _asked(body)
        tree = self._c.hierarchy
        heir = tree.successor(code)
        if heir is None or heir == code or not tree.is_in_subtree(heir, child):
            raise AskRefusedError("NOT_SUCCEEDED", f"{code} is not succeeded below {child}")
        if await self._c.blocking(self._was_above, code):
            return to_body(await self._c.blocking(self._rows, code, after))
        parent = tree.parent(self._c.node_id)
        if parent is None:
            raise AskRefusedError("NOT_HELD", f"nobody above {heir} was above {code}")
        left_ms = int(request.remaining_ms * _UP_SHARE)
        return to_body(await self._c.ask(parent, INHERIT, body, left_ms))

    def _was_above(self, code: NodeId) -> bool:
        here = self._c.node_id
        trees = (row.hierarchy for row in self._c.epochs.all())
        return any(here in tree and tree.is_in_subtree(code, here) for tree in trees)

    def _rows(self, code: NodeId, after: Position) -> dict[str, Any]:
        rows, following = self._c.storage.moving.of_home(code, after, _ROWS_A_PAGE)
        return {
            "rows": encode_changes(rows).decode(),
            "next": None if following is None else [following.table, following.row_id],
        }

    def _say(self, error: FenheError) -> None:
        """One line when the reason changes, not one a try."""
        said = f"{error.code}: {error.message}"
        if said != self._told:
            self._told = said
            self._log.warning("not taken over yet", code=error.code, reason=error.message)


def _asked(body: Any) -> tuple[NodeId, Position]:
    code, after = body.get("code"), read_position([body.get("table"), body.get("row_id")])
    if not isinstance(code, str) or after is None:
        raise AskRefusedError("INVALID_REQUEST", "a question for rows has another shape")
    return NodeId(code), after
