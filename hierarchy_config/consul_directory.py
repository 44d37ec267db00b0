"""A directory in Consul: the region in its key-value store, the nodes as its services.

    KV   fenhe/REGION/region      the text of the region file; its ModifyIndex is the revision
    service fenhe-REGION          one instance a node, tagged with the node's id, with a gRPC health
                                  check by the agent

Consul is read by py-consul. NO REAL CONSUL SERVER WAS RUN AGAINST THIS MODULE: its tests drive it
against a small HTTP double made after Consul's documented API. Two things to see to in a real
installation: a value is at most 512 KiB (the whole of Linfen takes about 60), and since a node
demands a client certificate, the agent needs one for its checks (enable_agent_tls_for_checks).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hierarchy_config.directory import (
    ConsulMissingError,
    DirectoryConflictError,
    DirectoryState,
    DirectoryUnreachableError,
    RegionMissingError,
    split_endpoint,
)
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from hierarchy_config.region_file import parse_region, region_text

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ConsulDirectory"]

_CHECK_INTERVAL: Final = "10s"
_CHECK_TIMEOUT: Final = "5s"
# A village may be off for a weekend; its registration is only noise after that.
_FORGET_AFTER: Final = "72h"
_WAIT_S_MAX: Final = 300.0
# A server that answers a blocking query at once, unchanged, must not make us spin.
_PAUSE_S: Final = 1.0


class ConsulDirectory:
    """The NodeDirectory of a Consul agent.

    Args:
        host, port: Of the agent, usually on the same machine.
        region: Name under which the region is kept.
        token: ACL token; None: none.
        scheme: "http" or "https".
        pause: Waits so many seconds.
        monotonic: Seconds of a clock that never goes back.

    Raises:
        ConsulMissingError: py-consul is not installed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        region: str,
        token: str | None = None,
        scheme: str = "http",
        pause: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consul = _consul_package()
        self._client: Any = self._consul.Consul(host=host, port=port, scheme=scheme, token=token)
        # py-consul lets the environment override the token and requests lets it set a proxy; here
        # the configuration alone says where Consul is and who asks.
        self._client.token = token
        self._client.http.session.trust_env = False
        self._place = f"{scheme}://{host}:{port}"
        self._key = f"fenhe/{region}/region"
        self._service = f"fenhe-{region}"
        self._pause = pause
        self._monotonic = monotonic

    def close(self) -> None:
        """Close the connections to the agent."""
        self._client.http.session.close()

    def read(self) -> DirectoryState:
        """See NodeDirectory."""
        return self._state(self._value())

    def publish(self, hierarchy: Hierarchy, *, expected: str | None) -> str:
        """See NodeDirectory. Consul's check-and-set decides between two who publish at once."""
        current = self._value()
        if (None if current is None else str(current["ModifyIndex"])) != expected:
            raise DirectoryConflictError("the region was changed by someone else meanwhile")
        if current is not None and self._state(current).hierarchy.epoch >= hierarchy.epoch:
            raise DirectoryConflictError("the epoch is not higher than the one in force")
        index = 0 if current is None else current["ModifyIndex"]
        text = region_text(hierarchy).encode("utf-8")
        if not self._ask(self._client.kv.put, self._key, text, cas=index):
            raise DirectoryConflictError("the region was changed by someone else meanwhile")
        return self.read().revision

    def wait_for_change(self, revision: str, timeout_s: float) -> DirectoryState | None:
        """See NodeDirectory. One blocking query of at most five minutes after the other."""
        deadline = self._monotonic() + timeout_s
        while True:
            left = deadline - self._monotonic()
            if left <= 0:
                return None
            asked = self._monotonic()
            wait_ms = math.ceil(min(left, _WAIT_S_MAX) * 1000)
            value = self._value(index=revision, wait=f"{wait_ms}ms")
            # A lower index (a restored Consul) is a change like a higher one.
            if value is None or str(value["ModifyIndex"]) != revision:
                return self._state(value)
            if self._monotonic() - asked < min(left, _PAUSE_S):
                self._pause(min(left, _PAUSE_S))

    def register(self, node_id: NodeId, endpoint: str) -> None:
        """See NodeDirectory. The node counts as healthy once the agent's first check passes."""
        host, port = split_endpoint(endpoint)
        self.read().hierarchy.entry(node_id)
        check = self._consul.Check.grpc(
            endpoint,
            _CHECK_INTERVAL,
            use_tls=True,
            timeout=_CHECK_TIMEOUT,
            deregister=_FORGET_AFTER,
        )
        accepted = self._ask(
            self._client.agent.service.register,
            self._service,
            service_id=self._service_id(node_id),
            address=host,
            port=port,
            tags=[node_id],
            check=check,
            replace_existing_checks=True,
        )
        if not accepted:
            raise DirectoryUnreachableError(f"Consul at {self._place} did not take a registration")

    def deregister(self, node_id: NodeId) -> None:
        """See NodeDirectory."""
        # py-consul answers False for an id that the agent does not know: that is no error here.
        self._ask(self._client.agent.service.deregister, self._service_id(node_id))

    def registration_of(self, node_id: NodeId) -> str | None:
        """See NodeDirectory."""
        self.read().hierarchy.entry(node_id)
        return self._registered(node_id)

    def endpoint_of(self, node_id: NodeId) -> str | None:
        """See NodeDirectory."""
        entry = self.read().hierarchy.entry(node_id)
        return self._registered(node_id) or entry.endpoint

    def _registered(self, node_id: NodeId) -> str | None:
        _, found = self._ask(self._client.health.service, self._service, passing=True, tag=node_id)
        for each in found or ():
            service = each["Service"]
            host = service["Address"] or each["Node"]["Address"]
            return f"[{host}]:{service['Port']}" if ":" in host else f"{host}:{service['Port']}"
        return None

    def _service_id(self, node_id: NodeId) -> str:
        return f"{self._service}-{node_id}"

    def _value(self, **blocking: str) -> dict[str, Any] | None:
        _, value = self._ask(self._client.kv.get, self._key, **blocking)
        return value if value is None else dict(value)

    def _state(self, value: dict[str, Any] | None) -> DirectoryState:
        if value is None:
            raise RegionMissingError(f"Consul at {self._place} holds no {self._key}")
        text = (value["Value"] or b"").decode("utf-8", errors="replace")
        hierarchy = parse_region(text, file=f"consul:{self._key}")
        return DirectoryState(hierarchy, str(value["ModifyIndex"]))

    def _ask(self, question: Callable[..., Any], *args: Any, **settings: Any) -> Any:
        # requests' errors are OSErrors; anything else of py-consul's is a ConsulException.
        try:
            return question(*args, **settings)
        except (OSError, self._consul.ConsulException) as error:
            raise DirectoryUnreachableError(
                f"Consul at {self._place}: {type(error).__name__}"
            ) from error


def _consul_package() -> ModuleType:
    try:
        import consul
    except ImportError as error:
        raise ConsulMissingError from error
    package: ModuleType = consul
    return package
