"""One window, one transaction: rows, quarantined units, warnings, counts and checkpoint.

The planning of a window is repeated when somebody else was quicker (an identity number registered
meanwhile) and when the store refuses rows: these become quarantined units, and the rest is planned
again without them. Nothing is written before everything is planned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Update, bindparam, insert, select, update

from node.clock import Clock, format_ms, today
from node.ingestion.checking import check_life
from node.ingestion.figures import Figures
from node.ingestion.ids import RecordIds
from node.ingestion.model import Counts, DraftRecord, Person, Trouble, placed
from node.ingestion.persons import Persons
from node.ingestion.registering import ERRORS, Judged, Registry, WindowPlan
from node.ingestion.runs import Run, sealed_unit
from node.ingestion.tables import IntakeTables
from node.records.model import Bundle, NewRecord
from node.security.caller import Caller
from node.storage import Storage
from node.storage.errors import BundleError, DuplicateIdentifierError
from node.storage.model import BundleResult
from node.storage.rows import chunks
from node.storage.specs import TABLES
from node.storage.tables import INTAKE, REPLICATED
from replication.changelog import Together
from replication.core.model import Value

__all__ = ["WindowWriter", "Written"]

_T: Final[IntakeTables] = INTAKE
_POSITION: Final = re.compile(r"(residents|records)\[(\d+)\]")
_ATTEMPTS: Final = 8
_COLUMNS_MEASURED: Final = 64
_DAY_OF: Final[Mapping[str, str]] = {
    "encounters": "started_on",
    "conditions": "onset_on",
    "observations": "observed_on",
    "medications": "started_on",
    "procedures": "performed_on",
    "immunizations": "given_on",
}
_ADD_QUARANTINE: Final = insert(_T.quarantine)
_ADD_WARNING: Final = insert(_T.warnings)
_SETTLE: Final = (
    update(_T.quarantine)
    .where(_T.quarantine.c.item_id == bindparam("b_item"))
    .values(state=bindparam("state"), settled_at=bindparam("settled_at"))
)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a window. `troubles` of each unit, in its order; empty lists: accepted."""

    counts: Counts
    figures: Figures
    troubles: Sequence[Sequence[Trouble]]


class WindowWriter:
    """Writes the windows of one run. Not for several threads."""

    def __init__(
        self,
        storage: Storage,
        persons: Persons,
        run: Run,
        caller: Caller,
        clock: Clock,
        *,
        columns: Sequence[tuple[str, int]] = (),
        fields: Mapping[str, str] = MappingProxyType({}),
        in_sequence: bool = False,
    ) -> None:
        """The writer of a run.

        `columns`: those of a table that are measured, by name, with their places. `fields`: columns
        by the element that they feed. `in_sequence`: units are messages, of which a later one
        replaces what an earlier one said; else two units with one key contradict each other.
        """
        self._in_sequence = in_sequence
        self._columns = columns[:_COLUMNS_MEASURED]
        self._fields = fields
        self._storage = storage
        self._store = storage.context
        self._persons = persons
        self._caller = caller
        self._clock = clock
        self._run = run
        self._ids = RecordIds(self._store.blind_index, run.source)
        self._started = format_ms(run.started_at)
        self._sketch_key = bytes.fromhex(self._store.blind_index.index("fenhe.intake.sketch", ""))

    def write(
        self,
        window: Sequence[Judged],
        counts: Counts,
        figures: Figures,
        *,
        facts: Mapping[str, Any] | None = None,
        more: Callable[[Together], None] | None = None,
    ) -> Written:
        """Write a window; durable on return.

        Units that wait in quarantine (`item_id`) are settled if they are accepted now, and left as
        they are otherwise.

        Args:
            window: In the order of the file.
            counts: Of the run before it; what is returned has the window added.
            figures: The same.
            facts: Further columns of the run's row.
            more: Adds further statements to the transaction.

        Raises:
            StorageBusyError, SQLAlchemyError: Nothing was written.
        """
        for _ in range(_ATTEMPTS + len(window)):
            plan = self._settled(window)
            try:
                return self._put(window, plan, counts, figures, (facts or {}, more))
            except DuplicateIdentifierError as error:
                self._persons.forget(plan.new)
                if not self._is_news(plan):
                    self._refuse(window, plan, error)
            except BundleError as error:
                if error.retryable:
                    raise
                self._persons.forget(plan.new)
                self._refuse(window, plan, error)
        raise AssertionError("each attempt takes a unit out of the window")

    def _is_news(self, plan: WindowPlan) -> bool:
        """Whether somebody registered meanwhile whom the plan took for new."""
        people = [Person(identifiers=(each,)) for each in plan.new]
        return any(answer.known for answer in self._persons.resolve(people))

    def _refuse(self, window: Sequence[Judged], plan: WindowPlan, error: BundleError) -> None:
        """Mark the units whose rows the store refuses; if it names none, all that have rows."""
        bad: set[int] = set()
        for position in error.positions:
            found = _POSITION.match(position)
            if found:
                units = plan.resident_units if found[1] == "residents" else plan.record_units
                bad.add(units[int(found[2])])
        for i in bad or {*plan.resident_units, *plan.record_units}:
            window[i].refused.append(Trouble("STORE_REFUSED", error.code))
            self._persons.forget(window[i].draft.person.identifiers)

    # -------------------------------------------------------------------- planning

    def _settled(self, window: Sequence[Judged]) -> WindowPlan:
        """A plan in which every unit is whole: one that is refused takes all its rows with it."""
        while True:
            good = [i for i, each in enumerate(window) if each.is_good]
            plan = self._plan(window, good)
            if all(window[i].is_good for i in good):
                return plan

    def _plan(self, window: Sequence[Judged], good: Sequence[int]) -> WindowPlan:
        plan = WindowPlan()
        answers = self._persons.resolve([window[i].draft.person for i in good])
        registry = Registry(self._storage, self._caller, self._persons, plan)
        drafted: list[tuple[int, DraftRecord, str]] = []
        # Who is introduced in this window comes first, wherever in it he is named.
        for i, answer in sorted(
            zip(good, answers, strict=True), key=lambda each: not each[1].is_new
        ):
            judged = window[i]
            judged.noted.clear()
            known = registry.person(i, judged, answer)
            if known is None:
                continue
            for record in judged.draft.records:
                for trouble in placed(check_life(record, known), self._fields):
                    (judged.refused if trouble.rule in ERRORS else judged.noted).append(trouble)
                drafted.append((i, record, known.resident_id))
        registry.finish(window)
        self._records(window, plan, drafted)
        return plan

    def _records(
        self,
        window: Sequence[Judged],
        plan: WindowPlan,
        drafted: Sequence[tuple[int, DraftRecord, str]],
    ) -> None:
        made: dict[str, tuple[int, NewRecord]] = {}
        for i, record, resident_id in drafted:
            if not window[i].is_good:
                continue
            new = self._record(record, resident_id)
            record_id = str(new.record_id)
            held = made.get(record_id)
            if held is None or self._in_sequence:
                made[record_id] = (i, new)
            elif held[1] != new:
                window[i].refused.append(Trouble("KEY_CONFLICT", record.table))
        held_rows = self._held([new for _, new in made.values()])
        for record_id, (i, new) in made.items():
            if window[i].is_good:
                self._one(window[i], plan, i, new, held_rows.get(record_id))

    def _one(
        self,
        judged: Judged,
        plan: WindowPlan,
        i: int,
        new: NewRecord,
        held: RowMapping | None,
    ) -> None:
        day = new.values.get(_DAY_OF[new.table])
        if isinstance(day, str):
            plan.days[day] += 1
        plan.tables[new.table] += 1
        for trouble in judged.troubles:
            plan.warnings.append((i, new.table, str(new.record_id), trouble))
        if held is not None:
            if held["deleted"] or self._is_same(new, held):
                return
            is_of_this_run = held["recorded_at"] >= self._started
            if is_of_this_run and not self._in_sequence and not judged.item_id:
                judged.refused.append(Trouble("KEY_CONFLICT", new.table))
                return
            plan.amends.add(str(new.record_id))
        plan.records.append(new)
        plan.record_units.append(i)
        plan.touched.add(i)

    def _record(self, record: DraftRecord, resident_id: str) -> NewRecord:
        table, values = record.table, record.values
        if record.encounter:
            values = {**values, "encounter_id": self._ids.keyed("encounters", record.encounter)}
        if record.key:
            record_id = self._ids.keyed(table, record.key)
        else:
            day = "" if table == "encounters" else str(values.get(_DAY_OF[table]) or "")
            record_id = self._ids.by_values(table, resident_id, values, day)
        return NewRecord(record_id, table, resident_id, values)

    def _held(self, records: Sequence[NewRecord]) -> dict[str, RowMapping]:
        """Rows that are here under those ids."""
        by_table: dict[str, list[str]] = {}
        for each in records:
            by_table.setdefault(each.table, []).append(str(each.record_id))
        if not by_table:
            return {}

        def work(connection: Connection) -> dict[str, RowMapping]:
            return {
                row["row_id"]: row
                for table, ids in by_table.items()
                for some in chunks(ids)
                for row in connection.execute(_SAME[table], {"ids": some}).mappings()
            }

        return self._store.transactions.read(work)

    def _is_same(self, new: NewRecord, held: RowMapping) -> bool:
        if held["resident_id"] != new.resident_id:
            return False
        values = self._store.cells.open(TABLES[new.table], held)
        return all(
            _plain(values.get(name)) == _plain(new.values.get(name))
            for name in TABLES[new.table].given
        )

    # -------------------------------------------------------------------- writing

    def _put(
        self,
        window: Sequence[Judged],
        plan: WindowPlan,
        counts: Counts,
        figures: Figures,
        beyond: tuple[Mapping[str, Any], Callable[[Together], None] | None],
    ) -> Written:
        after, changed = self._counted(window, plan, counts), Figures.from_json(figures.to_json())
        self._measure(changed, window, plan)
        refused = [each for each in window if not each.is_good and not each.item_id]
        settled = [each for each in window if each.is_good and each.item_id]
        now = self._clock.now_ms()
        quarantine = [self._quarantined(each, now) for each in refused]
        facts, more = beyond
        row = _run_row(self._run.run_id, after, changed, facts)

        def beside(together: Together, _result: BundleResult) -> None:
            if quarantine:
                together.add(_ADD_QUARANTINE, quarantine)
            if plan.warnings:
                together.add(_ADD_WARNING, [self._warning(window, each) for each in plan.warnings])
            if settled:
                state = {"state": "retried", "settled_at": now}
                for each in settled:
                    together.add(_SETTLE, [{"b_item": each.item_id, **state}])
            if more is not None:
                more(together)
            together.add(_update_run(tuple(row)), [row])

        bundle = Bundle("", tuple(plan.residents), tuple(plan.records))
        self._storage.put_beside(self._caller, bundle, beside)
        return Written(
            after, changed, [each.troubles if not each.is_good else () for each in window]
        )

    def _counted(self, window: Sequence[Judged], plan: WindowPlan, counts: Counts) -> Counts:
        good = [i for i, each in enumerate(window) if each.is_good]
        fresh = sum(1 for each in window if not each.item_id)
        settled = sum(1 for i in good if window[i].item_id)
        refused = sum(1 for each in window if not each.item_id and not each.is_good)
        amended = len(plan.amends)
        return Counts(
            read=counts.read + fresh,
            accepted=counts.accepted + len(good),
            quarantined=counts.quarantined + refused - settled,
            unchanged=counts.unchanged + sum(1 for i in good if i not in plan.touched),
            residents=counts.residents + plan.registered,
            records=counts.records + len(plan.records) - amended,
            amended=counts.amended + amended,
            warnings=counts.warnings + len(plan.warnings),
        )

    def _measure(self, figures: Figures, window: Sequence[Judged], plan: WindowPlan) -> None:
        fresh = [each for each in window if not each.item_id]
        rows = [each.unit.cells for each in fresh if each.unit.cells and not each.unit.troubles]
        for name, place in self._columns:
            figures.add_cells(name, [cells[place] for cells in rows], self._sketch_key)
        for each in fresh:
            if each.troubles:
                figures.add_troubles(each.troubles, ERRORS)
        figures.add_days(plan.days, today(self._clock))
        for table, count in plan.tables.items():
            figures.tables[table] = figures.tables.get(table, 0) + count

    def _quarantined(self, judged: Judged, now: int) -> dict[str, Any]:
        first = next(each for each in judged.troubles if each.rule in ERRORS)
        item_uid = self._store.ids.mint()
        return {
            "item_uid": item_uid,
            "run_id": self._run.run_id,
            "unit": judged.unit.number,
            "line": judged.unit.line,
            "rule": first.rule,
            "field": first.field[:200],
            "state": "waiting",
            "body": sealed_unit(self._store, item_uid, judged.unit, judged.troubles),
            "created_at": now,
        }

    def _warning(
        self, window: Sequence[Judged], warning: tuple[int, str, str, Trouble]
    ) -> dict[str, Any]:
        i, table, row_id, trouble = warning
        return {
            "run_id": self._run.run_id,
            "unit": window[i].unit.number,
            "table_name": table,
            "row_id": row_id,
            "rule": trouble.rule,
            "field": trouble.field[:200],
        }


def _plain(value: Value) -> Value:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


_SAME: Final = {
    name: select(table).where(table.c.row_id.in_(bindparam("ids", expanding=True)))
    for name, table in REPLICATED.items()
}


def _run_row(
    run_id: str, counts: Counts, figures: Figures, facts: Mapping[str, Any]
) -> dict[str, Any]:
    row = asdict(counts)
    row["read_units"] = row.pop("read")
    row["figures"] = json.dumps(figures.to_json(), separators=(",", ":"), ensure_ascii=False)
    return {"b_run": run_id, **row, **facts}


@lru_cache(maxsize=16)
def _update_run(names: tuple[str, ...]) -> Update:
    return (
        update(_T.runs)
        .where(_T.runs.c.run_id == bindparam("b_run"))
        .values({name: bindparam(name) for name in names if name != "b_run"})
    )
