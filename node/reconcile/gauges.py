"""Figures of the comparisons, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from node.reconcile.model import LinkReport

__all__ = ["ReconcileGauges"]


class ReconcileGauges:
    """Counts since the start, by neighbour."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = Counter(
            "fenhe_verified_rows", "Rows compared with a neighbour", ("peer",), registry=registry
        )
        self._differing = Counter(
            "fenhe_differing_rows",
            "Rows found to differ from a neighbour's, by cause",
            ("peer", "cause"),
            registry=registry,
        )
        self._repaired = Counter(
            "fenhe_repaired_rows", "Differing rows that were mended", ("peer",), registry=registry
        )

    def count(self, report: LinkReport) -> None:
        """Add what a comparison found."""
        self._rows.labels(report.peer).inc(report.rows)
        self._repaired.labels(report.peer).inc(report.repaired)
        for cause, rows in report.causes.items():
            self._differing.labels(report.peer, cause).inc(rows)
