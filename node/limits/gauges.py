"""The gate's figures for Prometheus, in the node's registry."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from node.limits.gate import CallGate
from node.limits.pools import Pool

__all__ = ["LimitGauges"]


class LimitGauges:
    """Refusals by code; calls under way by pool, asked at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refused = Counter(
            "fenhe_calls_refused", "Calls over a limit, by code", ("code",), registry=registry
        )
        self._under_way = Gauge(
            "fenhe_calls_under_way", "Calls being served, by pool", ("pool",), registry=registry
        )

    def refused(self, code: str) -> None:
        """One call was refused."""
        self._refused.labels(code).inc()

    def watch(self, gate: CallGate) -> None:
        """Show the pools of a gate."""
        for name, pool in gate.pools.items():
            self._under_way.labels(name).set_function(partial(_count, pool))


def _count(pool: Pool) -> float:
    return pool.under_way
