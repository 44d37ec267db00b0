"""A thousand ways to change the audit are found; two hundred kills of either node are no change."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select, update

from node.auditing.model import KeptAnchor
from node.auditing.verifying import AuditVerifier, Compared, Report
from node.storage.audit import entry_hash
from node.storage.model import AuditEntry
from node.storage.tables import AUDIT, AUDIT_CHAIN
from node.storage.transactions import Transactions
from tests.contracts.auditing.place import Place, Side
from tests.databases import Database
from tests.unit.security.region import TOWNSHIP, VILLAGE

T = TypeVar("T")

TAMPERINGS: Final = 1000
KILLS: Final = 200
ENTRIES: Final = 60
FIELDS: Final = tuple(AuditEntry.__dataclass_fields__)


class OneConnection(Transactions):
    """Everything happens in one transaction that is rolled back in the end."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        super().__init__(engine)
        self._connection = connection

    def read(self, work: Callable[[Connection], T]) -> T:
        return work(self._connection)


@pytest.fixture
def place(sqlite_database: Database, tmp_path: Path) -> Iterator[Place]:
    """Both nodes on SQLite: tampering is with rows, and the same rows are on every database."""
    upper = Database("sqlite", f"sqlite:///{tmp_path / 'township.db'}")
    made = Place(tmp_path, sqlite_database.engine, upper.engine)
    yield made
    made.close()
    upper.close()


def filled(place: Place) -> list[KeptAnchor]:
    """Some sixty entries, anchored all along; what the township keeps of it."""
    source = random.Random(11)
    while last_position(place.village.engine) < ENTRIES:
        count = source.randint(1, 9)
        place.village.read(*(str(uuid.UUID(int=source.getrandbits(128))) for _ in range(count)))
        assert place.village.anchor()
        # Anchors of one moment take each other's place.
        place.clock.pass_ms(60_000)
    side = place.township
    return side.ground.transactions.read(
        lambda connection: side.ground.anchors.kept(connection, VILLAGE, holder=TOWNSHIP, limit=99)
    )


def last_position(engine: Engine) -> int:
    """Where the chain ends."""
    with engine.connect() as connection:
        return int(connection.execute(select(AUDIT_CHAIN.c.position)).scalar_one())


# -- what a tamperer does; each works on a connection, past the program ---------------------------


def entry(connection: Connection, position: int) -> RowMapping:
    """The entry at a position."""
    return (
        connection.execute(select(AUDIT).where(AUDIT.c.chain_position == position)).mappings().one()
    )


def put(connection: Connection, position: int, **values: Any) -> None:
    """Overwrite an entry."""
    connection.execute(update(AUDIT).where(AUDIT.c.chain_position == position).values(**values))


def chained_anew(connection: Connection, first: int, last: int) -> None:
    """Right hashes from an entry on, and the end that fits."""
    before = entry(connection, first - 1)["hash"] if first > 1 else ""
    for position in range(first, last + 1):
        row = entry(connection, position)
        digest = entry_hash(before, position, row)
        put(connection, position, prev_hash=before, hash=digest)
        before = digest
    connection.execute(update(AUDIT_CHAIN).values(position=last, hash=before))


def edit(connection: Connection, end: int, source: random.Random) -> int:
    """One field of one entry is another."""
    position = source.randint(1, end)
    name = source.choice((*FIELDS, "hash", "prev_hash"))
    was = entry(connection, position)[name]
    value: Any = source.choice(("a", "b", "c", "d", "e", "f")) if name != "row_count" else 7
    if value == was:
        value = "g" if name != "row_count" else 8
    put(connection, position, **{name: value})
    return position


def delete_middle(connection: Connection, end: int, source: random.Random) -> int:
    """One entry is gone."""
    position = source.randint(1, end - 1)
    connection.execute(delete(AUDIT).where(AUDIT.c.chain_position == position))
    return position


def delete_end(connection: Connection, end: int, source: random.Random) -> int:
    """The last entries are gone."""
    position = source.randint(1, end)
    connection.execute(delete(AUDIT).where(AUDIT.c.chain_position >= position))
    return position


def swap(connection: Connection, end: int, source: random.Random) -> int:
    """Two entries have changed places."""
    one, other = sorted(source.sample(range(1, end + 1), 2))
    first, second = entry(connection, one), entry(connection, other)
    if all(first[name] == second[name] for name in FIELDS):
        put(connection, other, purpose="another")
        return other
    put(connection, one, **{name: second[name] for name in FIELDS})
    put(connection, other, **{name: first[name] for name in FIELDS})
    return one


def insert_one(connection: Connection, end: int, source: random.Random) -> int:
    """One entry more, in the middle, right in itself."""
    position = source.randint(1, end)
    for place in range(end, position - 1, -1):
        put(connection, place, chain_position=place + 1)
    copied = dict(entry(connection, source.randint(position + 1, end + 1)))
    copied.pop("audit_id")
    before = entry(connection, position - 1)["hash"] if position > 1 else ""
    connection.execute(
        insert(AUDIT), {**copied, "chain_position": position, "prev_hash": before, "hash": ""}
    )
    row = entry(connection, position)
    put(connection, position, hash=entry_hash(before, position, row))
    if source.random() < 0.5:
        # With everything behind it chained again: then only an anchor tells.
        chained_anew(connection, position, end + 1)
    return position


def rewrite(connection: Connection, end: int, source: random.Random) -> int:
    """One field, and everything from there on chained anew."""
    position = source.randint(1, end)
    put(connection, position, principal=f"nobody-{source.randint(0, 99)}")
    chained_anew(connection, position, end)
    return position


def older_table(connection: Connection, end: int, source: random.Random) -> int:
    """The table as it was before."""
    position = source.randint(0, end - 1)
    digest = entry(connection, position)["hash"] if position else ""
    connection.execute(delete(AUDIT).where(AUDIT.c.chain_position > position))
    connection.execute(update(AUDIT_CHAIN).values(position=position, hash=digest))
    return position + 1


def move_end(connection: Connection, end: int, source: random.Random) -> int:
    """The end of the chain is said to be elsewhere."""
    position = source.choice([each for each in range(end + 4) if each != end])
    digest = entry(connection, position)["hash"] if 0 < position <= end else "9" * 64
    connection.execute(update(AUDIT_CHAIN).values(position=position, hash=digest))
    return min(position, end) + 1


TAMPERERS: Final = (
    edit,
    delete_middle,
    delete_end,
    swap,
    insert_one,
    rewrite,
    older_table,
    move_end,
)


@contextmanager
def rolled_back(engine: Engine) -> Iterator[Connection]:
    """Whatever is done here is undone."""
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            yield connection
        finally:
            transaction.rollback()


def verified(side: Side, connection: Connection, anchors: list[KeptAnchor]) -> Report:
    """What a verification finds, with the anchors that the township holds; none are left here."""
    ground = replace(side.ground, transactions=OneConnection(side.engine, connection))
    verifier = AuditVerifier(ground, side._ask)  # noqa: SLF001 -- nothing is asked
    return verifier.compare([], [(Compared(TOWNSHIP), anchors)])


def first_wrong(report: Report) -> int:
    """The first position that the report doubts."""
    said = [each.position for one in report.compared for each in one.breaks]
    return min([*said, *([report.broken.position] if report.broken else [])])


def test_every_one_of_a_thousand_tamperings_is_found(place: Place) -> None:
    """Eight kinds, each with its place; what was not touched holds before and after."""
    anchors, side = filled(place), place.village
    end = last_position(side.engine)
    assert len(anchors) > 5
    found: Counter[str] = Counter()
    for number in range(TAMPERINGS):
        tamper = TAMPERERS[number % len(TAMPERERS)]
        source = random.Random(number)
        with rolled_back(side.engine) as connection:
            position = tamper(connection, end, source)
            report = verified(side, connection, anchors)
        assert not report.holds, f"{tamper.__name__}, seed {number}, at {position}"
        # Never later than where it was done: at worst the whole stretch since an anchor is doubted.
        assert first_wrong(report) <= position, f"{tamper.__name__}, seed {number}"
        found[tamper.__name__] += 1
    assert sum(found.values()) == TAMPERINGS
    assert set(found) == {each.__name__ for each in TAMPERERS}
    with rolled_back(side.engine) as connection:
        assert verified(side, connection, anchors).holds


def test_a_chain_alone_does_not_show_what_anchors_show(place: Place) -> None:
    """A rewrite with right hashes and an older table hold in themselves: that is why."""
    anchors, side = filled(place), place.village
    end = last_position(side.engine)
    for tamper in (rewrite, older_table):
        with rolled_back(side.engine) as connection:
            tamper(connection, end, random.Random(3))
            report = verified(side, connection, anchors)
            assert report.broken is None
            assert not report.holds
            alone = replace(side.ground, transactions=OneConnection(side.engine, connection))
            assert AuditVerifier(alone, side._ask).compare([], []).holds  # noqa: SLF001


class KilledError(Exception):
    """The process died here."""


class Dying(Transactions):
    """Dies at one of its transactions: before it, in it, or after its commit."""

    def __init__(self, engine: Engine, source: random.Random, steps: int) -> None:
        super().__init__(engine)
        self._source = source
        self._left = steps

    def write(self, work: Callable[[Connection], T], *, attempts: int | None = None) -> T:
        self._left -= 1
        if self._left != 0:
            return super().write(work, attempts=attempts)
        where = self._source.choice(("before", "in", "after"))

        def dying(connection: Connection) -> T:
            done = work(connection)
            if where == "in":
                raise KilledError
            return done

        if where == "before":
            raise KilledError
        super().write(dying, attempts=attempts)
        raise KilledError


def test_no_kill_of_either_node_is_taken_for_a_change(place: Place) -> None:
    """Two hundred deaths in the middle of linking, signing, keeping: afterwards all holds."""
    source = random.Random(5)
    kills: Counter[str] = Counter()
    while sum(kills.values()) < KILLS:
        victim = source.choice((place.village, place.township))
        try:
            victim.restart(Dying(victim.engine, source, source.randint(1, 9)))
            for _ in range(source.randint(1, 3)):
                place.village.read(*(str(uuid.uuid4()) for _ in range(source.randint(1, 4))))
                place.village.anchor()
                place.clock.pass_ms(source.choice((1_000, 60_000, 3_600_000)))
        except KilledError:
            kills[victim.node_id] += 1
            victim.restart()
        assert place.township.holding.findings() == []
    place.village.restart()
    place.township.restart()
    assert place.village.anchor()
    assert min(kills.values()) > KILLS // 4
    report = place.village.verify()
    assert report.holds
    assert report.unanchored == 0
    assert place.township.holding.findings() == []
    with place.village.engine.connect() as connection:
        unlinked = select(func.count()).where(AUDIT.c.chain_position.is_(None))
        # The verification itself, which is audited before it looks.
        assert connection.execute(unlinked).scalar_one() <= 1
