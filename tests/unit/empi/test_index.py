"""The index in memory: the same decisions as two tables linked, while residents come and go."""

from __future__ import annotations

import pytest

from node.empi.blocking import BLOCK_ROWS_MAX
from node.empi.deciding import Exclusive
from node.empi.defaults import shipped_model
from node.empi.errors import IndexRowError
from node.empi.index import MemoryIndex, Outcome
from node.empi.linking import link
from node.empi.synthetic import FIELDS, Registers, linfen_registers

REGISTERS = linfen_registers(1_500, 0.6, 21)
Row = list[str | None]


def _rows(registers: Registers, side: str) -> list[Row]:
    columns = getattr(registers, side)
    return [list(row) for row in zip(*(columns[name] for name in FIELDS), strict=True)]


@pytest.fixture(scope="module")
def index() -> MemoryIndex:
    """The left register, by the shipped model."""
    made = MemoryIndex(shipped_model())
    made.extend((str(number), row) for number, row in enumerate(_rows(REGISTERS, "left")))
    return made


def test_decides_as_two_tables_do(index: MemoryIndex) -> None:
    """The same pairs, weights, probabilities and outcomes, one by one."""
    left = [REGISTERS.left[name] for name in FIELDS]
    for row in _rows(REGISTERS, "right")[:20]:
        batch = link(
            [[value] for value in row], left, FIELDS, model=index.model, exclusive=Exclusive()
        )
        answer = index.query(row)
        expected = {
            str(at): (weight, chance, "link" if linked else "review")
            for at, weight, chance, linked in zip(
                batch.right.tolist(), batch.weights.tolist(), batch.probabilities.tolist(),
                batch.linked.tolist(), strict=True,
            )
        }  # fmt: skip
        found = {
            c.resident_id: (c.match_weight, c.probability, c.outcome) for c in answer.candidates
        }
        assert found.keys() == expected.keys()
        for key, (weight, chance, outcome) in found.items():
            assert weight == pytest.approx(expected[key][0], abs=1e-9)
            assert chance == pytest.approx(expected[key][1], abs=1e-9)
            assert outcome == expected[key][2]


def test_finds_whom_it_holds_and_nobody_else(index: MemoryIndex) -> None:
    """Of the second register's rows, those with a partner are found, and the others are new."""
    partner = {right: str(left) for left, right in REGISTERS.truth}
    wrong, missed = 0, 0
    for number, row in enumerate(_rows(REGISTERS, "right")[:400]):
        answer = index.query(row)
        names = [each.resident_id for each in answer.candidates]
        if answer.outcome is Outcome.LINK:
            wrong += names[0] != partner.get(number)
        missed += number in partner and partner[number] not in names
    assert wrong <= 1
    assert missed <= 2


def test_explains_each_weight(index: MemoryIndex) -> None:
    """The parts of a candidate add up to its weight."""
    answer = index.query(_rows(REGISTERS, "left")[7])
    best = answer.candidates[0]
    assert best.resident_id == "7"
    assert sum(part.bits for part in best.why) == pytest.approx(best.match_weight)
    assert best.why[-1].field == "related"
    assert best.why[-1].bits <= 1e-3


def test_residents_come_change_and_go() -> None:
    """What is added is found at once, what is amended by its new values, what is removed never."""
    rows = _rows(REGISTERS, "left")
    index = MemoryIndex(shipped_model())
    index.extend((str(number), row) for number, row in enumerate(rows[:50]))
    index.add("late", rows[60])
    assert index.query(rows[60]).candidates[0].resident_id == "late"
    index.amend("late", rows[70])
    assert index.query(rows[60]).outcome is Outcome.NEW
    assert index.query(rows[70]).candidates[0].resident_id == "late"
    index.remove("late")
    assert index.query(rows[70]).outcome is Outcome.NEW
    assert len(index) == 50


def test_says_what_it_takes(index: MemoryIndex) -> None:
    """More residents take more; each some hundreds of bytes."""
    small = MemoryIndex(index.model)
    small.extend((str(number), row) for number, row in enumerate(_rows(REGISTERS, "left")[:500]))
    assert 0 < small.memory_bytes() < index.memory_bytes() < 4_000 * len(index)


def test_a_rebuilt_index_answers_the_same() -> None:
    """Rebuilding forgets what is no more and changes no answer."""
    rows = _rows(REGISTERS, "left")
    index = MemoryIndex(shipped_model())
    index.extend((str(number), row) for number, row in enumerate(rows[:300]))
    for number in range(0, 300, 3):
        index.remove(str(number))
    asked = _rows(REGISTERS, "right")[:40]
    before = [index.query(row) for row in asked]
    index.rebuild()
    assert [index.query(row) for row in asked] == before


def test_refuses_what_would_make_the_index_wrong(index: MemoryIndex) -> None:
    """A resident twice, one who is not there, a row of another width; nothing is changed."""
    row, before = _rows(REGISTERS, "left")[0], len(index)
    with pytest.raises(IndexRowError):
        index.add("0", row)
    with pytest.raises(IndexRowError):
        index.amend("nobody", row)
    with pytest.raises(IndexRowError):
        index.remove("nobody")
    with pytest.raises(IndexRowError):
        index.add("new", row[:2])
    with pytest.raises(IndexRowError):
        index.amend("0", row[:2])
    assert len(index) == before
    assert index.query(row).candidates[0].resident_id == "0"


def test_two_who_are_certain_are_for_review(index: MemoryIndex) -> None:
    """A duplicate within the index is the steward's, not a link to one of the two."""
    row = _rows(REGISTERS, "left")[3]
    index.add("again", row)
    try:
        assert index.query(row).outcome is Outcome.REVIEW
    finally:
        index.remove("again")


def test_a_block_too_large_is_split_and_reported() -> None:
    """A default name and date of thousands: whoever agrees in more is found, the block is named."""
    index = MemoryIndex(shipped_model())
    many = BLOCK_ROWS_MAX + 500
    index.extend(
        (str(number), ["王伟", "男", "1900-01-01", None, f"139{number:08d}", None])
        for number in range(many)
    )
    answer = index.query(["王伟", "男", "1900-01-01", None, "13900000007", None])
    assert answer.oversized
    assert "7" in [each.resident_id for each in answer.candidates]
    alone = index.query(["王伟", "男", "1900-01-01", None, None, None])
    assert alone.outcome is Outcome.REVIEW
    assert alone.oversized


def test_a_resident_is_asked_for_as_if_he_were_not_there() -> None:
    """The same answer as to his values before he came, and the index is as it was."""
    rows = _rows(REGISTERS, "left")[:40]
    index = MemoryIndex(shipped_model())
    index.extend((str(number), row) for number, row in enumerate(rows))
    before = index.query(rows[7])
    index.add("again", rows[7])
    with_both = index.query(rows[7])

    assert index.others("again") == before
    assert [each.resident_id for each in index.others("7").candidates] == ["again"]
    assert index.others("3").candidates == ()
    assert index.query(rows[7]) == with_both
    assert ("again" in index, "gone" in index, len(index)) == (True, False, 41)
    with pytest.raises(IndexRowError):
        index.others("gone")
