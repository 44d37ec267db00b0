"""The demo's story, step by step; each step says its number, its purpose and its seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.federation.v1.federation_pb2 as federation_pb
from federation.core.model import Answer
from hierarchy_config import CareLevel, NodeId
from node.cli.client import connected
from node.cli.output import errors
from node.cli.query_cmd import answer_as_json, ask
from node.clock import Clock, format_ms
from node.demo.arrival import Arrival, wait_for_arrival
from node.demo.databases import DemoDatabases
from node.demo.loading import Loaded, load_people
from node.demo.people import INPUT, mean_systolic_pooled, people_of
from node.demo.place import DEMO_NODES, DemoPlace
from node.demo.processes import Fleet
from node.errors import NodeError
from node.security.credentials import load_credentials
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.federation.v1 import federation_pb2_grpc

__all__ = ["DemoFailedError", "DemoStory"]

QUESTION: Final = (
    "SELECT county, sex, COUNT(DISTINCT resident_id) AS people, AVG(value) AS mean_systolic "
    "FROM observations WHERE code = '8480-6' GROUP BY county, sex"
)
QUESTION_S: Final = 240.0
ARRIVAL_S: Final = 300.0
TOLERANCE: Final = 1e-9


class DemoFailedError(NodeError):
    """A step of the demo did not show what it promises."""

    code = "DEMO_FAILED"
    default_hint = "Look at nodes/*/node.log in the demo's folder."


@dataclass
class DemoStory:
    """One run of the demo over a data folder."""

    root: Path
    database: str
    clock: Clock
    commands: str
    """How the user calls the program, for the commands to try."""
    _step: int = 0
    _facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[DemoStory]:
        """Steps 1 to 6; the nodes run until the block is left."""
        with self._telling("make a slice of Linfen: keys, certificates, profiles"):
            place, existed = DemoPlace.open(self.root, self.database, self.clock)
            self._say(
                f"{len(DEMO_NODES)} nodes in {self.root}"
                + (", from an earlier run" if existed else "")
            )
        with DemoDatabases(place) as databases:
            fleet = Fleet(place, self.clock)
            try:
                self._play(place, fleet, databases)
                yield self
            finally:
                fleet.stop()

    def report(self) -> dict[str, Any]:
        """What `--json` prints."""
        return self._facts

    def last_words(self) -> None:
        """Step 7: where every node is, and what to try."""
        place = DemoPlace(self.root, DemoPlace.slice(), self.database)
        self._step += 1
        errors.print(f"\n[bold]{self._step}. The region is up.[/] Every node's address:")
        for node in DEMO_NODES:
            entry = place.hierarchy.entry(node)
            indent = "  " * entry.level.depth
            errors.print(f"   {place.address(node)}  {indent}{node} {entry.name_zh}", markup=False)
        folder = self.root / "credentials"
        errors.print("\nTry, in another terminal:", style="bold")
        sexes = "SELECT sex, COUNT(*) AS n FROM conditions GROUP BY sex"
        means = "SELECT code, AVG(value) AS mean FROM observations GROUP BY code"
        for line in (
            f'query --as {folder}/analyst-1410 "{QUESTION}"',
            f'query --as {folder}/analyst-141002 --freshness live "{sexes}"',
            f'query --as {folder}/analyst-1410 --explain "{means}"',
            f"node status --as {folder}/operator-{place.villages[0]}",
            "hierarchy show 141002",
        ):
            errors.print(f"   {self.commands} {line}", markup=False, soft_wrap=True)
        errors.print(
            f"\nCtrl-C stops every process. The data stays in {self.root}; delete it with"
            f" `rm -r {self.root}`."
        )

    def _play(self, place: DemoPlace, fleet: Fleet, databases: DemoDatabases) -> None:
        with self._telling("start every node as a process of its own, children dial parents"):
            databases.start()
            place.complete()
            for node in DEMO_NODES:
                fleet.start(node)
            fleet.wait_ready()
            self._until(
                "every link is up", lambda: all(fleet.is_connected(node) for node in DEMO_NODES)
            )
            self._say(
                f"{len(DEMO_NODES)} processes on {self.database}, every link up by mutual TLS"
            )
        with self._telling("load real measurements at the villages, through their gRPC API"):
            loaded = load_people(place)
            self._say(
                "These are real US measurements (NHEFS, 1971-82) with invented Linfen identities."
            )
        arrival = self._arrive(place, fleet, loaded)
        first = self._ask_city(place, arrival)
        second = self._ask_with_village_down(place, fleet)
        self._tell_facts(place, fleet, loaded, arrival, first, second)

    def _arrive(self, place: DemoPlace, fleet: Fleet, loaded: Loaded) -> Arrival:
        with self._telling("wait until every acknowledged row is where policy sends it"):
            arrival = wait_for_arrival(
                place, fleet.status, loaded.acknowledged, self.clock, ARRIVAL_S
            )
            for level in CareLevel:
                rows = sum(
                    count
                    for node, count in arrival.rows.items()
                    if place.hierarchy.entry(node).level is level
                )
                self._say(f"{level.value:9} {rows:7,} rows")
            self._say(
                f"{arrival.delivered:,} of {arrival.acknowledged:,} acknowledged row versions are"
                f" everywhere they belong, the last after {arrival.lag_s:.1f} s"
            )
            self._say(
                "The city shows no names: from the counties it gets index entries and"
                " de-identified records only."
            )
        if arrival.delivered != arrival.acknowledged:
            raise DemoFailedError(
                f"only {arrival.delivered} of {arrival.acknowledged} rows arrived in time"
            )
        return arrival

    def _ask_city(self, place: DemoPlace, arrival: Arrival) -> Answer:
        with self._telling("ask the city one question, run by Ray over all nodes"):
            answer = self._until_complete(place)
            self._show(answer)
            for line in answer.tasks:
                self._say(line)
            equal = _equals_pooled(answer, place)
            word = "equal" if equal else "NOT equal"
            self._say(f"Compared with {INPUT.name} pooled in one process: {word} to {TOLERANCE:g}")
        if not equal:
            raise DemoFailedError("the federated answer differs from the pooled input")
        return answer

    def _until_complete(self, place: DemoPlace) -> Answer:
        """Ask until the columnar replicas have caught up with the rows just loaded."""
        answers: list[Answer] = []

        def complete() -> bool:
            answers.append(self._ask(place))
            return answers[-1].complete

        self._until("the answer covers everybody", complete)
        return answers[-1]

    def _ask_with_village_down(self, place: DemoPlace, fleet: Fleet) -> Answer:
        village = place.villages[0]
        township = place.hierarchy.parent(village)
        if township is None:
            raise DemoFailedError("a village without a parent")
        with self._telling(f"kill {village}, ask again, write at its township, start it again"):
            fleet.kill(village)
            self._until(
                "the township notices",
                lambda: not _has_link(fleet, township, village),
            )
            answer = self._ask(place)
            self._show(answer)
            site = answer.coverage.site(village)
            if site is None or site.state.value != "replica" or site.as_of_ms is None:
                raise DemoFailedError(f"{village} was not answered from a copy")
            self._say(
                f"{village} was answered from {site.answered_by}'s copy: `replica as of"
                f" {format_ms(site.as_of_ms)}` means that all it had stored by then is in there."
            )
            if not _equals_pooled(answer, place):
                raise DemoFailedError("the answer from the township's copy differs from the input")
            record_id = self._write_at(place, township, village)
            place.count_visit()
            fleet.start(village)
            fleet.wait_ready((village,))
            self._until(
                "the record written at the township reaches the village",
                lambda: self._has_record(place, village, record_id),
            )
            self._say(
                f"{village} is back; the record that {township} wrote meanwhile has come down to it"
            )
        return answer

    def _write_at(self, place: DemoPlace, township: NodeId, village: NodeId) -> str:
        """A new observation, at the township, for somebody of the village."""
        person = next(people_of(village, place.villages))
        request = care.PutBundleRequest(
            request_id=f"demo-visit-{self.clock.now_ms()}",
            records=[
                care.Record(
                    resident_id=person.resident.resident_id or "",
                    observation=care.Observation(
                        code="8867-4", value=72.0, unit="/min", observed_on="1982-12-31"
                    ),
                )
            ],
        )
        credentials = load_credentials(place.credentials_dir(f"client-{township}"))
        with connected(credentials) as channel:
            response = care_pb2_grpc.RecordServiceStub(channel).PutBundle(request, timeout=30)
        return str(response.record_ids[0])

    def _has_record(self, place: DemoPlace, village: NodeId, record_id: str) -> bool:
        person = next(people_of(village, place.villages))
        credentials = load_credentials(place.credentials_dir(f"client-{village}"))
        with connected(credentials) as channel:
            stub = care_pb2_grpc.RecordServiceStub(channel)
            timeline = stub.Timeline(
                care.TimelineRequest(resident_id=person.resident.resident_id or ""), timeout=10
            )
        return any(record.record_id == record_id for record in timeline.records)

    def _ask(self, place: DemoPlace) -> Answer:
        credentials = load_credentials(place.credentials_dir(f"analyst-{place.hierarchy.root}"))
        request = federation_pb.QueryRequest(
            sql=QUESTION,
            freshness=federation_pb.FRESHNESS_BEST,
            executor=federation_pb.EXECUTOR_RAY,
            timeout_ms=round(QUESTION_S * 1000),
        )
        with connected(credentials) as channel:
            return ask(federation_pb2_grpc.QueryServiceStub(channel), request, QUESTION_S)

    def _tell_facts(
        self,
        place: DemoPlace,
        fleet: Fleet,
        loaded: Loaded,
        arrival: Arrival,
        first: Answer,
        second: Answer,
    ) -> None:
        nodes = []
        for node in DEMO_NODES:
            status = fleet.status(node)
            records = sum(
                count
                for table, count in status.rows.items()
                if table not in {"residents", "identifiers", "resident_index"}
            )
            nodes.append(
                {
                    "node_id": node,
                    "level": status.level,
                    "residents": status.residents,
                    "records": records,
                }
            )
        self._facts = {
            "nodes": nodes,
            "input": {
                "source": INPUT.name,
                "rows": loaded.people,
                "accepted": loaded.accepted,
                "rejected": loaded.people - loaded.accepted,
            },
            "replication": {
                "acknowledged": arrival.acknowledged,
                "delivered": arrival.delivered,
                "last_lag_s": round(arrival.lag_s, 3),
            },
            "query": answer_as_json(QUESTION, first),
            "query_with_village_down": answer_as_json(QUESTION, second),
            "equals_pooled": _equals_pooled(first, place) and _equals_pooled(second, place),
        }

    def _show(self, answer: Answer) -> None:
        for row in (answer.table.names, *answer.table.rows()):
            self._say("  ".join(f"{_text(value):>16}" for value in row))
        coverage = answer.coverage
        live = sum(site.state.value == "live" for site in coverage.sites)
        self._say(
            f"covers {coverage.residents_covered:,} of {coverage.residents_known or 0:,} residents;"
            f" {live} of {len(coverage.sites)} nodes live; by {answer.executor.value},"
            f" {answer.elapsed_ms} ms"
        )

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for something that other processes bring about."""
        deadline = self.clock.monotonic_ms() + ARRIVAL_S * 1000
        pause = threading.Event()
        while not holds():
            if self.clock.monotonic_ms() > deadline:
                raise DemoFailedError(f"waited {ARRIVAL_S:.0f} s in vain until {what}")
            pause.wait(0.3)

    def _say(self, text: str) -> None:
        errors.print(f"   {text}", markup=False)

    @contextmanager
    def _telling(self, purpose: str) -> Iterator[None]:
        self._step += 1
        errors.print(f"[bold]{self._step}. {purpose[0].upper()}{purpose[1:]}[/]")
        started = self.clock.monotonic_ms()
        yield
        seconds = (self.clock.monotonic_ms() - started) / 1000
        errors.print(f"   done in {seconds:.1f} s", style="dim")


def _has_link(fleet: Fleet, node: NodeId, child: NodeId) -> bool:
    return any(link.peer == child and link.connected for link in fleet.status(node).links)


def _equals_pooled(answer: Answer, place: DemoPlace) -> bool:
    """Same groups, same counts, means within TOLERANCE of the pooled input's."""
    pooled = {
        (cell.county, cell.sex): (cell.people, cell.mean_systolic)
        for cell in mean_systolic_pooled(place.villages)
    }
    rows = {(str(row[0]), str(row[1])): (row[2], row[3]) for row in answer.table.rows()}
    return rows.keys() == pooled.keys() and all(
        people == pooled[key][0]
        and isinstance(mean, float)
        and abs(mean - pooled[key][1]) <= TOLERANCE
        for key, (people, mean) in rows.items()
    )


def _text(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
