"""Heads are anchored at the parent, and what contradicts an anchor shows there and here."""

from __future__ import annotations

import json
import uuid

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from node.auditing.errors import AuditContradictedError, AuditStatementError
from node.auditing.holding import ROW_MS
from node.auditing.model import FindingKind, Head, Life, Point
from node.auditing.statements import HEAD_TAG, head_bytes, signed_out
from node.auditing.verifying import AnchorFault
from node.revocation.entries import Entry, Target, Word, sign_entry
from node.security.former import key_digest
from node.storage.audit import Action, Deed, Outcome
from node.storage.tables import AUDIT, AUDIT_CHAIN, AUDITING
from tests.contracts.auditing.place import START_MS, Place, credentials_of
from tests.unit.security.region import SIBLING, TOWNSHIP, VILLAGE

HOUR_MS = 3_600_000


def residents(count: int) -> list[str]:
    """Ids."""
    return [str(uuid.uuid4()) for _ in range(count)]


def kinds(place: Place) -> list[FindingKind]:
    """What the township found."""
    return [each.finding.kind for each in place.township.holding.findings()]


def test_the_head_is_anchored_and_kept_at_both_ends(place: Place) -> None:
    """Both have both signatures; a verification finds everything covered."""
    place.village.read(*residents(30))
    assert place.village.anchor()
    place.clock.pass_ms(60_000)
    place.village.read(*residents(5))
    assert place.village.anchor()
    for side in (place.village, place.township):
        kept = side.ground.transactions.read(
            lambda connection, side=side: side.ground.anchors.kept(  # type: ignore[misc]
                connection, VILLAGE, holder=TOWNSHIP, limit=10
            )
        )
        assert [each.head.end.position for each in kept][-1] >= 30
        assert len(kept) == 2
        for each in kept:
            side.ground.transactions.read(
                lambda connection, side=side, each=each: side.ground.proof.verify_kept(  # type: ignore[misc]
                    connection, side.ground.anchors, each
                )
            )
    report = place.village.verify()
    assert report.holds
    assert report.is_complete
    assert report.unanchored == 0
    assert [each.holder for each in report.compared] == [TOWNSHIP]


def test_an_unchanged_end_costs_no_row(place: Place) -> None:
    """The same head again takes the place of the one before."""
    for _ in range(5):
        assert place.village.anchor()
        place.clock.pass_ms(60_000)
    with place.township.engine.connect() as connection:
        assert len(connection.execute(select(AUDITING.anchors)).all()) == 1


def rows(place: Place) -> int:
    """How many anchors of the village the township keeps."""
    with place.township.engine.connect() as connection:
        return len(connection.execute(select(AUDITING.anchors)).all())


def test_heads_one_after_the_other_share_a_row(place: Place) -> None:
    """A thief with the node's key signs as many as he likes; each is anchored, none adds a row."""
    for _ in range(5):
        place.village.read(*residents(1))
        assert place.village.anchor()
    assert rows(place) == 1
    place.clock.pass_ms(ROW_MS)
    place.village.read(*residents(1))
    assert place.village.anchor()
    assert rows(place) == 2
    assert place.village.verify().holds


def test_heads_every_few_seconds_leave_a_row_an_hour(place: Place) -> None:
    """The row that gives way is never carried out of its hour."""
    for _ in range(9):
        place.village.read(*residents(1))
        assert place.village.anchor()
        place.clock.pass_ms(ROW_MS - 1)
    place.clock.wall = START_MS + HOUR_MS - 1
    place.village.read(*residents(1))
    assert place.village.anchor()
    held = rows(place)
    place.clock.pass_ms(1)
    place.village.read(*residents(1))
    assert place.village.anchor()
    assert rows(place) == held + 1


def test_another_life_waits_until_the_last_row_is_old_enough(place: Place) -> None:
    """The newest of each life is kept for ever, so lives do not come one after the other."""
    place.village.read(*residents(1))
    assert place.village.anchor()
    place.village.store_epoch += 1
    place.village.restart()
    assert not place.village.anchor()
    assert place.village.keeper.states[TOWNSHIP].error == "AUDIT_TRY_LATER"
    place.clock.pass_ms(ROW_MS)
    assert place.village.anchor()
    assert kinds(place) == []


def test_a_full_disk_of_the_parent_stops_no_honest_child(place: Place) -> None:
    """Heads take the place of the newest one: the time unanchored stays at nothing."""
    place.village.read(*residents(1))
    place.township.full = True
    assert not place.village.anchor()
    assert place.village.keeper.states[TOWNSHIP].error == "AUDIT_TRY_LATER"
    assert rows(place) == 0
    place.township.full = False
    assert place.village.anchor()
    place.township.full = True
    for _ in range(3):
        place.clock.pass_ms(2 * HOUR_MS)
        place.village.read(*residents(1))
        assert place.village.anchor()
    assert rows(place) == 1
    assert place.village.ground.unanchored_ms == 0


def test_a_rewrite_with_right_hashes_shows_at_the_parent_within_a_minute(place: Place) -> None:
    """The chain holds in itself; the anchor says that it was another."""
    place.village.read(*residents(20))
    assert place.village.anchor()
    with place.village.engine.begin() as connection:
        connection.execute(
            update(AUDIT).where(AUDIT.c.chain_position == 9).values(principal="nobody")
        )
        connection.execute(
            update(AUDIT)
            .where(AUDIT.c.chain_position >= 9)
            .values(chain_position=None, prev_hash=None, hash=None)
        )
        before = connection.execute(
            select(AUDIT.c.hash).where(AUDIT.c.chain_position == 8)
        ).scalar_one()
        connection.execute(update(AUDIT_CHAIN).values(position=8, hash=before))
    place.village.link()
    assert place.village.ground.transactions.read(place.village.ground.auditor.verify) is None
    place.village.read(*residents(3))
    assert not place.village.anchor()
    assert kinds(place) == [FindingKind.REWRITTEN]
    assert place.village.keeper.states[TOWNSHIP].error == "AUDIT_CONTRADICTED"
    assert Action.CONTRADICTED in place.township.actions()
    report = place.village.verify()
    assert not report.holds
    first = report.compared[0].breaks[0]
    assert first.fault is AnchorFault.REWRITTEN
    assert first.position <= 9 <= first.anchored


def test_a_cut_end_shows_although_the_chain_holds(place: Place) -> None:
    """The last entries are deleted and the end is set back."""
    place.village.read(*residents(20))
    assert place.village.anchor()
    with place.village.engine.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.chain_position > 12))
        last = connection.execute(
            select(AUDIT.c.hash).where(AUDIT.c.chain_position == 12)
        ).scalar_one()
        connection.execute(update(AUDIT_CHAIN).values(position=12, hash=last))
    report = place.village.verify()
    assert report.broken is None
    assert not report.holds
    assert report.compared[0].breaks[0].fault is AnchorFault.CUT
    assert report.compared[0].breaks[0].position <= 13 + 1
    assert not place.village.anchor()
    assert kinds(place) == [FindingKind.CUT]


def test_an_operator_accepts_and_a_new_line_begins(place: Place) -> None:
    """The contradiction stays on record, and heads are anchored again."""
    place.village.read(*residents(5))
    assert place.village.anchor()
    place.tamper(3, purpose="another")
    place.tamper(4, hash="0" * 64)
    with place.village.engine.begin() as connection:
        connection.execute(update(AUDIT_CHAIN).values(position=2, hash="1" * 64))
        connection.execute(delete(AUDIT).where(AUDIT.c.chain_position > 2))
    assert not place.village.anchor()
    operator = place.township.caller("operator")
    assert place.township.holding.accept(operator, VILLAGE, "the disk was faulty") == 1
    assert place.village.anchor()
    found = place.township.holding.findings()
    assert [each.reason for each in found] == ["the disk was faulty"]
    assert Action.RECOGNISE in place.township.actions()


def test_a_restore_is_explained_and_its_loss_is_said_once(place: Place) -> None:
    """A new life goes on from the backup: no contradiction, and the lost entries are counted."""
    place.village.read(*residents(10))
    assert place.village.anchor()
    engine = place.village.engine
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(select(AUDIT)).mappings()]
        end = connection.execute(select(AUDIT_CHAIN)).mappings().one()

    def put_back() -> None:
        with engine.begin() as connection:
            connection.execute(delete(AUDIT))
            connection.execute(insert(AUDIT), rows)
            connection.execute(update(AUDIT_CHAIN).values(**dict(end)))
            connection.execute(delete(AUDITING.anchors))

    place.village.read(*residents(15))
    assert place.village.anchor()
    place.restore(put_back)
    place.village.read(*residents(40))
    assert place.village.anchor()
    assert place.village.anchor()
    assert kinds(place) == [FindingKind.LOST]
    assert place.township.holding.findings()[0].finding.entries >= 15
    report = place.village.verify()
    assert report.holds
    assert report.compared[0].lost >= 15
    assert [each.store_epoch for each in report.lives] == [1, 2]
    assert "epoch" in place.village.actions()


def test_a_second_restore_to_before_the_first_is_no_contradiction(place: Place) -> None:
    """Anchors of a life that was cut count up to the cut alone."""
    engine = place.village.engine
    place.village.read(*residents(10))
    place.village.link()
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(select(AUDIT)).mappings()]
        end = dict(connection.execute(select(AUDIT_CHAIN)).mappings().one())

    def put_back() -> None:
        with engine.begin() as connection:
            connection.execute(delete(AUDIT))
            connection.execute(insert(AUDIT), rows)
            connection.execute(update(AUDIT_CHAIN).values(**end))

    assert place.village.anchor()
    for _ in range(3):
        place.village.read(*residents(20))
        assert place.village.anchor()
        place.restore(put_back)
        place.village.read(*residents(5))
    assert place.village.anchor()
    assert set(kinds(place)) == {FindingKind.LOST}
    assert place.village.verify().holds


def test_a_peer_of_an_older_release_is_no_error_and_anchors_nothing(place: Place) -> None:
    """The link goes on; the time counts."""
    place.old = True
    place.village.read(*residents(1))
    assert not place.village.anchor()
    place.clock.pass_ms(5 * HOUR_MS)
    assert not place.village.anchor()
    assert place.village.ground.unanchored_ms >= 5 * HOUR_MS
    assert place.village.keeper.states[TOWNSHIP].error == "UNKNOWN_METHOD"
    place.old = False
    assert place.village.anchor()
    assert place.village.ground.unanchored_ms == 0


def test_an_answer_that_is_lost_makes_no_finding(place: Place) -> None:
    """The parent has a newer anchor than the child knows of; it is asked about that one."""
    place.village.read(*residents(3))
    assert place.village.anchor()
    real = place.village.ground.anchors
    lost = place.village.keeper
    place.village.read(*residents(3))
    place.village.link()
    body = _request(place, lost.states[TOWNSHIP].asks_for)
    place.township.holding.anchor(VILLAGE, body)
    place.village.read(*residents(3))
    assert place.village.anchor()
    # The request of before comes once more, late: its head is older than the newest anchor.
    assert b"need" in place.township.holding.anchor(VILLAGE, body)
    assert kinds(place) == []
    assert real is place.village.ground.anchors


def _request(place: Place, seen: int) -> bytes:
    ground = place.village.ground
    with place.village.engine.connect() as connection:
        head = Head(
            VILLAGE,
            1,
            ground.anchors.end(connection),
            place.clock.now_ms(),
            ground.anchors.lives(connection),
            ground.anchors.at(connection, seen),
        )
    signed = ground.proof.sign(HEAD_TAG, head_bytes(head))
    chain = ground.proof.chain_pem.decode()
    return json.dumps({"head": signed_out(signed), "chain": chain}).encode()


def test_nobody_signs_for_another(place: Place) -> None:
    """A head of a sibling, a foreign signature, another's certificate: refused, nothing is kept."""
    holding = place.township.holding
    body = json.loads(_request(place, 0))
    with pytest.raises(AuditStatementError):
        holding.anchor(SIBLING, json.dumps(body).encode())
    forged = {**body, "head": {**body["head"], "signature": "30" * 40}}
    with pytest.raises(AuditStatementError):
        holding.anchor(VILLAGE, json.dumps(forged).encode())
    other = place.township.ground.proof
    head = Head(VILLAGE, 1, Point(5, "a" * 64), 1, (Life(1, 0),), Point(0, ""))
    signed = other.sign(HEAD_TAG, head_bytes(head))
    stolen = {"head": signed_out(signed), "chain": other.chain_pem.decode()}
    with pytest.raises(AuditStatementError):
        holding.anchor(VILLAGE, json.dumps(stolen).encode())
    with place.township.engine.connect() as connection:
        assert connection.execute(select(AUDITING.anchors)).all() == []


def revoked(place: Place) -> Entry:
    """The township revokes the village's key, now."""
    credentials = credentials_of(place.folders[TOWNSHIP], TOWNSHIP)
    thief = credentials_of(place.folders[VILLAGE], VILLAGE).signer
    keys = (key_digest(thief.public_key),)
    at_ms = place.clock.now_ms()
    word = Word(TOWNSHIP, 1, Target.NODE, VILLAGE, keys, (), 0, "stolen", "op", at_ms)
    return sign_entry(credentials.signer, word)


def kept_holds(place: Place) -> list[bool]:
    """Of each anchor of the village at the township, whether both signatures prove it."""
    ground = place.township.ground

    def work(connection: Connection) -> list[bool]:
        found = []
        for each in ground.anchors.kept(connection, VILLAGE, holder=TOWNSHIP, limit=10):
            try:
                ground.proof.verify_kept(connection, ground.anchors, each)
                found.append(True)
            except AuditStatementError:
                found.append(False)
        return found

    return ground.transactions.read(work)


def test_a_revoked_key_anchors_nothing_more(place: Place) -> None:
    """Although its chain was taken in before; what was anchored before the revocation stands."""
    place.village.read(*residents(1))
    assert place.village.anchor()
    place.clock.pass_ms(HOUR_MS)
    entry = revoked(place)
    place.clock.pass_ms(HOUR_MS)
    place.village.read(*residents(1))
    assert place.village.anchor()
    assert kept_holds(place) == [True, True]
    place.township.revoked.add([entry])
    place.village.read(*residents(1))
    assert not place.village.anchor()
    assert place.village.keeper.states[TOWNSHIP].error == "AUDIT_SIGNER_UNKNOWN"
    assert sorted(kept_holds(place)) == [False, True]
    place.township.restart()
    assert not place.village.anchor()
    assert sorted(kept_holds(place)) == [False, True]


def test_what_is_no_statement_is_refused(place: Place) -> None:
    """A hostile child gets a code and breaks nothing."""
    for body in (
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"head": 1}',
        b"[" * 5000,
        b'{"head": {"said": "x", "signature": "zz", "key": "k"}}',
        b'{"head": {"said": "[]", "signature": "", "key": "' + b"0" * 64 + b'"}}',
        b'{"head": {"said": "\\ud800", "signature": "", "key": "' + b"0" * 64 + b'"}}',
    ):
        with pytest.raises(AuditStatementError):
            place.township.holding.anchor(VILLAGE, body)


def test_a_contradiction_is_refused_each_time_and_kept_once(place: Place) -> None:
    """A child that asks every minute fills no table."""
    place.village.read(*residents(4))
    assert place.village.anchor()
    with place.village.engine.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.chain_position > 2))
        connection.execute(update(AUDIT_CHAIN).values(position=2, hash="2" * 64))
    for _ in range(5):
        assert not place.village.anchor()
    assert len(place.township.holding.findings()) == 1


def test_anchors_are_thinned_and_the_newest_stays(place: Place) -> None:
    """A year of minutes is some hundreds of rows."""
    for _ in range(3):
        for _ in range(4):
            place.village.read(*residents(1))
            assert place.village.anchor()
            place.clock.pass_ms(60_000)
        place.clock.pass_ms(2 * HOUR_MS)
    place.clock.pass_ms(400 * 24 * HOUR_MS)
    side = place.township
    gone = side.ground.transactions.write(
        lambda connection: side.ground.anchors.thin(connection, place.clock.now_ms())
    )
    assert gone == 10
    assert place.village.verify().holds


def test_the_error_names_the_position_and_no_resident(place: Place) -> None:
    """What the child is told is safe to log."""
    somebody = residents(1)
    place.village.read(*somebody)
    assert place.village.anchor()
    place.tamper(1, hash="f" * 64)
    with place.village.engine.begin() as connection:
        connection.execute(update(AUDIT_CHAIN).values(hash="e" * 64))
        position = connection.execute(select(AUDIT_CHAIN.c.position)).scalar_one()
        connection.execute(
            update(AUDIT).where(AUDIT.c.chain_position == position).values(hash="e" * 64)
        )
    with pytest.raises(AuditContradictedError) as refused:
        place.township.holding.anchor(VILLAGE, _request(place, position))
    assert str(position) in refused.value.message
    assert somebody[0] not in refused.value.message


def test_another_node_cannot_be_accepted_for(place: Place) -> None:
    """A deed of nobody is no deed."""
    deed = Deed(Action.READ, "residents", Outcome.DONE, 1)
    place.village.ground.transactions.write(
        lambda c: place.village.ground.auditor.write(c, place.village.caller(), deed)
    )
    from node.auditing.errors import AuditFindingUnknownError

    with pytest.raises(AuditFindingUnknownError):
        place.township.holding.accept(place.township.caller(), VILLAGE, "no reason")
