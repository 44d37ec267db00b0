"""What rooms have the doctor look at: anchors of the audit, and revoked keys in use."""

from __future__ import annotations

from pathlib import Path

from node.auditing import looks as anchors
from node.auditing.anchors import StoredFinding
from node.auditing.gate import BULK_MS
from node.auditing.keeper import HolderState
from node.auditing.model import Finding as AuditFinding
from node.auditing.model import FindingKind, Point
from node.doctor.findings import Severity
from node.links import LinkState
from node.revocation import looks as revoked
from node.revocation.book import RevokedBook
from tests.unit.security.region import COUNTY, TOWNSHIP, VILLAGE, small_hierarchy

MINUTE_MS = 60_000
HELD = HolderState(Point(90, "h"), at_ms=5)


def _own(state: HolderState, unanchored_ms: int = 0) -> tuple[Severity, str, str]:
    [found] = anchors.own_findings({COUNTY: state}, 100, unanchored_ms)
    assert found.about == COUNTY
    assert found.next_step or found.severity is Severity.GOOD
    return found.severity, found.message, found.next_step


def test_an_anchor_that_follows_is_good_and_one_that_lags_is_not() -> None:
    """How far, for how long and why; after four hours, when things stop, it is bad."""
    assert _own(HELD)[:2] == (Severity.GOOD, "the audit is anchored there, all but 10 entries")
    late = _own(HolderState(Point(90, "h"), 5, "LINK_DOWN"), 11 * MINUTE_MS)
    assert late[0] is Severity.WARNING
    assert "10 entries" in late[1]
    assert "LINK_DOWN" in late[1]
    assert _own(HELD, BULK_MS)[0] is Severity.BAD
    assert _own(HolderState())[0] is Severity.WARNING, "never anchored"


def test_an_anchor_that_does_not_fit_is_bad_at_both_ends() -> None:
    """Here, and at the neighbour whose audit was changed, until an operator has accepted it."""
    severity, _, step = _own(HolderState(error="AUDIT_CONTRADICTED"))
    assert severity is Severity.BAD
    assert "audit verify" in step

    def stored(kind: FindingKind, accepted_ms: int | None) -> StoredFinding:
        made = AuditFinding(kind, 1, 7, "a", "b")
        return StoredFinding(1, TOWNSHIP, made, 5, accepted_ms, "", "")

    [bad] = anchors.held_findings([stored(FindingKind.REWRITTEN, None)])
    assert (bad.severity, bad.about) == (Severity.BAD, TOWNSHIP)
    assert list(anchors.held_findings([stored(FindingKind.REWRITTEN, 9)])) == []
    assert list(anchors.held_findings([stored(FindingKind.LOST, None)])) == []


def test_a_region_of_one_node_has_nobody_to_anchor() -> None:
    """That is how it is."""
    [found] = anchors.own_findings({}, 100, BULK_MS)
    assert found.severity is Severity.GOOD


def test_neighbours_that_are_refused_for_a_key_are_named() -> None:
    """Another reason is another finding's."""
    states = {
        VILLAGE: LinkState(VILLAGE, "child", last_error="PEER_REVOKED: a key is revoked"),
        COUNTY: LinkState(COUNTY, "parent", last_error="LINK_DOWN: no answer"),
    }
    [found] = revoked.neighbours_findings(states)
    assert (found.severity, found.about) == (Severity.BAD, VILLAGE)
    assert found.next_step


def test_own_keys_that_nobody_revoked_are_good_and_unreadable_ones_are_not(
    tmp_path: Path,
) -> None:
    """What is not there is not looked at."""
    book = RevokedBook(small_hierarchy())
    [good] = revoked.own_findings(book, {"authority": tmp_path / "none.pem"})
    assert good.severity is Severity.GOOD
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    found = list(revoked.own_findings(book, {"certificate": broken}))
    assert [each.severity for each in found] == [Severity.BAD, Severity.GOOD]
