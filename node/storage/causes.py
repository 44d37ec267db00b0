"""The causes of quarantine: what each means, and whether time can mend it.

A cause that time can mend (a newer region file, an upgrade, a grant that is on its way) is tried
again by itself. Any other lies in the row as it is: an operator decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from replication.changelog import retry_after_ms
from replication.core.admission import Cause
from replication.core.mailbox import LetterCause

__all__ = ["CAUSES", "Misfit", "meaning_of", "retry_at"]


class Misfit(StrEnum):
    """Causes of quarantine beyond those of replication.core.admission.Cause."""

    TABLE_UNKNOWN = "TABLE_UNKNOWN"
    LANE_MISMATCH = "LANE_MISMATCH"
    ENTRY_MISMATCH = "ENTRY_MISMATCH"
    ENTRY_UNREADABLE = "ENTRY_UNREADABLE"
    ENTRY_TOO_LARGE = "ENTRY_TOO_LARGE"
    ORIGIN_NOT_BELOW = "ORIGIN_NOT_BELOW"
    ORIGIN_NOT_ABOVE = "ORIGIN_NOT_ABOVE"
    AUTHOR_NOT_ABOVE = "AUTHOR_NOT_ABOVE"
    RESIDENT_OF_ANOTHER = "RESIDENT_OF_ANOTHER"
    ROW_MALFORMED = "ROW_MALFORMED"
    FORM_NOT_IN_POLICY = "FORM_NOT_IN_POLICY"
    AUTHOR_CHANGED = "AUTHOR_CHANGED"
    AUTHOR_NOT_OVER_HOME = "AUTHOR_NOT_OVER_HOME"
    LETTER_MALFORMED = "LETTER_MALFORMED"
    LETTER_SIGNATURE = "LETTER_SIGNATURE"
    LETTER_UNREADABLE = "LETTER_UNREADABLE"
    LETTER_KEY_OLD = "LETTER_KEY_OLD"
    LETTER_KIND_UNKNOWN = "LETTER_KIND_UNKNOWN"
    RESIDENT_UNKNOWN = "RESIDENT_UNKNOWN"
    AUTHOR_NOT_SENDER = "AUTHOR_NOT_SENDER"
    GRANT_UNKNOWN = "GRANT_UNKNOWN"
    GRANT_INVALID = "GRANT_INVALID"
    GRANT_EARLY = "GRANT_EARLY"
    HANDOVER_INVALID = "HANDOVER_INVALID"
    NOT_THE_HOME = "NOT_THE_HOME"
    SEAL_BROKEN = "SEAL_BROKEN"


@dataclass(frozen=True, slots=True)
class _Known:
    heals: bool
    meaning: str


def _heals(meaning: str) -> _Known:
    return _Known(True, meaning)


def _stays(meaning: str) -> _Known:
    return _Known(False, meaning)


_REGION: Final = "; the region files of the two nodes may differ"

CAUSES: Final[Mapping[str, _Known]] = MappingProxyType(
    {
        Cause.AUTHOR_NOT_BELOW: _heals(f"its author does not lie below the child{_REGION}"),
        Cause.HOME_NOT_HERE: _heals(f"its resident's home does not lie here{_REGION}"),
        Cause.IDENTITY_NOT_FROM_HOME: _stays("identity data by another node than the home"),
        Cause.FORM_NOT_FULL: _stays("the parent sent a row that is not in full"),
        Cause.HOME_EPOCH_OLD: _heals("written under an epoch of the home that has passed"),
        Cause.HOME_DISPUTED: _heals("it names another home than is known here for that epoch"),
        Cause.HOME_NOT_GRANTED: _heals("it names a new home whose grant has not arrived here"),
        Misfit.TABLE_UNKNOWN: _heals("a table that this release does not have"),
        Misfit.LANE_MISMATCH: _stays("it came in a lane that is not its table's"),
        Misfit.ENTRY_MISMATCH: _stays("its entry names another home or form than the row"),
        Misfit.ENTRY_UNREADABLE: _heals("an entry whose rows this release cannot read"),
        Misfit.ENTRY_TOO_LARGE: _stays("an entry larger than one that can be passed on"),
        Misfit.ORIGIN_NOT_BELOW: _heals(f"its origin does not lie below the child{_REGION}"),
        Misfit.ORIGIN_NOT_ABOVE: _heals(f"the parent sent it as of a node here{_REGION}"),
        Misfit.AUTHOR_NOT_ABOVE: _heals(f"the parent sent it as written here{_REGION}"),
        Misfit.RESIDENT_OF_ANOTHER: _heals("identity data of a resident of another home"),
        Misfit.ROW_MALFORMED: _heals("a cell or an id does not fit this release's table"),
        Misfit.FORM_NOT_IN_POLICY: _heals(f"policy does not copy it up in that form{_REGION}"),
        Misfit.AUTHOR_CHANGED: _heals("another node than its author amends the row"),
        Misfit.AUTHOR_NOT_OVER_HOME: _heals(
            f"it speaks of a home that its author is neither nor is above{_REGION}"
        ),
        LetterCause.SENDER_NOT_BELOW: _heals(f"a letter whose sender is not below it{_REGION}"),
        LetterCause.SENDER_NOT_ABOVE: _heals(f"the parent sent a letter written here{_REGION}"),
        LetterCause.NOT_FOR_HERE: _heals(f"a letter from above for another branch{_REGION}"),
        LetterCause.TURNED_BACK: _heals(f"the child sent up a letter for a node below it{_REGION}"),
        LetterCause.ADDRESSEE_UNKNOWN: _heals(f"a letter for a node not known here{_REGION}"),
        Misfit.LETTER_MALFORMED: _stays("a letter that is none, or not the one its entry names"),
        Misfit.LETTER_SIGNATURE: _heals("a letter that its sender did not sign"),
        Misfit.LETTER_UNREADABLE: _stays("a letter to this node that does not open"),
        Misfit.LETTER_KEY_OLD: _stays("a letter sealed to a key that this node does not have"),
        Misfit.LETTER_KIND_UNKNOWN: _heals("a letter of a kind that this release does not know"),
        Misfit.RESIDENT_UNKNOWN: _heals("a record by letter of a resident not registered here"),
        Misfit.AUTHOR_NOT_SENDER: _stays("a record by letter of another node than its author"),
        Misfit.GRANT_UNKNOWN: _heals("a history whose grant has not arrived here"),
        Misfit.GRANT_INVALID: _heals(f"a grant of another than the common ancestor{_REGION}"),
        Misfit.GRANT_EARLY: _heals("a grant of a hierarchy that this node does not have yet"),
        Misfit.HANDOVER_INVALID: _heals(f"a letter of a hand-over that may not be taken{_REGION}"),
        Misfit.NOT_THE_HOME: _heals("a new home's word whose grant has not arrived here"),
        Misfit.SEAL_BROKEN: _heals("a letter about a row or letter here that does not open"),
    }
)
"""Every cause that this release gives."""


def meaning_of(cause: str) -> str:
    """What a cause means, in words; a cause of another release is not known."""
    known = CAUSES.get(cause)
    return known.meaning if known is not None else "a cause that this release does not know"


def retry_at(cause: str, attempts: int, now_ms: int) -> int | None:
    """When an item is tried again by itself after `attempts`; None: an operator decides."""
    known = CAUSES.get(cause)
    return now_ms + retry_after_ms(attempts) if known is not None and known.heals else None
