"""Moves of residents in a simulated node, by the rules of replication/core/residence.py.

The lowest node above both homes grants; the grant goes to both as a letter. The old home ships what
it holds of him, the new one takes over: identity rows become its own under a later author epoch,
records keep author and version under the later home epoch. What the old home wrote before it knew
comes late: records are stored, identity rows stand as proposals.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import Form, Lane, LogEntry, RowChange
from replication.core.residence import (
    Duty,
    Grant,
    KnownHome,
    LateEdit,
    MoveDecision,
    MoveRequest,
    decide,
    duty,
    is_genuine,
    judge_late_edit,
    newest_home,
    outranks,
    taken_over,
)
from tests.simulation.durable import lane_of

if TYPE_CHECKING:
    from tests.simulation.store import SimStore

__all__ = ["GRANT", "HISTORY", "Moves"]

GRANT: Final = "grant"
HISTORY: Final = "history"


class Moves:
    """The part of one store in moves; what changes the disk runs inside a transaction of it."""

    def __init__(self, store: SimStore) -> None:
        self._store = store

    def path(self, node: str) -> Sequence[str]:
        """A node and all above it."""
        return self._store.tree.path_up.get(node, ())

    def present(self, resident: str) -> KnownHome | None:
        """His home as far as this node knows."""
        row = self._store.disk.rows.get(("residents", resident))
        grant = self._store.disk.grants.get(resident)
        return newest_home(
            (
                KnownHome(grant.home_node, grant.home_epoch) if grant else None,
                KnownHome(row.home_node, row.home_epoch) if row else None,
            )
        )

    def grant(self, resident: str, to: str, mail_ms: int, *, is_dead: bool) -> Grant | None:
        """Grant a move, if it is this node's to grant; a transaction of its own.

        Where the old home seems dead, this node ships what it holds of him.
        """
        store = self._store
        present = self.present(resident)
        step = decide(store.node_id, MoveRequest(resident, to, "moved"), present, self.path)
        if step.decision is not MoveDecision.GRANT or present is None:
            return None
        epoch = present.home_epoch + 1
        grant = Grant(resident, epoch, to, present.home_node, store.node_id, mail_ms)
        with store.transaction():
            store.observe.granted(grant)
            self._take(grant, mail_ms)
            if is_dead and store.node_id not in (grant.home_node, grant.from_node):
                self._ship(grant, mail_ms)
            for node in (grant.home_node, grant.from_node):
                if node != store.node_id:
                    store.post.send(node, GRANT, _paper(grant), Lane.IDENTITY, mail_ms)
        store.crash_point("move.granted")
        return grant

    def _take(self, grant: Grant, mail_ms: int) -> None:
        disk = self._store.disk
        held = disk.grants.get(grant.resident_id)
        if held is not None:
            newer = grant.home_epoch > held.home_epoch
            same = grant.home_epoch == held.home_epoch and grant != held
            if not newer and not (same and outranks(grant, held, self.path)):
                return
        disk.grants[grant.resident_id] = grant
        if duty(self._store.node_id, grant, self.path) is Duty.OLD_HOME:
            self._ship(grant, mail_ms)

    def _ship(self, grant: Grant, mail_ms: int) -> None:
        """Fenced from now on: send everything held of him to his new home."""
        store = self._store
        if "move_without_shipping" in store.broken:
            return
        rows = [
            row
            for row in store.disk.rows.values()
            if row.resident_id == grant.resident_id and row.form is Form.FULL
        ]
        if rows:
            body = json.dumps([_paper(grant), encode_changes(rows).decode()])
            store.post.send(grant.home_node, HISTORY, body, Lane.IDENTITY, mail_ms)

    # -- letters --------------------------------------------------------------------------------

    def arrived(
        self,
        sender: str,
        kind: str,
        body: str,
        puts: list[RowChange],
        mail_ms: int,
    ) -> list[LogEntry]:
        """Handle a letter about a move; what it does to the disk is done at the commit."""
        paper, rows = (body, "[]") if kind == GRANT else json.loads(body)
        grant = _grant(paper)
        if not is_genuine(grant, grant.granted_by, self.path):
            self._store.observe.fail("MOVE", f"{sender} sends a grant that nobody could give")
        self._store.post.staged.append(lambda: self._take(grant, mail_ms))
        if kind == GRANT:
            return []
        return self._history(grant, decode_changes(CODEC_JSON, rows.encode()), puts)

    def _history(
        self,
        grant: Grant,
        rows: Sequence[RowChange],
        puts: list[RowChange],
    ) -> list[LogEntry]:
        store = self._store
        disk, later = store.disk, store.post.staged
        taken: dict[Lane, list[RowChange]] = {}
        for row in rows:
            key = (row.table, row.row_id)
            new = replace(row, home_node=store.node_id, home_epoch=grant.home_epoch)
            if row.table == "residents":
                base = disk.taken_from.get(row.row_id)
                if base is not None and base[0] == grant.home_epoch:
                    dropped = "late_edit_dropped" in store.broken
                    late = judge_late_edit(base[1], row.version)
                    if late is LateEdit.PROPOSAL and not dropped:
                        later.append(partial(disk.proposals.append, row))
                    continue
                version = taken_over(row.version)
                new = replace(new, version=version, author_node=store.node_id)
                base = (grant.home_epoch, row.version)
                later.append(partial(disk.taken_from.update, {row.row_id: base}))
            staged = [each for each in puts if (each.table, each.row_id) == key]
            held = staged[-1] if staged else disk.rows.get(key)
            if held is None or (held.version, held.home_epoch) < (new.version, new.home_epoch):
                taken.setdefault(lane_of(new), []).append(new)
        for some in taken.values():
            puts.extend(some)
        return [store.entry(lane, store.node_id, some, 0) for lane, some in sorted(taken.items())]

    def may_write_as_home(self, resident: str) -> bool:
        """Whether this node still is his home, for all it knows."""
        if "move_without_fence" in self._store.broken:
            return True
        present = self.present(resident)
        return present is None or present.home_node == self._store.node_id


def _paper(grant: Grant) -> str:
    return json.dumps(
        [
            grant.resident_id,
            grant.home_epoch,
            grant.home_node,
            grant.from_node,
            grant.granted_by,
            grant.granted_at_ms,
        ]
    )


def _grant(paper: str) -> Grant:
    return Grant(*json.loads(paper))
