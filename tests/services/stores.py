"""Looks into the databases of nodes directly, past the program that keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, create_engine, func, make_url, select

from hierarchy_config import NodeId
from node.clock import SystemClock
from node.demo.place import DemoPlace
from node.settings import load_settings
from node.storage.audit import AuditBreak, Auditor
from node.storage.tables import (
    APPLIED_REQUESTS,
    AUDIT,
    CHANGELOG,
    REPLICATED,
    RESIDENCE,
    TRANSIT,
)

__all__ = ["HeldRow", "Store", "opened"]

Origin = tuple[str, int, int, str]


def _origin_of(entry: RowMapping) -> Origin:
    """Whose transaction an entry of the log is; its form tells what became of it on the way."""
    return entry["origin_node"], entry["origin_epoch"], entry["origin_sequence"], entry["form"]


@dataclass(frozen=True, slots=True)
class HeldRow:
    """One replicated row as a node holds it."""

    version: tuple[int, int]
    author: str
    home: str
    form: str
    resident_id: str = field(default="", compare=False)
    home_epoch: int = field(default=0, compare=False)


class Store:
    """One node's database."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rows(self) -> dict[tuple[str, str], HeldRow]:
        """Every replicated row by table and id."""
        return {
            (name, row["row_id"]): HeldRow(
                (row["version_epoch"], row["version_number"]),
                row["author_node"],
                row["home_node"],
                row["form"],
                row["resident_id"],
                row["home_epoch"],
            )
            for name, table in REPLICATED.items()
            for row in self._all(select(table))
        }

    def rows_of_resident(self, resident_id: str) -> int:
        """How many rows of all replicated tables are about a resident."""
        return sum(
            self.connection.execute(
                select(func.count()).select_from(t).where(t.c.resident_id == resident_id)
            ).scalar_one()
            for t in REPLICATED.values()
        )

    def log(self) -> list[RowMapping]:
        """The change log, oldest first."""
        t = CHANGELOG.change_log
        return self._all(select(t).order_by(t.c.entry_id))

    def origins(self) -> Counter[Origin]:
        """How often each transaction's entry stands in the log."""
        return Counter(_origin_of(entry) for entry in self.log())

    def requests(self) -> int:
        """Bundles that were answered."""
        return self._number(select(func.count()).select_from(APPLIED_REQUESTS))

    def quarantined(self) -> int:
        """Changes in the quarantine, closed ones too."""
        return self._number(select(func.count()).select_from(CHANGELOG.quarantine))

    def quarantine_causes(self) -> Counter[str]:
        """Changes that wait in the quarantine, by cause."""
        t = CHANGELOG.quarantine
        waiting = select(t.c.cause).where(t.c.closed_as.is_(None))
        return Counter(self.connection.execute(waiting).scalars())

    def audited_rows(self) -> int:
        """Rows that the audit says were written."""
        written = select(func.coalesce(func.sum(AUDIT.c.row_count), 0)).where(
            AUDIT.c.action == "put", AUDIT.c.outcome == "done"
        )
        return self._number(written)

    def audit_break(self) -> AuditBreak | None:
        """Where the audit's chain breaks; None if it holds."""
        return Auditor(SystemClock()).verify(self.connection)

    def letters_open(self) -> list[RowMapping]:
        """Letters written here that their addressee has not accepted, each with whom it is about.

        A letter about several residents comes once for each; about nobody: resident_id is null.
        """
        out, subjects = TRANSIT.out, TRANSIT.subjects
        query = (
            select(
                out.c.letter_id,
                out.c.to_node,
                out.c.kind,
                out.c.state,
                out.c.code,
                subjects.c.resident_id,
            )
            .select_from(out.outerjoin(subjects, subjects.c.letter_id == out.c.letter_id))
            .where(out.c.state != "confirmed")
            .distinct()
        )
        return self._all(query)

    def letters_about(self) -> dict[tuple[str, str], set[str]]:
        """By row, the states of the letters of this node that carried it."""
        out, subjects = TRANSIT.out, TRANSIT.subjects
        query = select(subjects.c.table_name, subjects.c.row_id, out.c.state).join(
            out, out.c.letter_id == subjects.c.letter_id
        )
        found: dict[tuple[str, str], set[str]] = {}
        for table, row_id, state in self.connection.execute(query):
            found.setdefault((table, row_id), set()).add(state)
        return found

    def grants(self) -> dict[tuple[str, int], str]:
        """The home that each grant known here names, by resident and home epoch."""
        t = RESIDENCE.grants
        return {
            (row["resident_id"], row["home_epoch"]): row["home_node"]
            for row in self._all(select(t))
        }

    def moves_open(self) -> list[RowMapping]:
        """Moves in which this node still has something to do or to wait for."""
        t = RESIDENCE.moves
        return self._all(select(t).where(t.c.state.not_in(["settled", "refused"])))

    def texts(self, *columns: str) -> set[str]:
        """Every value of these columns in the replicated tables that have them."""
        found: set[str] = set()
        for table in REPLICATED.values():
            for name in columns:
                if name in table.c:
                    found.update(self.connection.execute(select(table.c[name])).scalars())
        return found

    def tables(self) -> dict[str, int]:
        """Rows of every replicated table, tombstones too."""
        return {
            name: self._number(select(func.count()).select_from(table))
            for name, table in REPLICATED.items()
        }

    def _all(self, query: Any) -> list[RowMapping]:
        return list(self.connection.execute(query).mappings())

    def _number(self, query: Any) -> int:
        return int(self.connection.execute(query).scalar_one())


@contextmanager
def opened(place: DemoPlace, node: NodeId) -> Iterator[Store]:
    """The database of a node, running or stopped, to read from."""
    folder = place.node_dir(node)
    url = make_url(load_settings(folder).database)
    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(folder / str(url.database)))
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            yield Store(connection)
    finally:
        engine.dispose()
