"""Whether a bundle may be stored: every fault of every row, before anything is written.

Pure: the caller gives the day and the hierarchy. Expects a bundle that `normalise_bundle` returned.
Whether a resident or an id is already known is the storage's to say, in its transaction.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.records.faults import FAULT_CODES, Fault, FaultReport
from node.records.model import Bundle
from node.records.record_checks import RecordChecks
from node.records.resident_checks import ResidentChecks

__all__ = ["BUNDLE_ROWS_MAX", "FAULT_CODES", "Fault", "check_bundle"]

BUNDLE_ROWS_MAX: Final = 1000
"""Residents and records together."""


def check_bundle(
    bundle: Bundle, *, hierarchy: Hierarchy, node_id: NodeId, today: date
) -> list[Fault]:
    """Return all faults of a bundle; none means it may be stored.

    Args:
        bundle: In normal form.
        hierarchy: Of the configuration epoch in force.
        node_id: The node that would store it.
        today: The last day that a date may name.
    """
    report = FaultReport()
    rows = len(bundle.residents) + len(bundle.records)
    if not (8 <= len(bundle.request_id) <= 64 and bundle.request_id.isprintable()):
        report.add("request_id", "REQUEST_ID_INVALID", "8 to 64 printable characters")
    if rows == 0:
        report.add("bundle", "BUNDLE_EMPTY", "at least one resident or record")
    if rows > BUNDLE_ROWS_MAX:
        # The rows of an oversized bundle are not looked at: that would be the caller's to pay.
        report.add("bundle", "BUNDLE_TOO_LARGE", f"at most {BUNDLE_ROWS_MAX} rows")
        return report.all()
    residents = ResidentChecks(hierarchy, node_id, today, report)
    residents.check_all(bundle.residents)
    RecordChecks(residents.births, today, report).check_all(bundle.records)
    return report.all()
