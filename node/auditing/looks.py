"""What `fenhe doctor` finds of the anchors of this node's audit, and of those it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from hierarchy_config.model import NodeId
from node.auditing.anchors import StoredFinding
from node.auditing.gate import BULK_MS
from node.auditing.keeper import HolderState
from node.auditing.model import FindingKind
from node.doctor.findings import Finding, Severity

__all__ = ["TOPIC", "held_findings", "own_findings"]

TOPIC: Final = "ANCHORS"
_LATE_MS: Final = 10 * 60_000
_ENTRIES_MAX: Final = 10_000
_CONTRADICTED: Final = "AUDIT_CONTRADICTED"


def own_findings(
    states: Mapping[NodeId, HolderState], position: int, unanchored_ms: int
) -> Iterator[Finding]:
    """Each holder: whether it anchors, and how far it is behind; `position`: of the chain's end."""
    if not states:
        yield Finding(TOPIC, Severity.GOOD, "there is no other node that could anchor the audit")
    for holder, state in states.items():
        yield _own(holder, state, position, unanchored_ms)


def _own(holder: NodeId, state: HolderState, position: int, unanchored_ms: int) -> Finding:
    behind = max(0, position - state.anchored.position)
    minutes = unanchored_ms // 60_000
    if state.error == _CONTRADICTED:
        said = "what it has anchored does not fit this node's audit"
        step = "Run `fenhe audit verify` here: it names the first entry that differs."
        return Finding(TOPIC, Severity.BAD, said, step, holder)
    late = unanchored_ms >= _LATE_MS
    if late or behind > _ENTRIES_MAX or not state.at_ms:
        why = f" ({state.error})" if state.error else ""
        said = f"{behind} entries of the audit are not anchored there, for {minutes} min{why}"
        step = f"See that the line to {holder} is up, and that it is of a release that anchors."
        severity = Severity.BAD if unanchored_ms >= BULK_MS else Severity.WARNING
        return Finding(TOPIC, severity, said, step, holder)
    said = f"the audit is anchored there, all but {behind} entries"
    return Finding(TOPIC, Severity.GOOD, said, about=holder)


def held_findings(findings: Sequence[StoredFinding]) -> Iterator[Finding]:
    """Neighbours whose audit contradicts what is anchored here, and nobody has accepted it."""
    standing = {
        each.node_id: each
        for each in findings
        if each.accepted_ms is None and each.finding.kind is not FindingKind.LOST
    }
    for node_id, each in standing.items():
        said = f"its audit is {each.finding.kind.value} at position {each.finding.position}"
        step = (
            f"Run `fenhe audit verify` at {node_id} and find out who changed its database; then "
            "`fenhe audit accept` here."
        )
        yield Finding(TOPIC, Severity.BAD, said, step, node_id)
