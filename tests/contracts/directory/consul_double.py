"""A small stand-in for a Consul agent, made after Consul's documented HTTP API.

It serves what ConsulDirectory asks: KV with check-and-set and blocking queries, registration of
services, and their health. It is not Consul: it has one agent, no ACLs and no Raft.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_HEALTHY = "passing"


@dataclass
class AgentState:
    """What the agent knows; `changed` is told of every change of it."""

    index: int = 10
    values: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    health: dict[str, str] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    # Lets a test step in while a client waits, as another client of the same Consul would.
    waiting: threading.Event = field(default_factory=threading.Event)
    before_next_put: list[Callable[[], None]] = field(default_factory=list)
    refuse_with: int | None = None
    answers_at_once: bool = False
    tokens: list[str | None] = field(default_factory=list)


class ConsulDouble:
    """A running double on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.state = AgentState()
        state = self.state

        class Handler(_Handler):
            agent = state

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop and close every socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def set_health(self, status: str) -> None:
        """Let every check come out as `status`."""
        with self.state.changed:
            for service_id in self.state.services:
                self.state.health[service_id] = status

    def put(self, key: str, value: bytes) -> None:
        """Write a key as another client would."""
        _put(self.state, key, value)


class _Handler(BaseHTTPRequestHandler):
    agent: AgentState
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def do_GET(self) -> None:
        path, query = self._asked()
        if path.startswith("/v1/kv/"):
            self._get_value(path.removeprefix("/v1/kv/"), query)
        elif path.startswith("/v1/health/service/"):
            name = path.removeprefix("/v1/health/service/")
            self._answer(200, _instances(self.agent, name, query))
        else:
            self._answer(404, "no such endpoint")

    def do_PUT(self) -> None:
        path, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.startswith("/v1/kv/"):
            while self.agent.before_next_put:
                self.agent.before_next_put.pop()()
            cas = int(query["cas"]) if "cas" in query else None
            self._answer(200, _put(self.agent, path.removeprefix("/v1/kv/"), body, cas))
        elif path == "/v1/agent/service/register":
            service = json.loads(body)
            with self.agent.changed:
                self.agent.services[service["id"]] = service
                # As in Consul, a check is critical until it has passed once.
                self.agent.health[service["id"]] = "critical"
            self._answer(200, None)
        elif path.startswith("/v1/agent/service/deregister/"):
            service_id = path.rpartition("/")[2]
            with self.agent.changed:
                known = self.agent.services.pop(service_id, None)
            self._answer(200 if known else 404, None)
        else:
            self._answer(404, "no such endpoint")

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        self.agent.tokens.append(self.headers.get("X-Consul-Token"))
        return unquote(parts.path), {key: each[-1] for key, each in parse_qs(parts.query).items()}

    def _get_value(self, key: str, query: dict[str, str]) -> None:
        agent = self.agent
        with agent.changed:
            if "index" in query and not agent.answers_at_once:
                seen, wait_s = int(query["index"]), _seconds(query["wait"])
                agent.waiting.set()
                agent.changed.wait_for(lambda: _index_of(agent, key) != seen, wait_s)
            found = agent.values.get(key)
            index = _index_of(agent, key)
        if found is None:
            self._answer(404, None, index)
            return
        shown = {
            "Key": key,
            "Value": base64.b64encode(found[1]).decode("ascii"),
            "ModifyIndex": found[0],
        }
        self._answer(200, [shown], index)

    def _answer(self, status: int, body: object, index: int | None = None) -> None:
        status = self.agent.refuse_with or status
        content = b"" if body is None else json.dumps(body).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Consul-Index", str(index or self.agent.index))
        self.end_headers()
        self.wfile.write(content)


def _index_of(agent: AgentState, key: str) -> int:
    return agent.values[key][0] if key in agent.values else agent.index


def _put(agent: AgentState, key: str, value: bytes, cas: int | None = None) -> bool:
    with agent.changed:
        held = agent.values[key][0] if key in agent.values else 0
        if cas is not None and cas != held:
            return False
        agent.index += 1
        agent.values[key] = (agent.index, value)
        agent.changed.notify_all()
        return True


def _instances(agent: AgentState, name: str, query: dict[str, str]) -> list[dict[str, Any]]:
    with agent.changed:
        return [
            {
                "Node": {"Address": "127.0.0.1"},
                "Service": {"Address": service.get("address", ""), "Port": service["port"]},
            }
            for service_id, service in agent.services.items()
            if service["name"] == name
            and ("tag" not in query or query["tag"] in service["tags"])
            and ("passing" not in query or agent.health[service_id] == _HEALTHY)
        ]


def _seconds(duration: str) -> float:
    if duration.endswith("ms"):
        return int(duration.removesuffix("ms")) / 1000
    return float(duration.removesuffix("s"))
