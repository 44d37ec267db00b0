"""A node with ingestion on it, without a loop or a thread: runs are driven by hand."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from datetime import date

from sqlalchemy import func, select

from node.clock import Ids
from node.ingestion.content import PIECE_BYTES, Contents
from node.ingestion.mapping import MappingModel, read_mapping
from node.ingestion.model import RunState
from node.ingestion.persons import IdentifierIndex
from node.ingestion.pipeline import Pipeline, Workshop
from node.ingestion.runs import Run, Runs
from node.records.identity import make_identity_number
from node.security.caller import Caller
from node.storage import Storage
from node.storage.tables import INTAKE, REPLICATED
from replication.changelog import read_transaction
from tests.contracts.storage.region import NodeStore

__all__ = ["OBSERVATIONS", "Intake", "identity", "observation_lines"]

OBSERVATIONS = """\
name: results
source: lab
format: csv
columns:
  patient_id: person.local_id
  identity_number: {to: person.identity_number, optional: true}
  name: {to: person.name, optional: true}
  sex: {to: person.sex, optional: true}
  birth_date: {to: person.birth_date, optional: true}
  code: observation.code
  value: observation.value
  unit: observation.unit
  observed_on: observation.observed_on
"""


@dataclass
class Intake:
    """Ingestion of one node."""

    node: NodeStore
    seed: int = 7
    workshop: Workshop = field(init=False)

    def __post_init__(self) -> None:
        self.open(self.node.storage)

    def open(self, storage: Storage) -> None:
        """As after a start: nothing that was in memory is left."""
        store = storage.context
        clock = self.node.clock
        ids = Ids(clock, random.Random(self.seed).randbytes)
        self.seed += 1
        self.workshop = Workshop(
            storage,
            IdentifierIndex(store),
            Contents(store, clock),
            Runs(store, self.node.tree, clock, ids),
            clock,
        )

    @property
    def caller(self) -> Caller:
        """A clinic's system."""
        return self.node.caller()

    def offer(self, data: bytes, mapping: str = OBSERVATIONS, name: str = "results.csv") -> Run:
        """A run of a content that has arrived whole."""
        shop = self.workshop
        digest = hashlib.sha256(data).hexdigest()
        content = shop.contents.announce(digest, len(data), name)
        for number in range(content.arrived, content.pieces):
            piece = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
            content = shop.contents.put_piece(content, number, piece)
        model: MappingModel = read_mapping(mapping)
        digest = hashlib.sha256(mapping.encode()).hexdigest()
        run = shop.runs.begin(
            content.content_id, (model.name, model.source, digest, mapping), self.caller, ""
        )
        if run.state is RunState.ARRIVING:
            shop.runs.set_state(run.run_id, RunState.RUNNING)
        return shop.runs.load(run.run_id)

    def load(self, data: bytes | str, mapping: str = OBSERVATIONS) -> Run:
        """Load a content to its end."""
        run = self.offer(data.encode() if isinstance(data, str) else data, mapping)
        if run.state is RunState.RUNNING:
            pipeline = Pipeline(self.workshop, run)
            while pipeline.step():
                pass
        return self.workshop.runs.load(run.run_id)

    def rows(self, table: str) -> int:
        """Rows of a replicated table that are not retracted."""
        t = REPLICATED[table]
        with read_transaction(self.node.engine) as connection:
            query = select(func.count()).select_from(t).where(t.c.deleted.is_(False))
            return connection.execute(query).scalar_one()

    def rules(self, run: Run) -> dict[str, int]:
        """What waits in the quarantine, by rule."""
        return self.workshop.runs.count_waiting(run.run_id)

    def warned(self) -> list[str]:
        """Rules of the warnings that are kept."""
        with read_transaction(self.node.engine) as connection:
            return list(connection.execute(select(INTAKE.warnings.c.rule)).scalars())

    def residents(self) -> dict[str, str]:
        """Names by identifier of everybody who has been registered, as a caller sees them."""
        t = REPLICATED["residents"]
        with read_transaction(self.node.engine) as connection:
            ids = connection.execute(select(t.c.row_id)).scalars().all()
        found = {}
        for each in ids:
            resident = self.node.storage.resident(self.caller, each)
            assert resident is not None
            for identifier in resident.identifiers:
                found[f"{identifier.system}:{identifier.value}"] = resident.name or ""
        return found


def identity(number: int) -> str:
    """A sound identity number of a woman born on 1980-01-01."""
    area, sequence = divmod(number, 500)
    return make_identity_number(f"{142601 + area}", date(1980, 1, 1), sequence * 2)


def observation_lines(people: int, each: int, *, first: int = 0) -> list[str]:
    """A header, and so many values of so many people."""
    lines = ["patient_id,identity_number,name,sex,birth_date,code,value,unit,observed_on"]
    for person in range(first, first + people):
        who = f"P{person},{identity(person)},李{person},2,1980-01-01"
        for number in range(each):
            day = f"2026-{1 + number // 28 % 9:02d}-{1 + number % 28:02d}"
            lines += [f"{who},8480-6,{100 + (person + number) % 80},mmHg,{day}"]
    return lines
