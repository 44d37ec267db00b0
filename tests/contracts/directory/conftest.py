"""One directory of each kind, with the hands of someone else who uses the same one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hierarchy_config import FileDirectory, Hierarchy, NodeDirectory, parse_region
from hierarchy_config.consul_directory import ConsulDirectory
from tests.contracts.directory.consul_double import ConsulDouble


def region(epoch: int = 1) -> Hierarchy:
    """A region of three nodes in some epoch."""
    return parse_region(
        f"""
        region: linfen
        epoch: {epoch}
        nodes: [{{id: 1410, endpoint: "10.0.0.1:7443"}}, {{id: 141002}}, {{id: 141024}}]
        """
    )


@dataclass
class Bench:
    """A directory under test, a second one on the same store, and what only a test can do.

    `overwrite` puts text in the place of the region; `let_checks_pass` makes every registered
    node healthy; `while_waiting` runs something as soon as the directory waits for a change.
    """

    directory: NodeDirectory
    other: NodeDirectory
    overwrite: Callable[[str], None]
    let_checks_pass: Callable[[], None]
    while_waiting: Callable[[Callable[[], object]], None]


@pytest.fixture
def consul_double() -> Iterator[ConsulDouble]:
    """A running double of a Consul agent."""
    double = ConsulDouble()
    yield double
    double.close()


@pytest.fixture
def consul_directory(consul_double: ConsulDouble) -> Iterator[ConsulDirectory]:
    """A directory at the double."""
    directory = ConsulDirectory("127.0.0.1", consul_double.port, region="linfen")
    yield directory
    directory.close()


@pytest.fixture(params=["file", "consul"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The same suite over both implementations."""
    if request.param == "file":
        yield _file_bench(tmp_path / "directory")
    else:
        double: ConsulDouble = request.getfixturevalue("consul_double")
        directory: ConsulDirectory = request.getfixturevalue("consul_directory")
        other = ConsulDirectory("127.0.0.1", double.port, region="linfen")
        yield _consul_bench(double, directory, other)
        other.close()


class _Pause:
    """A pause that takes no time: the clock goes on by it, and someone else acts meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.acts: list[Callable[[], object]] = []

    def __call__(self, seconds: float) -> None:
        self.now += seconds
        if self.acts:
            self.acts.pop(0)()

    def monotonic(self) -> float:
        return self.now


def _file_bench(folder: Path) -> Bench:
    pause = _Pause()

    def overwrite(text: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "region.yaml").write_text(text, encoding="utf-8")

    return Bench(
        directory=FileDirectory(folder, pause=pause, monotonic=pause.monotonic),
        other=FileDirectory(folder),
        overwrite=overwrite,
        let_checks_pass=lambda: None,
        while_waiting=pause.acts.append,
    )


def _consul_bench(double: ConsulDouble, directory: NodeDirectory, other: NodeDirectory) -> Bench:
    def while_waiting(act: Callable[[], object]) -> None:
        def wait_and_act() -> None:
            assert double.state.waiting.wait(10)
            act()

        threading.Thread(target=wait_and_act, daemon=True).start()

    return Bench(
        directory=directory,
        other=other,
        overwrite=lambda text: double.put("fenhe/linfen/region", text.encode("utf-8")),
        let_checks_pass=lambda: double.set_health("passing"),
        while_waiting=while_waiting,
    )
