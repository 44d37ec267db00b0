"""The index of residents in memory: one person asked against all, in milliseconds.

Owns which residents are in it and finds those that may be the one asked for. Gives each pair the
weight that linking two tables under the same model gives it. Holds no database: the owner fills it
from the residents that the node holds, and follows the change log.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from node.empi.blocking import (
    BLOCK_ROWS_MAX,
    SPLITS_MAX,
    OversizedBlock,
    pass_keys,
    slots_of,
)
from node.empi.columns import MISSING_ID, TEXT_KINDS, Vocabulary, spaces_of
from node.empi.compare import LEVELS, level_of
from node.empi.errors import IndexRowError
from node.empi.forms import Form, form_of
from node.empi.kinds import FieldKind
from node.empi.model import PUBLIC_KINDS, FieldWeight, MatchModel
from node.empi.postings import Postings
from node.empi.scoring import Scorer, frequency_bits, levels_of_pairs, probabilities

__all__ = ["Answer", "Candidate", "MemoryIndex", "Outcome", "ResidentIndex"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Values = Sequence[str | None]

# Cheap and telling fields first: most candidates are ruled out before an address is compared.
_ORDER: Final = (
    FieldKind.DATE,
    FieldKind.CATEGORY,
    FieldKind.NUMBER,
    FieldKind.POSTCODE,
    FieldKind.SURNAME,
    FieldKind.GIVEN_NAME,
    FieldKind.FULL_NAME,
    FieldKind.IDENTIFIER,
    FieldKind.PHONE,
    FieldKind.ADDRESS,
    FieldKind.FREE,
)
_SLACK_BITS: Final = 0.01


class Outcome(StrEnum):
    """What becomes of a pair, or of somebody who was asked for."""

    LINK = "link"
    REVIEW = "review"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A resident who may be the one asked for.

    Attributes:
        resident_id: As it was added.
        match_weight: In bits; the sum of `why`.
        probability: Of being one person, before other candidates are looked at.
        outcome: LINK or REVIEW.
        why: Field by field.
    """

    resident_id: str
    match_weight: float
    probability: float
    outcome: Outcome
    why: tuple[FieldWeight, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Who may be the one asked for.

    Attributes:
        outcome: LINK if exactly one candidate is certain; NEW if there is none and no block was
            left out; else REVIEW.
        candidates: Best first.
        oversized: Blocks of which not every resident was compared.
        is_blind: So little was asked by that no pass could look for anybody; the outcome is REVIEW.
    """

    outcome: Outcome
    candidates: tuple[Candidate, ...]
    oversized: tuple[OversizedBlock, ...]
    is_blind: bool = False


class ResidentIndex(Protocol):
    """What the services need of an index, in memory or over a store.

    Values are in the order of the model's fields. A call that raises has changed nothing.
    """

    def add(self, resident_id: str, values: Values) -> None:
        """Add a resident. Raises IndexRowError if the id is in the index."""

    def amend(self, resident_id: str, values: Values) -> None:
        """Put new values in place of the old. Raises IndexRowError if the id is not known."""

    def remove(self, resident_id: str) -> None:
        """Take a resident out. Raises IndexRowError if the id is not known."""

    def query(self, values: Values) -> Answer:
        """Who of all residents may be the one with these values. Changes nothing."""

    def others(self, resident_id: str) -> Answer:
        """Who of the others may be a resident of the index, as if he himself were not in it.

        Changes nothing. Raises IndexRowError if the id is not known.
        """

    def __len__(self) -> int: ...

    def __contains__(self, resident_id: str) -> bool: ...


class MemoryIndex:
    """An index in columns of integers; a distinct value is held once.

    Not safe for several threads at once. What amend and remove leave behind (old values of the
    vocabulary) stays in memory until `rebuild`.
    """

    def __init__(self, model: MatchModel) -> None:
        self.model = model
        self._kinds = [field.kind for field in model.fields]
        self._names = [field.name for field in model.fields]
        self._slots = slots_of(self._kinds)
        self._scorer = Scorer(model)
        self._order = sorted(range(len(self._kinds)), key=lambda f: _ORDER.index(self._kinds[f]))
        self._clear()

    def _clear(self) -> None:
        self._vocabularies = self._new_vocabularies()
        self._counts = [np.zeros(64, dtype=np.int32) for _ in self._kinds]
        self._resident_ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._values = np.full((64, len(self._kinds)), -1, dtype=np.int32)
        self._alive = np.zeros(64, dtype=np.bool_)
        self._postings = [Postings() for _ in self.model.passes]

    def _new_vocabularies(self) -> list[Vocabulary]:
        spaces = spaces_of(self._names, self._kinds)
        return [Vocabulary(*each) for each in zip(self._kinds, spaces, strict=True)]

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, resident_id: str) -> bool:
        return resident_id in self._row_of

    def extend(self, residents: Iterable[tuple[str, Values]]) -> None:
        """Add many residents; cheaper than one by one. Those before a bad one stay added."""
        first = len(self._resident_ids)
        try:
            for resident_id, values in residents:
                self._put(resident_id, self._forms(values))
        finally:
            self._post(np.arange(first, len(self._resident_ids)))

    def add(self, resident_id: str, values: Values) -> None:
        """As ResidentIndex says."""
        self._put(resident_id, self._forms(values))
        self._post(np.array([len(self._resident_ids) - 1]))

    def amend(self, resident_id: str, values: Values) -> None:
        """As ResidentIndex says."""
        forms = self._forms(values)
        self.remove(resident_id)
        self._put(resident_id, forms)
        self._post(np.array([len(self._resident_ids) - 1]))

    def remove(self, resident_id: str) -> None:
        """As ResidentIndex says."""
        row = self._row_of.pop(resident_id, None)
        if row is None:
            raise IndexRowError("a resident to be taken out is not in the index")
        self._count(row, alive=False)

    def _count(self, row: int, *, alive: bool) -> None:
        """Let a row count, or no more; a row that does not is in no block."""
        self._alive[row] = alive
        for field, number in enumerate(self._values[row].tolist()):
            if number >= 0:
                self._counts[field][number] += 1 if alive else -1

    def memory_bytes(self) -> int:
        """What the index takes, to the nearest few per cent; looks at every value."""
        return (
            sum(each.memory_bytes() for each in self._vocabularies)
            + sum(each.memory_bytes() for each in self._postings)
            + sum(map(sys.getsizeof, self._resident_ids))
            + sys.getsizeof(self._resident_ids)
            + sys.getsizeof(self._row_of)
            # Numbers of rows are objects of their own.
            + 32 * len(self._row_of)
            + sum(each.nbytes for each in (self._values, self._alive, *self._counts))
        )

    def rebuild(self) -> None:
        """Build everything anew from the residents in it, and forget what is no more."""
        before, values, rows = self._vocabularies, self._values, self._row_of
        self._clear()
        for resident_id, row in rows.items():
            numbers = values[row].tolist()
            self._put(
                resident_id,
                [
                    None if number < 0 else old.form(number)
                    for old, number in zip(before, numbers, strict=True)
                ],
            )
        self._post(np.arange(len(self._resident_ids)))

    def _forms(self, values: Values) -> list[Form | None]:
        if len(values) != len(self._kinds):
            raise IndexRowError(f"expected {len(self._kinds)} values, one a field of the model")
        return [
            None if value is None else form_of(kind, value)
            for kind, value in zip(self._kinds, values, strict=True)
        ]

    def _put(self, resident_id: str, forms: Sequence[Form | None]) -> None:
        if resident_id in self._row_of:
            raise IndexRowError("a resident to be added is in the index already")
        row = len(self._resident_ids)
        if row == len(self._values):
            self._values = np.concatenate([self._values, np.full_like(self._values, -1)])
            self._alive = np.concatenate([self._alive, np.zeros_like(self._alive)])
        for field, (vocabulary, form) in enumerate(zip(self._vocabularies, forms, strict=True)):
            number = MISSING_ID if form is None else vocabulary.add(form)
            self._values[row, field] = number
            if number >= len(self._counts[field]):
                grown = np.zeros_like(self._counts[field])
                self._counts[field] = np.concatenate([self._counts[field], grown])
            if number >= 0:
                self._counts[field][number] += 1
        self._alive[row] = True
        self._resident_ids.append(resident_id)
        self._row_of[resident_id] = row

    def _post(self, rows: Rows) -> None:
        for chunk in np.array_split(rows, len(rows) // 100_000 + 1):
            codes = np.concatenate(
                [self._codes_at(chunk, slot)[:, np.newaxis] for slot in range(len(self._slots))],
                axis=1,
            )
            for postings, slots in zip(self._postings, self.model.passes, strict=True):
                postings.add(pass_keys(codes, slots), chunk)

    def _codes_at(self, rows: Rows, slot: int) -> NDArray[np.uint32]:
        field, place = self._slots[slot]
        vocabulary = self._vocabularies[field]
        if not len(vocabulary):
            return np.zeros(len(rows), dtype=np.uint32)
        numbers = self._values[rows, field]
        return np.where(numbers >= 0, vocabulary.codes[numbers, place], np.uint32(0))

    def query(self, values: Values) -> Answer:
        """As ResidentIndex says."""
        return self._query(self._forms(values))

    def others(self, resident_id: str) -> Answer:
        """As ResidentIndex says."""
        row = self._row_of.pop(resident_id, None)
        if row is None:
            raise IndexRowError("a resident to be asked for is not in the index")
        self._count(row, alive=False)
        try:
            return self._query(
                [
                    None if number < 0 else vocabulary.form(number)
                    for vocabulary, number in zip(
                        self._vocabularies, self._values[row].tolist(), strict=True
                    )
                ]
            )
        finally:
            self._row_of[resident_id] = row
            self._count(row, alive=True)

    def _query(self, forms: Sequence[Form | None]) -> Answer:
        asked = self._new_vocabularies()
        for vocabulary, form in zip(asked, forms, strict=True):
            if form is not None:
                vocabulary.add(form)
        rows, oversized, is_blind = self._blocked(asked)
        rows, levels = self._plausible(asked, rows)
        extra = self._extra(asked)
        weights = self._scorer.weights(levels, [np.full(len(rows), bits) for bits in extra])
        chances = probabilities(weights, self._prior())
        kept = np.flatnonzero((chances >= self.model.thresholds.review) & (weights > 0))
        kept = kept[np.lexsort((rows[kept], -weights[kept]))]
        candidates = tuple(
            Candidate(
                self._resident_ids[rows[each]],
                float(weights[each]),
                float(chances[each]),
                Outcome.LINK if chances[each] >= self.model.thresholds.link else Outcome.REVIEW,
                self._scorer.explain(levels[each], extra),
            )
            for each in kept.tolist()
        )
        outcome = Outcome.REVIEW if is_blind else _outcome(candidates, oversized)
        return Answer(outcome, candidates, tuple(oversized), is_blind)

    def _prior(self) -> float:
        return min(self.model.prevalence / max(1, len(self)), 0.5)

    def _blocked(self, asked: Sequence[Vocabulary]) -> tuple[Rows, list[OversizedBlock], bool]:
        """The rows that agree with what is asked in all codes of one pass; whether none applies."""
        codes = np.array(
            [
                asked[field].codes[0, place] if len(asked[field]) else 0
                for field, place in self._slots
            ],
            dtype=np.uint32,
        )
        oversized: list[OversizedBlock] = []
        found = [np.zeros(0, dtype=np.int64)]
        is_blind = True
        for postings, slots in zip(self._postings, self.model.passes, strict=True):
            key = int(pass_keys(codes[np.newaxis], slots)[0])
            if key:
                is_blind = False
                rows = postings.find(key)
                found.extend(self._small(rows[self._alive[rows]], codes, slots, oversized))
        return np.unique(np.concatenate(found)), list(dict.fromkeys(oversized)), is_blind

    def _small(
        self,
        rows: Rows,
        codes: NDArray[np.uint32],
        slots: tuple[int, ...],
        oversized: list[OversizedBlock],
        deep: int = 0,
    ) -> Iterator[Rows]:
        """A block, or the parts of a large one that agree in one more code."""
        if len(rows) <= BLOCK_ROWS_MAX:
            yield rows
            return
        fields = {self._names[self._slots[slot][0]] for slot in slots}
        oversized.append(OversizedBlock(tuple(sorted(fields)), 1, len(rows)))
        for slot in range(slots[-1] + 1 if deep else 0, len(codes)) if deep < SPLITS_MAX else ():
            if codes[slot] and self._names[self._slots[slot][0]] not in fields:
                part = rows[self._codes_at(rows, slot) == codes[slot]]
                yield from self._small(part, codes, (*slots, slot), oversized, deep + 1)

    def _plausible(self, asked: Sequence[Vocabulary], rows: Rows) -> tuple[Rows, NDArray[np.uint8]]:
        """The rows that could still reach a review, and their levels.

        Field by field: a row is given up once even the best of the fields to come could not lift
        it. Nobody is lost by that. Two columns that may be swapped are judged last, together.
        """
        review = max(self.model.thresholds.review, 1e-12)
        prior = self._prior()
        least = np.log2(review / (1 - review)) - np.log2(prior / (1 - prior)) - _SLACK_BITS
        tops = self._tops(asked, rows)
        swappable = {field for pair in self.model.swaps for field in pair}
        sure, to_come = np.zeros(len(rows)), tops.sum(axis=1)
        levels = np.zeros((len(rows), len(self._kinds)), dtype=np.uint8)
        for field in self._order:
            own = self._levels(asked, rows, [field])[:, 0]
            levels[:, field] = own
            exact = own == len(LEVELS[self._kinds[field]]) - 1
            bits = np.where(exact, tops[:, field], self._scorer.bits[field][own])
            if field in swappable:
                bits = tops[:, field]
            sure, to_come = sure + bits, to_come - tops[:, field]
            kept = sure + to_come >= least
            if not kept.all():
                rows, levels, tops = rows[kept], levels[kept], tops[kept]
                sure, to_come = sure[kept], to_come[kept]
        if self.model.swaps and len(rows):
            levels = self._levels(asked, rows, range(len(self._kinds)))
        return rows, levels

    def _tops(self, asked: Sequence[Vocabulary], rows: Rows) -> Floats:
        """The most that each field could give each row, known without comparing."""
        tops = np.zeros((len(rows), len(self._kinds)))
        for field, extra in enumerate(self._extra(asked)):
            if not len(asked[field]):
                continue
            bits, own = self._scorer.bits[field], self._values[rows, field]
            known = self._vocabularies[field].number_of(asked[field].texts[0])
            same = own == (-2 if known is None else known)
            tops[:, field] = np.where(same, bits[-1] + extra, max(bits[1:-1].max(), 0.0))
            if self._kinds[field] in TEXT_KINDS:
                # Without the same second form, no address is the same but for its division.
                core = level_of(self._kinds[field], "core")
                slot = self._slots.index((field, 0))
                apart = ~same & (self._codes_at(rows, slot) != asked[field].codes[0, 0])
                tops[apart, field] = max(np.delete(bits, (0, core, len(bits) - 1)).max(), 0.0)
            tops[own < 0, field] = 0.0
        return tops

    def _levels(
        self, asked: Sequence[Vocabulary], rows: Rows, fields: Sequence[int]
    ) -> NDArray[np.uint8]:
        whole = len(fields) == len(self._kinds)
        return levels_of_pairs(
            ([asked[field] for field in fields], [self._vocabularies[field] for field in fields]),
            [np.full(len(rows), len(asked[field]) - 1, dtype=np.int32) for field in fields],
            [self._values[rows, field] for field in fields],
            self.model.swaps if whole else (),
        )

    def _extra(self, asked: Sequence[Vocabulary]) -> list[float]:
        """By field, what the frequency of the value asked for adds to agreement in it."""
        added = []
        for field, vocabulary in enumerate(asked):
            bits = 0.0
            if len(vocabulary):
                known = self._vocabularies[field].number_of(vocabulary.texts[0])
                counted = self._kinds[field] not in PUBLIC_KINDS and known is not None
                # The one asked for is counted too, as it is when two tables are linked.
                count = 1 + (
                    int(self._counts[field][known]) if counted and known is not None else 0
                )
                bits = float(
                    frequency_bits(
                        self.model.fields[field], vocabulary.texts, np.array([count]), len(self) + 1
                    )[0]
                )
            added.append(bits)
        return added


def _outcome(candidates: Sequence[Candidate], oversized: Sequence[OversizedBlock]) -> Outcome:
    certain = sum(each.outcome is Outcome.LINK for each in candidates)
    if certain == 1:
        return Outcome.LINK
    return Outcome.REVIEW if candidates or oversized else Outcome.NEW
