"""What matching has learnt, as plain data: fields, m and u by level, frequencies, thresholds.

Fellegi and Sunter (1969): a level of a field is worth log2(m / u) bits, where m is how often it
occurs among pairs of one person and u among pairs of two. A rare value that agrees is worth more
than a common one: u of that value takes the place of the average u.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log2
from typing import Any, Final

from node.empi.compare import LEVELS
from node.empi.errors import MatchModelError
from node.empi.kinds import FieldKind

__all__ = [
    "BITS_MAX",
    "COMMON",
    "MODEL_VERSION",
    "PUBLIC_KINDS",
    "FieldModel",
    "FieldWeight",
    "MatchModel",
    "Thresholds",
]

MODEL_VERSION: Final = 1
PUBLIC_KINDS: Final = frozenset(
    {
        FieldKind.GIVEN_NAME,
        FieldKind.SURNAME,
        FieldKind.FULL_NAME,
        FieldKind.POSTCODE,
        FieldKind.CATEGORY,
    }
)
"""Kinds whose frequencies are part of the model. Those of the others (a telephone of many, an
address of many) are counted where matching happens and are never written down."""
COMMON: Final = 5
"""Values seen less often are no part of a model: what is rare could name somebody."""
BITS_MAX: Final = 8.0
"""How much a value's own frequency may add. What it takes away has no limit."""


@dataclass(frozen=True, slots=True)
class FieldModel:
    """One field. `m` and `u` are probabilities by level; those of "missing" are not used.

    `u` is that of strangers; `related` has the same for each class of two people who share
    something. `frequencies`: of the values in `rows` values of the learnt data that were seen at
    least COMMON times, how often.
    """

    name: str
    kind: FieldKind
    m: tuple[float, ...]
    u: tuple[float, ...]
    related: tuple[tuple[float, ...], ...] = ()
    frequencies: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0

    def bits(self) -> tuple[float, ...]:
        """Weight by level against strangers, before the frequency of a value."""
        return _log_ratio(self.m, self.u)

    def related_bits(self, number: int) -> tuple[float, ...]:
        """How much likelier each level is in a class of related people than among strangers."""
        return _log_ratio(self.related[number], self.u)

    def frequency_bits(self, count: int, rows: int) -> float:
        """What agreement in a value of this frequency adds to the weight of "exact".

        The two that agree are not counted: if they are one person, they say nothing of others.

        Args:
            count: How many of the values are this one.
            rows: How many values there are.
        """
        u = self.u[-1]
        prior = min(1 / u, float(max(rows, 1)))
        own = (max(count - 2, 0) + prior * u) / (rows + prior)
        return min(log2(u / own), BITS_MAX)


def _log_ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    return (0.0, *(log2(a / b) for a, b in zip(one[1:], other[1:], strict=True)))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which probability on a pair is linked, and from which it is reviewed."""

    link: float = 0.9
    review: float = 0.02


@dataclass(frozen=True, slots=True)
class FieldWeight:
    """Why a pair has its weight: one field's part, in bits."""

    field: str
    level: str
    bits: float


@dataclass(frozen=True, slots=True)
class MatchModel:
    """A whole model.

    Attributes:
        fields: In the order of the records' values.
        swaps: Pairs of fields whose values may stand in each other's column.
        passes: The blocking passes: places of codes, counted over all fields.
        related_odds: By class of related people, pairs of it for one pair of strangers.
        prevalence: The share of left records that have a partner on the right.
        note: Where it was learnt, such as "synthetic".
    """

    fields: tuple[FieldModel, ...]
    swaps: tuple[tuple[int, int], ...]
    passes: tuple[tuple[int, ...], ...]
    related_odds: tuple[float, ...]
    prevalence: float
    thresholds: Thresholds = Thresholds()
    note: str = ""

    def with_thresholds(self, thresholds: Thresholds) -> MatchModel:
        """The same with other thresholds."""
        return replace(self, thresholds=thresholds)

    def to_json(self) -> str:
        """The model as JSON text; `from_json` gives back an equal one."""
        return json.dumps(
            {
                "version": MODEL_VERSION,
                "note": self.note,
                "related_odds": self.related_odds,
                "prevalence": self.prevalence,
                "thresholds": {"link": self.thresholds.link, "review": self.thresholds.review},
                "swaps": self.swaps,
                "passes": self.passes,
                "fields": [_field_json(each) for each in self.fields],
            },
            ensure_ascii=False,
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> MatchModel:
        """Read a model.

        Raises:
            MatchModelError: It is none, or of another version.
        """
        try:
            data = json.loads(text)
            if data["version"] != MODEL_VERSION:
                raise MatchModelError(f"the model is not of version {MODEL_VERSION}")
            fields = tuple(_field(each) for each in data["fields"])
            odds = tuple(_probability(each) for each in data["related_odds"])
            if any(len(each.related) != len(odds) for each in fields):
                raise MatchModelError("related and related_odds of the model differ in length")
            return cls(
                fields=fields,
                swaps=tuple((int(a), int(b)) for a, b in data["swaps"]),
                passes=tuple(tuple(int(slot) for slot in each) for each in data["passes"]),
                related_odds=odds,
                prevalence=_probability(data["prevalence"]),
                thresholds=Thresholds(
                    _probability(data["thresholds"]["link"]),
                    _probability(data["thresholds"]["review"]),
                ),
                note=str(data["note"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MatchModelError(
                f"the text is no model of matching ({type(error).__name__})"
            ) from None


def _field_json(each: FieldModel) -> dict[str, Any]:
    return {
        "name": each.name,
        "kind": str(each.kind),
        "levels": LEVELS[each.kind],
        "m": each.m,
        "u": each.u,
        "related": each.related,
        "rows": each.rows,
        "frequencies": dict(sorted(each.frequencies.items())),
    }


def _field(data: Mapping[str, Any]) -> FieldModel:
    kind = FieldKind(data["kind"])
    if tuple(data["levels"]) != LEVELS[kind]:
        raise MatchModelError(f"the levels of {kind} are those of another release")
    m, u = _table(data["m"], kind), _table(data["u"], kind)
    related = tuple(_table(row, kind) for row in data["related"])
    counts = {str(value): int(count) for value, count in data["frequencies"].items()}
    return FieldModel(str(data["name"]), kind, m, u, related, counts, int(data["rows"]))


def _table(data: Sequence[object], kind: FieldKind) -> tuple[float, ...]:
    table = tuple(_probability(value) for value in data)
    if len(table) != len(LEVELS[kind]) or min(table[1:]) <= 0:
        raise MatchModelError(f"m and u of a field of kind {kind} do not fit its levels")
    return table


def _probability(value: object) -> float:
    number = float(value) if isinstance(value, int | float) else float("nan")
    if not 0 <= number <= 1:
        raise MatchModelError("a probability of the model is none")
    return number
