"""The words of matching: fields, pairs, candidates, as frozen data. No values of residents."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from node.empi.index import Answer, Candidate

__all__ = [
    "PERSON_FIELDS",
    "CandidateShown",
    "Candidates",
    "Evidence",
    "MatchMode",
    "MatchOutcome",
    "MatchPair",
    "MatchProgress",
    "MatchSettings",
    "PairKey",
    "PairPage",
    "PairState",
    "Reason",
    "Standing",
    "certain_of",
    "evidence_of",
    "key_of",
]

PERSON_FIELDS: Final = ("name", "sex", "birth_date", "identity_number", "phone", "address")
"""What a model may compare, and a caller may ask by."""

PairKey = tuple[str, str]
"""The ids of two residents, the lesser first."""


_CERTAIN: Final = 0.99
_EXACT: Final = ("name", "birth_date")


def certain_of(answer: Answer) -> str:
    """The resident whom an answer names without any doubt; "" if there is none.

    Everybody was compared; exactly one is likely enough to need no steward; his name and birth date
    are exact, something besides speaks for him, and neither his sex nor a sound number against.
    """
    likely = [each for each in answer.candidates if each.outcome.value == MatchOutcome.LINK]
    if answer.is_blind or answer.oversized or len(likely) != 1:
        return ""
    (found,) = likely
    levels = {each.field: each.level for each in found.why}
    exact = all(levels.get(field) == "exact" for field in _EXACT)
    besides = any(each.bits > 0 for each in found.why if each.field not in {*_EXACT, "sex"})
    conflicts = levels.get("identity_number") == "conflict" or levels.get("sex") == "different"
    if found.probability < _CERTAIN or not exact or not besides or conflicts:
        return ""
    return found.resident_id


def key_of(one: str, other: str) -> PairKey:
    """The key of a pair, in whichever order its ids are given."""
    return (one, other) if one < other else (other, one)


class MatchMode(StrEnum):
    """The setting `matching`."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class MatchOutcome(StrEnum):
    """What matching says of a pair, or of somebody who was asked for."""

    LINK = "link"
    REVIEW = "review"
    NEW = "new"


class PairState(StrEnum):
    """Where a pair stands."""

    WAITING = "waiting"
    GONE = "gone"
    """One of the two is not here any more, or they no longer match."""
    DECIDED = "decided"
    """By a steward; matching leaves it as it is."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One field's part of a weight: the name of its level, and bits."""

    field: str
    level: str
    bits: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a pair. `weight`: bits, the sum of `why`; `outcome`: LINK or REVIEW."""

    weight: float
    probability: float
    outcome: MatchOutcome
    why: tuple[Reason, ...]


def evidence_of(candidate: Candidate) -> Evidence:
    """What speaks for a candidate of the index, in this room's words."""
    return Evidence(
        candidate.match_weight,
        candidate.probability,
        MatchOutcome(candidate.outcome.value),
        tuple(Reason(each.field, each.level, each.bits) for each in candidate.why),
    )


@dataclass(frozen=True, slots=True)
class MatchPair:
    """A pair as it is kept. Times are milliseconds since 1970 UTC."""

    first_id: str
    second_id: str
    evidence: Evidence
    model_digest: str
    state: PairState
    found_at: int
    decided_at: int | None


@dataclass(frozen=True, slots=True)
class PairPage:
    """Pairs, the likeliest first; ask on with `next`, which is empty at the end."""

    pairs: tuple[MatchPair, ...]
    next: str


@dataclass(frozen=True, slots=True)
class CandidateShown:
    """A resident who may be the one asked for, and whom the caller may see."""

    resident_id: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Candidates:
    """Who may be the one asked for, as far as the caller may see.

    Attributes:
        outcome: LINK if exactly one of all found is certain; NEW if nobody was found and everybody
            was compared; else REVIEW.
        found: The likeliest first.
        is_partial: Not everybody was compared: the index is being built, or a block was too large.
        standing: How far the index was.
    """

    outcome: MatchOutcome
    found: tuple[CandidateShown, ...]
    is_partial: bool
    standing: Standing


@dataclass(frozen=True, slots=True)
class Standing:
    """How far matching is here.

    Attributes:
        indexed: Residents in the index.
        residents: Residents held.
        is_ready: The index holds everybody that was here when it was built.
        is_asking: Everybody is being asked for, under a new model or in a new store.
        off_because: Why this node does not match; empty: it does.
    """

    indexed: int = 0
    residents: int = 0
    is_ready: bool = False
    is_asking: bool = False
    off_because: str = ""


@dataclass(frozen=True, slots=True)
class MatchProgress:
    """Up to which sequence of the log pairs are found, and under which model.

    `asked_to`: everybody is being asked for, and has been up to this id; None: that is done.
    """

    store_epoch: int
    sequence: int
    model_digest: str
    asked_to: str | None


@dataclass(frozen=True, slots=True)
class MatchSettings:
    """What an operator decides.

    Attributes:
        mode: AUTO matches where the extra is installed and `residents_max` is not exceeded.
        residents_max: Residents whom AUTO has memory for.
        percent: Of a core's time that the finding of pairs takes.
    """

    mode: MatchMode
    residents_max: int
    percent: int
