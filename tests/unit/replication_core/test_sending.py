"""LinkEnd as a sender: lanes, window, batch size, receipts, marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from replication.core.effects import SEED, Close, Effect, ReadLog, SaveDelivered
from replication.core.greeting import RECOVERING, seed_feature
from replication.core.link import LinkEnd, LinkState
from replication.core.model import Batch, Cursor, Lane, Mark, Receipt, StreamEpoch
from replication.core.outbound import first_rate
from replication.errors import LocalProtocolError
from tests.unit.replication_core.ends import (
    HERE,
    close_code,
    config,
    entry,
    hello,
    only,
    reads,
    receipt_for,
    sent,
    up,
)

SMALL = config(batch_bytes_min=100, batch_bytes_max=1000, window_bytes=2000)
BULK_AND_CARE = {Lane.CONTROL: 0, Lane.CARE: 0, Lane.IDENTITY: 0}


def test_a_line_that_stalled_is_taken_for_a_slower_one() -> None:
    """Until a batch gets through; a line that ended otherwise goes on as it was measured."""
    rates = [64 << 10]
    for _ in range(4):
        rates.append(first_rate(rates[-1], stalled=True))
    assert rates == [65536, 16384, 4096, 4096, 4096]
    assert first_rate(9_000, stalled=False) == 9_000
    assert first_rate(50 << 20, stalled=False) == 1 << 20
    slow = up(settings=config(rate_first=4096))
    assert slow.batch_bytes == 4096


def answer_empty(end: LinkEnd, *lanes: Lane, to: int = 10) -> None:
    """Answer reads that find nothing."""
    for lane in lanes:
        end.entries_read(lane, [], to, 0)


def bulk_end(head: int = 10) -> LinkEnd:
    """An end with news in the bulk lane alone, which is being read."""
    end = up(settings=SMALL)
    assert reads(end.log_advanced(head, 0, {**BULK_AND_CARE, Lane.BULK: head})) == [Lane.BULK]
    return end


def first_batch(end: LinkEnd, covers_to: int = 3, size: int = 900) -> Batch:
    """The answer to the first read goes out."""
    effects = end.entries_read(Lane.BULK, [entry(covers_to, size=size)], covers_to, 0)
    [made] = sent(effects, Batch)
    return made


def test_lanes_are_read_in_order_of_priority() -> None:
    """Control first, bulk last, one read a lane."""
    end = up()
    assert reads(end.log_advanced(5, 0)) == [Lane.CONTROL, Lane.CARE, Lane.IDENTITY, Lane.BULK]
    assert reads(end.log_advanced(6, 0)) == []


def test_a_lane_without_news_is_not_read() -> None:
    """The newest sequence of each lane saves the reads of the others."""
    end = up(settings=SMALL)
    assert reads(end.log_advanced(10, 0, {**BULK_AND_CARE, Lane.BULK: 10})) == [Lane.BULK]


def test_news_overtaken_by_newer_news_skips_nothing() -> None:
    """An old lane head beside a new head would hide entries."""
    end = bulk_end()
    answer_empty(end, Lane.BULK)
    assert reads(end.log_advanced(20, 0, {**BULK_AND_CARE, Lane.BULK: 20})) == [Lane.BULK]
    answer_empty(end, Lane.BULK, to=15)
    end.log_advanced(12, 0, {**BULK_AND_CARE, Lane.BULK: 12})
    assert not end.is_delivered(20)


def test_a_batch_covers_everything_since_the_one_before() -> None:
    """Entries that are not for the peer are part of the range."""
    end = bulk_end()
    made = first_batch(end, covers_to=3)
    assert (made.number, made.previous, made.covers_from, made.covers_to) == (1, 0, 0, 3)
    effects = end.entries_read(Lane.BULK, [], 7, 0)
    assert only(effects, ReadLog).after == 7
    [second] = sent(end.entries_read(Lane.BULK, [entry(9)], 9, 0), Batch)
    assert (second.number, second.previous, second.covers_from) == (2, 1, 3)


def test_the_window_holds_bulk_back_but_not_care() -> None:
    """A lane with nothing in flight may always send one batch."""
    end = bulk_end()
    first_batch(end, covers_to=3)
    effects = end.entries_read(Lane.BULK, [entry(6, size=900)], 6, 0)
    assert reads(effects) == []
    effects = end.log_advanced(11, 0, {**BULK_AND_CARE, Lane.CARE: 11, Lane.BULK: 10})
    assert reads(effects) == [Lane.CARE]


def test_while_care_is_read_bulk_that_is_in_flight_reads_no_more() -> None:
    """What overtakes an entry of care is at most one batch of each lower lane."""
    end = bulk_end()
    first_batch(end, covers_to=3, size=100)
    effects = end.log_advanced(11, 0, {**BULK_AND_CARE, Lane.CARE: 11, Lane.BULK: 10})
    assert reads(effects) == [Lane.CARE]
    [second] = sent(end.entries_read(Lane.BULK, [entry(6, size=100)], 6, 0), Batch)
    assert second.number == 2
    assert reads(end.tick(1)) == []
    assert reads(end.entries_read(Lane.CARE, [entry(11, Lane.CARE)], 11, 0)) == [Lane.BULK]


def test_at_the_logs_end_news_waits_for_the_receipt() -> None:
    """Small batches one after the other would cost a busy receiver a transaction each."""
    end = up(settings=replace(SMALL, small_in_flight=1))
    end.log_advanced(3, 0, {**BULK_AND_CARE, Lane.BULK: 3})
    made = first_batch(end, covers_to=3, size=100)
    assert reads(end.log_advanced(8, 1, {**BULK_AND_CARE, Lane.BULK: 8})) == []
    care = {**BULK_AND_CARE, Lane.CARE: 9, Lane.BULK: 8}
    assert reads(end.log_advanced(9, 2, care)) == [Lane.CARE]
    effects = end.receive(receipt_for(made), 3)
    assert reads(effects) == [Lane.BULK]
    end.entries_read(Lane.BULK, [entry(5, size=100)], 5, 4)
    assert end.state is LinkState.UP


def test_a_backlog_fills_the_window_whatever_is_in_flight() -> None:
    """A read that was cut short says that there is more: it is not waited with."""
    end = up(settings=replace(SMALL, small_in_flight=1))
    end.log_advanced(10, 0, {**BULK_AND_CARE, Lane.BULK: 10})
    effects = end.entries_read(Lane.BULK, [entry(3, size=100)], 3, 0)
    assert reads(effects) == [Lane.BULK]


def test_a_receipt_makes_room_and_is_saved_before_more_is_read() -> None:
    """What is confirmed is persisted first."""
    end = bulk_end()
    made = first_batch(end)
    end.entries_read(Lane.BULK, [entry(6, size=900)], 6, 0)
    effects = end.receive(receipt_for(made), 10)
    assert isinstance(effects[0], SaveDelivered)
    assert effects[0].cursor == receipt_for(made).cursor
    assert reads(effects) == [Lane.BULK]


def test_one_receipt_confirms_all_before_it() -> None:
    """A lost receipt is made good by the next one."""
    end = bulk_end()
    first = first_batch(end)
    [second] = sent(end.entries_read(Lane.BULK, [entry(6)], 6, 0), Batch)
    receipt = receipt_for(second, receipt_for(first).cursor.running_hash)
    assert only(end.receive(receipt, 10), SaveDelivered).cursor.number == 2


def test_a_receipt_for_a_batch_never_sent_closes() -> None:
    """Only what was sent can have been applied."""
    end = bulk_end()
    made = first_batch(end)
    assert close_code(end.receive(receipt_for(replace(made, number=2)), 0)) == "RECEIPT_UNKNOWN"


@pytest.mark.parametrize("change", [{"running_hash": b"other" * 6 + b".."}, {"covers_to": 4}])
def test_a_receipt_for_something_else_closes(change: dict[str, object]) -> None:
    """Number, range and hash must all be those of the batch."""
    end = bulk_end()
    honest = receipt_for(first_batch(end))
    other = Receipt(replace(honest.cursor, **change))  # type: ignore[arg-type]
    assert close_code(end.receive(other, 0)) == "RECEIPT_HASH"


def test_a_receipt_of_another_stream_closes() -> None:
    """An old stream's receipt says nothing about this one."""
    end = bulk_end()
    honest = receipt_for(first_batch(end))
    other = Receipt(replace(honest.cursor, stream_epoch=StreamEpoch(1, 9)))
    assert close_code(end.receive(other, 0)) == "RECEIPT_UNKNOWN"


def test_a_receipt_with_a_false_signature_closes() -> None:
    """Only the peer's key marks anything delivered."""
    end = up(settings=replace(SMALL, verify=lambda receipt: receipt.signature == b"good"))
    end.log_advanced(10, 0, {**BULK_AND_CARE, Lane.BULK: 10})
    honest = receipt_for(first_batch(end))
    assert close_code(end.receive(honest, 0)) == "RECEIPT_SIGNATURE"


def test_a_refused_batch_is_read_again_after_a_pause_that_doubles() -> None:
    """The pause ends by time alone, is bounded, and a receipt resets it."""
    end = bulk_end()
    now = 0
    stands = Receipt(Cursor(Lane.BULK, StreamEpoch(1, 1), 0, 0), refused="DISK_FULL")
    for pause in (500, 1000, 2000):
        made = first_batch(end)
        end.entries_read(Lane.BULK, [], 10, now)
        assert reads(end.receive(stands, now)) == []
        assert reads(end.tick(now + pause - 1)) == []
        now += pause
        assert only(end.tick(now), ReadLog).after == 0
    made = first_batch(end)
    assert made.number == 1


def test_a_read_begun_before_a_refusal_is_thrown_away() -> None:
    """Its entries follow what the peer does not have."""
    end = bulk_end()
    first_batch(end)
    stands = Receipt(Cursor(Lane.BULK, StreamEpoch(1, 1), 0, 0), refused="GAP")
    end.receive(stands, 0)
    assert sent(end.entries_read(Lane.BULK, [entry(6)], 6, 0), Batch) == []
    assert only(end.tick(500), ReadLog).after == 0


def test_a_refusal_from_elsewhere_than_the_last_receipt_closes() -> None:
    """On an ordered stream it cannot be."""
    end = bulk_end()
    first_batch(end)
    stands = Receipt(Cursor(Lane.BULK, StreamEpoch(1, 1), 1, 3), refused="GAP")
    assert close_code(end.receive(stands, 0)) == "RECEIPT_UNKNOWN"


def test_a_peer_that_confirms_nothing_is_given_up() -> None:
    """A batch without a receipt for too long ends the link."""
    end = bulk_end()
    first_batch(end)
    assert not [effect for effect in end.tick(59_999) if isinstance(effect, Close)]
    assert close_code(end.tick(60_000)) == "STALLED"


def test_batches_grow_with_what_the_link_carries_and_shrink_with_it() -> None:
    """A batch is about one second of the measured rate."""
    end = up(settings=config(batch_bytes_min=100))
    assert end.batch_bytes == 64 << 10
    end.meter.confirmed(64 << 10, 100)
    assert 64 << 10 < end.batch_bytes <= 128 << 10
    for _ in range(20):
        end.meter.confirmed(8 << 10, 1000)
    assert 7 << 10 < end.batch_bytes < 9 << 10


def test_a_small_batch_on_a_slow_echo_does_not_look_like_a_slow_link() -> None:
    """200 bytes in 600 ms are latency."""
    end = up()
    end.meter.confirmed(200, 600)
    assert end.batch_bytes == 64 << 10


def test_a_read_that_goes_back_is_this_nodes_fault() -> None:
    """The log is read forward."""
    end = bulk_end()
    answer_empty(end, Lane.BULK, to=5)
    with pytest.raises(LocalProtocolError):
        end.entries_read(Lane.BULK, [], 4, 0)


def test_a_log_shorter_than_what_the_peer_confirmed_closes() -> None:
    """A store put back by hand must not go on under its old epoch."""
    end = LinkEnd(config(), {}, {})
    end.start(0)
    claim = Cursor(Lane.BULK, StreamEpoch(1, 1), 4, 40, b"h" * 32)
    end.receive(hello(cursors=(claim,)), 0)
    assert close_code(end.log_advanced(39, 0)) == "STORE_WENT_BACK"


def test_many_entries_passed_over_are_remembered() -> None:
    """A lane that is all filtered is not read from the start again after every connection."""
    end = up(head=5000)
    for lane in Lane:
        end.entries_read(lane, [], 5000, 0)
    saved = [effect for effect in end.tick(1) if isinstance(effect, SaveDelivered)]
    assert [(one.cursor.lane, one.cursor.covers_to) for one in saved] == [
        (lane, 5000) for lane in Lane
    ]
    assert all(one.receipt is None for one in saved)
    assert not [effect for effect in end.tick(2) if isinstance(effect, SaveDelivered)]


def quiet_end(head: int = 5100) -> LinkEnd:
    """Batch 1 of bulk is confirmed up to 100; then the lane passed over 5,000 entries for others.

    That place is persisted, so the log may be pruned up to it.
    """
    end = bulk_end(100)
    end.receive(receipt_for(first_batch(end, covers_to=100)), 1)
    end.log_advanced(head, 1, {**BULK_AND_CARE, Lane.BULK: head})
    end.entries_read(Lane.BULK, [], head, 2)
    places = [effect.cursor for effect in end.tick(3) if isinstance(effect, SaveDelivered)]
    [saved] = [cursor for cursor in places if cursor.lane is Lane.BULK]
    assert (saved.number, saved.covers_to) == (1, head)
    return end


def test_a_refusal_after_a_quiet_stretch_goes_back_to_its_end() -> None:
    """Not before it: the log may be gone there, and a smaller place could not be persisted."""
    end = quiet_end()
    end.log_advanced(5101, 4, {**BULK_AND_CARE, Lane.BULK: 5101})
    [made] = sent(end.entries_read(Lane.BULK, [entry(5101)], 5101, 4), Batch)
    assert (made.number, made.covers_from, end.delivered_to[Lane.BULK]) == (2, 100, 5100)
    stands = Cursor(Lane.BULK, StreamEpoch(1, 1), 1, 100)
    end.receive(Receipt(stands, refused="DISK_FULL"), 5)
    again = only(end.tick(5 + SMALL.backoff_ms_min), ReadLog)
    assert (again.lane, again.after) == (Lane.BULK, 5100)
    [made] = sent(end.entries_read(Lane.BULK, [entry(5101)], 5101, 1000), Batch)
    assert (made.number, made.covers_from, made.covers_to) == (2, 100, 5101)


def test_a_refusal_after_a_resume_goes_back_to_where_it_resumed() -> None:
    """What was passed over on a former connection is not read again either."""
    saved = Cursor(Lane.BULK, StreamEpoch(1, 1), 1, 5100, b"h" * 32)
    claim = replace(saved, covers_to=100)
    end = LinkEnd(SMALL, {}, {Lane.BULK: saved})
    end.start(0)
    end.receive(hello(cursors=(claim,)), 0)
    heads = {**BULK_AND_CARE, Lane.BULK: 5101}
    assert only(end.log_advanced(5101, 0, heads), ReadLog).after == 5100
    end.entries_read(Lane.BULK, [entry(5101)], 5101, 0)
    end.receive(Receipt(claim, refused="DISK_FULL"), 5)
    assert only(end.tick(5 + SMALL.backoff_ms_min), ReadLog).after == 5100


def test_a_claim_below_what_was_passed_over_is_persisted_with_it() -> None:
    """Another stream of the link began a snapshot before that place: it goes on."""
    saved = Cursor(Lane.BULK, StreamEpoch(1, 1), 1, 5100, b"h" * 32)
    claim = Cursor(Lane.BULK, StreamEpoch(1, 1), 2, 3000, b"i" * 32, "S5200:bulk:a")
    end = LinkEnd(SMALL, {}, {Lane.BULK: saved})
    end.start(0)
    end.receive(hello(cursors=(claim,)), 0)
    effects = end.log_advanced(5300, 0, {**BULK_AND_CARE, Lane.BULK: 5300})
    assert only(effects, SaveDelivered).cursor == replace(claim, covers_to=5100)
    read = only(effects, ReadLog)
    assert (read.after, read.position) == (3000, "S5200:bulk:a")
    part = end.entries_read(Lane.BULK, [entry(0)], 3000, 0, position="S5200:bulk:b")
    [made] = sent(part, Batch)
    told = receipt_for(made, claim.running_hash)
    told = replace(told, cursor=replace(told.cursor, position=made.position))
    assert only(end.receive(told, 1), SaveDelivered).cursor.covers_to == 5100


# -- snapshots ------------------------------------------------------------------------------------

WISHES = (RECOVERING, *map(seed_feature, Lane))


def seeding_end() -> LinkEnd:
    """An end whose peer recovers; the log is empty but for one entry, and every lane is read."""
    return up(head=1, protocol_max=2, features=WISHES)


def test_a_recovering_peer_is_seeded_lane_by_lane() -> None:
    """Beginning and end are told without any row; then nothing is wanted any more."""
    end = seeding_end()
    answer_empty(end, Lane.CONTROL, Lane.CARE, Lane.IDENTITY, to=1)
    begun = end.entries_read(Lane.BULK, [], 0, 0, position="R1:a", coalesced=True)
    [first] = sent(begun, Batch)
    assert (first.position, first.covers_to, first.row_count) == ("R1:a", 0, 0)
    [last] = sent(end.entries_read(Lane.BULK, [], 1, 0, coalesced=True), Batch)
    assert (last.position, last.covers_to, last.previous) == ("", 1, 1)
    confirmed = receipt_for(first)
    confirmed = replace(confirmed, cursor=replace(confirmed.cursor, position="R1:a"))
    end.receive(confirmed, 1)
    end.receive(receipt_for(last, confirmed.cursor.running_hash), 1)
    asked = [e for e in end.log_advanced(2, 2) if isinstance(e, ReadLog) and e.lane is Lane.BULK]
    assert [e.position for e in asked] == [""]


def test_a_wish_that_was_put_off_is_repeated_and_holds_marks_back() -> None:
    """The store that could not seed is asked again at the next tick; till then nothing is sure."""
    end = seeding_end()
    for lane in Lane:
        end.entries_read(lane, [], 1, 0)
    assert not end.is_delivered(1)
    asked = [effect for effect in end.tick(1000) if isinstance(effect, ReadLog)]
    assert [effect.position for effect in asked] == [SEED] * len(Lane)


def test_a_peer_of_the_former_protocol_gets_no_snapshot() -> None:
    """Whatever it says of itself."""
    end = up(head=1, protocol_max=1, features=WISHES)
    end.entries_read(Lane.BULK, [], 1, 0)
    assert end.delivered_to[Lane.BULK] == 1


def test_a_snapshot_goes_on_where_the_peer_says_it_stands() -> None:
    """In the same stream; in another one the position means nothing."""
    claim = Cursor(Lane.BULK, StreamEpoch(1, 1), 4, 0, b"h" * 32, "S9:b")
    for epoch, position in ((1, "S9:b"), (2, "")):
        end = LinkEnd(config(), {}, {})
        end.start(0)
        end.receive(hello(cursors=(claim,), store_epoch=epoch), 0)
        asked = [e for e in end.log_advanced(9, 0) if isinstance(e, ReadLog)]
        assert [e.position for e in asked if e.lane is Lane.BULK] == [position]


def test_what_the_peer_says_it_holds_is_persisted_at_once() -> None:
    """The receipt was lost with the stream; its Hello is as good."""
    claim = Cursor(Lane.BULK, StreamEpoch(1, 1), 4, 9, b"h" * 32)
    for saved, news in ((None, [claim]), (replace(claim, number=3), [claim]), (claim, [])):
        end = LinkEnd(config(), {}, {Lane.BULK: saved} if saved else {})
        end.start(0)
        assert not sent_saves(end.receive(hello(cursors=(claim,)), 0))
        assert sent_saves(end.log_advanced(9, 0)) == news


def test_what_the_peer_says_of_a_log_that_is_gone_is_not_kept() -> None:
    """The store was put back: under its next epoch it would count as confirmed."""
    claim = Cursor(Lane.BULK, StreamEpoch(1, 1), 4, 9, b"h" * 32)
    end = LinkEnd(config(), {}, {})
    end.start(0)
    effects = [*end.receive(hello(cursors=(claim,)), 0), *end.log_advanced(8, 0)]
    assert close_code(effects) == "STORE_WENT_BACK"
    assert sent_saves(effects) == []


def sent_saves(effects: Sequence[Effect]) -> list[Cursor]:
    """What is to be persisted as confirmed."""
    return [each.cursor for each in effects if isinstance(each, SaveDelivered)]


# -- marks ----------------------------------------------------------------------------------------


def test_a_mark_waits_for_the_receipts_it_speaks_of() -> None:
    """What is only under way is not yet there."""
    end = bulk_end()
    made = first_batch(end, covers_to=10)
    mark = Mark({HERE: 7}, 10)
    assert sent(end.marks_ready(mark, 0), Mark) == []
    assert sent(end.receive(receipt_for(made), 5), Mark) == [mark]


def test_later_batches_do_not_hold_a_mark_back() -> None:
    """Steady traffic does not put freshness off for ever."""
    end = bulk_end()
    first = first_batch(end, covers_to=10)
    mark = Mark({HERE: 7}, 10)
    end.marks_ready(mark, 0)
    end.log_advanced(12, 0, {**BULK_AND_CARE, Lane.BULK: 12})
    end.entries_read(Lane.BULK, [entry(12)], 12, 0)
    end.marks_ready(Mark({HERE: 9}, 12), 0)
    end.marks_ready(Mark({HERE: 10}, 12), 0)
    assert sent(end.receive(receipt_for(first), 5), Mark) == [mark]


def test_a_mark_goes_at_once_when_nothing_is_for_the_peer() -> None:
    """An idle link passes freshness on."""
    end = up(head=0)
    mark = Mark({HERE: 7}, 0)
    assert sent(end.marks_ready(mark, 0), Mark) == [mark]


def test_entries_for_others_count_as_delivered_at_once() -> None:
    """What was passed over is no backlog, though its place is written down only now and then."""
    end = bulk_end()
    answer_empty(end, Lane.BULK, to=10)
    assert end.delivered_to[Lane.BULK] == 10
    assert end.is_delivered(10)
