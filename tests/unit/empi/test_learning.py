"""EM without labels, on pairs drawn from known m and u."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from node.empi.compare import LEVELS
from node.empi.defaults import shipped_model
from node.empi.errors import MatchModelError
from node.empi.kinds import FieldKind
from node.empi.learning import learn_weights, patterns_of
from node.empi.model import FieldModel, MatchModel

KINDS = [FieldKind.NUMBER] * 5
M = np.array([0.0, 0.05, 0.10, 0.85])
U = np.array([0.0, 0.90, 0.08, 0.02])


def test_recovers_known_m_and_u() -> None:
    """2,000 matches among 200,000 pairs, five independent fields."""
    chance = np.random.Generator(np.random.PCG64(5))
    drawn = [
        np.stack([chance.choice(4, size=count, p=table) for _ in KINDS], axis=1)
        for count, table in ((2_000, M), (198_000, U))
    ]
    levels = np.concatenate(drawn).astype(np.uint8)
    learnt = learn_weights(KINDS, *patterns_of(levels, np.ones(len(levels))), 4_000.0)
    assert learnt.matches == pytest.approx(2_000, rel=0.05)
    for m, u in zip(learnt.m, learnt.u, strict=True):
        assert m == pytest.approx(M, abs=0.03)
        assert u == pytest.approx(U, abs=0.005)


def test_missing_levels_teach_nothing() -> None:
    """A field that is always missing keeps its prior and has no part in the others."""
    chance = np.random.Generator(np.random.PCG64(6))
    rows = [
        np.stack([chance.choice(4, size=count, p=table) for _ in KINDS[:4]], axis=1)
        for count, table in ((2_000, M), (98_000, U))
    ]
    levels = np.concatenate(rows).astype(np.uint8)
    without = learn_weights(KINDS[:4], *patterns_of(levels, np.ones(len(levels))), 4_000.0)
    padded = np.concatenate([levels, np.zeros((len(levels), 1), dtype=np.uint8)], axis=1)
    learnt = learn_weights(KINDS, *patterns_of(padded, np.ones(len(padded))), 4_000.0)
    assert learnt.matches == pytest.approx(without.matches, rel=1e-6)


def test_a_rare_value_is_worth_more_and_two_that_agree_do_not_make_it_common() -> None:
    """Frequency in bits, against the average u of 1 %."""
    field = FieldModel("surname", FieldKind.CATEGORY, (0, 0.05, 0.05, 0.9), (0, 0.98, 0.01, 0.01))
    # 100 of 10,000 is the average: 98 others and the prior of one, in 10,100.
    assert field.frequency_bits(100, 10_000) == pytest.approx(np.log2(0.01 / (99 / 10_100)))
    assert field.frequency_bits(1_000, 10_000) < -3
    assert field.frequency_bits(2, 10_000) == field.frequency_bits(1, 10_000) > 6


def test_a_model_survives_json() -> None:
    """What is read is equal to what was written, and the shipped one says it is synthetic."""
    model = shipped_model()
    assert MatchModel.from_json(model.to_json()) == model
    assert model.note.startswith("synthetic")
    assert all(len(field.m) == len(LEVELS[field.kind]) for field in model.fields)


def test_the_shipped_model_holds_no_number_telephone_or_address() -> None:
    """Frequencies of what names somebody are not written down."""
    private = {FieldKind.IDENTIFIER, FieldKind.PHONE, FieldKind.ADDRESS, FieldKind.DATE}
    assert [f.name for f in shipped_model().fields if f.kind in private and f.frequencies] == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"fields": [{}]},
        {"prevalence": 1.5},
        {"prevalence": None},
        {"related_odds": [0.1]},
        {"passes": 3},
    ],
)
def test_refuses_what_is_no_model(change: dict[str, object]) -> None:
    """A model of another version, or one that was cut, is refused with its next step."""
    data = json.loads(shipped_model().to_json()) | change
    with pytest.raises(MatchModelError) as refused:
        MatchModel.from_json(json.dumps(data))
    assert refused.value.hint


def test_refuses_text_that_is_no_json() -> None:
    """A file that was cut in the middle."""
    with pytest.raises(MatchModelError):
        MatchModel.from_json(replace(shipped_model(), note="x").to_json()[:-5])
