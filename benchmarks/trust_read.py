"""Point reads with all of trust, beside the same reads at a node that has neutral parts instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.places import VILLAGE, ended, made_place, running_nodes, server_configuration
from benchmarks.process_figures import cpu_s_of
from benchmarks.reading import read_for
from benchmarks.result import Scale, alternate, ratio_of
from benchmarks.trust_people import care_for, hospital_of, register, sign_in
from node.demo.place import DemoPlace
from node.mariadb_server import PrivateMariaDB

__all__ = ["ReadFigures", "measure_reads"]

_RESIDENTS: Final = 200


@dataclass(frozen=True, slots=True)
class ReadFigures:
    """Reads a second, and processor ms of the node's process a read; with trust and without."""

    reads_s: tuple[float, float]
    cpu_ms: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Of the rates."""
        return self.reads_s[0] / self.reads_s[1]

    @property
    def cpu_cost(self) -> float:
        """Processor time that trust adds, as a share of a read without."""
        return self.cpu_ms[0] / self.cpu_ms[1] - 1


@dataclass
class _Side:
    """A running node and whom it lets read."""

    place: DemoPlace
    pid: int
    ids: Path
    token: Path | None = None
    cpu_ms: list[float] = field(default_factory=list)

    def reads_a_second(self, seconds: int) -> float:
        """Read for some seconds; notes the processor time of the node."""
        who, address = self.place.credentials_dir(f"client-{VILLAGE}"), self.place.address(VILLAGE)
        if self.token is not None:
            self.token.write_text(sign_in(self.place, VILLAGE), encoding="utf-8")
        before = cpu_s_of(self.pid)
        said = read_for(who, address, "get", seconds, self.ids, token=self.token)
        self.cpu_ms.append((cpu_s_of(self.pid) - before) * 1000 / said["calls"])
        return float(said["calls_s"])


def measure_reads(scale: Scale, database: str) -> dict[str, ReadFigures]:
    """As a doctor who has signed in ("session"), and as a clinic's program ("certificate")."""
    seconds, rounds = scale.pick(5, 2), scale.pick(5, 3)
    folder = scale.folder / f"reads-{database}"
    figures = {}
    with ExitStack() as held:
        running = held.enter_context(running_nodes(folder / "with", (VILLAGE,), database))
        bare, bare_pid = held.enter_context(_bare_node(folder / "without", database))
        ids, bare_ids = folder / "residents.txt", folder / "residents-without.txt"
        residents = register(running.place, VILLAGE, _RESIDENTS)
        hospital = hospital_of(running.place, VILLAGE)
        care_for(running.place, VILLAGE, hospital, residents)
        ids.write_text("\n".join(residents), encoding="utf-8")
        bare_ids.write_text("\n".join(register(bare, VILLAGE, _RESIDENTS)), encoding="utf-8")
        for name, token in (("session", folder / "token"), ("certificate", None)):
            ours = _Side(running.place, running.fleet.pid(VILLAGE), ids, token)
            other = _Side(bare, bare_pid, bare_ids)
            rates = alternate(
                rounds,
                lambda ours=ours: ours.reads_a_second(seconds),  # type: ignore[misc]
                lambda other=other: other.reads_a_second(seconds),  # type: ignore[misc]
            )
            figures[name] = ReadFigures(
                ratio_of(*rates)[:2], ratio_of(ours.cpu_ms, other.cpu_ms)[:2]
            )
    return figures


@contextmanager
def _bare_node(folder: Path, database: str) -> Iterator[tuple[DemoPlace, int]]:
    """A village's node with neutral parts, and its process."""
    place = made_place(folder, (VILLAGE,), database)
    with ExitStack() as held:
        if database == "mysql":
            text = server_configuration("village", folder / "server")
            server = held.enter_context(PrivateMariaDB(folder / "server", configuration=text))
            place.set_database(VILLAGE, server.create_database("fenhe"))
        process = held.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.bare_node", str(place.node_dir(VILLAGE))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise ended("benchmarks.bare_node", process.wait())
        yield place, process.pid
