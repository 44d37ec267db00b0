"""Runs as they stand in the database, and the units that wait in quarantine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from hierarchy_config.hierarchy import Hierarchy
from node.clock import Clock, Ids
from node.ingestion.errors import QuarantinedUnitError, RunStateError
from node.ingestion.figures import Figures
from node.ingestion.model import Counts, RunState, Trouble, Unit
from node.ingestion.tables import IntakeTables
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.storage.context import StoreContext
from node.storage.tables import INTAKE

__all__ = ["Item", "Run", "Runs", "sealed_unit"]

_T: Final[IntakeTables] = INTAKE
_R = _T.runs
_Q = _T.quarantine
_COUNTS: Final = tuple(each.name for each in fields(Counts))
_MESSAGE_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Run:
    """One reading of a content. `counts.read` is its checkpoint."""

    run_id: str
    content_id: str
    source: str
    mapping_name: str
    mapping: str
    caller: str
    state: RunState
    counts: Counts
    figures: Figures
    code: str = ""
    message: str = ""
    encoding: str = ""
    truncated: bool = False
    watermark: str = ""
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """A quarantined unit. `unit` and `troubles` are there where it was opened."""

    item_id: int
    item_uid: str
    run_id: str
    number: int
    line: int
    rule: str
    field: str
    state: str
    created_at: int
    unit: Unit | None = None
    troubles: tuple[Trouble, ...] = ()


class Runs:
    """Reads and writes runs; blocks on the database."""

    def __init__(self, store: StoreContext, hierarchy: Hierarchy, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._hierarchy = hierarchy
        self._clock = clock
        self._ids = ids

    # -------------------------------------------------------------------- runs

    def begin(
        self, content_id: str, mapping: tuple[str, str, str, str], caller: Caller, watermark: str
    ) -> Run:
        """A new run of a content, or the one that is there: of this mapping, not failed.

        `mapping`: name, source, digest, text.
        """
        name, source, digest, text = mapping

        def work(connection: Connection) -> Run:
            query = (
                select(_R)
                .where(
                    _R.c.content_id == content_id,
                    _R.c.mapping_digest == digest,
                    _R.c.source == source,
                    _R.c.state != RunState.FAILED.value,
                )
                .order_by(_R.c.created_at)
            )
            held = connection.execute(query).mappings().first()
            if held is not None:
                return _run(held)
            made: dict[str, Any] = {
                "run_id": self._ids.mint(),
                "content_id": content_id,
                "source": source,
                "mapping_name": name,
                "mapping_digest": digest,
                "mapping": text,
                "caller": _caller_text(caller),
                "state": RunState.ARRIVING.value,
                "truncated": False,
                "watermark": watermark or None,
                **dict.fromkeys(map(_column, _COUNTS), 0),
                "figures": "{}",
                "created_at": self._clock.now_ms(),
            }
            connection.execute(insert(_R).values(made))
            return _run(connection.execute(_by_id(made["run_id"])).mappings().one())

        return self._store.transactions.write(work)

    def begin_feed(
        self, content_id: str, mapping: tuple[str, str, str, str], caller: Caller
    ) -> Run:
        """A new run for messages that come one by one; its content grows with it."""
        run = self.begin(content_id, mapping, caller, "")
        now = self._clock.now_ms()
        values = {"state": RunState.FEEDING.value, "started_at": now}
        statement = update(_R).where(_R.c.run_id == run.run_id).values(values)
        self._store.transactions.write(lambda c: c.execute(statement).rowcount)
        return self.load(run.run_id)

    def end_feeds(self) -> None:
        """Of an earlier life of this node: whatever was acknowledged is in them."""
        statement = (
            update(_R)
            .where(_R.c.state == RunState.FEEDING.value)
            .values(state=RunState.DONE.value, finished_at=self._clock.now_ms())
        )
        self._store.transactions.write(lambda c: c.execute(statement).rowcount)

    def load(self, run_id: str) -> Run:
        """A run. Raises RunStateError: there is none of that id."""
        row = self._store.transactions.read(lambda c: c.execute(_by_id(run_id)).mappings().first())
        if row is None:
            raise RunStateError("no such run")
        return _run(row)

    def newest(self, *, source: str = "", state: str = "", limit: int = 50) -> list[Run]:
        """Runs, newest first."""
        query = select(_R).order_by(_R.c.created_at.desc(), _R.c.run_id.desc()).limit(limit)
        if source:
            query = query.where(_R.c.source == source)
        if state:
            query = query.where(_R.c.state == state)
        rows = self._store.transactions.read(lambda c: c.execute(query).mappings().all())
        return [_run(row) for row in rows]

    def set_state(self, run_id: str, state: RunState, *, code: str = "", message: str = "") -> None:
        """Move a run on; `code` and `message` say why it failed."""
        now = self._clock.now_ms()
        values: dict[str, Any] = {"state": state.value}
        if state is RunState.RUNNING:
            values["started_at"] = now
        if state in {RunState.DONE, RunState.FAILED}:
            values |= {
                "finished_at": now,
                "code": code or None,
                "message": message[:_MESSAGE_MAX] or None,
            }
        statement = update(_R).where(_R.c.run_id == run_id).values(values)
        self._store.transactions.write(lambda c: c.execute(statement).rowcount)

    def caller_of(self, run: Run) -> Caller:
        """Who offered it, as he was."""
        said = json.loads(run.caller)
        return Caller(
            CallerKind(said["kind"]),
            said["principal"],
            self._store.node_id,
            said["purpose"],
            self._hierarchy.subtree(self._store.node_id),
            frozenset(map(Role, said["roles"])),
            said["organization_id"],
            said["staff_id"],
            default_purpose=said["default_purpose"],
        )

    def last_watermark(self, source: str) -> str:
        """Of the newest run of a source that is done; "": none."""
        query = (
            select(_R.c.watermark)
            .where(
                _R.c.source == source,
                _R.c.state == RunState.DONE.value,
                _R.c.watermark.is_not(None),
            )
            .order_by(_R.c.created_at.desc())
            .limit(1)
        )
        return str(self._store.transactions.read(lambda c: c.execute(query).scalar()) or "")

    # -------------------------------------------------------------------- quarantine

    def items(
        self,
        *,
        run_id: str = "",
        state: str = "waiting",
        rule: str = "",
        after: int = 0,
        limit: int = 100,
    ) -> list[Item]:
        """Quarantined units, oldest first, closed."""
        query = select(*_CLOSED).where(_Q.c.item_id > after).order_by(_Q.c.item_id).limit(limit)
        if run_id:
            query = query.where(_Q.c.run_id == run_id)
        if state:
            query = query.where(_Q.c.state == state)
        if rule:
            query = query.where(_Q.c.rule == rule)
        rows = self._store.transactions.read(lambda c: c.execute(query).mappings().all())
        return [_item(row) for row in rows]

    def opened(self, item_ids: Sequence[int]) -> list[Item]:
        """Units with what they say. Whoever shows them to somebody audits it first."""
        query = select(_Q).where(_Q.c.item_id.in_(item_ids)).order_by(_Q.c.item_id)
        rows = self._store.transactions.read(lambda c: c.execute(query).mappings().all())
        return [self._open(row) for row in rows]

    def item(self, item_id: int) -> Item:
        """One, opened. Raises QuarantinedUnitError: there is none of that number."""
        found = self.opened([item_id])
        if not found:
            raise QuarantinedUnitError("no such unit in the quarantine")
        return found[0]

    def waiting_of(self, run_id: str, rule: str, after: int, limit: int) -> list[Item]:
        """Units of a run that wait under a rule, opened."""
        query = (
            select(_Q)
            .where(
                _Q.c.run_id == run_id,
                _Q.c.state == "waiting",
                _Q.c.rule == rule,
                _Q.c.item_id > after,
            )
            .order_by(_Q.c.item_id)
            .limit(limit)
        )
        rows = self._store.transactions.read(lambda c: c.execute(query).mappings().all())
        return [self._open(row) for row in rows]

    def count_waiting(self, run_id: str = "") -> dict[str, int]:
        """Waiting units by rule."""
        query = select(_Q.c.rule, func.count()).where(_Q.c.state == "waiting").group_by(_Q.c.rule)
        if run_id:
            query = query.where(_Q.c.run_id == run_id)
        rows = self._store.transactions.read(lambda c: c.execute(query).all())
        return {rule: int(count) for rule, count in rows}

    def _open(self, row: RowMapping) -> Item:
        item = _item(row)
        text = self._store.cells.open_cell(_Q.name, "body", item.item_uid, bytes(row["body"]))
        said: Mapping[str, Any] = json.loads(str(text))
        unit = Unit(
            item.number,
            item.line,
            cells=tuple(said.get("cells", ())),
            whole=said.get("whole"),
            raw=said.get("raw", ""),
        )
        return replace(item, unit=unit, troubles=tuple(Trouble(*each) for each in said["troubles"]))


def sealed_unit(
    store: StoreContext, item_uid: str, unit: Unit, troubles: Sequence[Trouble]
) -> bytes | None:
    """What the quarantine keeps of a unit."""
    said: dict[str, Any] = {"troubles": [list(each) for each in troubles[:50]]}
    if unit.cells:
        said["cells"] = list(unit.cells)
    if unit.whole is not None:
        said["whole"] = unit.whole
    if unit.raw:
        said["raw"] = unit.raw
    text = json.dumps(said, ensure_ascii=False, default=str)
    return store.cells.seal_cell(_Q.name, "body", item_uid, text)


_CLOSED: Final = tuple(column for column in _Q.c if column.name != "body")


def _by_id(run_id: str) -> Any:
    return select(_R).where(_R.c.run_id == run_id)


def _column(count: str) -> str:
    return "read_units" if count == "read" else count


def _run(row: RowMapping) -> Run:
    return Run(
        run_id=row["run_id"],
        content_id=row["content_id"],
        source=row["source"],
        mapping_name=row["mapping_name"],
        mapping=row["mapping"],
        caller=row["caller"],
        state=RunState(row["state"]),
        counts=Counts(*(int(row[_column(name)]) for name in _COUNTS)),
        figures=Figures.from_json(json.loads(row["figures"])),
        code=row["code"] or "",
        message=row["message"] or "",
        encoding=row["encoding"] or "",
        truncated=bool(row["truncated"]),
        watermark=row["watermark"] or "",
        created_at=row["created_at"],
        started_at=row["started_at"] or 0,
        finished_at=row["finished_at"] or 0,
    )


def _item(row: RowMapping) -> Item:
    return Item(
        row["item_id"],
        row["item_uid"],
        row["run_id"],
        row["unit"],
        row["line"],
        row["rule"],
        row["field"],
        row["state"],
        row["created_at"],
    )


def _caller_text(caller: Caller) -> str:
    return json.dumps(
        {
            "kind": caller.kind.value,
            "principal": caller.principal,
            "purpose": caller.purpose,
            "roles": sorted(caller.roles),
            "organization_id": caller.organization_id,
            "staff_id": caller.staff_id,
            "default_purpose": caller.default_purpose,
        }
    )
