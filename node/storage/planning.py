"""Turns a bundle into row changes, or refuses it whole: who may write what, and at which version.

Reads what is held (locked until the commit) and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select

from node.clock import format_ms
from node.records.model import Bundle, NewRecord, NewResident
from node.security.caller import Caller
from node.storage.context import StoreContext
from node.storage.errors import (
    DuplicateIdentifierError,
    HomeElsewhereError,
    HomeUnknownError,
    NotAuthorError,
    RecordMismatchError,
    RepeatedRowError,
    RowIdError,
    UnknownColumnError,
    UnknownRecordError,
    UnknownResidentError,
)
from node.storage.lookups import Lookups
from node.storage.moved import may_know, refuse_moved
from node.storage.rows import HeldRow, chunks
from node.storage.scope import form_of, has_place, seen_residents
from node.storage.shapes import is_row_id
from node.storage.specs import (
    AUTHOR_ORGANIZATION,
    IDENTIFIERS,
    IDENTITY_NUMBER,
    RECORD_TABLES,
    RESIDENTS,
)
from node.storage.tables import REPLICATED
from replication.core.model import (
    SCHEMA_VERSION,
    Form,
    Operation,
    RowChange,
    Value,
    Version,
    next_version,
)

__all__ = ["BundlePlan", "PlannedRow", "plan_bundle"]

_NONE_YET = Version(1, 0)
"""Before a first version. A row whose id was given may have been written here in a former life of
the store, and be held elsewhere: the first version of this life lies above all of that one."""
_RECORD_COLUMNS: Mapping[str, frozenset[str]] = {spec.name: spec.given for spec in RECORD_TABLES}


_I = REPLICATED[IDENTIFIERS.name]

# Built once: composing a statement costs more than running it on SQLite.
_IDENTIFIERS_OF: Final = select(_I.c.resident_id, _I.c.system, _I.c.value_index).where(
    _I.c.deleted.is_(False), _I.c.resident_id.in_(bindparam("ids", expanding=True))
)
_TAKEN: Final = (
    select(_I.c.value_index)
    .where(
        _I.c.system == IDENTITY_NUMBER,
        _I.c.deleted.is_(False),
        _I.c.value_index.in_(bindparam("indexes", expanding=True)),
    )
    .distinct()
)


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A change, and the version it replaces (None: a new row)."""

    change: RowChange
    replaces: Version | None = None


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """The rows to write, and the ids to answer with, in the bundle's order."""

    rows: tuple[PlannedRow, ...]
    resident_ids: tuple[str, ...]
    record_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Home:
    node: str
    epoch: int


def plan_bundle(
    store: StoreContext,
    lookups: Lookups,
    caller: Caller,
    bundle: Bundle,
    now_ms: int,
    *,
    own_tables_only: bool = False,
) -> BundlePlan:
    """Plan every row of a bundle; `lookups` may know already what others of the transaction asked.

    `own_tables_only`: record ids are derived under a key of this node, from the table too, so that
    none can stand in another table; each is looked for in its own.

    Raises:
        BundleError: Of the kind that tells why; nothing was written.
    """
    if store.recovery.active:
        _refuse_known_ids(store, bundle)
    planner = _Planner(store, lookups, format_ms(now_ms), own_tables_only=own_tables_only)
    residents = planner.residents(caller, bundle.residents)
    identifiers = planner.identifiers(bundle.residents, residents)
    homes = {
        row.change.row_id: _Home(row.change.home_node, row.change.home_epoch) for row in residents
    }
    records = planner.records(caller, bundle.records, homes)
    return BundlePlan(
        (*residents, *identifiers, *records),
        tuple(row.change.row_id for row in residents),
        tuple(row.change.row_id for row in records),
    )


def _refuse_known_ids(store: StoreContext, bundle: Bundle) -> None:
    """A row with an id may be one whose newest version was lost: no version is used twice."""
    residents = [i for i, each in enumerate(bundle.residents) if each.resident_id]
    records = [i for i, each in enumerate(bundle.records) if each.record_id]
    if residents or records:
        store.recovery.refuse(
            (
                *(f"residents[{i}].resident_id" for i in residents),
                *(f"records[{i}].record_id" for i in records),
            )
        )


class _Planner:
    def __init__(
        self, store: StoreContext, lookups: Lookups, recorded_at: str, *, own_tables_only: bool
    ) -> None:
        self._store = store
        self._own_tables_only = own_tables_only
        self._lookups = lookups
        self._connection = lookups.connection
        self._recorded_at = recorded_at

    def residents(self, caller: Caller, new: Sequence[NewResident]) -> list[PlannedRow]:
        here = self._store.node_id
        elsewhere = [i for i, each in enumerate(new) if each.home_node not in (None, "", here)]
        if elsewhere:
            raise HomeElsewhereError(
                "residents have another home node",
                [f"residents[{i}].home_node" for i in elsewhere],
            )
        given = [each.resident_id for each in new]
        held = self._held_once(RESIDENTS.name, given, "residents[{}].resident_id")
        foreign = [
            f"residents[{i}].resident_id"
            for i, row_id in enumerate(given)
            if row_id in held and (held[row_id].author_node != here or held[row_id].form != "full")
        ]
        refuse_moved(
            self._store,
            self._connection,
            [
                (row_id, f"residents[{i}].resident_id", held.get(row_id))
                for i, row_id in enumerate(given)
                if row_id
            ],
        )
        if foreign:
            raise NotAuthorError("residents were registered by another node", foreign)
        self._refuse_unseen(caller, new, held)
        return [self._resident(caller, each, held.get(each.resident_id or "")) for each in new]

    def _refuse_unseen(
        self, caller: Caller, new: Sequence[NewResident], held: Mapping[str, HeldRow]
    ) -> None:
        """A member of staff amends whom he sees: what he writes replaces what he did not read."""
        if not held or not form_of(caller).staff:
            return
        scope = self._store.scopes.parameters(caller)
        seen = seen_residents(self._connection, caller, scope, held.keys())
        unseen = [
            f"residents[{i}].resident_id"
            for i, each in enumerate(new)
            if each.resident_id in held and each.resident_id not in seen
        ]
        if unseen:
            raise NotAuthorError("residents are not in this organization's care", unseen)

    def _resident(self, caller: Caller, new: NewResident, held: HeldRow | None) -> PlannedRow:
        row_id = new.resident_id or self._store.ids.mint_timeless()
        values: dict[str, Value] = {
            "name": new.name,
            "birth_date": new.birth_date,
            "sex": new.sex,
            "birth_year": int(new.birth_date[:4]),
            "phone": new.phone,
            "address": new.address,
            "deceased_on": new.deceased_on,
            AUTHOR_ORGANIZATION: _organization(caller, held),
        }
        home = _Home(self._store.node_id, held.home_epoch if held else 1)
        return self._row(RESIDENTS.name, row_id, row_id, values, home=home, held=held)

    def identifiers(
        self, new: Sequence[NewResident], planned: Sequence[PlannedRow]
    ) -> list[PlannedRow]:
        """Identifiers not held yet. An amendment adds identifiers and takes none away."""
        index = self._store.blind_index.index
        amended = [row.change.row_id for row in planned if row.replaces is not None]
        held = self._identifiers_of(amended)
        positions: dict[tuple[str, str], str] = {}
        repeated: list[str] = []
        rows: list[PlannedRow] = []
        for i, (resident, row) in enumerate(zip(new, planned, strict=True)):
            resident_id = row.change.row_id
            home = _Home(row.change.home_node, row.change.home_epoch)
            for j, identifier in enumerate(resident.identifiers):
                key = (identifier.system, index(identifier.system, identifier.value))
                if (resident_id, *key) in held:
                    continue
                where = f"residents[{i}].identifiers[{j}].value"
                if key in positions and identifier.system == IDENTITY_NUMBER:
                    repeated.append(where)
                positions[key] = where
                values: dict[str, Value] = {
                    "system": identifier.system,
                    "value": identifier.value,
                }
                row_id = self._store.ids.mint()
                rows.append(self._row(IDENTIFIERS.name, row_id, resident_id, values, home=home))
        self._refuse_taken(positions, repeated)
        return rows

    def _identifiers_of(self, resident_ids: Sequence[str]) -> set[tuple[str, str, str]]:
        return {
            (row.resident_id, row.system, row.value_index)
            for some in chunks(resident_ids)
            for row in self._connection.execute(_IDENTIFIERS_OF, {"ids": some})
        }

    def _refuse_taken(
        self, positions: Mapping[tuple[str, str], str], repeated: Sequence[str]
    ) -> None:
        wanted = [index for system, index in positions if system == IDENTITY_NUMBER]
        taken = [
            positions[IDENTITY_NUMBER, row.value_index]
            for some in chunks(wanted)
            for row in self._connection.execute(_TAKEN, {"indexes": some})
        ]
        if taken or repeated:
            raise DuplicateIdentifierError(
                "identity numbers are registered already", [*repeated, *taken]
            )

    def records(
        self, caller: Caller, new: Sequence[NewRecord], homes: Mapping[str, _Home]
    ) -> list[PlannedRow]:
        self._refuse_unknown_columns(new)
        known = {**self._homes_of(caller, {each.resident_id for each in new} - set(homes)), **homes}
        held = self._held_records(new)
        _refuse_others(caller, new, held)
        known |= self._homes_elsewhere(new, known, held)
        rows: list[PlannedRow] = []
        for each in new:
            row = held.get(each.record_id or "")
            rows.append(
                self._row(
                    row.table if row and each.retracted else each.table,
                    each.record_id or self._store.ids.mint(),
                    each.resident_id,
                    _of_organization(each, caller, row),
                    home=known[each.resident_id],
                    held=row,
                    operation=Operation.DELETE if each.retracted else Operation.PUT,
                )
            )
        return rows

    def _homes_elsewhere(
        self, new: Sequence[NewRecord], known: Mapping[str, _Home], held: Mapping[str, HeldRow]
    ) -> dict[str, _Home]:
        """Homes outside this subtree of residents who are not known here.

        As the row has it that is amended, or as the caller says.
        """
        here = self._store.hierarchy.subtree(self._store.node_id)
        homes: dict[str, _Home] = {}
        unknown: list[str] = []
        nowhere: list[str] = []
        for i, each in enumerate(new):
            if each.resident_id in known:
                continue
            row = held.get(each.record_id or "")
            home = _Home(row.home_node, row.home_epoch) if row else None
            if home is None and each.home_node:
                home = _Home(each.home_node, each.home_epoch)
            if home is None or home.node in here:
                unknown.append(f"records[{i}].resident_id")
            elif home.node not in self._store.hierarchy.nodes:
                nowhere.append(f"records[{i}].home_node")
            else:
                homes[each.resident_id] = home
        if unknown:
            raise UnknownResidentError("records name residents not known here", unknown)
        if nowhere:
            raise HomeUnknownError("records name homes that are no nodes of the region", nowhere)
        return homes

    def _refuse_unknown_columns(self, new: Sequence[NewRecord]) -> None:
        positions = [
            f"records[{i}].{name}"
            for i, each in enumerate(new)
            if not each.retracted
            for name in ("table", *each.values)
            if each.table not in _RECORD_COLUMNS
            or (name != "table" and name not in _RECORD_COLUMNS[each.table])
        ]
        if positions:
            raise UnknownColumnError("records have unknown tables or columns", positions)

    def _homes_of(self, caller: Caller, resident_ids: set[str]) -> dict[str, _Home]:
        """Home and epoch of residents whom the caller may know; no move meanwhile.

        A grant is newer than the rows held, which may have gone: he lives where it says.
        """
        homes = {
            row_id: _Home(held.home_node, held.home_epoch)
            for row_id, held in self._lookups.homes(resident_ids).items()
            if has_place(caller, home_node=held.home_node, author_node=held.author_node)
        }
        for row_id, grant in self._store.homes.newest(self._connection, resident_ids).items():
            known = homes.get(row_id)
            if (known or may_know(caller, grant)) and (
                known is None or known.epoch < grant.home_epoch
            ):
                homes[row_id] = _Home(grant.home_node, grant.home_epoch)
        return homes

    def _held_records(self, new: Sequence[NewRecord]) -> dict[str, HeldRow]:
        given = [each.record_id for each in new]
        held: dict[str, HeldRow] = {}
        if self._own_tables_only:
            held = self._held_in_their_tables(new)
        else:
            for spec in RECORD_TABLES:
                held.update(self._held_once(spec.name, given, "records[{}].record_id"))
        foreign: list[str] = []
        mismatched: list[str] = []
        unknown: list[str] = []
        for i, each in enumerate(new):
            row = held.get(each.record_id or "")
            table = row.table if row and each.retracted else each.table
            if row is None:
                unknown += [f"records[{i}].record_id"] if each.retracted else []
            elif row.author_node != self._store.node_id or row.form != "full":
                foreign.append(f"records[{i}].record_id")
            elif (row.table, row.resident_id) != (table, each.resident_id):
                mismatched.append(f"records[{i}]")
        if unknown:
            raise UnknownRecordError("records to retract are not held here", unknown)
        if foreign:
            raise NotAuthorError("records were written by another node", foreign)
        if mismatched:
            raise RecordMismatchError("records differ in type or resident", mismatched)
        return held

    def _held_in_their_tables(self, new: Sequence[NewRecord]) -> dict[str, HeldRow]:
        by_table: dict[str, list[str]] = {}
        for each in new:
            if each.record_id:
                by_table.setdefault(each.table, []).append(each.record_id)
        held: dict[str, HeldRow] = {}
        for table, ids in by_table.items():
            held.update(self._lookups.held(table, ids))
        return held

    def _held_once(
        self, table: str, given: Sequence[str | None], position: str
    ) -> dict[str, HeldRow]:
        ids = [row_id for row_id in given if row_id]
        if not ids:
            return {}
        odd = [i for i, row_id in enumerate(given) if row_id and not is_row_id(row_id)]
        if odd:
            raise RowIdError("row ids are not UUIDs", [position.format(i) for i in odd])
        if len(set(ids)) != len(ids):
            again = [i for i, row_id in enumerate(given) if row_id and row_id in given[:i]]
            raise RepeatedRowError("row ids stand twice", [position.format(i) for i in again])
        return self._lookups.held(table, ids)

    def _row(
        self,
        table: str,
        row_id: str,
        resident_id: str,
        values: Mapping[str, Value],
        *,
        home: _Home,
        held: HeldRow | None = None,
        operation: Operation = Operation.PUT,
    ) -> PlannedRow:
        epoch = self._store.changelog.store_epoch
        version = next_version(held.version if held else _NONE_YET, epoch)
        change = RowChange(
            table=table,
            row_id=row_id,
            resident_id=resident_id,
            version=version,
            operation=operation,
            author_node=self._store.node_id,
            home_node=home.node,
            home_epoch=home.epoch,
            schema_version=SCHEMA_VERSION,
            recorded_at=self._recorded_at,
            form=Form.FULL,
            values={name: value for name, value in values.items() if value is not None},
        )
        return PlannedRow(change, held.version if held else None)


def _refuse_others(caller: Caller, new: Sequence[NewRecord], held: Mapping[str, HeldRow]) -> None:
    """A member of staff amends what his organization wrote, and nobody else's."""
    if not form_of(caller).staff:
        return
    positions = [
        f"records[{i}].record_id"
        for i, each in enumerate(new)
        if (row := held.get(each.record_id or ""))
        and (not row.organization or row.organization != caller.organization_id)
    ]
    if positions:
        raise NotAuthorError("records were written for another organization", positions)


def _organization(caller: Caller, held: HeldRow | None) -> str | None:
    """Whose row it is: the first writer's, whoever amends it."""
    return (held.organization if held else caller.organization_id) or None


def _of_organization(new: NewRecord, caller: Caller, held: HeldRow | None) -> Mapping[str, Value]:
    """A record's values with the organization they were written for; a tombstone has none."""
    if new.retracted:
        return new.values
    return {**new.values, AUTHOR_ORGANIZATION: _organization(caller, held)}
