"""Node processes of the demo: each the same program, started and stopped as an operator would."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import grpc

import protos.fenhe.node.v1.node_pb2 as node_pb
from hierarchy_config import NodeId
from node.cli.client import connected
from node.clock import Clock
from node.demo.place import DemoPlace
from node.errors import NodeError
from node.security.credentials import load_credentials
from protos.fenhe.node.v1 import node_pb2_grpc

__all__ = ["Fleet", "NodeProcess", "NodeStartError", "spawned"]

START_S_MAX: Final = 90.0
STOP_S_MAX: Final = 20.0
_POLL_S: Final = 0.1


class NodeStartError(NodeError):
    """A node's process ended, or was not ready in time; its log says why."""

    code = "NODE_START_FAILED"
    default_hint = "Read the end of the log named."


class NodeProcess(Protocol):
    """What the fleet needs of a process; a subprocess.Popen has it."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def spawned(words: Sequence[str], said: Path) -> NodeProcess:
    """Start `fenhe` with words as a process of its own, its stderr appended to a file."""
    with said.open("ab") as file:
        return subprocess.Popen(
            [*_end_with_parent(), sys.executable, "-m", "node", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,  # Ctrl-C is the demo's, which stops the nodes in order
        )


@dataclass
class Fleet:
    """The running processes.

    Attributes:
        place: Whose nodes they are.
        clock: For how long one is waited for.
        launch: Starts a process with the words of a command and the file for its stderr.
    """

    place: DemoPlace
    clock: Clock
    launch: Callable[[Sequence[str], Path], NodeProcess] = spawned
    _processes: dict[NodeId, NodeProcess] = field(default_factory=dict)

    def start(self, node: NodeId) -> None:
        """Start one node's process; returns at once."""
        folder = self.place.node_dir(node)
        (folder / "run.json").unlink(missing_ok=True)
        words = ("node", "run", "--data", str(folder), "--log", str(folder / "node.log"))
        self._processes[node] = self.launch(words, folder / "stderr.log")

    def wait_ready(self, nodes: tuple[NodeId, ...] | None = None) -> None:
        """Wait until each of the nodes (default: all) has written that it serves.

        Raises:
            NodeStartError: One ended instead, or did not make it in time.
        """
        deadline = self.clock.monotonic_ms() + START_S_MAX * 1000
        waiting = set(self.place.nodes if nodes is None else nodes)
        while waiting:
            for node in sorted(waiting):
                process = self._processes[node]
                if (self.place.node_dir(node) / "run.json").exists():
                    waiting.discard(node)
                elif process.poll() is not None:
                    raise NodeStartError(f"node {node} ended while starting: {self._words(node)}")
            if waiting and self.clock.monotonic_ms() > deadline:
                raise NodeStartError(f"not ready in {START_S_MAX:.0f} s: {', '.join(waiting)}")
            if waiting:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._processes[min(waiting)].wait(_POLL_S)

    def status(self, node: NodeId) -> node_pb.StatusResponse:
        """The node's own account of itself."""
        credentials = load_credentials(self.place.credentials_dir(f"operator-{node}"))
        with connected(credentials) as channel:
            return node_pb2_grpc.NodeServiceStub(channel).Status(
                node_pb.StatusRequest(), timeout=10, wait_for_ready=True
            )

    def is_connected(self, node: NodeId) -> bool:
        """Whether the node's link to its parent is up."""
        try:
            links = self.status(node).links
        except grpc.RpcError:
            return False
        return all(link.connected for link in links if link.role == "parent")

    def kill(self, node: NodeId) -> None:
        """SIGKILL, as a power cut would."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    @property
    def started(self) -> frozenset[NodeId]:
        """The nodes that were started and not stopped."""
        return frozenset(self._processes)

    def pid(self, node: NodeId) -> int:
        """The process id of a node that was started."""
        return self._processes[node].pid

    def stop(self, nodes: tuple[NodeId, ...] | None = None) -> dict[NodeId, int]:
        """Stop the nodes (default: all) in order, kill what does not listen; their exit codes."""
        stopping = {
            node: self._processes.pop(node)
            for node in (tuple(self._processes) if nodes is None else nodes)
        }
        for process in stopping.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in stopping.values():
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return {node: process.wait() for node, process in stopping.items()}

    def _words(self, node: NodeId) -> str:
        """The last thing a node said before it ended."""
        folder = self.place.node_dir(node)
        return _last_words(folder / "stderr.log") or _last_words(folder / "node.log")


def _last_words(path: Path) -> str:
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if not lines:
        return ""
    with contextlib.suppress(ValueError):
        return str(json.loads(lines[-1]).get("event", lines[-1]))
    return " ".join(lines[-3:])


def _end_with_parent() -> list[str]:
    """The kernel ends the node when the demo dies, even by SIGKILL (util-linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv is not None else []
