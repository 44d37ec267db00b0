"""m and u without labels: expectation and maximisation over patterns of levels.

The space of all pairs is sampled in two strata: every candidate pair, and a random sample of the
others weighted to their number, so that what blocking selected biases nothing. Pairs with the same
levels are one pattern with a weight. Winkler (1988) gives the steps.

Pairs of two people are of four classes: strangers, households (who share address, telephone and
surname), neighbours (who share the parts of an address) and twins. Within a class fields are taken
as independent. Without the last three, whole families would be learnt as one person, because what
they share depends on each other. What is a person's own (given name, number, birth date but for
twins) is as among strangers in every class but that of one person, so that no class of matches can
be mistaken for relatives. The prior of a few typical pairs keeps m in its place where few pairs
match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.empi.compare import DIFFERENT, LEVELS
from node.empi.kinds import FieldKind

__all__ = ["PERSONAL", "RELATED", "Learnt", "learn_weights", "patterns_of"]

_ROUNDS_MAX: Final = 300
_CLOSE_ENOUGH: Final = 1e-6
_PRIOR_PAIRS: Final = 5.0
_PRIOR_OTHERS: Final = 0.5
PERSONAL: Final = frozenset(
    {
        FieldKind.GIVEN_NAME,
        FieldKind.FULL_NAME,
        FieldKind.DATE,
        FieldKind.IDENTIFIER,
    }
)
"""Kinds that tell the members of a household apart."""
_NEIGHBOURS: Final = frozenset({FieldKind.ADDRESS, FieldKind.POSTCODE, FieldKind.CATEGORY})
_HOUSEHOLD: Final = _NEIGHBOURS | {FieldKind.SURNAME, FieldKind.PHONE, FieldKind.NUMBER}
RELATED: Final = (_HOUSEHOLD, _NEIGHBOURS, _HOUSEHOLD | {FieldKind.DATE})
"""Classes of two people who share something, each by the kinds that they may share; the last are
twins."""

_SHARE_MAX: Final = 0.1
_STRANGERS_MIN: Final = 0.01
"""Of few pairs, no class begins with more; of any, not all are related."""
_TWINS: Final = 2
_TWINS_SHARE: Final = 0.02
"""Of a hundred people, two have a twin; more are not believed."""

Levels = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What EM found.

    Attributes:
        m: By field, probability of each level among pairs of one person; "missing" is 0.
        u: The same among strangers.
        related: The same by class of RELATED, then by field.
        related_odds: By class of RELATED, how many pairs are of it for one pair of strangers.
        matches: How many pairs of the whole space are of one person.
        rounds: How many rounds it took.
    """

    m: tuple[Floats, ...]
    u: tuple[Floats, ...]
    related: tuple[tuple[Floats, ...], ...]
    related_odds: tuple[float, ...]
    matches: float
    rounds: int


def patterns_of(levels: Levels, weights: Floats) -> tuple[Levels, Floats]:
    """Distinct rows of levels and the sum of the weights of each."""
    packed = np.ascontiguousarray(levels).view([("", np.uint8)] * levels.shape[1]).ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return levels[first], np.bincount(inverse.ravel(), weights, len(first)).astype(np.float64)


def learn_weights(
    kinds: Sequence[FieldKind],
    patterns: Levels,
    weights: Floats,
    matches_max: float,
    unit: float = 1.0,
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
    typical = [_typical(kind) for kind in kinds]
    # What a sample did not show may still be as frequent as half a pair of it.
    others = [np.full(len(each), _PRIOR_OTHERS * unit) for each in typical]
    u = _tables(kinds, patterns, weights, others)
    classes = [typical, u, *_related(kinds, u)]
    shares = np.full(len(classes), min(0.5 * matches_max / total, _SHARE_MAX))
    twins_max = _TWINS_SHARE * matches_max / total
    shares[2 + _TWINS :] = min(twins_max, _SHARE_MAX)
    rounds = 0
    while rounds < _ROUNDS_MAX:
        rounds += 1
        shares[1] = max(1 - shares[0] - shares[2:].sum(), _STRANGERS_MIN)
        parts = _memberships(patterns, classes, shares) * weights
        before = classes[0]
        u = _tables(kinds, patterns, parts[1], others)
        prior = [table * _PRIOR_PAIRS for table in typical]
        classes = [_tables(kinds, patterns, parts[0], prior), u]
        classes += _learnt_related(kinds, patterns, parts[2:], u)
        shares = parts.sum(axis=1) / total
        shares[0] = min(shares[0], matches_max / total)
        shares[2 + _TWINS :] = np.minimum(shares[2 + _TWINS :], twins_max)
        moved = zip(classes[0], before, strict=True)
        if max(float(np.abs(a - b).max()) for a, b in moved) < _CLOSE_ENOUGH:
            break
    return Learnt(
        tuple(classes[0]),
        tuple(u),
        tuple(tuple(each) for each in classes[2:]),
        tuple(min(float(share / max(shares[1], _STRANGERS_MIN)), 1.0) for share in shares[2:]),
        float(shares[0]) * total,
        rounds,
    )


def _typical(kind: FieldKind) -> Floats:
    """Where m begins, and what it leans to: mostly exact, seldom different."""
    levels = len(LEVELS[kind])
    table = np.full(levels, 0.10 / max(1, levels - 3))
    table[0], table[DIFFERENT], table[-1] = 0.0, 0.05, 0.85
    return np.asarray(table / table.sum())


def _related(kinds: Sequence[FieldKind], u: Sequence[Floats]) -> list[list[Floats]]:
    """Where the classes of relatives begin; none, where no field is a person's own."""
    if not any(kind in PERSONAL for kind in kinds):
        return []
    begun = []
    for shared in RELATED:
        tables = [table.copy() for table in u]
        for number, kind in enumerate(kinds):
            if kind in shared:
                tables[number] *= 0.3
                tables[number][-1] += 0.7
        begun.append(tables)
    return begun


def _learnt_related(
    kinds: Sequence[FieldKind], patterns: Levels, parts: Floats, u: Sequence[Floats]
) -> list[list[Floats]]:
    """The tables of the classes of relatives, given how much of each pattern is of each."""
    classes: list[list[Floats]] = []
    for number, (shared, begun) in enumerate(zip(RELATED, _related(kinds, u), strict=False)):
        if number == _TWINS:
            # All that a twin's pair has of its own is the date: learnt freely, this class would
            # take the matches of which the given name is missing.
            date = FieldKind.DATE
            classes.append([begun[f] if kinds[f] is date else t for f, t in enumerate(classes[0])])
            continue
        lean = [table * _PRIOR_PAIRS for table in begun]
        learnt = _tables(kinds, patterns, parts[number], lean)
        classes.append([learnt[f] if kind in shared else u[f] for f, kind in enumerate(kinds)])
    return classes


def _tables(
    kinds: Sequence[FieldKind], patterns: Levels, weights: Floats, prior: Sequence[Floats]
) -> list[Floats]:
    tables = []
    for number, kind in enumerate(kinds):
        table = np.bincount(patterns[:, number], weights, len(LEVELS[kind])) + prior[number]
        table[0] = 0.0
        tables.append(table / table.sum())
    return tables


def _memberships(patterns: Levels, classes: Sequence[Sequence[Floats]], shares: Floats) -> Floats:
    """The probability of each class for each pattern, shape (classes, patterns)."""
    logs = np.repeat(np.log(np.maximum(shares, 1e-300))[:, np.newaxis], len(patterns), axis=1)
    for place, tables in enumerate(classes):
        for number, table in enumerate(tables):
            known = np.zeros(len(table))
            known[1:] = np.log(table[1:])
            logs[place] += known[patterns[:, number]]
    logs -= logs.max(axis=0)
    found = np.exp(logs)
    return np.asarray(found / found.sum(axis=0))
