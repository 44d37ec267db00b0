"""The matrix of what is seen: place × ground × consent × caller × reader, as reviewed by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import select

from hierarchy_config.model import NodeId
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.storage import open_engine
from node.storage.engine import EngineLimits
from node.storage.rows import chunks
from node.storage.scope import form_of, visible
from node.storage.specs import RECORD_TABLES
from node.storage.tables import REPLICATED
from replication.changelog import read_transaction
from tests.contracts.consent.world import HERE, ORGANIZATION, OTHER, World, caller, row_id_of
from tests.unit.security.relatives import STANDS

TABLE: Final = Path(__file__).with_name("visibility.txt")
NEIGHBOUR: Final = "141002001202"
"""A village below the township that is nobody's home here."""
PLACES: Final = {**STANDS[HERE], "foreign": "141024"}
PLACED: Final = frozenset({"self", "child"})
DOCTOR: Final = "staff-d"

CALLERS: Final = {
    "C": caller(),
    "O": caller(CallerKind.OPERATOR, purpose="operation"),
    "D": caller(CallerKind.STAFF, organization=ORGANIZATION, staff_id=DOCTOR, role=Role.DOCTOR),
    "R": caller(
        CallerKind.STAFF,
        purpose="registration",
        organization=ORGANIZATION,
        staff_id="staff-r",
        role=Role.REGISTRAR,
    ),
    "F": caller(CallerKind.STAFF, organization=OTHER, staff_id="staff-f", role=Role.DOCTOR),
    "N": caller(CallerKind.STAFF, role=Role.DOCTOR),
}


def _expected() -> dict[tuple[str, str], str]:
    """Ground and consent → the letters of those who see."""
    lines = [
        line for line in TABLE.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    consents = lines[0].split()
    found: dict[tuple[str, str], str] = {}
    for line in lines[1:]:
        ground, *cells = line.split()
        for consent, cell in zip(consents, cells, strict=True):
            found[ground, consent] = cell.strip("-")
    return found


EXPECTED: Final = _expected()


@dataclass(frozen=True)
class Cell:
    """A resident in one situation."""

    place: str
    ground: str
    consent: str
    resident_id: str
    record_id: str

    @property
    def seen_by(self) -> str:
        return EXPECTED[self.ground, self.consent] if self.place in PLACED else ""


def _consent(world: World, name: str, resident_id: str, home: str) -> None:
    def add(decision: str = "deny", to: str = "everyone", **more: str) -> None:
        said = {"purpose": "any", "from_on": world.day(-9), **more}
        world.add("consents", resident_id, home, decision=decision, recipient=to, **said)

    def both() -> None:
        add("permit")
        add()

    made: Mapping[str, Callable[[], None]] = {
        "none": lambda: None,
        "deny-any": add,
        "deny-treatment": lambda: add(purpose="treatment"),
        "deny-research": lambda: add(purpose="research"),
        "deny-organization": lambda: add(to=f"organization:{ORGANIZATION}"),
        "deny-other": lambda: add(to=f"organization:{OTHER}"),
        "deny-division": lambda: add(to=f"division:{HERE}"),
        "deny-elsewhere": lambda: add(to="division:141024"),
        "deny-tomorrow": lambda: add(from_on=world.day(1)),
        "deny-yesterday": lambda: add(until_on=world.day(-1)),
        "deny-today": lambda: add(from_on=world.day(0), until_on=world.day(0)),
        "revoked": lambda: add(revoked_at=world.moment(-1)),
        "permit": lambda: add("permit"),
        "permit-and-deny": both,
    }
    made[name]()


def _ground(world: World, name: str, resident_id: str, home: str) -> None:
    def relation(author: str = HERE, organization: str = ORGANIZATION, **more: str) -> None:
        said = {"from_on": world.day(-9), "until_on": world.day(9), **more}
        world.add(
            "care_relations",
            resident_id,
            home,
            author=author,
            organization_id=organization,
            kind="contract",
            **said,
        )

    def grant(to: str, kind: str = "consultation", author: str = HERE, **more: str) -> None:
        said = {"from_at": world.moment(-9), "until_at": world.moment(9), **more}
        world.add("access_grants", resident_id, home, author=author, grantee=to, kind=kind, **said)

    def glass(author: str = HERE, **more: str) -> None:
        grant(f"staff:{DOCTOR}", "break_glass", author, **more)

    made: Mapping[str, Callable[[], None]] = {
        "nothing": lambda: None,
        "wrote": lambda: None,
        "wrote-other": lambda: None,
        "relation": relation,
        "relation-of-home": lambda: relation(author=home),
        "relation-of-child": lambda: relation(author=NEIGHBOUR),
        "relation-over": lambda: relation(until_on=world.day(-1)),
        "relation-tomorrow": lambda: relation(from_on=world.day(1)),
        "relation-ended": lambda: relation(ended_at=world.moment(-1)),
        "relation-other": lambda: relation(organization=OTHER),
        "grant-staff": lambda: grant(f"staff:{DOCTOR}"),
        "grant-organization": lambda: grant(f"organization:{ORGANIZATION}"),
        "grant-of-child": lambda: grant(f"staff:{DOCTOR}", author=NEIGHBOUR),
        "grant-over": lambda: grant(f"staff:{DOCTOR}", until_at=world.moment(0)),
        "grant-revoked": lambda: grant(f"staff:{DOCTOR}", revoked_at=world.moment(-1)),
        "grant-later": lambda: grant(f"staff:{DOCTOR}", from_at=world.moment(1)),
        "glass": glass,
        "glass-over": lambda: glass(until_at=world.moment(0)),
        "glass-revoked": lambda: glass(revoked_at=world.moment(-1)),
        "glass-of-child": lambda: glass(author=NEIGHBOUR),
        "wrote-and-glass": glass,
    }
    made[name]()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, list[Cell]]:
    """A resident with a record in every table for every situation, at every place."""
    folder = tmp_path_factory.mktemp("matrix")
    world = World(open_engine(f"sqlite:///{folder / 'store.db'}", EngineLimits(connections=6)))
    cells: list[Cell] = []
    situations = itertools.product(PLACES.items(), EXPECTED)
    for number, ((place, home), (ground, consent)) in enumerate(situations):
        organization = {"wrote": ORGANIZATION, "wrote-other": OTHER}.get(
            ground.removesuffix("-and-glass"), ""
        )
        resident_id = world.add_resident(number, home, organization)
        record_id = row_id_of(number, 1)
        # Of one table in turn: what decides is the same text for each, built from the same words.
        spec = RECORD_TABLES[number % len(RECORD_TABLES)]
        world.add(
            spec.name,
            resident_id,
            home,
            row_id=record_id,
            author_organization=organization or None,
        )
        _ground(world, ground, resident_id, home)
        _consent(world, consent, resident_id, home)
        cells.append(Cell(place, ground, consent, resident_id, record_id))
    world.store()
    world.follow()
    return world, cells


@pytest.mark.parametrize("letter", CALLERS)
def test_every_point_read_is_as_reviewed(filled: tuple[World, list[Cell]], letter: str) -> None:
    """From the tables, and from the cache that somebody else's reads have filled."""
    world, cells = filled
    ids = [cell.resident_id for cell in cells]
    expected = {cell.resident_id for cell in cells if letter in cell.seen_by}
    world.answered(world.cached, CALLERS["C"], ids)
    kept = world.cached.answer_counts.kept
    for some in chunks(ids, 300):
        wanted = expected & set(some)
        assert world.answered(world.storage, CALLERS[letter], some) == wanted
        assert world.answered(world.cached, CALLERS[letter], some) == wanted
    assert world.cached.answer_counts.kept > kept


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("letter", CALLERS)
def test_every_record_is_as_reviewed(
    filled: tuple[World, list[Cell]], letter: str, large: bool
) -> None:
    """The condition of every record's statement, with homes spelled out and looked up."""
    world, cells = filled
    asker = _with_many_homes(CALLERS[letter]) if large else CALLERS[letter]
    parameters = world.storage.context.scopes.parameters(asker)
    seen: set[str] = set()
    with read_transaction(world.engine) as connection:
        for spec in RECORD_TABLES:
            t = REPLICATED[spec.name]
            query = select(t.c.row_id).where(visible(t, form_of(asker)))
            seen |= set(connection.execute(query, parameters).scalars())
    assert seen == {cell.record_id for cell in cells if letter in cell.seen_by}


def _with_many_homes(asker: Caller) -> Caller:
    homes = frozenset(NodeId(f"1410250{n:02d}") for n in range(30))
    return replace(asker, scope=asker.scope | homes)


@pytest.mark.parametrize("letter", CALLERS)
def test_the_readers_agree_with_each_other(filled: tuple[World, list[Cell]], letter: str) -> None:
    """A resident, a search by his number, a record, a timeline: one answer for each situation."""
    world, cells = filled
    everything = {"resident", "find", "record", "timeline"}
    chosen = [cell for cell in cells if cell.place == "child"] + cells[::17]
    wrong = [
        cell
        for cell in chosen
        if world.read_one_by_one(CALLERS[letter], cell.resident_id, cell.record_id)
        != (everything if letter in cell.seen_by else set())
    ]
    assert wrong == []


def test_there_are_enough_cells(filled: tuple[World, list[Cell]]) -> None:
    """Every situation stands in the file once, and each is asked of every caller and reader."""
    _, cells = filled
    assert len(cells) == len(PLACES) * len(EXPECTED)
    assert len(cells) * len(CALLERS) > 10_000
