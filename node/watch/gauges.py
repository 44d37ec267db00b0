"""The watch's figures for Prometheus, in the node's registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge

from node.transit.model import Unanswered
from node.watch.alarms import Alarm
from node.watch.figures import LinkFigure
from replication.core.mailbox import PostState

__all__ = ["WatchGauges"]


class WatchGauges:
    """Lag, backlog and receipts by peer and lane; the quarantine by cause; the alarms."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lag = Gauge(
            "fenhe_link_lag_seconds",
            "Age of the oldest entry for the peer that it has not confirmed",
            ("peer", "lane"),
            registry=registry,
        )
        self._backlog_bytes = Gauge(
            "fenhe_link_backlog_bytes",
            "Rows for the peer that it has not confirmed, before packing",
            ("peer", "lane"),
            registry=registry,
        )
        self._receipts = Gauge(
            "fenhe_link_receipt_number",
            "Number of the last batch that the peer confirmed",
            ("peer", "lane"),
            registry=registry,
        )
        self._causes = Gauge(
            "fenhe_quarantined_by_cause",
            "Changes that wait in the quarantine",
            ("cause",),
            registry=registry,
        )
        self._letters = Gauge(
            "fenhe_letters",
            "Letters written here that are not confirmed",
            ("state",),
            registry=registry,
        )
        self._aside = Gauge(
            "fenhe_items_aside",
            "Items that cannot be read or handled, since the start",
            ("kind",),
            registry=registry,
        )
        self._alarms = Gauge(
            "fenhe_alarm", "1 while an alarm stands", ("kind", "peer"), registry=registry
        )

    def show(
        self,
        links: Iterable[LinkFigure],
        causes: Mapping[str, int],
        letters: Iterable[Unanswered],
        *,
        aside: Mapping[str, int],
        alarms: Iterable[Alarm],
        now_ms: int,
    ) -> None:
        """What the watch saw at its last look."""
        for link in links:
            for lane in link.lanes:
                labels = (link.peer, lane.lane.name.lower())
                self._lag.labels(*labels).set(lane.lag_s(now_ms))
                self._backlog_bytes.labels(*labels).set(lane.backlog_bytes)
                self._receipts.labels(*labels).set(lane.receipt_number)
        self._causes.clear()
        for cause, items in causes.items():
            self._causes.labels(cause).set(items)
        by_state = Counter({each.value: 0 for each in PostState if each is not PostState.CONFIRMED})
        for letter in letters:
            by_state[letter.state.value] += letter.count
        for state, count in by_state.items():
            self._letters.labels(state).set(count)
        self._aside.clear()
        for kind, items in aside.items():
            self._aside.labels(kind).set(items)
        self._alarms.clear()
        for alarm in alarms:
            self._alarms.labels(alarm.kind.value, alarm.peer).set(1)
