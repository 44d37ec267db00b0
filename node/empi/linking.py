"""Two tables linked: encode, block, compare, learn, score, decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.blocking import OversizedBlock, candidate_pairs, choose_passes, slots_of
from node.empi.columns import Vocabulary, code_count, spaces_of
from node.empi.deciding import Exclusive, decide, exclusive_sides
from node.empi.errors import LinkInputError
from node.empi.kinds import FieldKind, recognise_kind
from node.empi.learning import Learnt, learn_weights, patterns_of
from node.empi.model import COMMON, PUBLIC_KINDS, FieldModel, MatchModel
from node.empi.scoring import Scorer, frequency_bits, levels_of_pairs, swaps_of

__all__ = ["Linkage", "link"]

_PASSES_MAX: Final = 40
_PAIRS_A_ROW: Final = 3.0
_SAMPLE: Final = 200_000
_ALL_PAIRS_MAX: Final = 250_000

Ids = NDArray[np.int32]
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
Values = Sequence[Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Linkage:
    """What linking two tables gave.

    Attributes:
        left: Left row of each pair that is linked or to be reviewed.
        right: Right row of each.
        weights: Match weight of each, in bits.
        probabilities: Of each to be one person.
        linked: True: link; False: review.
        model: What was learnt, or what was given.
        exclusive: Which sides were found to be free of duplicates.
        oversized: Blocks of which not every pair was compared.
        candidates: How many pairs were compared.
    """

    left: Rows
    right: Rows
    weights: Floats
    probabilities: Floats
    linked: NDArray[np.bool_]
    model: MatchModel
    exclusive: Exclusive
    oversized: tuple[OversizedBlock, ...]
    candidates: int


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Both tables as ids."""

    names: tuple[str, ...]
    kinds: tuple[FieldKind, ...]
    vocabularies: tuple[Vocabulary, ...]
    left: tuple[Ids, ...]
    right: tuple[Ids, ...]
    sizes: tuple[int, int]

    def codes(self, side: Sequence[Ids]) -> NDArray[np.uint32]:
        """Codes of the rows of a side, 0 where a value is missing."""
        columns = []
        for vocabulary, ids in zip(self.vocabularies, side, strict=True):
            if len(vocabulary):
                found = vocabulary.codes[ids]
                found[ids < 0] = 0
            else:
                found = np.zeros((len(ids), code_count(vocabulary.kind)), dtype=np.uint32)
            columns.append(found)
        return np.concatenate(columns, axis=1)

    def counts(self) -> list[Ids]:
        """By field and id, how often a value occurs on both sides together."""
        return [
            np.bincount(np.concatenate([a[a >= 0], b[b >= 0]]), minlength=len(vocabulary)).astype(
                np.int32
            )
            for a, b, vocabulary in zip(self.left, self.right, self.vocabularies, strict=True)
        ]

    def frequency_bits(self, model: MatchModel, left: Rows) -> list[Floats]:
        """By field, what the frequency of each pair's left value would add to agreement."""
        added = []
        for number, counts in enumerate(self.counts()):
            field, vocabulary = model.fields[number], self.vocabularies[number]
            bits = frequency_bits(field, vocabulary.texts, counts, sum(self.sizes))
            ids = self.left[number][left]
            added.append(np.where(ids >= 0, bits[ids], 0.0) if len(bits) else np.zeros(len(left)))
        return added

    def levels(
        self, left: Rows, right: Rows, swaps: Sequence[tuple[int, int]]
    ) -> NDArray[np.uint8]:
        """Levels of pairs of rows."""
        return levels_of_pairs(
            (self.vocabularies, self.vocabularies),
            [ids[left] for ids in self.left],
            [ids[right] for ids in self.right],
            swaps,
        )


def link(
    left: Values,
    right: Values,
    names: Sequence[str],
    *,
    model: MatchModel | None = None,
    exclusive: Exclusive | None = None,
    seed: int = 0,
) -> Linkage:
    """Link two tables of columns.

    Args:
        left: By field, the values of the left records; None where missing.
        right: The same of the right records.
        names: Of the fields.
        model: Used as it is; None: learnt from the two tables.
        exclusive: Which sides have at most one partner a record; None: found out.
        seed: Of the sample of pairs that u is learnt from.
    """
    encoded = _encoded(left, right, names, model)
    slots = slots_of(encoded.kinds)
    codes = encoded.codes(encoded.left), encoded.codes(encoded.right)
    passes = model.passes if model else choose_passes(*codes, slots, _PASSES_MAX, _PAIRS_A_ROW)
    field_of = [names[field] for field, _ in slots]
    at, oversized = _candidates(encoded, codes, passes, field_of, every_pair=model is None)
    swaps = model.swaps if model else swaps_of(encoded.kinds, names)
    levels = encoded.levels(*at, swaps)
    if model is None:
        learnt = _learn(encoded, at, levels, swaps, seed)
        model = _model(encoded, learnt, swaps, passes)
    weights = Scorer(model).weights(levels, encoded.frequency_bits(model, at[0]))
    if exclusive is None:
        alone = decide(at, weights, encoded.sizes, model.prevalence, Exclusive())
        exclusive = exclusive_sides(*at, alone)
    chances = decide(at, weights, encoded.sizes, model.prevalence, exclusive)
    # What speaks against, or says nothing, is never reported, however likely a partner is.
    kept = np.flatnonzero((chances >= model.thresholds.review) & (weights > 0))
    return Linkage(
        left=at[0][kept],
        right=at[1][kept],
        weights=weights[kept],
        probabilities=chances[kept],
        linked=chances[kept] >= model.thresholds.link,
        model=model,
        exclusive=exclusive,
        oversized=tuple(dict.fromkeys(oversized)),
        candidates=len(at[0]),
    )


def _encoded(
    left: Values, right: Values, names: Sequence[str], model: MatchModel | None
) -> _Encoded:
    if model is not None and [each.name for each in model.fields] != list(names):
        raise LinkInputError("the fields are not those of the model, in its order")
    if model is not None:
        kinds = tuple(each.kind for each in model.fields)
    else:
        kinds = tuple(
            recognise_kind(name, [value for value in (*a, *b) if value is not None])
            for name, a, b in zip(names, left, right, strict=True)
        )
    spaces = spaces_of(names, kinds)
    vocabularies = tuple(Vocabulary(*each) for each in zip(kinds, spaces, strict=True))
    sides = [
        tuple(each.encode(values) for each, values in zip(vocabularies, side, strict=True))
        for side in (left, right)
    ]
    return _Encoded(
        tuple(names), kinds, vocabularies, sides[0], sides[1], (len(left[0]), len(right[0]))
    )


def _candidates(
    encoded: _Encoded,
    codes: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    passes: Sequence[tuple[int, ...]],
    field_of: Sequence[str],
    *,
    every_pair: bool,
) -> tuple[tuple[Rows, Rows], list[OversizedBlock]]:
    """The pairs to compare: all while they are few, where a model is learnt from them."""
    rows_l, rows_r = encoded.sizes
    if every_pair and rows_l * rows_r <= _ALL_PAIRS_MAX:
        everything = np.arange(rows_l * rows_r)
        return (everything // max(1, rows_r), everything % max(1, rows_r)), []
    left, right, oversized = candidate_pairs(*codes, passes, field_of)
    return (left, right), oversized


def _learn(
    encoded: _Encoded,
    at: tuple[Rows, Rows],
    levels: NDArray[np.uint8],
    swaps: Sequence[tuple[int, int]],
    seed: int,
) -> Learnt:
    rows_l, rows_r = encoded.sizes
    others = rows_l * rows_r - len(at[0])
    weights, unit = np.ones(len(levels)), 1.0
    if others > 0:
        known = at[0] * rows_r + at[1]
        chance = np.random.Generator(np.random.PCG64(seed))
        drawn = np.unique(chance.integers(0, rows_l * rows_r, _SAMPLE))
        place = np.searchsorted(known, drawn)
        place[place == len(known)] = 0
        drawn = drawn[known[place] != drawn] if len(known) else drawn
        sampled = encoded.levels(drawn // rows_r, drawn % rows_r, swaps)
        levels = np.concatenate([levels, sampled])
        unit = others / max(1, len(drawn))
        weights = np.concatenate([weights, np.full(len(drawn), unit)])
    most = float(max(rows_l, rows_r))
    return learn_weights(encoded.kinds, *patterns_of(levels, weights), most, unit)


def _model(
    encoded: _Encoded,
    learnt: Learnt,
    swaps: tuple[tuple[int, int], ...],
    passes: tuple[tuple[int, ...], ...],
) -> MatchModel:
    fields = []
    for number, counts in enumerate(encoded.counts()):
        vocabulary, kind = encoded.vocabularies[number], encoded.kinds[number]
        least = COMMON if kind in PUBLIC_KINDS else len(counts) + int(counts.sum()) + 1
        common = np.flatnonzero(counts >= least).tolist()
        fields.append(
            FieldModel(
                name=encoded.names[number],
                kind=kind,
                m=tuple(learnt.m[number].tolist()),
                u=tuple(learnt.u[number].tolist()),
                related=tuple(tuple(each[number].tolist()) for each in learnt.related),
                frequencies={vocabulary.texts[i]: int(counts[i]) for i in common},
                rows=int(counts.sum()),
            )
        )
    prevalence = min(max(learnt.matches / encoded.sizes[0], 1e-6), 1.0)
    return MatchModel(tuple(fields), swaps, passes, learnt.related_odds, prevalence)
