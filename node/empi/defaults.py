"""The shipped model for Linfen, and how it is learnt again.

It is learnt from the made-up people of synthetic.py, under their error model, and says so: the real
registers of a county have other errors, so a node learns its own as soon as it holds two of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.blocking import choose_passes, slots_of
from node.empi.columns import Vocabulary, spaces_of
from node.empi.linking import link
from node.empi.model import MatchModel
from node.empi.synthetic import FIELDS, Registers, linfen_registers

__all__ = ["SHIPPED", "learn_linfen_model", "shipped_model"]

SHIPPED: Final = Path(__file__).parent / "models" / "linfen.json"
_RESIDENTS: Final = 1_000_000
_CANDIDATES: Final = 40
"""How many candidates one pass may find among that many residents, on average."""
_PASSES_MAX: Final = 20


@cache
def shipped_model() -> MatchModel:
    """The model that the package carries, read once per process.

    Raises:
        MatchModelError: The file is not of this release.
    """
    return MatchModel.from_json(SHIPPED.read_text(encoding="utf-8"))


def learn_linfen_model(people: int = 20_000, seed: int = 1) -> MatchModel:
    """Learn the model of FIELDS from two made-up registers.

    Args:
        people: How many each holds.
        seed: Of the people and their errors.
    """
    registers = linfen_registers(people, 0.6, seed)
    columns = [[side[name] for name in FIELDS] for side in (registers.left, registers.right)]
    learnt = link(columns[0], columns[1], FIELDS).model
    return replace(
        learnt,
        passes=_passes(learnt, people, seed),
        note=f"synthetic: {people} made-up people of Linfen in each of two registers, seed {seed}",
    )


def _passes(model: MatchModel, people: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Passes for an index of a million: chosen on people who have nothing to do with each other."""
    per_row = _CANDIDATES * people / _RESIDENTS
    left, right = (
        _codes(model, linfen_registers(people, 1.0, seed + shift)) for shift in (1_000, 2_000)
    )
    slots = slots_of([field.kind for field in model.fields])
    return choose_passes(left, right, slots, _PASSES_MAX, per_row)


def _codes(model: MatchModel, registers: Registers) -> NDArray[np.uint32]:
    """Blocking codes of the first of two registers."""
    kinds = [field.kind for field in model.fields]
    columns = []
    for name, kind, space in zip(FIELDS, kinds, spaces_of(FIELDS, kinds), strict=True):
        vocabulary = Vocabulary(kind, space)
        ids = vocabulary.encode(registers.left[name])
        codes = vocabulary.codes[ids]
        codes[ids < 0] = 0
        columns.append(codes)
    return np.concatenate(columns, axis=1)
