"""Letters: which way is a lawful one, what is sent again and when, what a receipt does.

Owns the decisions of an outbox and of an addressee, as pure functions. A letter stays pending at
its author until the addressee's own receipt; whatever is lost on the way is sent again, and an
addressee that has had it changes nothing and answers again. Must never know what a letter says or
how it is sealed.
"""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from replication.core.config import PeerRole

__all__ = [
    "LETTER_KEY_OLD",
    "PASSING_CODES",
    "Arrival",
    "LetterCause",
    "Parcel",
    "PostState",
    "Way",
    "arrived",
    "hurried",
    "is_due",
    "judge_letter",
    "key_missing",
    "posted",
    "receipted",
    "sent",
]

_PAUSE_MS_FIRST: Final = 60_000
_PAUSE_MS_MOST: Final = 6 * 3_600_000
_AT_ONCE: Final = 3
"""Sendings after which an old key is replaced at once."""
_KEY_PAUSE_MS_FIRST: Final = 5_000
_KEY_PAUSE_MS_MOST: Final = 600_000

LETTER_KEY_OLD: Final = "LETTER_KEY_OLD"
"""An addressee's word: it was sealed to a key that I no longer have."""
PASSING_CODES: Final = frozenset(
    {LETTER_KEY_OLD, "LETTER_KIND_UNKNOWN", "RECOVERING", "GRANT_EARLY"}
)
"""Refusals that the same letter may outlive: it stays pending."""


class PostState(StrEnum):
    """Where a letter is, as its author knows."""

    WAITING_KEY = "waiting_key"
    SENT = "sent"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Parcel:
    """What an author remembers of a letter beside the letter.

    Args:
        state: See PostState.
        attempts: How often it was put into the log.
        next_ms: When something is to be done about it, by the author's wall clock; None: never.
        code: The newest refusal; "" if there was none.
    """

    state: PostState
    attempts: int
    next_ms: int | None
    code: str = ""


class Way(StrEnum):
    """Where a letter goes from here."""

    HERE = "here"
    ON = "on"


class LetterCause(StrEnum):
    """Why a letter is not taken; stands in the quarantine."""

    SENDER_NOT_BELOW = "LETTER_SENDER_NOT_BELOW"
    SENDER_NOT_ABOVE = "LETTER_SENDER_NOT_ABOVE"
    NOT_FOR_HERE = "LETTER_NOT_FOR_HERE"
    TURNED_BACK = "LETTER_TURNED_BACK"
    ADDRESSEE_UNKNOWN = "LETTER_ADDRESSEE_UNKNOWN"


class Arrival(StrEnum):
    """What an addressee does with a letter that came."""

    HANDLE = "handle"
    ANSWER_AGAIN = "answer_again"


def posted(now_ms: int) -> Parcel:
    """A letter that was just written and is not in the log yet."""
    return Parcel(PostState.WAITING_KEY, 0, now_ms)


def sent(parcel: Parcel, now_ms: int) -> Parcel:
    """It was sealed and put into the log, once more."""
    pause = min(_PAUSE_MS_FIRST << min(parcel.attempts, 16), _PAUSE_MS_MOST)
    return replace(
        parcel, state=PostState.SENT, attempts=parcel.attempts + 1, next_ms=now_ms + pause
    )


def key_missing(parcel: Parcel, written_ms: int, now_ms: int) -> Parcel:
    """Nobody could give the addressee's key: the older the letter, the longer the pause."""
    pause = min(max((now_ms - written_ms) // 2, _KEY_PAUSE_MS_FIRST), _KEY_PAUSE_MS_MOST)
    return replace(parcel, state=PostState.WAITING_KEY, next_ms=now_ms + pause)


def receipted(parcel: Parcel, code: str, now_ms: int) -> Parcel:
    """The addressee's receipt: "" accepts, a code refuses. What was accepted stays so."""
    if parcel.state is PostState.CONFIRMED:
        return parcel
    if not code:
        return replace(parcel, state=PostState.CONFIRMED, next_ms=None, code="")
    if code == LETTER_KEY_OLD:
        # Some times by return of post: a key may be old of which another was newer than the one
        # that is kept on the way. An addressee that says so for ever is asked ever more seldom.
        next_ms = now_ms if parcel.attempts <= _AT_ONCE else parcel.next_ms
        return replace(parcel, state=PostState.WAITING_KEY, next_ms=next_ms or now_ms, code=code)
    if code in PASSING_CODES:
        return replace(parcel, code=code)
    return replace(parcel, state=PostState.REFUSED, next_ms=None, code=code)


def hurried(parcel: Parcel, now_ms: int) -> Parcel:
    """A store on the way lives another life: what it had may be gone, so it is sent again now."""
    return parcel if parcel.next_ms is None else replace(parcel, next_ms=now_ms)


def is_due(next_ms: int | None, now_ms: int) -> bool:
    """Whether it is time. One further off than the longest pause: the clock was set back."""
    return next_ms is not None and not now_ms < next_ms <= now_ms + _PAUSE_MS_MOST


def arrived(outcome: str | None) -> Arrival:
    """What to do with a letter whose earlier outcome is `outcome` (None: it is new).

    One that was refused is tried again: what it lacked may have come meanwhile.
    """
    return Arrival.ANSWER_AGAIN if outcome == "" else Arrival.HANDLE


def judge_letter(
    sender: str,
    to: str,
    *,
    here: str,
    peer_role: PeerRole,
    here_subtree: AbstractSet[str],
    peer_subtree: AbstractSet[str],
    region: Container[str],
) -> Way | LetterCause:
    """Which way a letter goes that a peer handed over, or why it is set aside.

    A child speaks for what lies below it and for nobody else, and does not send up what belongs
    down again; a parent hands down what is addressed here and was not written here. So no letter
    can go round in a circle, and none takes the name of a node on another branch.
    """
    if peer_role is PeerRole.CHILD:
        if sender not in peer_subtree:
            return LetterCause.SENDER_NOT_BELOW
        if to in peer_subtree:
            return LetterCause.TURNED_BACK
        if to not in region:
            return LetterCause.ADDRESSEE_UNKNOWN
    else:
        if sender in here_subtree:
            return LetterCause.SENDER_NOT_ABOVE
        if to not in here_subtree:
            return LetterCause.NOT_FOR_HERE
    return Way.HERE if to == here else Way.ON
