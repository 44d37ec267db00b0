"""The decisions about letters: sending again, receipts, repetitions, lawful ways."""

from __future__ import annotations

import pytest

from replication.core.config import PeerRole
from replication.core.mailbox import (
    Arrival,
    LetterCause,
    Parcel,
    PostState,
    Way,
    arrived,
    hurried,
    is_due,
    judge_letter,
    key_missing,
    posted,
    receipted,
    sent,
)

MINUTE = 60_000
HOUR = 60 * MINUTE
NOW = 1_795_000_000_000


def sent_times(count: int) -> Parcel:
    """A letter that was put into the log so often."""
    parcel = posted(NOW)
    for _ in range(count):
        parcel = sent(parcel, NOW)
    return parcel


@pytest.mark.parametrize(
    ("attempts", "pause"),
    [(1, MINUTE), (2, 2 * MINUTE), (9, 256 * MINUTE), (10, 6 * HOUR), (100, 6 * HOUR)],
)
def test_pauses_double_from_a_minute_to_six_hours(attempts: int, pause: int) -> None:
    """A letter without a receipt is never given up."""
    parcel = sent_times(attempts)
    assert parcel.next_ms == NOW + pause
    assert (parcel.state, parcel.attempts) == (PostState.SENT, attempts)


def test_a_new_letter_is_due_at_once() -> None:
    """It waits for nothing but the key."""
    assert is_due(posted(NOW).next_ms, NOW)


@pytest.mark.parametrize(
    ("next_ms", "due"),
    [
        (None, False),
        (NOW, True),
        (NOW - 1, True),
        (NOW + 1, False),
        (NOW + 6 * HOUR, False),
        (NOW + 6 * HOUR + 1, True),
        (NOW + 10**12, True),
    ],
)
def test_a_clock_that_was_set_back_does_not_put_a_letter_off(
    next_ms: int | None, due: bool
) -> None:
    """Nothing is due later than after the longest pause."""
    assert is_due(next_ms, NOW) is due


@pytest.mark.parametrize(
    ("age", "pause"),
    [(0, 5_000), (MINUTE, 30_000), (HOUR, 600_000), (-HOUR, 5_000)],
)
def test_a_missing_key_is_asked_for_ever_more_seldom(age: int, pause: int) -> None:
    """After five seconds, up to ten minutes; counted by the letter's age."""
    parcel = key_missing(posted(NOW - age), NOW - age, NOW)
    assert parcel == Parcel(PostState.WAITING_KEY, 0, NOW + pause)


def test_a_receipt_ends_it() -> None:
    """Accepted: nothing more is done, whatever comes later."""
    done = receipted(sent_times(3), "", NOW)
    assert done == Parcel(PostState.CONFIRMED, 3, None)
    assert receipted(done, "RESIDENT_UNKNOWN", NOW) == done
    assert hurried(done, NOW) == done


def test_a_refusal_ends_it_until_the_addressee_changes_its_mind() -> None:
    """What waits in the addressee's quarantine may be taken later."""
    refused = receipted(sent_times(1), "RESIDENT_UNKNOWN", NOW)
    assert refused == Parcel(PostState.REFUSED, 1, None, "RESIDENT_UNKNOWN")
    assert receipted(refused, "", NOW).state is PostState.CONFIRMED


@pytest.mark.parametrize("code", ["LETTER_KIND_UNKNOWN", "RECOVERING"])
def test_a_passing_refusal_leaves_it_pending(code: str) -> None:
    """It goes on being sent at its pace."""
    parcel = sent_times(2)
    after = receipted(parcel, code, NOW)
    assert (after.state, after.next_ms, after.code) == (PostState.SENT, parcel.next_ms, code)


def test_an_old_key_is_replaced_by_return_of_post_some_times() -> None:
    """An addressee that says so again and again is not hammered."""
    for times in (1, 2, 3):
        parcel = receipted(sent_times(times), "LETTER_KEY_OLD", NOW)
        assert (parcel.state, parcel.next_ms) == (PostState.WAITING_KEY, NOW)
    again = receipted(sent_times(4), "LETTER_KEY_OLD", NOW)
    assert (again.state, again.next_ms) == (PostState.WAITING_KEY, NOW + 8 * MINUTE)


def test_a_neighbour_in_a_new_life_makes_letters_due() -> None:
    """What it had may be gone."""
    assert hurried(sent_times(5), NOW).next_ms == NOW


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        (None, Arrival.HANDLE),
        ("", Arrival.ANSWER_AGAIN),
        ("RESIDENT_UNKNOWN", Arrival.HANDLE),
    ],
)
def test_an_addressee_handles_a_letter_once(outcome: str | None, what: Arrival) -> None:
    """Unless it refused it before."""
    assert arrived(outcome) is what


HERE = {"t", "v1", "v2"}
BELOW = {"v1"}
REGION = {*HERE, "c", "x", "x1"}


@pytest.mark.parametrize(
    ("role", "sender", "to", "what"),
    [
        (PeerRole.CHILD, "v1", "t", Way.HERE),
        (PeerRole.CHILD, "v1", "v2", Way.ON),
        (PeerRole.CHILD, "v1", "x1", Way.ON),
        (PeerRole.CHILD, "v2", "t", LetterCause.SENDER_NOT_BELOW),
        (PeerRole.CHILD, "x1", "t", LetterCause.SENDER_NOT_BELOW),
        (PeerRole.CHILD, "v1", "v1", LetterCause.TURNED_BACK),
        (PeerRole.CHILD, "v1", "z", LetterCause.ADDRESSEE_UNKNOWN),
        (PeerRole.PARENT, "x1", "t", Way.HERE),
        (PeerRole.PARENT, "c", "v1", Way.ON),
        (PeerRole.PARENT, "v2", "v1", LetterCause.SENDER_NOT_ABOVE),
        (PeerRole.PARENT, "t", "v1", LetterCause.SENDER_NOT_ABOVE),
        (PeerRole.PARENT, "c", "x1", LetterCause.NOT_FOR_HERE),
        (PeerRole.PARENT, "c", "z", LetterCause.NOT_FOR_HERE),
    ],
)
def test_a_letter_comes_only_from_where_its_way_lies(
    role: PeerRole, sender: str, to: str, what: Way | LetterCause
) -> None:
    """A child speaks for what is below it, a parent hands down what is for here."""
    assert (
        judge_letter(
            sender,
            to,
            here="t",
            peer_role=role,
            here_subtree=HERE,
            peer_subtree=BELOW if role is PeerRole.CHILD else set(),
            region=REGION,
        )
        is what
    )
