"""link_tables: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from node.empi import link_tables
from node.empi.errors import EmpiExtraMissingError, LinkInputError
from node.empi.synthetic import FIELDS, linfen_registers

COLUMNS = ["left_id", "right_id", "match_weight", "probability", "outcome"]
FRAME = pd.DataFrame(
    {"name": ["anna", "ben"], "born": ["1990-01-02", "1985-03-04"]}, index=["a", "b"]
)


def _frames(
    people: int = 800, seed: int = 3
) -> tuple[pd.DataFrame, pd.DataFrame, set[tuple[str, str]]]:
    registers = linfen_registers(people, 0.6, seed)
    left = pd.DataFrame(dict(registers.left), index=[f"l{row}" for row in range(people)])
    right = pd.DataFrame(dict(registers.right), index=[f"r{row}" for row in range(people)])
    return left, right, {(f"l{a}", f"r{b}") for a, b in registers.truth}


def _linked(table: pd.DataFrame) -> set[tuple[str, str]]:
    rows = table[table.outcome == "link"]
    return set(zip(rows.left_id, rows.right_id, strict=True))


def test_links_made_up_people_whose_truth_is_known() -> None:
    """Households, twins, namesakes and the errors of registers, without a label."""
    left, right, truth = _frames(2_000)
    found = link_tables(left, right, list(FIELDS))
    linked = _linked(found)
    assert list(found.columns) == COLUMNS
    assert len(linked & truth) / len(linked) >= 0.99
    assert len(linked & truth) / len(truth) >= 0.99
    assert set(found.outcome) <= {"link", "review"}
    assert found.match_weight.is_monotonic_decreasing


def test_arrow_gives_arrow_and_the_same() -> None:
    """The first column of an Arrow table is the record id."""
    left, right, _ = _frames(300)
    frame = link_tables(left, right, list(FIELDS))
    one, other = (
        pa.Table.from_pandas(each.reset_index(), preserve_index=False) for each in (left, right)
    )
    found = link_tables(one, other, list(FIELDS))
    assert isinstance(found, pa.Table)
    assert found.to_pydict() == frame.to_dict(orient="list")


def test_columns_of_any_name_will_do() -> None:
    """What a column holds is recognised from its values."""
    left, right, truth = _frames(800)
    names = [f"column {number}" for number, _ in enumerate(FIELDS)]
    left.columns = right.columns = pd.Index(names)
    linked = _linked(link_tables(left, right, names))
    assert len(linked & truth) >= 0.97 * max(len(linked), len(truth))


def test_a_frame_that_counts_rows_has_its_ids_in_the_first_column() -> None:
    """An index of its own is the id, the number of the row is none."""
    plain = FRAME.reset_index(names="id")
    found = link_tables(plain, plain, ["name", "born"])
    assert set(found.left_id) == {"a", "b"}
    numbered = link_tables(FRAME.reset_index(drop=True), plain, ["name", "born"])
    assert set(numbered.left_id) == {0, 1}


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_of_no_row_or_one_have_a_result(rows: int) -> None:
    """Nothing to link is an answer with the same columns."""
    found = link_tables(FRAME.iloc[:rows], FRAME, ["name", "born"])
    assert list(found.columns) == COLUMNS
    assert len(found) <= 2


@pytest.mark.parametrize("empty", [None, float("nan"), "", "  ", pd.NA])
def test_missing_values_link_nobody(empty: Any) -> None:
    """Rows of which nothing is known agree in nothing."""
    blank = pd.DataFrame({"name": [empty] * 40, "born": [empty] * 40}, index=range(1, 41))
    assert len(link_tables(blank, blank, ["name", "born"])) == 0


def test_no_common_values_link_nobody() -> None:
    """Two tables of other people."""
    left = pd.DataFrame({"n": [f"aaa{n:03d}" for n in range(50)]}, index=range(1, 51))
    right = pd.DataFrame({"n": [f"zzzzzz{n:05d}" for n in range(50, 100)]}, index=range(1, 51))
    assert _linked(link_tables(left, right, ["n"])) == set()


@pytest.mark.parametrize(
    ("left", "right", "fields", "said"),
    [
        (FRAME, FRAME, ["sex"], "sex"),
        (FRAME, FRAME, [], "at least one"),
        (FRAME, FRAME, ["name", "name"], "each once"),
        (FRAME.rename(index={"b": "a"}), FRAME, ["name"], "stands twice in the left"),
        (FRAME, FRAME.rename(index={"b": None}), ["name"], "right table has no id"),
        (FRAME, pa.table({"name": ["x"]}), ["name"], "different kinds"),
        ([1], FRAME, ["name"], "neither"),
    ],
)
def test_refuses_what_cannot_be_linked(left: Any, right: Any, fields: list[str], said: str) -> None:
    """The sentence names the side or the column, and the hint the next step."""
    with pytest.raises(LinkInputError, match=said) as refused:
        link_tables(left, right, fields)
    assert refused.value.hint


def test_says_in_one_sentence_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the room is imported, and matching says what it needs."""
    for name in [each for each in sys.modules if each.startswith("node.empi.")]:
        if name != "node.empi.errors":
            monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "rapidfuzz":
            raise ModuleNotFoundError("No module named 'rapidfuzz'", name="rapidfuzz")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EmpiExtraMissingError, match="rapidfuzz") as missing:
        link_tables(FRAME, FRAME, ["name"])
    assert "fenhe[empi]" in missing.value.hint
