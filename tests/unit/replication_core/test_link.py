"""LinkEnd: the order of a link's life, and what breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from replication.core.config import QUEUE_BATCHES_LIMIT, PeerRole
from replication.core.effects import ApplyBatch, Close, LinkUp, SaveMark
from replication.core.greeting import versions_of
from replication.core.link import TRANSITIONS, LinkEnd, LinkEvent, LinkState
from replication.core.model import (
    PROTOCOL_MAX,
    SCHEMA_VERSION,
    Goodbye,
    Hello,
    Lane,
    Mark,
    Receipt,
    Refusal,
)
from replication.errors import LocalProtocolError
from tests.unit.replication_core.ends import (
    HERE,
    PEER,
    batch,
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


def test_hello_comes_first_and_carries_what_was_applied() -> None:
    """The first effect is the Hello of this node."""
    end = LinkEnd(config(clock_ms=7), {}, {})
    [first] = sent(end.start(0), Hello)
    assert (first.node_id, first.store_epoch, first.clock_ms) == (HERE, 1, 7)


def test_is_up_after_both_hellos() -> None:
    """The peer's Hello that fits brings the link up."""
    end = LinkEnd(config(), {}, {})
    end.start(0)
    assert only(end.receive(hello(), 0), LinkUp).peer_hello == hello()
    assert end.state is LinkState.UP


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node_id": "141002001202"}, "WRONG_PEER"),
        ({"protocol_min": 0, "protocol_max": 0}, "PROTOCOL_TOO_OLD"),
        ({"protocol_min": 3, "protocol_max": 3}, "PROTOCOL_TOO_NEW"),
        ({"schema": 0}, "SCHEMA_TOO_OLD"),
        ({"schema": 9, "schema_min": SCHEMA_VERSION + 1}, "SCHEMA_TOO_NEW"),
        ({"store_epoch": 0}, "STORE_EPOCH_REUSED"),
        ({"store_epoch": 2}, "STORE_EPOCH_REUSED"),
        ({"store_epoch": 3, "store_incarnation": "another"}, "STORE_EPOCH_REUSED"),
        ({"store_epoch": 3, "peer_store_epoch_seen": 2}, "STORE_EPOCH_REUSED"),
    ],
)
def test_refuses_a_peer_that_does_not_fit(changes: dict[str, object], code: str) -> None:
    """The refusal goes out before the close, with the operator's next step."""
    settings = config(peer_store_epoch_seen=3, peer_incarnation_seen="peer-3")
    end = LinkEnd(settings, {}, {})
    end.start(0)
    effects = end.receive(hello(**{"store_incarnation": "peer-3", **changes}), 0)
    [refusal] = sent(effects, Refusal)
    assert refusal.code == code == close_code(effects)
    assert refusal.hint
    assert end.state is LinkState.CLOSED


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol_max": 1, "schema": 1},
        {"schema": 1, "schema_min": 1},
        {"protocol_max": 3, "schema": SCHEMA_VERSION + 1, "schema_min": 2},
    ],
)
def test_a_peer_one_release_apart_is_welcome(changes: dict[str, int]) -> None:
    """Older, and of a release that did not say schema_min, or newer."""
    end = LinkEnd(config(), {}, {})
    end.start(0)
    only(end.receive(hello(**changes), 0), LinkUp)
    assert end.protocol == min(PROTOCOL_MAX, changes.get("protocol_max", PROTOCOL_MAX))
    assert end.peer_versions == versions_of(hello(**changes))


def test_both_ends_hear_which_of_them_is_to_be_upgraded() -> None:
    """Each refuses by itself, in the same words."""
    newer = LinkEnd(config(schema=SCHEMA_VERSION + 1, schema_min=2), {}, {})
    theirs = config(node_id=PEER, peer_id=HERE, peer_role=PeerRole.PARENT, schema=1)
    older = LinkEnd(theirs, {}, {})
    [greets] = sent(newer.start(0), Hello)
    [greeted] = sent(older.start(0), Hello)
    refused = newer.receive(greeted, 0)
    here, there = only(refused, Close), only(older.receive(greets, 0), Close)
    assert (here.code, there.code) == ("SCHEMA_TOO_OLD", "SCHEMA_TOO_NEW")
    assert here.hint == there.hint == f"Upgrade node {PEER}."
    assert here.reason == there.reason
    assert newer.peer_versions == versions_of(greeted)
    assert older.peer_versions == versions_of(greets)


def test_a_refusal_is_heard_by_who_had_nothing_against_the_peer() -> None:
    """A release that never compared schemas is up by then; it too is told what to do."""
    told = Refusal("SCHEMA_TOO_OLD", "node 141002001 has table schema 1", "Upgrade node 141002001.")
    end = up()
    closed = only(end.receive(told, 0), Close)
    assert (closed.code, closed.reason, closed.hint) == (told.code, told.reason, told.hint)
    assert end.state is LinkState.CLOSED


def test_a_strangers_versions_are_not_taken_for_the_peers() -> None:
    """Who greets in another's name says nothing of the peer."""
    end = LinkEnd(config(), {}, {})
    end.start(0)
    end.receive(hello(node_id="141002001202", schema=9), 0)
    assert end.peer_versions is None


def test_a_newer_store_epoch_is_welcome() -> None:
    """A restored peer comes with a new epoch and a new incarnation."""
    settings = config(peer_store_epoch_seen=3, peer_incarnation_seen="peer-3")
    end = LinkEnd(settings, {}, {})
    end.start(0)
    effects = end.receive(hello(store_epoch=4, store_incarnation="peer-4"), 0)
    assert only(effects, LinkUp).peer_hello.store_epoch == 4


def test_a_frame_before_hello_closes() -> None:
    """Nothing may come before Hello."""
    end = LinkEnd(config(), {}, {})
    end.start(0)
    assert close_code(end.receive(batch(1), 0)) == "FRAME_OUT_OF_ORDER"


def test_a_second_hello_closes() -> None:
    """Hello comes once."""
    assert close_code(up().receive(hello(), 0)) == "FRAME_OUT_OF_ORDER"


def test_what_the_peer_refuses_is_told_as_it_said() -> None:
    """Code, reason and hint of a Refusal are kept."""
    end = LinkEnd(config(), {}, {})
    end.start(0)
    assert close_code(end.receive(Refusal("WRONG_PEER", "because"), 0)) == "WRONG_PEER"


def test_goodbye_ends_the_link_on_both_sides() -> None:
    """An orderly end is said, then done."""
    effects = up().goodbye("stopping")
    assert sent(effects, Goodbye) == [Goodbye("stopping")]
    assert close_code(up().receive(Goodbye("stopping"), 0)) == "GOODBYE"


def test_a_closed_end_does_nothing() -> None:
    """What is still under way for a closed connection leads to nothing."""
    end = up()
    end.goodbye("stopping")
    assert end.receive(batch(1), 0) == []
    assert end.entries_read(Lane.BULK, [], 5, 0) == []
    assert end.log_advanced(5, 0) == []
    assert end.batch_failed(Lane.BULK, "DISK_FULL", 0) == []
    assert end.tick(10**9) == []
    assert end.goodbye("again") == []


def test_the_table_has_a_way_to_the_end_from_every_state() -> None:
    """No state is a trap."""
    assert all((state, LinkEvent.END) in TRANSITIONS for state in LinkState)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda end: end.start(0),
        lambda end: end.entries_read(Lane.BULK, [], 1, 0),
        lambda end: end.batch_applied(Lane.BULK, receipt_for(batch(1)).cursor, 0),
        lambda end: end.batch_failed(Lane.BULK, "DISK_FULL", 0),
    ],
)
def test_an_answer_nobody_asked_for_is_this_nodes_fault(
    misuse: Callable[[LinkEnd], object],
) -> None:
    """The driver's mistakes raise; they never reach the peer."""
    end = up()
    with pytest.raises(LocalProtocolError):
        misuse(end)


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch_bytes_min": 0},
        {"batch_bytes_min": 10, "batch_bytes_max": 9},
        {"batch_bytes_max": (1 << 20) + 1},
        {"window_bytes": 0},
        {"window_bytes": (16 << 20) + 1},
        {"store_epoch": 0},
    ],
)
def test_sizes_beyond_what_both_ends_rely_on_are_refused(sizes: dict[str, int]) -> None:
    """No profile may configure a limit away."""
    with pytest.raises(LocalProtocolError):
        config(**sizes)


# -- receiving ------------------------------------------------------------------------------------


def test_a_receipt_goes_out_only_after_the_durable_apply() -> None:
    """A batch leads to its apply, the apply to its receipt."""
    end = up()
    arrived = end.receive(batch(1), 0)
    assert sent(arrived, Receipt) == []
    job = only(arrived, ApplyBatch)
    [receipt] = sent(end.batch_applied(Lane.BULK, job.cursor_after, 0), Receipt)
    assert receipt.cursor == job.cursor_after
    assert not receipt.refused


def test_one_batch_of_a_lane_is_applied_at_a_time_in_order() -> None:
    """The next waits for the durable commit of the one before; another lane does not."""
    end = up()
    first = only(end.receive(batch(1), 0), ApplyBatch)
    assert end.receive(batch(2), 0) == []
    assert only(end.receive(batch(1, Lane.CARE), 0), ApplyBatch).batch.lane is Lane.CARE
    after = end.batch_applied(Lane.BULK, first.cursor_after, 0)
    assert only(after, ApplyBatch).batch.number == 2


def test_a_repeated_batch_is_acknowledged_and_not_applied_again() -> None:
    """The peer that missed our receipt gets another."""
    end = up()
    job = only(end.receive(batch(1), 0), ApplyBatch)
    end.batch_applied(Lane.BULK, job.cursor_after, 0)
    effects = end.receive(batch(1), 0)
    assert [receipt.cursor for receipt in sent(effects, Receipt)] == [job.cursor_after]
    assert len(effects) == 1


def test_refuses_a_gap_in_the_numbers() -> None:
    """The refusal says where this node stands."""
    [receipt] = sent(up().receive(batch(2), 0), Receipt)
    assert (receipt.refused, receipt.cursor.number) == ("GAP", 0)


def test_refuses_a_gap_in_the_log_behind_the_right_number() -> None:
    """A batch that starts beyond where the last one ended leaves something out."""
    end = up()
    job = only(end.receive(batch(1), 0), ApplyBatch)
    end.batch_applied(Lane.BULK, job.cursor_after, 0)
    [receipt] = sent(end.receive(batch(2, covers_from=2), 0), Receipt)
    assert receipt.refused == "GAP"


def test_a_refusal_waits_for_the_apply_in_progress() -> None:
    """Where this node stands is known only then; what waited behind is given up."""
    end = up()
    first = only(end.receive(batch(1), 0), ApplyBatch)
    assert end.receive(batch(2), 0) == []
    assert end.receive(batch(4), 0) == []
    receipts = sent(end.batch_applied(Lane.BULK, first.cursor_after, 0), Receipt)
    assert [(one.cursor.number, one.refused) for one in receipts] == [(1, ""), (1, "GAP")]
    assert end.receive(batch(5), 0) == []
    assert only(end.receive(batch(2), 0), ApplyBatch).batch.number == 2


def test_refuses_a_batch_whose_entries_are_not_as_sent() -> None:
    """The digest is computed here, over what arrived."""
    spoilt = batch(1)
    object.__setattr__(spoilt, "entries", (entry(0, size=99),))
    [receipt] = sent(up().receive(spoilt, 0), Receipt)
    assert receipt.refused == "DIGEST"


def test_refuses_a_batch_of_another_stream() -> None:
    """A batch of another life of either store has no place here."""
    [receipt] = sent(up(store_epoch=2).receive(batch(1), 0), Receipt)
    assert receipt.refused == "STREAM_EPOCH"


def test_a_failed_apply_is_told_with_its_code_and_can_be_tried_again() -> None:
    """The sender hears why, and where to go on."""
    end = up()
    end.receive(batch(1), 0)
    [receipt] = sent(end.batch_failed(Lane.BULK, "DISK_FULL", 0), Receipt)
    assert (receipt.refused, receipt.cursor.number) == ("DISK_FULL", 0)
    assert only(end.receive(batch(1), 0), ApplyBatch).batch.number == 1


@pytest.mark.parametrize("code", ["BATCH_OUT_OF_ORDER", "CURSOR_WENT_BACK"])
def test_a_cursor_moved_by_another_connection_ends_this_one(code: str) -> None:
    """What this end believes to be applied is no longer so."""
    end = up()
    end.receive(batch(1), 0)
    assert close_code(end.batch_failed(Lane.BULK, code, 0)) == code


def test_a_peer_that_overruns_the_queue_is_cut_off() -> None:
    """Every queue has a limit."""
    end = up()
    for number in range(1, QUEUE_BATCHES_LIMIT + 2):
        end.receive(batch(number), 0)
    assert close_code(end.receive(batch(QUEUE_BATCHES_LIMIT + 2), 0)) == "QUEUE_FULL"


def test_a_batch_larger_than_any_may_be_is_cut_off() -> None:
    """The claimed size is looked at before anything else."""
    huge = batch(1)
    object.__setattr__(huge, "body_bytes", (4 << 20) + 1)
    assert close_code(up().receive(huge, 0)) == "BATCH_TOO_LARGE"


def test_a_mark_is_saved_as_it_comes() -> None:
    """The sender has waited for our receipts, so it is true."""
    mark = Mark({HERE: 5}, 3)
    assert up().receive(mark, 0) == [SaveMark(mark)]


def test_receipts_are_signed_by_the_given_key() -> None:
    """The hook signs accepting receipts."""
    settings = config(sign=lambda cursor: (b"signed %d" % cursor.number, "key"))
    end = up(settings=settings)
    job = only(end.receive(batch(1), 0), ApplyBatch)
    [receipt] = sent(end.batch_applied(Lane.BULK, job.cursor_after, 0), Receipt)
    assert (receipt.signature, receipt.key_id) == (b"signed 1", "key")


# -- time -----------------------------------------------------------------------------------------


def test_a_peer_that_never_greets_is_given_up() -> None:
    """Silence after our Hello ends the link."""
    end = LinkEnd(config(), {}, {})
    end.start(1000)
    assert end.tick(60_999) == []
    assert close_code(end.tick(61_000)) == "STALLED"


def test_a_clock_that_jumps_back_stops_nothing() -> None:
    """The link's own time stands still instead, and goes on from there."""
    end = LinkEnd(config(), {}, {})
    end.start(10**12)
    end.tick(5)
    assert end.tick(30_005) == []
    assert close_code(end.tick(60_005)) == "STALLED"


def test_a_clock_before_1970_stops_nothing() -> None:
    """A lane waits only for a pause it was given."""
    end = LinkEnd(config(), {}, {})
    end.start(-(10**12))
    end.receive(hello(), -(10**12))
    assert reads(end.log_advanced(3, -(10**12))) == list(Lane)
