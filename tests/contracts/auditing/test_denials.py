"""Refused calls stand in the audit, and a flood of them fills no disk."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select

from node.auditing.denials import ENTRIES_A_MINUTE_MAX, KINDS_MAX, Denials
from node.storage.tables import AUDIT
from tests.contracts.auditing.place import Place

METHOD: Final = "/fenhe.control.v1.StaffService/AddStaff"
MINUTE_MS: Final = 60_000


def _denials(place: Place, *, has_room: bool = True) -> Denials:
    return Denials(place.village.ground, lambda: has_room)


def _write(denials: Denials, *, everything: bool = False) -> None:
    denials.write_due(denials.taken(everything=everything))


def _entries(place: Place) -> list[tuple[str, str, str, str, int]]:
    query = (
        select(
            AUDIT.c.principal,
            AUDIT.c.purpose,
            AUDIT.c.object_id,
            AUDIT.c.outcome,
            AUDIT.c.row_count,
        )
        .where(AUDIT.c.action == "deny")
        .order_by(AUDIT.c.audit_id)
    )
    with place.village.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def test_the_first_is_written_at_once_and_what_follows_once_a_minute(place: Place) -> None:
    """Who was refused what and why, and how often."""
    denials = _denials(place)
    zhang = place.village.caller("zhang")
    denials.note(zhang, METHOD, "DENIED")
    _write(denials)
    said = (zhang.principal, "DENIED", METHOD.removeprefix("/fenhe."), "refused")
    assert _entries(place) == [(*said, 1)]
    for _ in range(10_000):
        denials.note(zhang, METHOD, "DENIED")
    place.clock.pass_ms(MINUTE_MS - 1)
    _write(denials)
    assert len(_entries(place)) == 1
    place.clock.pass_ms(1)
    _write(denials)
    assert _entries(place) == [(*said, 1), (*said, 10_000)]
    place.clock.pass_ms(MINUTE_MS)
    _write(denials)
    assert len(_entries(place)) == 2, "nothing came again"
    denials.note(zhang, METHOD, "DENIED")
    _write(denials)
    assert _entries(place)[-1] == (*said, 1)


def test_callers_methods_and_reasons_are_told_apart(place: Place) -> None:
    """Somebody without a name is one of them."""
    denials = _denials(place)
    zhang, li = place.village.caller("zhang"), place.village.caller("li")
    denials.note(zhang, METHOD, "DENIED")
    denials.note(zhang, METHOD, "NOT_YOUR_DIVISION")
    denials.note(li, METHOD, "DENIED")
    denials.note(None, "/x" * 100, "PEER_IDENTITY")
    _write(denials)
    found = _entries(place)
    assert [each[:2] for each in found] == [
        (zhang.principal, "DENIED"),
        (zhang.principal, "NOT_YOUR_DIVISION"),
        (li.principal, "DENIED"),
        ("unknown", "PEER_IDENTITY"),
    ]
    assert len(found[-1][2]) <= 64


def test_a_flood_of_many_names_is_bounded(place: Place) -> None:
    """What is beyond is one entry with its count."""
    denials = _denials(place)
    callers = [place.village.caller(f"c{number}") for number in range(KINDS_MAX + 44)]
    for _ in range(3):
        for caller in callers:
            denials.note(caller, METHOD, "DENIED")
        _write(denials)
    place.clock.pass_ms(MINUTE_MS)
    _write(denials)
    found = _entries(place)
    assert len(found) <= ENTRIES_A_MINUTE_MAX
    assert sum(each[4] for each in found) == 3 * len(callers), "one was not counted"
    place.clock.pass_ms(MINUTE_MS)
    _write(denials)
    denials.note(callers[-1], METHOD, "DENIED")
    _write(denials)
    assert _entries(place)[-1][0] == callers[-1].principal, "the names are kept for ever"


def test_a_stop_writes_what_was_counted(place: Place) -> None:
    """A minute that is not over is not lost with it."""
    denials = _denials(place)
    for _ in range(2):
        denials.note(place.village.caller("zhang"), METHOD, "DENIED")
        _write(denials)
    assert len(_entries(place)) == 1
    _write(denials, everything=True)
    assert len(_entries(place)) == 2


def test_refusals_take_no_room_that_is_kept_for_reads(place: Place) -> None:
    """On a full disk they are said in the log alone, and the node lives."""
    denials = _denials(place, has_room=False)
    denials.note(place.village.caller("zhang"), METHOD, "DENIED")
    _write(denials)
    assert _entries(place) == []
