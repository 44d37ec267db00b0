"""Levels and weights of pairs, the same for two tables and for one query against the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from node.empi.columns import NAME_KINDS, TEXT_KINDS, Vocabulary
from node.empi.compare import DIFFERENT, LEVELS, MISSING, FormTable, compare_forms, level_of
from node.empi.kinds import FieldKind
from node.empi.model import PUBLIC_KINDS, FieldModel, FieldWeight, MatchModel

__all__ = ["Scorer", "frequency_bits", "levels_of_pairs", "probabilities", "swaps_of"]

Ids = NDArray[np.int32]
Levels = NDArray[np.uint8]
Floats = NDArray[np.float64]

_TABLE_MAX: Final = 8_000_000
"""Up to this many pairs of distinct values, each is looked up and compared once."""


def levels_of_pairs(
    vocabularies: tuple[Sequence[Vocabulary], Sequence[Vocabulary]],
    left: Sequence[Ids],
    right: Sequence[Ids],
    swaps: Sequence[tuple[int, int]],
) -> Levels:
    """Levels of pairs, shape (pairs, fields).

    Args:
        vocabularies: By field, of the left values and of the right ones.
        left: By field, the ids of the left values, one a pair.
        right: The same of the right values.
        swaps: Pairs of fields that are also compared across.
    """
    fields = [
        _levels(one, other, left[number], right[number])
        for number, (one, other) in enumerate(zip(*vocabularies, strict=True))
    ]
    for one, other in swaps:
        _mark_swapped(vocabularies, (left, right), fields, (one, other))
    if not fields:
        return np.zeros((0, 0), dtype=np.uint8)
    return np.stack(fields, axis=1)


def _levels(one: Vocabulary, other: Vocabulary, left: Ids, right: Ids) -> Levels:
    """Levels of one field; each distinct pair of values is compared once."""
    levels = np.zeros(len(left), dtype=np.uint8)
    known = (left >= 0) & (right >= 0)
    if one is other:
        levels[known & (left == right)] = len(LEVELS[one.kind]) - 1
        known &= left != right
    at = np.flatnonzero(known)
    if len(at):
        levels[at] = _compared(one, other, left[at], right[at])
    return levels


def _compared(one: Vocabulary, other: Vocabulary, left: Ids, right: Ids) -> Levels:
    """Levels of pairs that have both values; where values repeat, each pair of them once."""
    pairs = left.astype(np.int64) * len(other) + right
    space = len(one) * len(other)
    inverse: NDArray[Any] | None = None
    if space <= min(_TABLE_MAX, 8 * len(pairs)):
        seen = np.zeros(space, dtype=np.int32)
        seen[pairs] = 1
        distinct = np.flatnonzero(seen)
        seen[distinct] = np.arange(len(distinct))
        pairs, inverse = distinct, seen[pairs]
    a, table_a = _local(one, pairs // len(other))
    b, table_b = _local(other, pairs % len(other))
    found = compare_forms(one.kind, table_a, table_b, a, b)
    return found if inverse is None else found[inverse]


def _local(vocabulary: Vocabulary, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], FormTable]:
    """The forms that occur, and the place of each id among them."""
    if len(ids) * 4 >= len(vocabulary):
        return ids, vocabulary.table()
    numbers = ids.tolist()
    table = FormTable.of(
        vocabulary.kind,
        [vocabulary.texts[i] for i in numbers],
        [vocabulary.seconds[i] for i in numbers],
    )
    return np.arange(len(numbers)), table


def _mark_swapped(
    vocabularies: tuple[Sequence[Vocabulary], Sequence[Vocabulary]],
    sides: tuple[Sequence[Ids], Sequence[Ids]],
    fields: list[Levels],
    columns: tuple[int, int],
) -> None:
    """Raise both fields to "swapped" where each agrees well with the other and not with itself."""
    (left, right), (one, other) = sides, columns
    kind = vocabularies[0][one].kind
    poor = level_of(kind, "similar")
    at = np.flatnonzero(
        (fields[one] >= DIFFERENT) & (fields[one] <= poor)
        & (fields[other] >= DIFFERENT) & (fields[other] <= poor)
    )  # fmt: skip
    near = level_of(kind, "near")
    for a, b in ((one, other), (other, one)):
        across = _levels(vocabularies[0][a], vocabularies[1][b], left[a][at], right[b][at])
        at = at[across >= near]
    fields[one][at] = fields[other][at] = level_of(kind, "swapped")


def swaps_of(kinds: Sequence[FieldKind], names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of fields whose values get into each other's column.

    Given name and surname, and columns of text whose names differ in a number only.
    """
    found = []
    for one, kind in enumerate(kinds):
        for other in range(one + 1, len(kinds)):
            both = {kind, kinds[other]}
            named = both == {FieldKind.GIVEN_NAME, FieldKind.SURNAME}
            stems = names[one].rstrip("0123456789_ "), names[other].rstrip("0123456789_ ")
            numbered = both <= (NAME_KINDS | TEXT_KINDS) and stems[0] == stems[1] != names[one]
            if named or (numbered and len(both) == 1):
                found.append((one, other))
    return tuple(found)


class Scorer:
    """Turns levels into weights under one model."""

    def __init__(self, model: MatchModel) -> None:
        self.model = model
        self.bits = tuple(np.asarray(field.bits()) for field in model.fields)
        self.related = tuple(
            tuple(np.asarray(field.related_bits(number)) for field in model.fields)
            for number in range(len(model.related_odds))
        )

    def weights(self, levels: Levels, extra: Sequence[Floats]) -> Floats:
        """Match weights in bits.

        Args:
            levels: Shape (pairs, fields).
            extra: By field, what agreement in the pair's value adds, one a pair.
        """
        added = np.zeros(len(levels))
        for number, field in enumerate(self.model.fields):
            exact = levels[:, number] == len(LEVELS[field.kind]) - 1
            added += np.where(exact, extra[number], 0.0)
        return added + _summed(self.bits, levels) + self._shared(levels, added)

    def explain(self, levels: Levels, extra: Sequence[float]) -> tuple[FieldWeight, ...]:
        """One pair's weight, field by field; the sum is its match weight.

        The last part, named "related", is not above 0: what the pair shares, relatives share too.
        """
        parts, added = [], 0.0
        for number, field in enumerate(self.model.fields):
            level = int(levels[number])
            bits = float(self.bits[number][level])
            if level == len(LEVELS[field.kind]) - 1:
                bits += extra[number]
                added += extra[number]
            if level != MISSING:
                parts.append(FieldWeight(field.name, LEVELS[field.kind][level], bits))
        shared = self._shared(levels[np.newaxis], np.array([added]))
        return (*parts, FieldWeight("related", "shared", float(shared[0])))

    def _shared(self, levels: Levels, added: Floats) -> Floats:
        """What is taken away because the pair may be two people of a household."""
        odds = self.model.related_odds
        total = np.zeros(len(levels))
        for share, tables in zip(odds, self.related, strict=True):
            bits = _summed(tables, levels) + added + np.log2(max(share, 1e-300))
            total = np.logaddexp2(total, bits)
        return np.asarray(np.log2(1 + sum(odds)) - total)


def _summed(tables: Sequence[Floats], levels: Levels) -> Floats:
    total = np.zeros(len(levels))
    for number, table in enumerate(tables):
        total += table[levels[:, number]]
    return total


def frequency_bits(
    field: FieldModel, texts: Sequence[str], counts: NDArray[Any], rows: int
) -> Floats:
    """What agreement in each of some values adds to the weight of the field, in bits.

    Args:
        field: Of the model.
        texts: The values.
        counts: How often each occurs where matching happens; used where the model does not say.
        rows: Of how many records there.
    """
    if field.kind in PUBLIC_KINDS:
        known = field.frequencies
        counts = np.array([known.get(text, 0) for text in texts], dtype=np.int64)
        rows = field.rows
    distinct, inverse = np.unique(counts, return_inverse=True)
    bits = np.array([field.frequency_bits(int(count), rows) for count in distinct])
    return bits[inverse.ravel()] if len(bits) else np.zeros(0)


def probabilities(weights: Floats, prior: float) -> Floats:
    """Probability of one person, from weights in bits and the probability before any evidence."""
    bits = weights + np.log2(prior) - np.log2(1 - prior)
    return np.asarray(1 / (1 + np.exp2(-np.clip(bits, -500, 500))))
