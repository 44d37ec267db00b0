"""Figures for Prometheus that must follow what they speak of."""

from __future__ import annotations

from datetime import UTC, datetime

from node.metrics import NodeMetrics


def test_the_certificate_in_use_is_asked_at_each_scrape() -> None:
    """A renewed certificate, or one that could not be read, shows without a restart."""
    metrics = NodeMetrics("1410")
    state = [datetime(2030, 1, 1, tzinfo=UTC)]
    metrics.certificate(lambda: state[-1], lambda: len(state) - 1)
    read = metrics.registry.get_sample_value
    assert read("fenhe_certificate_expires_seconds") == state[0].timestamp()
    state.append(datetime(2031, 1, 1, tzinfo=UTC))
    assert read("fenhe_certificate_expires_seconds") == state[1].timestamp()
    assert read("fenhe_certificate_failures") == 1
