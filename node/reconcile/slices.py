"""The rows of a slice as one end holds them, and the digest of each.

At the child the rows that go up are digested as they would be sent: transformed by policy for its
parent. Everywhere else they are digested as they are stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, select

from hierarchy_config.model import CopyForm
from node.reconcile.model import Current, Direction, Pair, Slice, key_of, row_id_of
from node.reconcile.ranges import DIGEST_BYTES, Leaves
from node.records.canaries import is_canary
from node.security.errors import SecurityError
from node.storage.context import StoreContext
from node.storage.rows import chunks
from node.storage.shapes import fits_schema, is_row_id
from node.storage.specs import (
    IDENTIFIERS,
    IDENTITY_NUMBER,
    RESIDENT_INDEX,
    RESIDENTS,
    TABLES,
    ColumnKind,
)
from node.storage.tables import REPLICATED
from node.storage.transforms import deidentified, index_entry
from replication.core.model import Form, Operation, RowChange, Value, Version

__all__ = ["SliceReader", "SliceRow", "row_digest"]


class SliceRow:
    """A row of a slice. `source`: the row id here behind it; `change` None: it does not open."""

    __slots__ = ("change", "home", "home_epoch", "key", "node_id", "source", "version")

    def __init__(
        self,
        key: bytes,
        source: str,
        version: Version,
        home: tuple[str, int],
        change: RowChange | None,
        node_id: str,
    ) -> None:
        self.key = key
        self.home, self.home_epoch = home
        self.source = source
        self.version = version
        self.change = change
        self.node_id = node_id

    @property
    def digest(self) -> bytes:
        """Of a row that does not open: one that no other end can have."""
        if self.change is not None:
            return row_digest(self.change)
        text = b"fenhe.reconcile.broken.1" + self.node_id.encode() + self.key
        return hashlib.sha256(text).digest()[:DIGEST_BYTES]

    @property
    def current(self) -> Current:
        """As the other end is told of it."""
        return Current(self.digest, self.version, self.change is None, self.home_epoch)


def row_digest(change: RowChange) -> bytes:
    """SHA-256 over the table, the row's key, its version, deletion and content, cut to 16 bytes.

    Absent and null cells are one; numbers of a numeric column are digested as floats.
    """
    spec = TABLES[change.table]
    numbers = {column.name for column in spec.columns if column.kind is ColumnKind.NUMBER}
    values = {
        name: float(value) if name in numbers and isinstance(value, int | float) else value
        for name, value in change.values.items()
        if value is not None
    }
    content = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    fields = [
        "fenhe.reconcile.row.1",
        change.table,
        change.row_id,
        change.resident_id,
        change.version.author_epoch,
        change.version.number,
        change.operation.value,
        change.author_node,
        change.home_node,
        change.home_epoch,
        change.schema_version,
        change.recorded_at,
        change.form.value,
        content,
    ]
    return hashlib.sha256(json.dumps(fields).encode()).digest()[:DIGEST_BYTES]


class SliceReader:
    """Reads slices of one link at this end."""

    def __init__(self, store: StoreContext, pair: Pair) -> None:
        self._store = store
        self._pair = pair
        self._above = sorted(store.hierarchy.path_to_root(pair.parent))
        self._sends_up = store.node_id == pair.child

    def homes(self, connection: Connection, direction: Direction, table: str) -> set[str]:
        """Homes in the child's subtree that this end has rows of."""
        below = self._store.hierarchy.subtree(self._pair.child)
        found: set[str] = set()
        for source in self._sources(direction, table):
            t = REPLICATED[source]
            query = select(t.c.home_node).where(self._ways(t, direction)).distinct()
            found.update(connection.execute(query).scalars())
        return found & set(below)

    def leaves(self, connection: Connection, part: Slice) -> tuple[Leaves, int]:
        """Every row of a slice by its digest, and how many rows do not even have an id.

        Takes about 75 bytes a row while it is kept.
        """
        found: dict[bytes, bytes] = {}
        strays = 0
        for row in self._whole(connection, part):
            if row is None:
                strays += 1
            else:
                found[row.key] = row.digest
        return Leaves(found.items()), strays

    def rows(
        self, connection: Connection, part: Slice, keys: Sequence[bytes]
    ) -> dict[bytes, SliceRow]:
        """Rows by their keys in the copy, wherever their home is by now."""
        wanted = set(keys)
        if self.is_reduced(part):
            # Nothing finds a row by its pseudonym but looking at all of them.
            rows = self._whole(connection, part)
            return {row.key: row for row in rows if row is not None and row.key in wanted}
        found: dict[bytes, SliceRow] = {}
        for source in self._sources(part.direction, part.table):
            for some in chunks([row_id_of(key) for key in keys]):
                for row in self._chunk(connection, part, source, some):
                    if row is not None:
                        found[row.key] = row
        return found

    def current(self, row: SliceRow) -> Current:
        """What the other end is told of a row.

        He who has moved out of the child's subtree is none of the child's business any more: that
        he has, and no digest of what his record holds now.
        """
        said = row.current
        if self._sends_up or row.home in self._store.hierarchy.subtree(self._pair.child):
            return said
        return replace(said, digest=bytes(DIGEST_BYTES), broken=False)

    def is_reduced(self, part: Slice) -> bool:
        """Whether keys of this slice are made at this end, so that rows cannot be found by them."""
        if not self._is_sent_up(part):
            return False
        return CopyForm.DEIDENTIFIED in self._forms(part.table)

    def belongs(self, part: Slice, change: RowChange) -> bool:
        """Whether a row is of this slice at all, by what it says of itself."""
        from_above = change.author_node in self._above
        if change.table != part.table or change.home_node != part.home:
            return False
        if part.direction is Direction.DOWN:
            return from_above and change.form is Form.FULL
        table = RESIDENTS.name if part.table == RESIDENT_INDEX.name else part.table
        return not from_above and CopyForm(change.form.value) in self._forms(table)

    def keys_in_copy(self, part: Slice, change: RowChange) -> list[bytes]:
        """The keys that a row of this end has in the copy."""
        if not self._is_sent_up(part) or change.form is not Form.FULL:
            return [key_of(change.row_id)]
        keys = []
        forms, pseudonyms = self._forms(part.table), self._store.pseudonyms
        if CopyForm.FULL in forms:
            keys.append(key_of(change.row_id))
        if CopyForm.DEIDENTIFIED in forms and pseudonyms is not None:
            keys.append(key_of(pseudonyms.pseudonym(part.table, change.row_id)))
        return keys

    def as_copy(self, part: Slice, change: RowChange) -> RowChange | None:
        """What a row of this end is in the copy; None: nothing."""
        if not self._is_sent_up(part) or change.form is not Form.FULL:
            return change
        forms, pseudonyms = self._forms(part.table), self._store.pseudonyms
        if CopyForm.FULL in forms:
            return change
        is_person = not is_canary(change.resident_id)
        if CopyForm.DEIDENTIFIED in forms and pseudonyms is not None and is_person:
            return deidentified(change, pseudonyms)
        return None

    def _is_sent_up(self, part: Slice) -> bool:
        return self._sends_up and part.direction is Direction.UP

    def _forms(self, table: str) -> tuple[CopyForm, ...]:
        return self._store.hierarchy.copy_forms(self._pair.child, table)

    def _sources(self, direction: Direction, table: str) -> tuple[str, ...]:
        """The tables here that a table of the copy is made of."""
        if table == RESIDENT_INDEX.name and self._sends_up and direction is Direction.UP:
            return (RESIDENT_INDEX.name, RESIDENTS.name)
        return (table,)

    def _ways(self, t: Table, direction: Direction) -> ColumnElement[bool]:
        if direction is Direction.DOWN:
            return and_(t.c.author_node.in_(self._above), t.c.form == Form.FULL.value)
        return t.c.author_node.not_in(self._above)

    def _whole(self, connection: Connection, part: Slice) -> Iterator[SliceRow | None]:
        for source in self._sources(part.direction, part.table):
            t = REPLICATED[source]
            ids = select(t.c.row_id).where(
                t.c.home_node == part.home, self._ways(t, part.direction)
            )
            for some in chunks(list(connection.execute(ids).scalars())):
                yield from self._chunk(connection, part, source, some)

    def _chunk(
        self, connection: Connection, part: Slice, source: str, row_ids: Sequence[str]
    ) -> Iterator[SliceRow | None]:
        t = REPLICATED[source]
        rows = connection.execute(select(t).where(t.c.row_id.in_(row_ids))).mappings().all()
        numbers: Mapping[str, str | None] = {}
        if source != part.table:
            numbers = self._identity_numbers(connection, row_ids)
        for row in rows:
            if is_row_id(row["row_id"]):
                yield from self._shown(part, source, row, numbers)
            else:
                yield None

    def _shown(
        self, part: Slice, source: str, row: RowMapping, numbers: Mapping[str, str | None]
    ) -> Iterator[SliceRow]:
        """What a row here is in the copy: nothing, itself, or what policy makes of it."""
        row_id, change = str(row["row_id"]), self._opened(source, row)
        version = Version(int(row["version_epoch"]), int(row["version_number"]))

        def shown(key: str, made: RowChange | None) -> SliceRow:
            home = (str(row["home_node"]), int(row["home_epoch"]))
            return SliceRow(key_of(key), row_id, version, home, made, self._store.node_id)

        if not self._is_sent_up(part) or row["form"] != Form.FULL:
            if source == part.table:
                yield shown(row_id, change)
            return
        forms = self._forms(RESIDENTS.name if source != part.table else source)
        is_person = not is_canary(str(row["resident_id"]))
        if source != part.table:
            if CopyForm.INDEX in forms and self._store.regional_index is not None and is_person:
                yield shown(row_id, self._entry(change, numbers))
            return
        if CopyForm.FULL in forms:
            yield shown(row_id, change)
        pseudonyms = self._store.pseudonyms
        if CopyForm.DEIDENTIFIED in forms and pseudonyms is not None and is_person:
            key = pseudonyms.pseudonym(source, row_id)
            yield shown(key, None if change is None else deidentified(change, pseudonyms))

    def _entry(
        self, change: RowChange | None, numbers: Mapping[str, str | None]
    ) -> RowChange | None:
        """The resident's index entry; None if he, or his number, does not open."""
        regional = self._store.regional_index
        if change is None or regional is None or numbers.get(change.row_id, "") is None:
            return None
        number = numbers.get(change.row_id)
        return index_entry(change, regional.index(IDENTITY_NUMBER, number) if number else None)

    def _opened(self, table: str, row: RowMapping) -> RowChange | None:
        """The row, clear; None if a cell does not open or holds what cannot be."""
        spec, cells = TABLES[table], self._store.cells
        try:
            opened: dict[str, Value] = {**cells.open(spec, row), **cells.open_unknown(spec, row)}
            change = RowChange(
                table=table,
                row_id=row["row_id"],
                resident_id=row["resident_id"],
                version=Version(int(row["version_epoch"]), int(row["version_number"])),
                operation=Operation.DELETE if row["deleted"] else Operation.PUT,
                author_node=row["author_node"],
                home_node=row["home_node"],
                home_epoch=int(row["home_epoch"]),
                schema_version=int(row["schema_version"]),
                recorded_at=row["recorded_at"],
                form=Form(row["form"]),
                values={name: value for name, value in opened.items() if value is not None},
            )
            sound = fits_schema(change) and self._index_fits(change, row)
        except (SecurityError, ValueError, TypeError, KeyError):
            return None
        return change if sound else None

    def _index_fits(self, change: RowChange, row: RowMapping) -> bool:
        """Whether an identifier is found under its own value."""
        if change.table != IDENTIFIERS.name or change.operation is Operation.DELETE:
            return True
        system, value = change.values.get("system"), change.values.get("value")
        if not isinstance(system, str) or not isinstance(value, str):
            return row["value_index"] is None
        return bool(row["value_index"] == self._store.blind_index.index(system, value))

    def _identity_numbers(
        self, connection: Connection, resident_ids: Sequence[str]
    ) -> dict[str, str | None]:
        """The newest identity number of residents who have one, clear; None: it does not open."""
        t = REPLICATED[IDENTIFIERS.name]
        query = (
            select(t.c.row_id, t.c.resident_id, t.c.value)
            .where(
                t.c.resident_id.in_(resident_ids),
                t.c.system == IDENTITY_NUMBER,
                t.c.deleted.is_(False),
                t.c.form == Form.FULL.value,
            )
            .order_by(t.c.recorded_at, t.c.row_id)
        )
        numbers: dict[str, str | None] = {}
        for row in connection.execute(query):
            try:
                value = self._store.cells.open_cell(t.name, "value", row.row_id, row.value)
            except (SecurityError, ValueError):
                numbers[row.resident_id] = None
                continue
            if isinstance(value, str):
                numbers[row.resident_id] = value
        return numbers
