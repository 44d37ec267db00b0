"""Figures of the audit's anchoring, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

__all__ = ["AuditGauges"]


class AuditGauges:
    """As they were at the last look."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._unanchored = Gauge(
            "fenhe_audit_unanchored_seconds",
            "For how long no other node holds the end of this node's audit",
            registry=registry,
        )
        self._position = Gauge(
            "fenhe_audit_position", "Entries in the audit's chain", registry=registry
        )
        self._anchored = Gauge(
            "fenhe_audit_anchored_position",
            "Entries that a neighbour's anchor covers",
            ("holder",),
            registry=registry,
        )
        self._reserve = Gauge(
            "fenhe_audit_reserve_bytes",
            "Room kept on the disk for the audit; 0 once it was given up",
            registry=registry,
        )

    def show(
        self, unanchored_ms: int, position: int, anchored: dict[str, int], reserve_bytes: int
    ) -> None:
        """`anchored`: by holder."""
        self._unanchored.set(unanchored_ms / 1000)
        self._position.set(position)
        for holder, place in anchored.items():
            self._anchored.labels(holder).set(place)
        self._reserve.set(reserve_bytes)
