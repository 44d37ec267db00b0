"""What holds of matching whatever is matched."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from node.empi.deciding import Exclusive
from node.empi.defaults import shipped_model
from node.empi.linking import link
from node.empi.model import Thresholds
from node.empi.synthetic import FIELDS, linfen_registers

# Every code is a pass of its own, so that pairs are compared that agree in little.
ALL = replace(
    shipped_model().with_thresholds(Thresholds(link=0.9, review=0.0)),
    passes=tuple((slot,) for slot in range(13)),
)
NONE = Exclusive()
POOL = linfen_registers(300, 0.7, 31)

_rows = st.integers(0, 299)
_text = st.one_of(
    st.none(),
    st.text(alphabet="王李伟强abc19803-/ 号", max_size=18),
    st.sampled_from(["1980-03-05", "1980-05-03", "13903571234", "王伟", "wang wei", "男", "nan"]),
)


def _picked(side: str, rows: list[int]) -> list[list[str | None]]:
    columns = getattr(POOL, side)
    return [[columns[name][row] for row in rows] for name in FIELDS]


def _weights(
    left: list[list[str | None]], right: list[list[str | None]]
) -> dict[tuple[int, int], float]:
    found = link(left, right, FIELDS, model=ALL, exclusive=NONE)
    return dict(
        zip(
            zip(found.left.tolist(), found.right.tolist(), strict=True),
            found.weights.tolist(),
            strict=True,
        )
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(_text, min_size=6, max_size=6), st.lists(_text, min_size=6, max_size=6))
def test_a_pair_has_one_weight_from_either_side(
    one: list[str | None], other: list[str | None]
) -> None:
    """score(a, b) is score(b, a), for any two records."""
    left, right = [[value] for value in one], [[value] for value in other]
    assert _weights(left, right) == _weights(right, left)


@settings(max_examples=20, deadline=None)
@given(st.lists(_rows, min_size=2, max_size=60, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[int], chance: object) -> None:
    """Shuffled tables give the same weights to the same people."""
    turned = list(rows)
    chance.shuffle(turned)  # type: ignore[attr-defined]
    straight = _weights(_picked("left", rows), _picked("right", rows))
    shuffled = _weights(_picked("left", turned), _picked("right", turned))
    named = {(rows[a], rows[b]): weight for (a, b), weight in straight.items()}
    assert {(turned[a], turned[b]): weight for (a, b), weight in shuffled.items()} == named


@settings(max_examples=30, deadline=None)
@given(_rows, st.sampled_from(range(6)), st.sampled_from([None, "", " ", "NaN"]))
def test_a_missing_value_gives_no_weight(row: int, field: int, nothing: str | None) -> None:
    """However nothing is written, the field has no part, for or against."""
    left, right = _picked("left", [row]), _picked("left", [row])
    left[field] = [nothing]
    right_too = [list(column) for column in right]
    right_too[field] = [None]
    assert _weights(left, right) == _weights(left, right_too)


@settings(max_examples=10, deadline=None)
@given(st.integers(40, 120))
def test_unrelated_records_change_nothing_material(more: int) -> None:
    """Others in the tables move a weight by less than a bit and add no link between the first."""
    rows = list(range(40 + more))
    few = _weights(_picked("left", rows[:40]), _picked("right", rows[:40]))
    many = _weights(_picked("left", rows), _picked("right", rows))
    strong = {pair: weight for pair, weight in few.items() if weight > 1}
    assert all(abs(many[pair] - weight) < 1 for pair, weight in strong.items())
    assert {pair for pair, weight in many.items() if weight > 20 and max(pair) < 40} <= set(few)
