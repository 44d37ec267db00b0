"""When an alarm is raised, what it says, and when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hierarchy_config import NodeId
from node.security.credentials import Limited
from node.transit.model import Unanswered
from node.watch.alarms import Alarm, AlarmBook, AlarmKind, Look
from node.watch.figures import LaneFigure, LinkFigure
from replication.core.mailbox import PostState
from replication.core.model import Lane

PEER = NodeId("141002")
NOW_MS = 1_795_000_000_000
AFTER_S = 60
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
YEAR = timedelta(days=365)
FAR = NOW + timedelta(days=300)
LANE = LaneFigure(Lane.BULK, "idle", 7, NOW_MS, 100, 0, 0, 0, 0, False, 0, "")
LINK = LinkFigure(PEER, "parent", True, NOW_MS, 1000, 0, "", "", (LANE,))


class Book:
    """An alarm book with what it said."""

    def __init__(self, before: Book | None = None) -> None:
        self.said: list[tuple[AlarmKind, bool]] = []
        self.book = AlarmBook(AFTER_S, lambda alarm, up: self.said.append((alarm.kind, up)))
        self.at_s = 0
        if before is not None:
            self.at_s = before.at_s
            self.book.recall(before.book.lasting)

    def look(
        self,
        lane: LaneFigure = LANE,
        *,
        after_s: int = 0,
        link: LinkFigure = LINK,
        quarantined: int = 0,
        room: float = 9.0,
        ends: datetime = FAR,
        letters: Sequence[Unanswered] = (),
        aside: Mapping[str, int] | None = None,
        glasses: int = 0,
        limited: Limited | None = None,
    ) -> tuple[Alarm, ...]:
        self.at_s += after_s
        links = [replace(link, lanes=(lane,))]
        now_ms = NOW_MS + self.at_s * 1000
        self.book.look(
            Look(
                now_ms,
                links,
                quarantined,
                room,
                ends,
                letters,
                aside or {},
                glasses=glasses,
                limited=limited,
            )
        )
        return self.book.standing


@pytest.fixture
def book() -> Book:
    """Nothing stands."""
    return Book()


def test_a_backlog_that_stands_still_is_an_alarm(book: Book) -> None:
    """Once, since it began to stand; progress ends it."""
    waiting = replace(LANE, lag_entries=5, oldest_ms=NOW_MS)
    assert book.look(waiting) == ()
    assert book.look(waiting, after_s=AFTER_S - 1) == ()

    [alarm] = book.look(waiting, after_s=1)
    assert (alarm.kind, alarm.peer) == (AlarmKind.BACKLOG_STALLED, PEER)
    assert alarm.since_ms == NOW_MS
    assert "5 entries (bulk)" in alarm.message
    assert book.look(waiting, after_s=300)[0].since_ms == NOW_MS

    assert book.look(replace(waiting, delivered_to=101)) == ()
    assert book.said == [(AlarmKind.BACKLOG_STALLED, True), (AlarmKind.BACKLOG_STALLED, False)]


def test_a_node_that_starts_again_and_again_alarms(book: Book) -> None:
    """Time that a lane stood before the start counts, once this start had time to drain it."""
    waiting = replace(LANE, lag_entries=5)
    alarms: tuple[Alarm, ...] = ()
    for _ in range(4):
        book.look(waiting)
        alarms = book.look(waiting, after_s=AFTER_S // 3)
        book = Book(before=book)
        assert book.look(waiting) == ()
    [alarm] = alarms
    assert (alarm.kind, alarm.since_ms) == (AlarmKind.BACKLOG_STALLED, NOW_MS)


def test_what_moved_while_the_node_was_down_is_no_alarm(book: Book) -> None:
    """Nor what drains soon after a start, however long ago it was written down."""
    waiting = replace(LANE, lag_entries=5)
    book.look(waiting)
    book.look(waiting, after_s=AFTER_S // 2)
    assert book.book.lasting

    late = Book(before=book)
    assert late.look(waiting, after_s=9 * AFTER_S) == ()
    assert late.look(replace(waiting, receipt_number=8), after_s=AFTER_S - 1) == ()
    assert late.book.lasting == {}


def test_a_link_that_comes_and_goes_without_a_receipt_is_an_alarm(book: Book) -> None:
    """What a live stream has passed over is forgotten with it; the next one's is no progress."""
    waiting = replace(LANE, lag_entries=5)
    book.look(replace(waiting, delivered_to=120))
    for place in (100, 120, 100):
        alarms = book.look(replace(waiting, delivered_to=place), after_s=AFTER_S // 3)
    assert [alarm.kind for alarm in alarms] == [AlarmKind.BACKLOG_STALLED]


def test_only_stalls_that_last_are_to_be_kept(book: Book) -> None:
    """Not every entry on its way, nor a lane that is empty, nor one of a peer that is gone."""
    waiting = replace(LANE, lag_entries=5)
    for n in range(9):
        book.look(replace(waiting, delivered_to=100 + n), after_s=10)
        assert book.book.lasting == {}
    book.look(replace(waiting, delivered_to=108), after_s=AFTER_S // 3)
    assert set(book.book.lasting) == {(PEER, Lane.BULK.value)}
    book.look(waiting, link=replace(LINK, peer=NodeId("141003")))
    assert book.book.lasting == {}


def test_a_clock_that_was_set_back_begins_to_count_anew(book: Book) -> None:
    """It had been years ahead: the alarm does not wait for these years."""
    waiting = replace(LANE, lag_entries=5)
    book.at_s = 10 * 365 * 86_400
    book.look(waiting)
    book.look(waiting, after_s=AFTER_S // 2)
    again = Book(before=book)
    again.at_s = 0
    assert again.look(waiting) == ()
    assert again.look(waiting, after_s=AFTER_S) != ()


def test_a_snapshot_that_is_owed_is_a_backlog(book: Book) -> None:
    """The log was pruned beyond the peer, and so counts nothing for it any more."""
    owed = replace(LANE, owes_snapshot=True)
    assert book.look(owed) == ()
    [alarm] = book.look(owed, after_s=AFTER_S)
    assert (alarm.kind, alarm.peer) == (AlarmKind.BACKLOG_STALLED, PEER)
    assert alarm.message.startswith("A snapshot (bulk) waits for 141002")
    assert book.look(LANE) == ()


def test_what_drains_is_no_alarm(book: Book) -> None:
    """However long the backlog is."""
    for n in range(10):
        lane = replace(LANE, lag_entries=10_000, delivered_to=100 + n)
        assert book.look(lane, after_s=AFTER_S - 1) == ()


def test_the_next_step_is_the_links_own_if_it_has_one(book: Book) -> None:
    """What the peer said is nearer to the cause than any guess."""
    down = replace(LINK, connected=False, last_error="LINK_DOWN: refused")
    waiting = replace(LANE, lag_entries=5)
    book.look(waiting, link=down)
    [alarm] = book.look(waiting, link=down, after_s=AFTER_S)
    assert "LINK_DOWN: refused" in alarm.message
    assert "141002 runs" in alarm.next_step

    old = replace(down, last_error="PROTOCOL_TOO_OLD: 1", next_step="Renew it.")
    [alarm] = book.look(waiting, link=old, after_s=1)
    assert alarm.next_step == "Renew it."


def test_refusals_in_a_row_are_an_alarm(book: Book) -> None:
    """With the peer's code; a full disk names the disk."""
    refused = replace(LANE, refusals=4, refused="DISK_FULL")
    assert book.look(refused) == ()
    [alarm] = book.look(replace(refused, refusals=5))
    assert alarm.kind is AlarmKind.LANE_REFUSED
    assert "disk of 141002" in alarm.next_step
    [alarm] = book.look(replace(refused, refusals=6, refused="STORAGE_BUSY"))
    assert "STORAGE_BUSY" in alarm.next_step


def test_a_growing_quarantine_is_an_alarm_until_it_grows_no_more(book: Book) -> None:
    """What waited before is not new; what came within the span is."""
    assert book.look(quarantined=3) == ()
    [alarm] = book.look(quarantined=5, after_s=10)
    assert alarm.kind is AlarmKind.QUARANTINE_GROWING
    assert alarm.message.startswith("2 more changes")
    assert book.look(quarantined=5, after_s=AFTER_S - 1) != ()
    assert book.look(quarantined=5, after_s=1) == ()


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        ({"room": 1.1}, AlarmKind.DISK_NEAR_WATERMARK),
        ({"room": 0.5}, AlarmKind.DISK_NEAR_WATERMARK),
        ({"ends": FAR - timedelta(days=271)}, AlarmKind.CERTIFICATE_EXPIRING),
        ({"ends": NOW, "limited": Limited(NOW - YEAR, NOW, True)}, AlarmKind.LIMITED),
        ({"limited": Limited(FAR, FAR + YEAR, False)}, AlarmKind.LIMITED),
        ({"link": replace(LINK, clock_skew_ms=-300_001)}, AlarmKind.CLOCK_SKEWED),
        ({"link": replace(LINK, clock_skew_ms=300_001)}, AlarmKind.CLOCK_SKEWED),
    ],
)
def test_what_will_go_wrong_is_said_before(
    book: Book, seen: dict[str, object], kind: AlarmKind
) -> None:
    """Disk, certificate, clock: each ends when it is in order again."""
    [alarm] = book.look(**seen)  # type: ignore[arg-type]
    assert alarm.kind is kind
    assert alarm.next_step
    assert book.look() == ()
    assert book.said == [(kind, True), (kind, False)]


def test_letters_that_wait_for_more_than_a_day_are_an_alarm(book: Book) -> None:
    """With and without a key, of one addressee together; a receipt of all ends it."""
    waiting = [
        Unanswered(PEER, PostState.SENT, 3, NOW_MS, NOW_MS),
        Unanswered(PEER, PostState.WAITING_KEY, 1, NOW_MS + 1000, NOW_MS + 1000),
    ]
    assert book.look(letters=waiting, after_s=86_399) == ()
    [alarm] = book.look(letters=waiting, after_s=1)
    assert (alarm.kind, alarm.peer) == (AlarmKind.LETTERS_WAIT, PEER)
    assert "4 letters" in alarm.message
    assert "for 1 d" in alarm.message
    assert book.look(letters=waiting[1:]) == ()


def test_a_refused_letter_is_an_alarm_for_a_week(book: Book) -> None:
    """Nothing ends it by itself, and it must not stand for ever."""
    refused = [Unanswered(PEER, PostState.REFUSED, 2, NOW_MS, NOW_MS)]
    [alarm] = book.look(letters=refused)
    assert alarm.kind is AlarmKind.LETTERS_REFUSED
    assert "2 letters" in alarm.message
    assert book.look(letters=refused, after_s=7 * 86_400 - 1)
    assert book.look(letters=refused, after_s=1) == ()


def test_a_broken_glass_is_an_alarm_until_it_is_reviewed(book: Book) -> None:
    """It says how many, and where the next step is."""
    [alarm] = book.look(glasses=2)
    assert (alarm.kind, alarm.peer) == (AlarmKind.GLASS_BROKEN, "")
    assert "2 time(s)" in alarm.message
    assert "fenhe access review" in alarm.next_step
    assert book.look() == ()
    assert book.said == [(AlarmKind.GLASS_BROKEN, True), (AlarmKind.GLASS_BROKEN, False)]


def test_items_set_aside_are_an_alarm_until_none_is(book: Book) -> None:
    """It says how many of what, and what mends rows."""
    [alarm] = book.look(aside={"residents": 2, "letter": 1})
    assert (alarm.kind, alarm.peer) == (AlarmKind.ITEMS_ASIDE, "")
    assert "1 of letter, 2 of residents" in alarm.message
    assert "fenhe replication verify" in alarm.next_step
    assert book.look(aside={"letter": 1}) != ()
    assert book.look() == ()
    assert book.said == [(AlarmKind.ITEMS_ASIDE, True), (AlarmKind.ITEMS_ASIDE, False)]


def test_a_canary_out_of_place_is_an_alarm_of_whoever_holds_it(book: Book) -> None:
    """Here and at a child, each until nothing is found any more."""
    child = str(PEER)
    looks: list[dict[str, str]] = [{"": "rows of 141024", child: "log"}, {child: "log"}, {}]
    for strays in looks:
        book.book.look(Look(NOW_MS, [LINK], 0, 9.0, FAR, strays=strays))
        standing = {each.peer: each for each in book.book.standing}
        assert standing.keys() == strays.keys()
        assert all(strays[peer] in each.message for peer, each in standing.items())
    assert book.said.count((AlarmKind.CANARY_OUT_OF_PLACE, False)) == 2
