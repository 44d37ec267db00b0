"""Which pairs are compared: several passes, each joining on a few codes at once.

A pair is a candidate if it agrees in all codes of one pass. No pass has a cap that drops pairs: a
block whose larger side exceeds BLOCK_ROWS_MAX is split by each further code in turn, and what
agrees in nothing else is counted and reported, so that somebody can look at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.columns import code_count
from node.empi.kinds import FieldKind

__all__ = [
    "BLOCK_ROWS_MAX",
    "SPLITS_MAX",
    "OversizedBlock",
    "candidate_pairs",
    "choose_passes",
    "pass_keys",
    "slots_of",
]

BLOCK_ROWS_MAX: Final = 2_000
SPLITS_MAX: Final = 3

Codes = NDArray[np.uint32]
Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]
Pass = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OversizedBlock:
    """A large block, of which pairs that agree in nothing else were not compared.

    A steward looks at it: what they agree in is mostly no value, such as a default date.
    """

    fields: tuple[str, ...]
    left_rows: int
    right_rows: int


@dataclass(frozen=True, slots=True)
class _Sides:
    """Codes of both sides, and the field of each code."""

    left: Codes
    right: Codes
    names: Sequence[str]


def slots_of(kinds: Sequence[FieldKind]) -> list[tuple[int, int]]:
    """Field and place within the field of each code, in the order of all codes."""
    return [
        (number, place) for number, kind in enumerate(kinds) for place in range(code_count(kind))
    ]


def _mixed(codes: NDArray[np.uint64]) -> Keys:
    """The finaliser of SplitMix64."""
    mixed = codes * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def pass_keys(codes: Codes, slots: Pass) -> Keys:
    """The key of each row in a pass; 0 where a code is missing.

    Adding makes the order of the codes nothing, so that swapped columns have the same key.
    """
    chosen = codes[:, list(slots)].astype(np.uint64)
    keys: Keys = _mixed(chosen).sum(axis=1, dtype=np.uint64)
    keys[(chosen == 0).any(axis=1)] = 0
    return keys


def _joined_size(left: Keys, right: Keys) -> int:
    """How many pairs share a key."""
    keys_l, count_l = np.unique(left[left != 0], return_counts=True)
    keys_r, count_r = np.unique(right[right != 0], return_counts=True)
    _, at_l, at_r = np.intersect1d(keys_l, keys_r, assume_unique=True, return_indices=True)
    return int((count_l[at_l] * count_r[at_r]).sum())


def choose_passes(
    left: Codes, right: Codes, slots: Sequence[tuple[int, int]], most: int, per_row: float
) -> tuple[Pass, ...]:
    """The passes that suit the data: few pairs a row, and coarse rather than fine.

    One code alone where it is selective enough, else two of different fields. A pass whose pairs
    another finds anyway is left out. If nothing is selective, the best there is: its blocks are
    split.

    Args:
        left: Codes of rows, shape (rows, codes).
        right: The same of the other side.
        slots: As `slots_of` gives them.
        most: How many passes at most.
        per_row: How many candidates a left row may have by one pass, on average.
    """
    rows = max(1, len(left))
    sizes: dict[Pass, float] = {}
    for slot in range(len(slots)):
        sizes[slot,] = _joined_size(pass_keys(left, (slot,)), pass_keys(right, (slot,))) / rows
    singles = {slot for slot in range(len(slots)) if sizes[slot,] <= per_row}
    rest = [slot for slot in range(len(slots)) if slot not in singles]
    for one, other in combinations(rest, 2):
        if slots[one][0] != slots[other][0]:
            keys = pass_keys(left, (one, other)), pass_keys(right, (one, other))
            sizes[one, other] = _joined_size(*keys) / rows
    fitting = [each for each, size in sizes.items() if 0 < size <= per_row]
    kept = [each for each in fitting if not any(_finds(o, each, slots) for o in fitting)]
    if not kept:
        kept = sorted((each for each in sizes if sizes[each]), key=sizes.__getitem__)[:3]
    present = [(left[:, s] != 0).mean() * (right[:, s] != 0).mean() for s in range(len(slots))]
    kept.sort(key=lambda each: (-float(np.prod([present[s] for s in each])), sizes[each], each))
    return tuple(kept[:most])


def _finds(other: Pass, one: Pass, slots: Sequence[tuple[int, int]]) -> bool:
    """Whether `other` finds every pair that `one` does, being coarser."""
    return other != one and all(
        any(each == mine or slots[mine] == (slots[each][0], 0) for mine in one) for each in other
    )


def candidate_pairs(
    left: Codes, right: Codes, passes: Sequence[Pass], names: Sequence[str]
) -> tuple[Rows, Rows, list[OversizedBlock]]:
    """All candidate pairs, each once, ordered by left row and right row.

    Args:
        left: Codes of rows, shape (rows, codes).
        right: The same of the other side.
        passes: As `choose_passes` gives them.
        names: Of the field of each code, for the report.
    """
    oversized: list[OversizedBlock] = []
    found = [np.zeros(0, dtype=np.int64)]
    sides, everything = _Sides(left, right, names), (np.arange(len(left)), np.arange(len(right)))
    for each in passes:
        for rows_l, rows_r in _joined(sides, everything, each, oversized):
            found.append(rows_l * len(right) + rows_r)
    pairs = np.unique(np.concatenate(found))
    return pairs // max(1, len(right)), pairs % max(1, len(right)), oversized


def _joined(
    sides: _Sides,
    rows: tuple[Rows, Rows],
    slots: Pass,
    oversized: list[OversizedBlock],
    deep: int = 0,
) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of the given rows that agree in all codes of a pass; large blocks are split."""
    keys_l = pass_keys(sides.left[rows[0]], slots)
    keys_r = pass_keys(sides.right[rows[1]], slots)
    order = np.argsort(keys_r, kind="stable")
    sorted_r = keys_r[order]
    start = np.searchsorted(sorted_r, keys_l, "left")
    count = np.searchsorted(sorted_r, keys_l, "right") - start
    count[keys_l == 0] = 0
    _, inverse, count_l = np.unique(keys_l, return_inverse=True, return_counts=True)
    large = (count > 0) & (np.maximum(count, count_l[inverse]) > BLOCK_ROWS_MAX)
    for key in np.unique(keys_l[large]):
        block = rows[0][keys_l == key], rows[1][keys_r == key]
        yield from _split(sides, block, slots, oversized, deep)
    count[large] = 0
    at = np.repeat(np.arange(len(keys_l)), count)
    within = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    yield rows[0][at], rows[1][order[np.repeat(start, count) + within]]


def _split(
    sides: _Sides,
    block: tuple[Rows, Rows],
    slots: Pass,
    oversized: list[OversizedBlock],
    deep: int,
) -> Iterator[tuple[Rows, Rows]]:
    """The pairs of a large block that agree in one more code; the block is reported."""
    report = OversizedBlock(
        tuple(sorted({sides.names[slot] for slot in slots})), len(block[0]), len(block[1])
    )
    oversized.append(report)
    # Whatever has a code before the last one is found by the block of that code.
    first = slots[-1] + 1 if deep else 0
    if deep >= SPLITS_MAX:
        return
    for slot in range(first, sides.left.shape[1]):
        if sides.names[slot] not in report.fields:
            yield from _joined(sides, block, (*slots, slot), oversized, deep + 1)
