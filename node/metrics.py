"""Figures for Prometheus. Names start with fenhe_; labels are node ids, methods and codes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from node.errors import SettingsError

__all__ = ["NodeMetrics", "serve_metrics"]


class NodeMetrics:
    """The node's figures, in a registry of their own."""

    def __init__(self, node_id: str) -> None:
        self.registry = CollectorRegistry()
        self._node_id = node_id
        self._calls = Counter(
            "fenhe_calls",
            "Calls answered, by method and code",
            ("method", "code"),
            registry=self.registry,
        )
        self._log_head = Gauge(
            "fenhe_log_sequence", "Newest number of the change log", registry=self.registry
        )
        self._log_bytes = Gauge(
            "fenhe_log_bytes", "About what the change log takes", registry=self.registry
        )
        self._log_pruned = Gauge(
            "fenhe_log_pruned_sequence",
            "Newest number that was pruned from the change log",
            registry=self.registry,
        )
        self._recovering = Gauge(
            "fenhe_recovering",
            "1 while the node gets back what its store lost",
            registry=self.registry,
        )
        self._connected = Gauge(
            "fenhe_link_connected", "1 while the link is up", ("peer",), registry=self.registry
        )
        self._backlog = Gauge(
            "fenhe_link_backlog_entries",
            "Log entries not confirmed by the peer",
            ("peer", "lane"),
            registry=self.registry,
        )
        self._columnar = Gauge(
            "fenhe_columnar_sequence",
            "Log sequence the columnar replica stands at",
            registry=self.registry,
        )
        self._answers = Gauge(
            "fenhe_resident_answers",
            "Residents answered since the start, from the cache or from the tables",
            ("source",),
            registry=self.registry,
        )
        self._cache_available = Gauge(
            "fenhe_cache_available",
            "0 while the cache's server cannot be used",
            registry=self.registry,
        )
        self._quarantined = Gauge(
            "fenhe_quarantined_changes",
            "Changes from neighbours that were not admitted and wait",
            registry=self.registry,
        )
        self._certificate_failures = Gauge(
            "fenhe_certificate_failures",
            "Changed certificates that could not be used",
            registry=self.registry,
        )
        self._certificate_expiry = Gauge(
            "fenhe_certificate_expires_seconds",
            "When the node's certificate expires, Unix time",
            registry=self.registry,
        )

    def count_call(self, method: str, code: str) -> None:
        """One call was answered."""
        self._calls.labels(method, code).inc()

    def log_head(self, head: int) -> None:
        """The change log reached `head`."""
        self._log_head.set(head)

    def link(self, peer: str, *, connected: bool, backlog: dict[str, int]) -> None:
        """How a link stands; backlog by lane name."""
        self._connected.labels(peer).set(connected)
        for lane, entries in backlog.items():
            self._backlog.labels(peer, lane).set(entries)

    def log_kept(self, size: int, pruned_to: int) -> None:
        """The change log takes about `size` bytes, and begins after `pruned_to`."""
        self._log_bytes.set(size)
        self._log_pruned.set(pruned_to)

    def recovering(self, *, active: bool) -> None:
        """Whether the node is getting back what it lost."""
        self._recovering.set(active)

    def columnar(self, sequence: int) -> None:
        """The columnar replica reached `sequence`."""
        self._columnar.set(sequence)

    def cache(self, *, available: bool, kept: int, read: int) -> None:
        """How the cache of answers stands, and how many came from it and from the tables."""
        self._cache_available.set(available)
        self._answers.labels("cache").set(kept)
        self._answers.labels("tables").set(read)

    def quarantined(self, changes: int) -> None:
        """So many changes wait in the quarantine."""
        self._quarantined.set(changes)

    def certificate(self, expires: Callable[[], datetime], failures: Callable[[], int]) -> None:
        """Ask at each scrape: renewal needs no restart.

        `failures` counts changed certificates that could not be read; gRPC then goes on with the
        old one without a word.
        """
        self._certificate_expiry.set_function(lambda: expires().timestamp())
        self._certificate_failures.set_function(failures)


def serve_metrics(metrics: NodeMetrics, address: str) -> Callable[[], None]:
    """Serve /metrics at host:port in a thread that dies with the process; returns what ends it.

    Raises:
        SettingsError: The address cannot be listened on.
    """
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host, registry=metrics.registry)
    except OSError as error:
        raise SettingsError(f"metrics_listen: {address}: {error.strerror}") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
