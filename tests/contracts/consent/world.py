"""A township's store with residents, records and what decides over them, written straight in."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from sqlalchemy import Engine, delete, insert

from hierarchy_config.model import NodeId
from node.cache import CacheFollower, InProcessCache
from node.clock import format_ms, today
from node.security.caller import Caller, CallerKind, caller_for
from node.security.roles import Role
from node.storage import ResidentQuestion, Storage
from node.storage.model import StoredResident
from node.storage.rows import RowMaker
from node.storage.tables import REPLICATED
from replication.changelog import write_transaction
from replication.core.model import Form, Operation, RowChange, Value, Version
from tests.contracts.storage.region import FakeClock, NodeStore
from tests.unit.security.relatives import HIERARCHY

__all__ = ["HERE", "MINUTE_MS", "ORGANIZATION", "OTHER", "World", "caller", "row_id_of"]

HERE: Final = NodeId("141002001")
ORGANIZATION: Final = "org-a"
OTHER: Final = "org-b"
MINUTE_MS: Final = 60_000
_IDENTITY: Final = "identity_number"


def row_id_of(number: int, kind: int = 0) -> str:
    """A row id; `kind` keeps residents and records apart."""
    return f"00000000-0000-7000-{8000 + kind}-{number:012d}"


def caller(
    kind: CallerKind = CallerKind.CLIENT,
    *,
    purpose: str = "treatment",
    organization: str = "",
    staff_id: str = "",
    role: Role | None = None,
    node_id: NodeId = HERE,
) -> Caller:
    """Somebody who asks at the township, as the people's room would make him."""
    principal = f"{HIERARCHY.spiffe_id(node_id)}/{kind}/{staff_id or organization or 'someone'}"
    made = caller_for(kind, principal, node_id, HIERARCHY, purpose)
    return replace(
        made,
        organization_id=organization,
        staff_id=staff_id,
        roles=frozenset({role}) if role else frozenset(),
    )


@dataclass
class World:
    """One node; `add` gathers rows, `store` writes them."""

    engine: Engine
    node: NodeStore = field(init=False)
    cached: Storage = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.node = NodeStore(HERE, self.engine, HIERARCHY, self.clock, 7)
        self._cache = InProcessCache(1 << 24)
        # The same keys, so that both find what the one has stored.
        self.cached = self.node.open_storage(random.Random(7), self._cache)
        context = self.node.storage.context
        self._maker = RowMaker(context.cells, context.blind_index)
        self._rows: list[RowChange] = []
        self._numbers = itertools.count(1)

    @property
    def storage(self) -> Storage:
        return self.node.storage

    def day(self, offset: int) -> str:
        """A day as seen from today."""
        return (today(self.clock) + timedelta(offset)).isoformat()

    def moment(self, minutes: int) -> str:
        """A moment as seen from now."""
        return format_ms(self.clock.ms + minutes * MINUTE_MS)

    def add(
        self,
        table: str,
        resident_id: str,
        home: str,
        *,
        author: str | None = None,
        row_id: str = "",
        **values: Value,
    ) -> RowChange:
        """A row at its first version."""
        change = RowChange(
            table=table,
            row_id=row_id or row_id_of(next(self._numbers), 900),
            resident_id=resident_id,
            version=Version(1, 1),
            operation=Operation.PUT,
            author_node=author or home,
            home_node=home,
            home_epoch=1,
            schema_version=1,
            recorded_at="2026-03-01T08:00:00.000Z",
            form=Form.FULL,
            values={name: value for name, value in values.items() if value is not None},
        )
        self._rows.append(change)
        return change

    def add_resident(self, number: int, home: str, organization: str = "") -> str:
        """A resident with a number; his id."""
        resident_id = row_id_of(number)
        self.add(
            "residents",
            resident_id,
            home,
            row_id=resident_id,
            name=f"居民{number}",
            birth_date="1980-01-01",
            sex="female",
            birth_year=1980,
            author_organization=organization or None,
        )
        self.add("identifiers", resident_id, home, system=_IDENTITY, value=f"n{number}")
        return resident_id

    def store(self) -> None:
        """Write what was gathered."""
        by_table: dict[str, list[dict[str, object]]] = defaultdict(list)
        for change in self._rows:
            by_table[change.table].append(self._maker.row(change))
        with write_transaction(self.engine) as connection:
            for table, rows in by_table.items():
                connection.execute(insert(REPLICATED[table]), rows)
        self._rows.clear()

    def empty(self) -> None:
        """Delete every row of a person."""
        with write_transaction(self.engine) as connection:
            for table in REPLICATED.values():
                connection.execute(delete(table))
        self._rows.clear()

    def follow(self) -> None:
        """Let the cache take what is asked from now on."""
        CacheFollower(self._cache, self.cached).follow(self.node.durable_head())

    def answered(self, storage: Storage, asker: Caller, ids: Iterable[str]) -> set[str]:
        """Whom of some residents a caller gets, as point reads give them."""
        wanted = list(ids)
        answers = storage.resident_answers([ResidentQuestion(asker, each) for each in wanted], _id)
        return {answer.decode() for answer in answers if answer is not None}

    def read_one_by_one(self, asker: Caller, resident_id: str, record_id: str) -> set[str]:
        """Which of the readers show a resident, or his record, to a caller."""
        storage = self.storage
        number = int(resident_id[-12:])
        found = storage.find_resident(asker, _IDENTITY, f"n{number}")
        shown = {
            "resident": storage.resident(asker, resident_id) is not None,
            "find": found is not None and found.resident_id == resident_id,
            "record": storage.record(asker, record_id) is not None,
            "timeline": bool(storage.timeline(asker, resident_id).records),
        }
        return {name for name, seen in shown.items() if seen}


def _id(resident: StoredResident) -> bytes:
    return resident.resident_id.encode()
