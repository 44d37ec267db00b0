"""Which pairs are linked, where tables are free of duplicates and where they are not.

Where no record of one side has two partners, partners compete: the probability of a pair is that of
its place in a matching of all records, not of the pair alone. Whether a side is so is read from the
pairs that are certain anyway, never assumed. The marginals are those of belief propagation on the
graph of candidate pairs (Bayati, Shah and Sharma 2008, for the sum instead of the maximum): exact
where the graph has no cycles, which is nearly everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.scoring import probabilities

__all__ = ["Exclusive", "decide", "exclusive_sides"]

_CERTAIN: Final = 0.95
_DOUBLED_MAX: Final = 0.01
_EVIDENCE_MIN: Final = 30
_ABSENT_MIN: Final = 0.01
"""At least this share of each side is taken to have no partner, whatever was learnt."""
_ROUNDS: Final = 100
_CLOSE_ENOUGH: Final = 1e-6
_BITS_MAX: Final = 40.0
"""Beyond, the sum of a row would lose what its other pairs claim."""

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Exclusive:
    """Whether a left record has at most one partner, and a right one."""

    left: bool = False
    right: bool = False


def exclusive_sides(left: Rows, right: Rows, certain: Floats) -> Exclusive:
    """What the certain pairs say.

    Args:
        left: Left row of each pair.
        right: Right row of each pair.
        certain: Probability of each pair by itself.
    """
    sure = certain >= _CERTAIN
    if sure.sum() < _EVIDENCE_MIN:
        return Exclusive()
    shares = []
    for rows in (left[sure], right[sure]):
        _, counts = np.unique(rows, return_counts=True)
        shares.append(float((counts > 1).mean()))
    return Exclusive(left=shares[0] <= _DOUBLED_MAX, right=shares[1] <= _DOUBLED_MAX)


def decide(
    pairs: tuple[Rows, Rows], weights: Floats, sizes: tuple[int, int], prevalence: float,
    exclusive: Exclusive,
) -> Floats:  # fmt: skip
    """The probability of each pair.

    Args:
        pairs: Left row and right row of each pair.
        weights: Match weight of each, in bits.
        sizes: How many records each side has.
        prevalence: The share of left records with a partner.
        exclusive: Which sides have at most one partner a record.
    """
    left, right = pairs
    prior = min(prevalence / max(1, sizes[1]), 0.5)
    if not (exclusive.left or exclusive.right):
        return probabilities(weights, prior)
    matches = prevalence * sizes[0]
    absent = [max(_ABSENT_MIN, 1 - matches / size) for size in sizes]
    odds = prior / (1 - prior)
    odds /= absent[0] if exclusive.left else 1.0
    odds /= absent[1] if exclusive.right else 1.0
    likely = np.exp2(np.clip(weights + np.log2(odds), -_BITS_MAX, _BITS_MAX))
    to_right, to_left = np.ones(len(likely)), np.ones(len(likely))
    for _ in range(_ROUNDS):
        before = to_left
        if exclusive.left:
            to_right = _free(left, likely * to_left, sizes[0])
        if exclusive.right:
            to_left = _free(right, likely * to_right, sizes[1])
        if not len(likely) or np.abs(to_left - before).max() < _CLOSE_ENOUGH:
            break
    joint = likely * to_right * to_left
    return np.asarray(joint / (1 + joint))


def _free(rows: Rows, claims: Floats, size: int) -> Floats:
    """For each pair, the probability that its row is claimed by no other pair."""
    total = np.bincount(rows, claims, size)[rows]
    return np.asarray(1 / (1 + np.maximum(total - claims, 0.0)))
