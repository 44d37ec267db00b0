"""A thousand tamperings with what lies sealed, of eight kinds: each is found, and nothing else is.

Somebody has the database open and writes what he likes. What he cannot do without being found is to
alter, move, cut or exchange a sealed value. What he can do is said by the last tests: he can put an
older value of the very same cell back, alone or with its whole row, while its key lives; and he can
delete. That is for the comparison with the neighbours, and for the audit.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select, update

from node.keys.places import PLACES
from node.security.errors import DataKeyUnknownError, SealBrokenError
from node.security.sealing import HEADER_BYTES, DataKeys
from node.storage.tables import REPLICATED
from replication.changelog import write_transaction
from tests.contracts.keys.place import Cells, KeyedNode
from tests.contracts.storage.region import bundle, person

TAMPERINGS = 1_000
FOUND = (SealBrokenError, DataKeyUnknownError)

Key = tuple[str, object, str]


@dataclass
class Attacker:
    """Knows every ciphertext of a store and of another node's, and no key."""

    cells: Cells
    others: Cells
    random: random.Random
    destroyed: str

    def bit_flip(self, key: Key) -> bytes:
        """One bit, anywhere: header, nonce, text, tag."""
        held = bytearray(self.cells[key])
        held[self.random.randrange(len(held))] ^= 1 << self.random.randrange(8)
        return bytes(held)

    def truncation(self, key: Key) -> bytes:
        """Cut at its end, or before its begin; never to nothing."""
        held = self.cells[key]
        cut = self.random.randrange(1, len(held))
        return held[:cut] if self.random.random() < 0.5 else held[cut:]

    def longer(self, key: Key) -> bytes:
        """Something is put behind it."""
        return self.cells[key] + self.random.randbytes(self.random.randrange(1, 20))

    def another_cell(self, key: Key) -> bytes:
        """Of the same row, another column; where there is none, of any cell."""
        same = [each for each in self.cells if each[:2] == key[:2] and each != key]
        return self._of(same, key)

    def another_row(self, key: Key) -> bytes:
        """Of the same column in another row."""
        same = [
            each for each in self.cells if (each[0], each[2]) == (key[0], key[2]) and each != key
        ]
        return self._of(same, key)

    def another_table(self, key: Key) -> bytes:
        """Of any other table."""
        return self._of([each for each in self.cells if each[0] != key[0]], key)

    def another_key(self, key: Key) -> bytes:
        """The envelope names another key that lives, or one that was destroyed."""
        held = self.cells[key]
        named = {each[1:HEADER_BYTES] for each in self.cells.values()} - {held[1:HEADER_BYTES]}
        chosen = self.random.choice([*sorted(named), bytes.fromhex(self.destroyed)])
        return held[:1] + chosen + held[HEADER_BYTES:]

    def another_node(self, key: Key) -> bytes:
        """The very same cell of the same table, as another node sealed it."""
        same = [each for each in self.others if (each[0], each[2]) == (key[0], key[2])]
        return self.others[self.random.choice(same)]

    def _of(self, keys: list[Key], key: Key) -> bytes:
        chosen = keys or [each for each in self.cells if each != key]
        return self.cells[self.random.choice(chosen)]

    @property
    def kinds(self) -> dict[str, Callable[[Key], bytes]]:
        """By name."""
        return {
            "bit flip": self.bit_flip,
            "truncation": self.truncation,
            "longer": self.longer,
            "another cell": self.another_cell,
            "another row": self.another_row,
            "another table": self.another_table,
            "another key": self.another_key,
            "another node": self.another_node,
        }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KeyedNode, KeyedNode]]:
    """A store with something in every place, and another node's."""
    root = tmp_path_factory.mktemp("tampering")
    made = []
    for name in ("one", "two"):
        node = KeyedNode(root / name, f"sqlite:///{root / name}.db", root / f"{name}-shelf")
        for number in range(12):
            resident = person(f"1426011980{number:08d}", phone=f"138{number:08d}", address="村口")
            node.store.storage.put_bundle(node.caller, bundle(f"b{number}", resident))
        for _ in range(3):
            node.fill_places()
        made.append(node)
    yield made[0], made[1]
    for node in made:
        node.close()


@pytest.fixture
def attacked(stores: tuple[KeyedNode, KeyedNode]) -> tuple[KeyedNode, Attacker]:
    """The first store, rotated once, so that a key was destroyed that its rows had named."""
    node, other = stores
    node.keeper.rotate(node.caller, ["residents"])
    node.reseal()
    (destroyed,) = node.keeper.destroy_unnamed(node.caller)
    return node, Attacker(node.cells(), other.cells(), random.Random(20_261), destroyed)


def _write(node: KeyedNode, key: Key, value: bytes) -> None:
    """Past the program, straight into the database, and durably."""
    with write_transaction(node.store.engine) as connection:
        _put(connection, key, value)


def _put(connection: Connection, key: Key, value: bytes) -> None:
    place = PLACES[key[0]]
    cell = place.table.c[key[2]]
    where = [column == part for column, part in zip(place.key, key[1], strict=True)]  # type: ignore[call-overload]
    assert connection.execute(update(place.table).where(*where).values({cell: value})).rowcount


def _opens(node: KeyedNode, key: Key) -> bool:
    """Whether the cell, as it lies there, opens in its place."""
    with node.store.engine.connect() as connection:
        return _opens_in(connection, node, key)


def _opens_in(connection: Connection, node: KeyedNode, key: Key) -> bool:
    place = PLACES[key[0]]
    where = [column == part for column, part in zip(place.key, key[1], strict=True)]  # type: ignore[call-overload]
    row = dict(connection.execute(select(place.table).where(*where)).mappings().one())
    named = row["key_id"] if place.named else None
    try:
        node.store.keys.open(bytes(row[key[2]]), place.aad(node.node_id, key[2], row), named)
    except FOUND:
        return False
    return True


def test_a_thousand_tamperings_of_eight_kinds_are_found(
    attacked: tuple[KeyedNode, Attacker],
) -> None:
    """In every place; and what was not tampered with goes on opening beside them."""
    node, attacker = attacked
    kinds = list(attacker.kinds.items())
    keys = sorted(attacker.cells, key=repr)
    found: Counter[str] = Counter()
    touched: set[str] = set()
    # In one transaction: a thousand syncs of the disk would show nothing more.
    with node.store.engine.begin() as connection:
        for number in range(TAMPERINGS):
            name, tamper = kinds[number % len(kinds)]
            key = keys[(number * 7 + number // len(keys)) % len(keys)]
            value = tamper(key)
            assert value != attacker.cells[key]
            _put(connection, key, value)
            assert not _opens_in(connection, node, key), f"{name} of {key} was not found"
            _put(connection, key, attacker.cells[key])
            found[name] += 1
            touched.add(key[0])
    assert sum(found.values()) == TAMPERINGS
    assert min(found.values()) == TAMPERINGS // len(kinds)
    assert touched == set(PLACES)
    # No false alarm: everything that was put back opens.
    assert all(_opens(node, key) for key in keys)


def test_a_tampered_cell_is_no_answer(attacked: tuple[KeyedNode, Attacker]) -> None:
    """Whoever asks for the resident gets an error, never the wrong words or none."""
    node, attacker = attacked
    named = [key for key in attacker.cells if key[0] == "residents" and key[2] == "name"]
    with node.store.engine.connect() as connection:
        t = REPLICATED["residents"]
        real = set(
            connection.execute(select(t.c.row_id).where(t.c.author_node == node.node_id)).scalars()
        )
    one, two = [key for key in named if key[1][0] in real][:2]
    _write(node, one, attacker.cells[two])
    with pytest.raises(FOUND):
        node.store.storage.resident(node.caller, one[1][0])
    _write(node, one, attacker.cells[one])
    read = node.store.storage.resident(node.caller, one[1][0])
    assert read is not None


class Death(BaseException):
    """The process ends here."""


def test_no_false_alarm_over_deaths_and_rotations(tmp_path: Path) -> None:
    """Killed at any commit of writing, rotating and re-sealing: every cell opens afterwards."""
    node = KeyedNode(tmp_path / "node", f"sqlite:///{tmp_path / 'one.db'}", tmp_path / "shelf")
    node.fill_places()
    chance = random.Random(7)
    deaths = 0
    for life in range(24):
        left = [chance.randrange(2, 16)]

        def die(_connection: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Death

        event.listen(node.store.engine, "commit", die)
        try:
            if life % 4 == 0:
                node.keeper.rotate(node.caller)
            node.write(1)
            node.reseal(5)
            node.keeper.destroy_unnamed(node.caller)
        except Death:
            deaths += 1
        node.restart()
        assert node.clear(), "nothing opens"
    assert deaths > 6
    node.reseal()
    node.keeper.destroy_unnamed(node.caller)
    assert len(node.clear()) == len(node.cells())
    node.close()


def test_an_older_value_of_the_same_cell_is_not_found_while_its_key_lives(
    attacked: tuple[KeyedNode, Attacker],
) -> None:
    """Said honestly: it is what the node once sealed there. A rotation ends it."""
    node, attacker = attacked
    key = next(key for key in attacker.cells if key[0] == "residents" and key[2] == "name")
    older = attacker.cells[key]
    node.keeper.rotate(node.caller, ["residents"])
    node.reseal()
    newer = node.cells()[key]
    assert newer != older
    _write(node, key, older)
    assert _opens(node, key), "both keys live"
    _write(node, key, newer)
    assert node.keeper.destroy_unnamed(node.caller)
    _write(node, key, older)
    assert not _opens(node, key), "the older value's key is gone"
    _write(node, key, newer)


def test_a_key_that_was_exchanged_in_the_table_is_found_at_the_start(tmp_path: Path) -> None:
    """A data key under another's id, another table's, another node's, or altered: no start."""
    node = KeyedNode(tmp_path / "node", f"sqlite:///{tmp_path / 'one.db'}", tmp_path / "shelf")
    held = {key.purpose: key for key in node.stored.load()}
    one, two = held["residents"], held["identifiers"]
    foreign = DataKeys.fresh("1410", os.urandom)
    assert foreign.key_id not in node.held()
    node.store.close()
    t = PLACES["residents"].table.metadata.tables["data_keys"]
    for values in (
        {"wrapped": two.wrapped},
        {"purpose": "encounters"},
        {"suite": "gm"},
        {"wrapped": one.wrapped[:-1] + bytes([one.wrapped[-1] ^ 1])},
        {"wrapped": one.wrapped[:10]},
    ):
        engine = node.store.engine
        with write_transaction(engine) as connection:
            connection.execute(update(t).where(t.c.key_id == one.key_id).values(values))
        with pytest.raises(FOUND):
            node.open()
        back = {"wrapped": one.wrapped, "purpose": one.purpose, "suite": one.suite}
        with write_transaction(engine) as connection:
            connection.execute(update(t).where(t.c.key_id == one.key_id).values(back))
    node.restart()
    node.close()
