"""Levels and weights of pairs, the same for two tables and for one query against the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.columns import NAME_KINDS, TEXT_KINDS, Vocabulary
from node.empi.compare import DIFFERENT, LEVELS, MISSING, FormTable, compare_forms, level_of
from node.empi.kinds import FieldKind
from node.empi.model import PUBLIC_KINDS, FieldModel, FieldWeight, MatchModel

__all__ = ["Scorer", "levels_of_pairs", "probabilities"]

Ids = NDArray[np.int32]
Levels = NDArray[np.uint8]
Floats = NDArray[np.float64]

_TABLE_MAX: Final = 8_000_000
"""Up to this many pairs of distinct values, each is looked up and compared once."""


def levels_of_pairs(
    vocabularies: Sequence[Vocabulary],
    left: Sequence[Ids],
    right: Sequence[Ids],
    swaps: Sequence[tuple[int, int]],
) -> Levels:
    """Levels of pairs, shape (pairs, fields).

    Args:
        vocabularies: By field.
        left: By field, the ids of the left values, one a pair.
        right: The same of the right values.
        swaps: Pairs of fields that are also compared across.
    """
    fields = [
        _levels(vocabulary, vocabulary, left[number], right[number])
        for number, vocabulary in enumerate(vocabularies)
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
    inverse = None
    if space <= _TABLE_MAX:
        seen = np.zeros(space, dtype=np.int32)
        seen[pairs] = 1
        pairs, inverse = np.flatnonzero(seen), pairs
        seen[pairs] = np.arange(len(pairs))
        inverse = seen[inverse]
    a, table_a = _local(one, pairs // len(other))
    b, table_b = _local(other, pairs % len(other))
    found = compare_forms(one.kind, table_a, table_b, a, b)
    return found if inverse is None else found[inverse]


def _local(vocabulary: Vocabulary, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], FormTable]:
    """The forms that occur, and the place of each id among them."""
    if len(ids) * 4 >= len(vocabulary):
        return ids, vocabulary.table()
    forms, places = np.unique(ids, return_inverse=True)
    numbers = forms.tolist()
    table = FormTable.of(
        vocabulary.kind,
        [vocabulary.texts[i] for i in numbers],
        [vocabulary.seconds[i] for i in numbers],
    )
    return places.ravel(), table


def _mark_swapped(
    vocabularies: Sequence[Vocabulary],
    sides: tuple[Sequence[Ids], Sequence[Ids]],
    fields: list[Levels],
    columns: tuple[int, int],
) -> None:
    """Raise both fields to "swapped" where each agrees well with the other and not with itself."""
    (left, right), (one, other) = sides, columns
    kind = vocabularies[one].kind
    poor = level_of(kind, "similar")
    at = np.flatnonzero(
        (fields[one] >= DIFFERENT) & (fields[one] <= poor)
        & (fields[other] >= DIFFERENT) & (fields[other] <= poor)
    )  # fmt: skip
    near = level_of(kind, "near")
    for a, b in ((one, other), (other, one)):
        across = _levels(vocabularies[a], vocabularies[b], left[a][at], right[b][at])
        at = at[across >= near]
    fields[one][at] = fields[other][at] = level_of(kind, "swapped")


def swaps_of(kinds: Sequence[FieldKind], names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of fields whose values get into each other's column: given name and surname, and
    columns of text whose names differ in a number only."""
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


@dataclass(frozen=True, slots=True)
class Scorer:
    """Turns levels into weights under one model.

    Attributes:
        model: What was learnt.
        extra: By field and id of the vocabulary, what agreement in that value adds, in bits.
    """

    model: MatchModel
    extra: tuple[Floats, ...]

    @classmethod
    def of(
        cls, model: MatchModel, vocabularies: Sequence[Vocabulary], counts: Sequence[Ids], rows: int
    ) -> Scorer:
        """A scorer of the values that occur.

        Args:
            model: What was learnt.
            vocabularies: By field.
            counts: By field and id, how often the value occurs where matching happens.
            rows: Of how many records.
        """
        return cls(
            model,
            tuple(
                _extra(field, vocabulary, count, rows)
                for field, vocabulary, count in zip(
                    model.fields, vocabularies, counts, strict=True
                )
            ),
        )

    def weights(self, levels: Levels, ids: Sequence[Ids]) -> Floats:
        """Match weights in bits.

        Args:
            levels: Shape (pairs, fields).
            ids: By field, the ids of the left values, one a pair.
        """
        total = np.zeros(len(levels))
        for number, field in enumerate(self.model.fields):
            total += np.asarray(field.bits())[levels[:, number]]
            exact = levels[:, number] == len(LEVELS[field.kind]) - 1
            total[exact] += self.extra[number][ids[number][exact]]
        return total

    def explain(self, levels: Sequence[int], ids: Sequence[int]) -> tuple[FieldWeight, ...]:
        """One pair's weight, field by field; the sum is its match weight."""
        parts = []
        for number, field in enumerate(self.model.fields):
            level = levels[number]
            bits = field.bits()[level]
            if level == len(LEVELS[field.kind]) - 1:
                bits += float(self.extra[number][ids[number]])
            if level != MISSING:
                parts.append(FieldWeight(field.name, LEVELS[field.kind][level], bits))
        return tuple(parts)


def _extra(field: FieldModel, vocabulary: Vocabulary, counts: Ids, rows: int) -> Floats:
    if field.kind in PUBLIC_KINDS:
        known = field.frequencies
        return np.array(
            [field.frequency_bits(known.get(text, 0), field.rows) for text in vocabulary.texts]
        )
    distinct, inverse = np.unique(counts, return_inverse=True)
    bits = np.array([field.frequency_bits(int(count), rows) for count in distinct])
    return bits[inverse.ravel()] if len(bits) else np.zeros(0)


def probabilities(weights: Floats, prior: float) -> Floats:
    """Probability of one person, from weights in bits and the probability before any evidence."""
    bits = weights + np.log2(prior) - np.log2(1 - prior)
    return np.asarray(1 / (1 + np.exp2(-np.clip(bits, -500, 500))))
