"""m and u without labels: expectation and maximisation over patterns of levels.

The space of all pairs is sampled in two strata: every candidate pair, and a random sample of the
others weighted to their number, so that what blocking selected biases nothing. Pairs with the same
levels are one pattern with a weight. Winkler (1988) gives the steps; fields are taken as independent
within a class. The prior of a few typical pairs keeps m in its place where few pairs match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.compare import DIFFERENT, LEVELS
from node.empi.kinds import FieldKind

__all__ = ["Learnt", "learn_weights", "patterns_of"]

_ROUNDS_MAX: Final = 300
_CLOSE_ENOUGH: Final = 1e-6
_PRIOR_PAIRS: Final = 5.0
_PRIOR_OTHERS: Final = 0.5

Levels = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What EM found.

    Attributes:
        m: By field, probability of each level among pairs of one person; "missing" is 0.
        u: The same among pairs of two.
        matches: How many pairs of the whole space are of one person.
        rounds: How many rounds it took.
    """

    m: tuple[Floats, ...]
    u: tuple[Floats, ...]
    matches: float
    rounds: int


def patterns_of(levels: Levels, weights: Floats) -> tuple[Levels, Floats]:
    """Distinct rows of levels and the sum of the weights of each."""
    packed = np.ascontiguousarray(levels).view([("", np.uint8)] * levels.shape[1]).ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return levels[first], np.bincount(inverse.ravel(), weights, len(first))


def learn_weights(
    kinds: Sequence[FieldKind], patterns: Levels, weights: Floats, matches_max: float, unit: float = 1.0
) -> Learnt:
    """Learn m and u from weighted patterns.

    Args:
        kinds: Of the fields.
        patterns: Shape (patterns, fields).
        weights: How many pairs have each pattern.
        matches_max: More pairs than this cannot match.
        unit: How many pairs one of the sample stands for.
    """
    total = float(weights.sum())
    m = [_typical(kind) for kind in kinds]
    prior = [_typical(kind) * _PRIOR_PAIRS for kind in kinds]
    # What a sample did not show may still be as frequent as half a pair of it.
    others = [np.full(len(each), _PRIOR_OTHERS * unit) for each in m]
    u = _tables(kinds, patterns, weights, others)
    share, rounds = 0.5 * matches_max / total, 0
    for rounds in range(1, _ROUNDS_MAX + 1):
        together = _expected(patterns, m, u, share)
        before = m
        m = _tables(kinds, patterns, weights * together, prior)
        u = _tables(kinds, patterns, weights * (1 - together), others)
        share = min(float((weights * together).sum()), matches_max) / total
        if max(float(np.abs(a - b).max()) for a, b in zip(m, before, strict=True)) < _CLOSE_ENOUGH:
            break
    return Learnt(tuple(m), tuple(u), share * total, rounds)


def _typical(kind: FieldKind) -> Floats:
    """Where m begins, and what it leans to: mostly exact, seldom different."""
    levels = len(LEVELS[kind])
    table = np.full(levels, 0.10 / max(1, levels - 3))
    table[0], table[DIFFERENT], table[-1] = 0.0, 0.05, 0.85
    return table / table.sum()


def _tables(
    kinds: Sequence[FieldKind], patterns: Levels, weights: Floats, prior: Sequence[Floats]
) -> list[Floats]:
    tables = []
    for number, kind in enumerate(kinds):
        table = np.bincount(patterns[:, number], weights, len(LEVELS[kind])) + prior[number]
        table[0] = 0.0
        tables.append(table / table.sum())
    return tables


def _expected(
    patterns: Levels, m: Sequence[Floats], u: Sequence[Floats], share: float
) -> Floats:
    """The probability of each pattern to be of one person."""
    bits = np.full(len(patterns), np.log(share) - np.log1p(-share))
    for number, (own, other) in enumerate(zip(m, u, strict=True)):
        table = np.zeros(len(own))
        table[1:] = np.log(own[1:]) - np.log(other[1:])
        bits += table[patterns[:, number]]
    return np.asarray(1 / (1 + np.exp(-np.clip(bits, -500, 500))))
