"""A region that was changed: the child gets what the root signed, and checks it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from hierarchy_config import Hierarchy, NodeId, region_text
from node.foundations import read_foundations
from node.joining.answer import SignedEpochText, read_answer, write_answer
from node.joining.errors import JoinAnswerError
from node.region.joined import adopt_signed
from node.region.statements import Judge, read_offer, sign_decision, sign_offer
from node.region.store import EpochState, EpochStore
from node.security.certificates import certificates_from_pem, private_key_from_pem
from node.security.folders import NodeFolder
from node.security.key_files import read_secret
from node.security.signatures import Signer
from node.storage.transactions import Transactions
from tests.contracts.joining.place import DAY_MS, HIERARCHY, START_MS, Liar, Place
from tests.unit.security.region import CITY, COUNTY

SECOND = replace(HIERARCHY, epoch=2)


def signer(place: Place, node: NodeId) -> Signer:
    """A node's own signature."""
    files = NodeFolder(place.folders[node]).tls
    chain = tuple(certificates_from_pem(files.chain.read_bytes()))
    return Signer(private_key_from_pem(read_secret(files.private_key)), chain)


def signed(place: Place, by: NodeId, hierarchy: Hierarchy = SECOND) -> SignedEpochText:
    """An epoch as a node has signed it."""
    who, text = signer(place, by), region_text(hierarchy)
    raw = sign_offer(who, HIERARCHY, text, by="an operator", at="2026-01-01")
    root = NodeFolder(place.folders[CITY]).tls.root.read_bytes()
    judge = Judge(root, HIERARCHY, datetime.fromtimestamp(START_MS / 1000, UTC))
    own = sign_offer(signer(place, CITY), HIERARCHY, text, by="an operator", at="2026-01-01")
    decision = sign_decision(
        who, read_offer(own, judge), without=(), keys={}, purge_after_s=0, by="x", at="y"
    )
    return SignedEpochText(raw.decode(), decision.decode())


def test_the_root_s_word_comes_along_and_is_kept(place: Place) -> None:
    """The child's table has the epoch with the statements, to hand them to its own children."""
    said = signed(place, CITY)
    place.region = (region_text(SECOND), said)
    # Two years after it was signed: the root's certificate of then has ended.
    place.clock.ms += 2 * 365 * DAY_MS
    place.child_clock.ms = place.clock.ms
    place.invite()
    place.join()
    base = read_foundations(place.root / "machine", place.child_clock)
    assert base.hierarchy.epoch == 2
    epochs = EpochStore(Transactions(place.engine), place.child_clock.now_ms)
    for _ in range(2):
        adopt_signed(base, epochs, place.child_clock)
        epochs.settle(base.hierarchy, lambda _: frozenset())
    row = epochs.get(2)
    assert row is not None
    assert (row.state, row.offer, row.decision) == (
        EpochState.ACTIVE,
        said.offer.encode(),
        said.decision.encode(),
    )


def test_a_region_that_the_root_has_not_signed_is_refused(place: Place) -> None:
    """Signed by a county, or for another hierarchy than the file that came: no node is made."""
    others = replace(SECOND, thresholds=replace(SECOND.thresholds, cell_count_min=99))
    for said in (signed(place, COUNTY), signed(place, CITY, others)):
        place.region = (region_text(SECOND), said)
        with pytest.raises(JoinAnswerError):
            place.join()
    assert not place.is_made()
    place.region = (region_text(SECOND), signed(place, CITY))

    def halved(raw: bytes) -> bytes:
        answer = read_answer(raw)
        assert answer.signed is not None
        cut = replace(answer.signed, decision=answer.signed.offer)
        return write_answer(replace(answer, signed=cut))

    with pytest.raises(JoinAnswerError):
        place.join(through=lambda line: Liar(line, halved))
    place.join()


def test_statements_that_were_altered_in_the_folder_stop_nothing(place: Place) -> None:
    """They are left out, and the node works without them."""
    place.region = (region_text(SECOND), signed(place, CITY))
    place.join()
    data = place.root / "machine"
    (data / "region.signed.json").write_text('{"offer": "{}", "decision": 1}')
    base = read_foundations(data, place.child_clock)
    epochs = EpochStore(Transactions(place.engine), place.child_clock.now_ms)
    adopt_signed(base, epochs, place.child_clock)
    assert epochs.all() == ()
    assert not (data / "region.signed.json").exists()
