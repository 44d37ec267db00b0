"""A node with matching on it, without a loop or a thread: steps are taken by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from sqlalchemy import select

from node.empi.defaults import shipped_model
from node.empi.model import MatchModel
from node.empi.synthetic import linfen_people
from node.matching.book import PairBook
from node.matching.finder import Finder
from node.matching.model import MatchProgress, PairKey, PairState, key_of
from node.records.model import NewResident
from node.storage.tables import MATCHING
from replication.changelog import read_transaction, write_transaction
from replication.core.config import PeerRole
from replication.core.model import Lane, Operation
from tests.contracts.storage.region import (
    VILLAGE,
    NodeStore,
    bundle,
    change,
    log_entry,
    person,
    send,
)

__all__ = ["MARKER", "OTHER_MODEL", "Matching", "arrive", "twice", "values"]

OTHER_MODEL: MatchModel = replace(shipped_model(), note="learnt elsewhere")
MARKER = "亢畅梓萱"
"""A name that is nobody's else."""

_requests = itertools.count(1)


@dataclass
class Matching:
    """Matching of one node; `open` is a start, with nothing left of what was in memory."""

    node: NodeStore
    model: MatchModel = field(default_factory=shipped_model)
    finder: Finder = field(init=False)

    def __post_init__(self) -> None:
        self.open()

    @property
    def book(self) -> PairBook:
        return PairBook(self.node.storage.context)

    def open(self, model: MatchModel | None = None, residents_max: int | None = None) -> None:
        """As after a start, perhaps under another model."""
        self.model = model or self.model
        self.finder = Finder(self.node.storage, self.model, residents_max=residents_max)

    def step(self) -> bool:
        return self.finder.step(self.node.durable_head())

    def settle(self) -> int:
        """Step until there is nothing to do; how many steps that took."""
        steps = 0
        while self.step():
            steps += 1
            assert steps < 500
        return steps

    def register(self, *people: NewResident) -> list[str]:
        """Residents of the village; their ids. Those with an id are amended."""
        put = bundle(f"request-{next(_requests)}", *people)
        return list(self.node.storage.put_bundle(self.node.caller(), put).resident_ids)

    def rows(self) -> dict[PairKey, Any]:
        """The table, as it is."""
        with read_transaction(self.node.engine) as connection:
            rows = connection.execute(select(MATCHING.pairs)).all()
        return {(row.first_id, row.second_id): row for row in rows}

    def pairs(self, state: PairState = PairState.WAITING) -> set[PairKey]:
        """The pairs of a state."""
        return {key for key, row in self.rows().items() if row.state == state}

    def found(self) -> dict[PairKey, tuple[object, ...]]:
        """What was found, without when, and how likely among how many who were here then."""
        return {
            key: (row.weight, row.outcome, row.why, row.model_digest, row.state)
            for key, row in self.rows().items()
        }

    def progress(self) -> MatchProgress:
        held = self.book.progress()
        assert held is not None
        return held

    def forget_pairs(self) -> None:
        """Behind the finder's back: only who is asked for again is found again."""
        with write_transaction(self.node.engine) as connection:
            connection.execute(MATCHING.pairs.delete())

    def decide(self, key: PairKey, now_ms: int = 1) -> None:
        with write_transaction(self.node.engine) as connection:
            self.book.decide(connection, *key, now_ms)


@cache
def _people() -> tuple[dict[str, str], ...]:
    """Made-up people, one of each household."""
    one_each = {(each.village, each.house): each for each in linfen_people(1_200, 5)}
    return tuple(
        {
            "name": each.surname + each.given,
            "sex": "male" if each.sex == "m" else "female",
            "birth_date": each.born.isoformat(),
            "phone": each.phone,
            "address": f"{each.village}{each.house}号",
        }
        for each in one_each.values()
    )


def values(number: int, **more: str) -> dict[str, str]:
    """Somebody who is nobody of another number."""
    return {**_people()[number], **more}


def twice(matching: Matching, number: int, **more: str) -> PairKey:
    """Register somebody two times, with two telephones; the pair that he is."""
    first, second = matching.register(
        person("", **values(number)),
        person("", **values(number, phone=f"15{number:09d}", **more)),
    )
    return key_of(first, second)


def arrive(
    upper: NodeStore,
    resident: int,
    version: int,
    given: Mapping[str, str] | None,
) -> str:
    """A resident comes up from the village at a version, or his end (None); his id."""
    row = change(
        "residents",
        resident=resident,
        version=(1, version),
        operation=Operation.DELETE if given is None else Operation.PUT,
        values=dict(given or {}),
    )
    entry = log_entry(row, sequence=resident * 100 + version, lane=Lane.IDENTITY)
    outcome = send(upper, VILLAGE, PeerRole.CHILD, entry, lane=Lane.IDENTITY)
    assert outcome.applied == 1
    return row.row_id
