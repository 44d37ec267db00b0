"""What a node remembers of its links never goes back, and comes back as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replication.changelog import (
    CursorWentBackError,
    LinkState,
    LogReaders,
    Marks,
    PeerEpoch,
    StoreState,
    read_transaction,
)
from replication.core.model import Cursor, Lane, Receipt, StreamEpoch
from tests.contracts.changelog.stores import LogStore

PEER = "141002001"
FIRST = Cursor(Lane.CARE, StreamEpoch(2, 3), 5, 40, b"\x00\xff" * 16)


def signed(cursor: Cursor, signature: bytes) -> Receipt:
    """A receipt of the peer's own cursor."""
    return Receipt(cursor, signature=signature, key_id="key")


@pytest.fixture
def links(store: LogStore) -> LinkState:
    """Nothing remembered yet."""
    return LinkState(store.tables)


def test_cursors_come_back_as_saved(store: LogStore, links: LinkState) -> None:
    """By peer and lane, in and out kept apart."""
    other = replace(FIRST, lane=Lane.BULK, number=0, covers_to=0, running_hash=b"")
    with store.engine.begin() as connection:
        links.save_inbound(connection, PEER, FIRST)
        links.save_inbound(connection, PEER, other)
        links.save_inbound(connection, "141002002", other)
    with read_transaction(store.engine) as connection:
        assert links.load_inbound(connection, PEER) == {Lane.CARE: FIRST, Lane.BULK: other}
        assert links.load_inbound(connection, "141002002") == {Lane.BULK: other}
        assert links.load_outbound(connection, PEER) == {}


def test_a_receipt_is_kept_with_its_signature(store: LogStore, links: LinkState) -> None:
    """The proof of a delivery outlives the link; the next receipt replaces it."""
    onward = replace(FIRST, number=6, covers_to=41)
    kept = signed(onward, b"sig-2")
    with store.engine.begin() as connection:
        links.save_outbound(connection, PEER, FIRST, signed(FIRST, b"sig-1"), 1000)
        links.save_outbound(connection, PEER, onward, kept, 2000)
    with read_transaction(store.engine) as connection:
        assert links.load_outbound(connection, PEER) == {Lane.CARE: onward}
        assert links.receipts(connection, PEER) == {Lane.CARE: kept}
        assert links.receipt_times(connection, PEER) == {Lane.CARE: 2000}


def test_a_place_passed_over_leaves_the_proof_as_it_was_signed(
    store: LogStore, links: LinkState
) -> None:
    """The cursor goes on without a receipt; what is kept still verifies."""
    kept = signed(FIRST, b"sig")
    further = replace(FIRST, covers_to=5100)
    with store.engine.begin() as connection:
        links.save_outbound(connection, PEER, FIRST, kept, 1000)
        links.save_outbound(connection, PEER, further)
        assert links.load_outbound(connection, PEER) == {Lane.CARE: further}
        assert links.load_confirmed(connection, PEER) == {Lane.CARE: FIRST}
        assert links.receipts(connection, PEER) == {Lane.CARE: kept}
        assert links.receipt_times(connection, PEER) == {Lane.CARE: 1000}


def test_a_receipt_and_a_place_beyond_it_are_saved_together(
    store: LogStore, links: LinkState
) -> None:
    """The receipt is kept as it was signed, the cursor as far as it goes."""
    kept = signed(FIRST, b"sig")
    further = replace(FIRST, covers_to=5100)
    with store.engine.begin() as connection:
        links.save_outbound(connection, PEER, further, kept, 1000)
        assert links.load_outbound(connection, PEER) == {Lane.CARE: further}
        assert links.receipts(connection, PEER) == {Lane.CARE: kept}


@pytest.mark.parametrize(
    "anew", [replace(FIRST, number=6, covers_to=41), replace(FIRST, stream_epoch=StreamEpoch(3, 3))]
)
def test_a_receipt_of_another_batch_proves_nothing(
    store: LogStore, links: LinkState, anew: Cursor
) -> None:
    """What the peer's Hello says was signed by no receipt that came; the next one is kept."""
    with store.engine.begin() as connection:
        links.save_outbound(connection, PEER, FIRST, signed(FIRST, b"sig-1"), 1000)
        links.save_outbound(connection, PEER, anew)
        assert links.load_outbound(connection, PEER) == {Lane.CARE: anew}
        assert links.receipts(connection, PEER) == {}
        onward = replace(anew, number=7, covers_to=42)
        kept = signed(onward, b"sig-2")
        links.save_outbound(connection, PEER, onward, kept, 2000)
        assert links.receipts(connection, PEER) == {Lane.CARE: kept}


def test_says_what_a_peer_has_of_every_lane(store: LogStore, links: LinkState) -> None:
    """The slowest lane decides; a peer that never gave a receipt has nothing."""
    with store.engine.begin() as connection:
        assert links.delivered_to(connection, PEER) == 0
        links.save_outbound(connection, PEER, FIRST)
        links.save_outbound(connection, PEER, replace(FIRST, lane=Lane.BULK, covers_to=7))
        assert links.delivered_to(connection, PEER) == 7


@pytest.mark.parametrize(
    "back",
    [
        replace(FIRST, number=4, covers_to=39),
        replace(FIRST, number=6, covers_to=39),
        replace(FIRST, stream_epoch=StreamEpoch(1, 3), number=9, covers_to=90),
        replace(FIRST, stream_epoch=StreamEpoch(3, 2), number=9, covers_to=90),
    ],
    ids=["number", "covers_to", "older sender", "older receiver"],
)
def test_refuses_a_cursor_that_goes_back(store: LogStore, links: LinkState, back: Cursor) -> None:
    """In a stream numbers only rise, and no older stream comes back (I7)."""
    with store.engine.begin() as connection:
        links.save_inbound(connection, PEER, FIRST)
        links.save_outbound(connection, PEER, FIRST)
    with store.engine.begin() as connection:
        with pytest.raises(CursorWentBackError):
            links.save_inbound(connection, PEER, back)
        with pytest.raises(CursorWentBackError):
            links.save_outbound(connection, PEER, back)
        assert links.load_inbound(connection, PEER) == {Lane.CARE: FIRST}


@pytest.mark.parametrize("epoch", [StreamEpoch(3, 3), StreamEpoch(2, 4), StreamEpoch(7, 9)])
def test_a_new_stream_begins_anew(store: LogStore, links: LinkState, epoch: StreamEpoch) -> None:
    """After a restore of either end the batch numbers start again."""
    anew = Cursor(Lane.CARE, epoch, 0, 12)
    with store.engine.begin() as connection:
        links.save_inbound(connection, PEER, FIRST)
        links.save_inbound(connection, PEER, anew)
        assert links.load_inbound(connection, PEER) == {Lane.CARE: anew}


def test_the_same_cursor_may_be_saved_twice(store: LogStore, links: LinkState) -> None:
    """A receipt that comes twice changes nothing."""
    with store.engine.begin() as connection:
        links.save_outbound(connection, PEER, FIRST, signed(FIRST, b"sig"), 1000)
        links.save_outbound(connection, PEER, FIRST, signed(FIRST, b"sig"), 1000)
        assert links.load_outbound(connection, PEER) == {Lane.CARE: FIRST}


def test_a_rolled_back_apply_leaves_the_cursor(store: LogStore, links: LinkState) -> None:
    """Rows and cursor are one transaction."""
    with store.engine.connect() as connection:
        links.save_inbound(connection, PEER, FIRST)
        connection.rollback()
        assert links.load_inbound(connection, PEER) == {}


def test_remembers_the_newest_life_of_a_peer(store: LogStore, links: LinkState) -> None:
    """An older epoch than seen is refused; a new name in the same epoch is recorded."""
    with store.engine.begin() as connection:
        assert links.peer_epoch_seen(connection, PEER) is None
        links.save_peer_epoch(connection, PEER, 2, "aa")
        links.save_peer_epoch(connection, PEER, 2, "bb")
        assert links.peer_epoch_seen(connection, PEER) == PeerEpoch(2, "bb")
        with pytest.raises(CursorWentBackError):
            links.save_peer_epoch(connection, PEER, 1, "cc")
        links.save_peer_epoch(connection, PEER, 3, "dd")
        assert links.peer_epoch_seen(connection, PEER) == PeerEpoch(3, "dd")


def test_marks_follow_the_last_word(store: LogStore) -> None:
    """Homes not named keep theirs; an earlier time replaces a later one."""
    marks = Marks(store.tables)
    with store.engine.begin() as connection:
        marks.save(connection, {"141002001": 100, "141002002": 200})
        marks.save(connection, {"141002002": 150, "141002003": 300})
        marks.save(connection, {})
        assert marks.load(connection) == {
            "141002001": 100,
            "141002002": 150,
            "141002003": 300,
        }


def test_readers_and_facts_are_kept_by_name(store: LogStore) -> None:
    """Readers inside the node have cursors, the store has facts."""
    readers, state = LogReaders(store.tables), StoreState(store.tables)
    with store.engine.begin() as connection:
        readers.save(connection, "columnar", 12)
        readers.save(connection, "columnar", 15)
        state.save(connection, "store_epoch", "1")
        state.save(connection, "store_epoch", "2")
        assert readers.load(connection) == {"columnar": 15}
        assert state.load(connection) == {"store_epoch": "2"}
        state.forget(connection, "store_epoch")
        state.forget(connection, "never_known")
        assert state.load(connection) == {}


def test_ids_differ_by_case(store: LogStore) -> None:
    """MySQL's usual collation would take two names for one."""
    readers = LogReaders(store.tables)
    with store.engine.begin() as connection:
        readers.save(connection, "cache", 1)
        readers.save(connection, "Cache", 2)
        assert readers.load(connection) == {"cache": 1, "Cache": 2}
