"""What stops when, and a count of time that no wrong clock bends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node.auditing.errors import (
    AuditNoRoomError,
    AuditReadsStoppedError,
    AuditUnanchoredError,
)
from node.auditing.gate import BULK_MS, AuditGate, under_glass
from node.auditing.reserve import LEAST_BYTES, AuditReserve
from node.auditing.standing import OFF_MS_MAX, START_MS, AnchorClock, SavedStanding
from node.security.caller import Caller, local_operator
from node.storage.audit import READING, Action, Deed, Outcome
from tests.unit.security.region import VILLAGE, small_hierarchy

HOUR_MS = 3_600_000
YEARS_MS = 10 * 365 * 24 * HOUR_MS
CALLER = local_operator(VILLAGE, small_hierarchy())


class HandClock:
    def __init__(self) -> None:
        self.ms = 0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms


def gate(
    unanchored_ms: int,
    has_room: bool = True,
    exempt: Callable[[Caller, Deed], bool] = lambda _caller, _deed: False,
) -> AuditGate:
    """The gate of a village."""
    return AuditGate(lambda: unanchored_ms, 168, has_room=lambda: has_room, exempt=exempt)


def deed(action: Action) -> Deed:
    """Done to a resident."""
    return Deed(action, "residents", Outcome.DONE, 1)


def test_bulk_stops_after_four_hours_and_care_goes_on() -> None:
    """A point read is care; the further page of a timeline, a question and an export are not."""
    gate(BULK_MS - 1).refuse_bulk()
    late = gate(BULK_MS)
    with pytest.raises(AuditUnanchoredError):
        late.refuse_bulk()
    for action in Action:
        late.admit(CALLER, [deed(action)])


def test_reading_stops_at_the_profiles_limit_and_writing_does_not() -> None:
    """Seven days at a village."""
    gate(168 * HOUR_MS - 1).admit(CALLER, [deed(Action.READ)])
    late = gate(168 * HOUR_MS)
    for action in READING:
        with pytest.raises(AuditReadsStoppedError):
            late.admit(CALLER, [deed(action)])
    for action in set(Action) - READING:
        late.admit(CALLER, [deed(action)])


def test_what_is_exempt_goes_on() -> None:
    """An emergency opens a record that nothing else does; a full disk it does not mend."""
    open_to = gate(168 * HOUR_MS, exempt=under_glass)
    marked = replace(deed(Action.READ), grant_id="g")
    open_to.admit(CALLER, [marked])
    with pytest.raises(AuditReadsStoppedError):
        open_to.admit(CALLER, [marked, deed(Action.READ)])
    full = gate(0, has_room=False, exempt=lambda _caller, _deed: True)
    with pytest.raises(AuditNoRoomError):
        full.admit(CALLER, [deed(Action.READ)])
    full.admit(CALLER, [deed(Action.PUT)])
    assert not under_glass(CALLER, deed(Action.READ))


def test_time_is_counted_while_the_process_runs() -> None:
    """The wall clock is not asked."""
    clock = AnchorClock(None, wall_ms=0, monotonic_ms=1000)
    assert clock.unanchored_ms(1000 + HOUR_MS) == HOUR_MS
    clock.grown(1000 + HOUR_MS)
    assert clock.unanchored_ms(1000 + 2 * HOUR_MS) == 2 * HOUR_MS
    clock.anchored(1000 + 2 * HOUR_MS, everything=True)
    assert clock.unanchored_ms(1000 + 9 * HOUR_MS) == 0
    clock.grown(1000 + 9 * HOUR_MS)
    assert clock.unanchored_ms(1000 + 10 * HOUR_MS) == HOUR_MS


@pytest.mark.parametrize("jump_ms", [YEARS_MS, -YEARS_MS, 0])
def test_a_clock_that_jumps_by_years_neither_stops_care_nor_hides_anything(jump_ms: int) -> None:
    """Over a restart a jump counts as a day at most, and never takes anything back."""
    before = AnchorClock(None, 0, 0)
    saved = before.saved(1_800_000_000_000, 3 * HOUR_MS)
    after = AnchorClock(saved, 1_800_000_000_000 + jump_ms, 50)
    counted = after.unanchored_ms(50)
    assert 3 * HOUR_MS + START_MS <= counted <= 3 * HOUR_MS + OFF_MS_MAX + START_MS
    assert counted < 48 * HOUR_MS


def test_a_row_of_restarts_hides_nothing() -> None:
    """Whoever kills the process every few seconds stops bulk reads sooner, not later."""
    saved: SavedStanding | None = AnchorClock(None, 0, 0).saved(0, 1)
    for _ in range(240):
        saved = AnchorClock(saved, 0, 0).saved(0, 1)
    assert AnchorClock(saved, 0, 0).unanchored_ms(0) >= BULK_MS


def test_a_night_switched_off_counts_only_while_unanchored() -> None:
    """A node that was anchored when it stopped begins at nothing."""
    clean = AnchorClock(None, 0, 0)
    clean.anchored(10, everything=True)
    saved = clean.saved(1000, 10)
    assert AnchorClock(saved, 1000 + 12 * HOUR_MS, 0).unanchored_ms(0) == 0
    open_end = AnchorClock(None, 0, 0).saved(1000, HOUR_MS)
    assert AnchorClock(open_end, 1000 + 12 * HOUR_MS, 0).unanchored_ms(0) >= 13 * HOUR_MS


@pytest.mark.parametrize("text", ["", "x", "[]", "[1]", "null", '{"a": 1}', '["a", "b"]'])
def test_a_damaged_standing_is_none(text: str) -> None:
    """It is a fact in the database, and may be anything."""
    assert SavedStanding.read(text) is None


def test_a_standing_survives_its_text() -> None:
    """What is kept is what was said."""
    said = SavedStanding(5, 7)
    assert SavedStanding.read(said.text()) == said


def test_the_reserve_is_given_up_before_reading_stops(tmp_path: Path) -> None:
    """Watermark, reserve, stop; and all of it comes back when there is room."""
    clock, free = HandClock(), [10 << 30]
    reserve = AuditReserve(tmp_path / "audit.reserve", 512, lambda: free[0], clock)
    assert reserve.make()
    kept = reserve.bytes_kept
    assert kept == 8 << 20
    assert reserve.has_room()
    free[0] = LEAST_BYTES - 1
    clock.ms += 2000
    assert reserve.has_room()
    assert reserve.bytes_kept == 0
    clock.ms += 2000
    assert not reserve.has_room()
    assert not reserve.make()
    free[0] = 10 << 30
    clock.ms += 2000
    assert reserve.has_room()
    assert reserve.make()
    assert reserve.bytes_kept == kept


def test_a_full_disk_makes_no_reserve_and_no_rubbish(tmp_path: Path) -> None:
    """There is no half file."""
    reserve = AuditReserve(tmp_path / "audit.reserve", 512, lambda: LEAST_BYTES, HandClock())
    assert not reserve.make()
    assert list(tmp_path.iterdir()) == []
