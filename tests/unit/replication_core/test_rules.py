"""The pure rules: resume, routing, admission, coalescing, hashing."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from replication.core.admission import (
    ADMIT,
    STALE,
    AdmissionContext,
    Cause,
    Decision,
    Held,
    Verdict,
    judge,
)
from replication.core.coalesce import coalesce
from replication.core.codec import decode_changes, encode_changes
from replication.core.config import PeerRole
from replication.core.hashing import batch_digest, receipt_bytes, running_hash
from replication.core.model import (
    Cursor,
    Form,
    Lane,
    LogEntry,
    Operation,
    RowChange,
    StreamEpoch,
    Version,
    next_version,
)
from replication.core.resume import resume_point
from replication.core.routing import goes_down, goes_up
from tests.unit.replication_core.ends import entry

COUNTY, TOWNSHIP, VILLAGE, OTHER = "141002", "141002001", "141002001201", "141002001202"
FAR = "141002002201"
HERE = frozenset({TOWNSHIP, VILLAGE, OTHER})


def at(sender: int, receiver: int, number: int, covers_to: int) -> Cursor:
    """A cursor of the stream of these two store epochs."""
    return Cursor(Lane.BULK, StreamEpoch(sender, receiver), number, covers_to)


@pytest.mark.parametrize(
    ("case", "claimed", "saved", "number", "scanned"),
    [
        ("first meeting", None, None, 0, 0),
        ("same stream, nothing saved", at(3, 3, 5, 50), None, 5, 50),
        ("same stream, receipt lost", at(3, 3, 5, 50), at(3, 3, 4, 40), 5, 50),
        ("same stream, filtered beyond", at(3, 3, 5, 50), at(3, 3, 5, 70), 5, 70),
        ("same stream, peer went back", at(3, 3, 4, 40), at(3, 3, 5, 50), 4, 40),
        ("same stream, all filtered so far", None, at(3, 3, 0, 60), 0, 60),
        ("same stream, peer forgot", None, at(3, 3, 5, 50), 0, 0),
        ("new stream, all filtered so far", at(2, 3, 5, 50), at(3, 3, 0, 60), 0, 60),
        ("only we were restored", at(2, 3, 9, 90), at(2, 3, 5, 50), 0, 50),
        ("passed over before a batch", at(3, 3, 5, 50), at(3, 3, 4, 60), 5, 60),
        ("only we, twice", at(2, 3, 9, 90), at(1, 3, 5, 50), 0, 50),
        ("only we, nothing applied there", None, at(2, 3, 0, 50), 0, 50),
        ("only the peer was restored", at(3, 2, 4, 40), at(3, 2, 5, 50), 0, 40),
        ("only the peer, saved older", at(3, 2, 4, 40), at(3, 1, 2, 20), 0, 40),
        ("only the peer, cursor lost with it", None, at(3, 2, 5, 50), 0, 0),
        ("both, claim within ours", at(2, 2, 4, 40), at(2, 2, 5, 50), 0, 40),
        ("both, claim beyond ours", at(2, 2, 9, 90), at(2, 2, 5, 50), 0, 50),
        ("both, claim of yet another life", at(1, 2, 4, 40), at(2, 2, 5, 50), 0, 0),
        ("both, nothing saved", at(2, 2, 4, 40), None, 0, 0),
    ],
)
def test_resumes_from_where_it_is_safe(
    case: str, claimed: Cursor | None, saved: Cursor | None, number: int, scanned: int
) -> None:
    """The rows of the table in DESIGN.md; both stores are at epoch 3."""
    point = resume_point(at(3, 3, 0, 0), claimed, saved)
    assert point.acked.stream_epoch == StreamEpoch(3, 3)
    assert (point.acked.number, point.scanned) == (number, scanned), case


@pytest.mark.parametrize(
    ("origin", "home", "form", "up"),
    [
        (VILLAGE, VILLAGE, Form.FULL, True),
        (VILLAGE, FAR, Form.FULL, False),
        (COUNTY, VILLAGE, Form.FULL, False),
        (VILLAGE, FAR, Form.SEALED, True),
        (VILLAGE, OTHER, Form.SEALED, False),
        (FAR, VILLAGE, Form.SEALED, False),
        (VILLAGE, COUNTY, Form.SEALED, True),
        (FAR, COUNTY, Form.SEALED, False),
    ],
)
def test_goes_up_what_was_written_here_for_a_home_here_and_letters_elsewhere(
    origin: str, home: str, form: Form, up: bool
) -> None:
    """What came down is not sent back up, nor a row of somebody who lives elsewhere."""
    assert goes_up(origin, home, form, HERE) is up


@pytest.mark.parametrize(
    ("origin", "home", "form", "down"),
    [
        (TOWNSHIP, VILLAGE, Form.FULL, True),
        (OTHER, VILLAGE, Form.FULL, True),
        (VILLAGE, VILLAGE, Form.FULL, False),
        (TOWNSHIP, OTHER, Form.FULL, False),
        (TOWNSHIP, VILLAGE, Form.DEIDENTIFIED, False),
        (TOWNSHIP, VILLAGE, Form.INDEX, False),
        (TOWNSHIP, VILLAGE, Form.SEALED, True),
        (VILLAGE, VILLAGE, Form.SEALED, False),
        (TOWNSHIP, OTHER, Form.SEALED, False),
    ],
)
def test_goes_down_only_to_the_resident_s_home(
    origin: str, home: str, form: Form, down: bool
) -> None:
    """Not to siblings, not back to the author, and only in full."""
    assert goes_down(origin, home, form, frozenset({VILLAGE})) is down


def change(**changes: object) -> RowChange:
    """A record of the village's own resident."""
    usual = RowChange(
        table="observations",
        row_id="row",
        resident_id="resident",
        version=Version(1, 2),
        operation=Operation.PUT,
        author_node=VILLAGE,
        home_node=VILLAGE,
        home_epoch=2,
        schema_version=1,
        recorded_at="2026-11-23T20:00:00.000Z",
        form=Form.FULL,
        values={"code": "8480-6", "value": 120.5, "名": "血压", "note": None},
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


PATH = frozenset({TOWNSHIP, COUNTY})
FROM_CHILD = AdmissionContext(PeerRole.CHILD, Lane.BULK, HERE, frozenset({VILLAGE}), PATH)
FROM_PARENT = AdmissionContext(PeerRole.PARENT, Lane.BULK, HERE, frozenset())


def held(author_epoch: int, number: int, *, home_epoch: int = 2) -> Held:
    """What is held of the row."""
    return Held(Version(author_epoch, number), home_epoch)


def rejected(cause: Cause) -> Verdict:
    """The verdict with this cause."""
    return Verdict(Decision.REJECT, cause)


@pytest.mark.parametrize(
    ("row", "here", "context", "verdict"),
    [
        (change(), None, FROM_CHILD, ADMIT),
        (change(), held(1, 1), FROM_CHILD, ADMIT),
        (change(), held(1, 2), FROM_CHILD, STALE),
        (change(), held(1, 2, home_epoch=1), FROM_CHILD, ADMIT),
        (change(), held(2, 1), FROM_CHILD, STALE),
        (change(home_node=OTHER), None, FROM_CHILD, ADMIT),
        (change(author_node=OTHER), None, FROM_CHILD, ADMIT),
        (change(author_node=COUNTY), None, FROM_CHILD, rejected(Cause.AUTHOR_NOT_BELOW)),
        (
            change(author_node=TOWNSHIP, home_epoch=1),
            held(9, 9, home_epoch=1),
            FROM_CHILD,
            rejected(Cause.AUTHOR_NOT_BELOW),
        ),
        (change(author_node=TOWNSHIP), held(1, 1), FROM_CHILD, rejected(Cause.AUTHOR_NOT_BELOW)),
        (change(author_node=TOWNSHIP), held(1, 2, home_epoch=1), FROM_CHILD, ADMIT),
        (change(author_node=TOWNSHIP), held(9, 9), FROM_CHILD, STALE),
        (
            change(author_node=COUNTY),
            None,
            replace(FROM_CHILD, granted_epoch=2, granted_home=VILLAGE),
            ADMIT,
        ),
        (
            change(author_node=OTHER, home_node=OTHER),
            None,
            FROM_CHILD,
            rejected(Cause.AUTHOR_NOT_BELOW),
        ),
        (
            change(),
            None,
            replace(FROM_CHILD, home_epoch=2, home_node=OTHER),
            rejected(Cause.HOME_DISPUTED),
        ),
        (
            change(),
            None,
            replace(FROM_CHILD, home_epoch=1, home_node=OTHER),
            rejected(Cause.HOME_NOT_GRANTED),
        ),
        (
            change(),
            None,
            replace(
                FROM_CHILD,
                home_epoch=1,
                home_node=OTHER,
                granted_epoch=2,
                granted_home=VILLAGE,
            ),
            ADMIT,
        ),
        (
            change(),
            None,
            replace(FROM_CHILD, granted_epoch=2, granted_home=OTHER),
            rejected(Cause.HOME_DISPUTED),
        ),
        (change(), None, replace(FROM_CHILD, home_epoch=1, home_node=VILLAGE), ADMIT),
        (
            change(author_node=COUNTY),
            None,
            replace(FROM_PARENT, home_epoch=1, home_node=TOWNSHIP),
            rejected(Cause.HOME_NOT_GRANTED),
        ),
        (
            change(author_node=COUNTY),
            None,
            replace(FROM_PARENT, home_epoch=1, home_node=FAR),
            ADMIT,
        ),
        (change(author_node=COUNTY), None, FROM_PARENT, ADMIT),
        (change(home_node=COUNTY), None, FROM_PARENT, rejected(Cause.HOME_NOT_HERE)),
        (change(form=Form.INDEX), None, FROM_PARENT, rejected(Cause.FORM_NOT_FULL)),
        (
            change(),
            None,
            replace(FROM_PARENT, lane=Lane.IDENTITY),
            rejected(Cause.IDENTITY_NOT_FROM_HOME),
        ),
        (change(), None, replace(FROM_PARENT, lane=Lane.IDENTITY, recovering=True), ADMIT),
        (
            change(home_node=OTHER),
            None,
            replace(FROM_CHILD, lane=Lane.IDENTITY),
            rejected(Cause.IDENTITY_NOT_FROM_HOME),
        ),
        (change(), None, replace(FROM_CHILD, home_epoch=3), rejected(Cause.HOME_EPOCH_OLD)),
        (change(), held(1, 2), replace(FROM_CHILD, home_epoch=3), STALE),
    ],
)
def test_judges_by_scope_then_version_then_epoch(
    row: RowChange, here: Held | None, context: AdmissionContext, verdict: Verdict
) -> None:
    """Every rejection has its cause."""
    assert judge(row, here, context) == verdict


def logged(sequence: int, lane: Lane, *rows: RowChange) -> LogEntry:
    """An entry of the log with these rows."""
    return replace(
        entry(sequence, lane), rows=encode_changes(rows), row_count=len(rows), sequence=sequence
    )


def test_coalescing_keeps_the_newest_version_of_each_row() -> None:
    """Older versions go, their entries with them if nothing else is in them."""
    old, new, other = change(version=Version(1, 1)), change(), change(row_id="other")
    entries = [
        logged(1, Lane.BULK, old),
        logged(2, Lane.BULK, old, other),
        logged(3, Lane.BULK, new),
    ]
    left, dropped = coalesce(entries)
    assert dropped
    assert [one.sequence for one in left] == [2, 3]
    assert [decode_changes(1, one.rows) for one in left] == [[other], [new]]
    assert [one.row_count for one in left] == [1, 1]


def test_an_entry_that_would_grow_by_it_stays_as_it_is() -> None:
    """Encoded anew 1e15 is 1000000000000000.0: it could outgrow what a batch holds."""
    many = {f"c{n}": 1e15 for n in range(99)}
    whole = logged(1, Lane.BULK, change(row_id="other", values=many), change(version=Version(1, 1)))
    short = replace(whole, rows=whole.rows.replace(b"1000000000000000.0", b"1e15"))
    entries = [short, logged(2, Lane.BULK, change())]

    assert len(whole.rows) > len(short.rows) + 1000
    assert coalesce(entries) == (entries, False)


def test_numbers_of_a_later_life_lie_above_all_before() -> None:
    """A store that was put back may not know of a version that it gave away."""
    second = next_version(Version(1, 7), 2)

    assert next_version(Version(1, 7), 1) == Version(1, 8)
    assert second.number > 1 << 20
    assert second == next_version(Version(1, 3), 2)
    assert next_version(second, 2).number == second.number + 1
    assert second < next_version(second, 1_795_000_000) < Version(1, 1 << 53)


@pytest.mark.parametrize("lane", [Lane.CONTROL, Lane.CARE])
def test_state_events_never_coalesce(lane: Lane) -> None:
    """Each of them must arrive."""
    entries = [logged(1, lane, change(version=Version(1, 1))), logged(2, lane, change())]
    assert coalesce(entries) == (entries, False)


def test_the_digest_covers_every_field_that_travels() -> None:
    """Another value anywhere is another digest; the local sequence does not travel."""

    def digest_of(
        one: LogEntry, lane: Lane = Lane.BULK, start: int = 3, end: int = 5, position: str = ""
    ) -> bytes:
        return batch_digest(lane, [one], covers_from=start, covers_to=end, position=position)

    usual = entry(5)
    digest = digest_of(usual)
    assert digest_of(replace(usual, sequence=0)) == digest
    others = [
        {"origin_node": "1410"},
        {"origin_epoch": 2},
        {"origin_sequence": 9},
        {"home_node": "1410"},
        {"form": Form.INDEX},
        {"codec": 2},
        {"schema_version": 2},
        {"committed_at_ms": -1},
        {"row_count": 2},
        {"rows": b"other"},
    ]
    digests = {digest_of(replace(usual, **other)) for other in others}  # type: ignore[arg-type]
    places = {
        digest_of(usual, Lane.CARE),
        digest_of(usual, start=2),
        digest_of(usual, end=6),
        digest_of(usual, position="S5:bulk:"),
    }
    assert len(digests | places | {digest}) == len(others) + 5


def test_the_digest_is_laid_out_as_the_design_says() -> None:
    """Of protocol 2 with what the batch stands for, of protocol 1 without it."""
    head = bytes((4,))
    place = (3).to_bytes(8, "big") + (5).to_bytes(8, "big") + b"\x00\x02S5"
    said = {
        protocol: batch_digest(
            Lane.BULK, [], covers_from=3, covers_to=5, position="S5", protocol=protocol
        )
        for protocol in (1, 2)
    }
    assert said[1] == hashlib.sha256(b"fenhe-batch-1" + head).digest()
    assert said[2] == hashlib.sha256(b"fenhe-batch-2" + head + place).digest()


def test_the_running_hash_is_a_chain() -> None:
    """SHA-256 over the hash before and the digest."""
    assert running_hash(b"", b"d" * 32) == hashlib.sha256(b"d" * 32).digest()
    assert running_hash(b"h" * 32, b"d" * 32) == hashlib.sha256(b"h" * 32 + b"d" * 32).digest()


def test_a_receipt_signs_length_prefixed_fields() -> None:
    """The layout that DESIGN.md spells out, byte for byte."""
    cursor = Cursor(Lane.CARE, StreamEpoch(3, 4), 5, 6, b"\xaa" * 32)
    assert receipt_bytes(cursor, "1410", "141002").hex() == (
        "0000000f"
        + b"fenhe-receipt-1".hex()
        + "00000004"
        + b"1410".hex()
        + "00000006"
        + b"141002".hex()
        + "".join(f"00000008{n:016x}" for n in (2, 3, 4, 5, 6))
        + "00000020"
        + "aa" * 32
    )
