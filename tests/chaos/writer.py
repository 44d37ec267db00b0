"""A clinic's system that never gives up: one process for a township and its villages.

`python -m tests.chaos.writer PLACE LOG RATE TOWNSHIP VILLAGE…` writes until its stdin is closed.
What was not answered is sent again, word for word; what was acknowledged is noted here, outside the
nodes, after the call has returned. Some records are about people who live elsewhere: of a sister
village, or of a place that another writer writes for.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import grpc

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId
from node.clock import SystemClock
from node.security.credentials import load_credentials
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from protos.fenhe.care.v1 import care_pb2_grpc
from tests.chaos.acknowledged import AT_HOME, AWAY, Acknowledged, note
from tests.chaos.strangers import Strangers
from tests.services.people import DAY

__all__ = ["main"]

CALL_S: Final = 4.0
AGAIN_S: Final = 0.2
_KNOWN_MAX: Final = 400
CLOCK: Final = SystemClock()
_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
    }
)
"""Says nothing of whether it was stored: the same request is sent again."""


@dataclass(frozen=True, slots=True)
class Written:
    """A record that may be amended: whom it is about, and where he lived."""

    record_id: str
    resident_id: str
    home: NodeId
    load: str


class Known:
    """Residents and records that this process has been told are stored; shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._residents: list[tuple[str, NodeId]] = []
        self._records: dict[NodeId, list[Written]] = {}

    def met(self, resident_id: str, home: NodeId) -> None:
        with self._lock:
            self._residents.append((resident_id, home))
            del self._residents[:-_KNOWN_MAX]

    def wrote(self, author: NodeId, record: Written) -> None:
        with self._lock:
            records = self._records.setdefault(author, [])
            records.append(record)
            del records[:-_KNOWN_MAX]

    def resident(
        self,
        chance: random.Random,
        *,
        home: NodeId | None = None,
        not_of: NodeId | None = None,
    ) -> tuple[str, NodeId] | None:
        """One of a home (None: of any), and not of another."""
        with self._lock:
            some = [
                each for each in self._residents if home in (None, each[1]) and not_of != each[1]
            ]
        return chance.choice(some) if some else None

    def take_record(self, author: NodeId) -> Written | None:
        """A record to amend; each is amended once."""
        with self._lock:
            records = self._records.get(author, [])
            return records.pop(0) if len(records) > 5 else None


class Desk(threading.Thread):
    """One place where records are written."""

    def __init__(
        self,
        place: Path,
        node: NodeId,
        known: tuple[Known, Strangers],
        log: IO[str],
        bundles_per_s: float,
    ) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._node = node
        self._known, self._strangers = known
        self._log = log
        self._pause_s = 1 / bundles_per_s
        self._is_village = len(node) == 12
        self._chance = random.Random(int(node))
        self._channel: grpc.Channel | None = None
        self._count = 0
        self.over = threading.Event()
        self.refused: dict[str, int] = {}

    def run(self) -> None:
        due = CLOCK.monotonic_ms() / 1000
        while not self.over.is_set():
            self._step()
            # A place that was away does not make up for it: people come when they come.
            now = CLOCK.monotonic_ms() / 1000
            due = max(due + self._pause_s, now - 1.0)
            self.over.wait(max(0.0, due - now))

    def _step(self) -> None:
        kind = self._chance.random()
        if self._is_village and (
            kind < 0.30 or self._known.resident(self._chance, home=self._node) is None
        ):
            self._register()
        elif kind < 0.68:
            self._visit_at_home()
        elif kind < 0.82:
            self._visit_away()
        else:
            self._amend()

    def _register(self) -> None:
        number = self._count
        request = self._request()
        day = f"{1940 + number % 60}-{1 + number % 12:02d}-{1 + number % 28:02d}"
        request.residents.append(
            empi.Resident(
                name=f"蔺暮雪{number}",
                sex=empi.SEX_FEMALE,
                birth_date=day,
                identifiers=[
                    empi.Identifier(
                        system="passport", value=f"E{self._node[-6:]}{os.getpid()}{number:07d}"
                    )
                ],
                home_node=self._node,
            )
        )
        answer = self._send(request)
        if answer is None:
            return
        [resident_id] = answer.resident_ids
        self._note(resident_id, self._node, AT_HOME, [("residents", resident_id, 1)])
        self._known.met(resident_id, self._node)

    def _visit_at_home(self) -> None:
        home = self._node if self._is_village else None
        whom = self._known.resident(self._chance, home=home)
        if whom is not None:
            self._visit(*whom, AT_HOME)

    def _visit_away(self) -> None:
        """Somebody of a sister village, or from far away."""
        whom = self._strangers.one(self._chance)
        if whom is None or (self._is_village and self._chance.random() < 0.3):
            whom = (
                self._known.resident(self._chance, not_of=self._node) if self._is_village else None
            )
        if whom is None:
            self._visit_at_home()
            return
        self._visit(*whom, AWAY)

    def _visit(self, resident_id: str, home: NodeId, load: str) -> None:
        request = self._request()
        encounter = care.Encounter(**{"class": "ambulatory"}, started_on=DAY)
        request.records.append(care.Record(resident_id=resident_id, encounter=encounter))
        request.records.append(care.Record(resident_id=resident_id, observation=_pressure(120)))
        answer = self._send(_addressed(request, home, load))
        if answer is None:
            return
        visit, pressure = answer.record_ids
        rows = [("encounters", visit, 1), ("observations", pressure, 1)]
        self._note(resident_id, home, load, rows)
        self._known.wrote(self._node, Written(pressure, resident_id, home, load))

    def _amend(self) -> None:
        record = self._known.take_record(self._node)
        if record is None:
            self._visit_at_home()
            return
        request = self._request()
        request.records.append(
            care.Record(
                record_id=record.record_id,
                resident_id=record.resident_id,
                observation=_pressure(90),
            )
        )
        if self._send(_addressed(request, record.home, record.load)) is not None:
            rows = [("observations", record.record_id, 2)]
            self._note(record.resident_id, record.home, record.load, rows)

    def _request(self) -> care.PutBundleRequest:
        self._count += 1
        return care.PutBundleRequest(request_id=f"{self._node}-{os.getpid()}-{self._count:07d}")

    def _note(
        self, resident_id: str, home: NodeId, load: str, rows: list[tuple[str, str, int]]
    ) -> None:
        now_ms = CLOCK.now_ms()
        note(
            self._log,
            [
                Acknowledged(table, row_id, number, self._node, home, now_ms, resident_id, load)
                for table, row_id, number in rows
            ],
        )

    def _send(self, request: care.PutBundleRequest) -> Any:
        """The answer; None if it was refused for good, or the run is over."""
        while not self.over.is_set():
            if self._channel is None:
                self._channel = self._open()
            stub = care_pb2_grpc.RecordServiceStub(self._channel)
            try:
                return stub.PutBundle(request, timeout=CALL_S)
            except grpc.RpcError as error:
                self._channel.close()
                self._channel = None
                if error.code() not in _AGAIN:
                    code = _code(error)
                    self.refused[code] = self.refused.get(code, 0) + 1
                    return None
                self.over.wait(AGAIN_S)
        return None

    def _open(self) -> grpc.Channel:
        who = load_credentials(self._place / "credentials" / f"client-{self._node}")
        options = channel_options(who.server_name, GrpcLimits())
        return grpc.secure_channel(who.address, channel_credentials(who.tls), options=options)


def _code(error: grpc.RpcError) -> str:
    """The node's own code of a refusal, else the call's status."""
    trailing: Any = error.trailing_metadata()
    codes = [str(value) for key, value in trailing or () if key == "fenhe-code"]
    return codes[0] if codes else str(error.code().name)


def _addressed(request: care.PutBundleRequest, home: NodeId, load: str) -> care.PutBundleRequest:
    """With the home named where the author need not know the resident."""
    if load == AWAY:
        for record in request.records:
            record.home_node = home
    return request


def _pressure(value: int) -> care.Observation:
    return care.Observation(code="8480-6", value=value, unit="mm[Hg]", observed_on=DAY)


def main(place: Path, log: Path, rate: float, nodes: list[NodeId]) -> None:
    """Write `rate` rows a second at these nodes until stdin ends."""
    known = (Known(), Strangers(log, CLOCK.monotonic_ms))
    # A bundle holds 1.6 rows on average.
    bundles_per_s = rate / 1.6 / len(nodes)
    with log.open("a", encoding="utf-8") as file:
        desks = [Desk(place, node, known, file, bundles_per_s) for node in nodes]
        for desk in desks:
            desk.start()
        sys.stdin.read()
        for desk in desks:
            desk.over.set()
        for desk in desks:
            desk.join()
    refused: dict[str, int] = {}
    for desk in desks:
        for code, count in desk.refused.items():
            refused[code] = refused.get(code, 0) + count
    for code, count in sorted(refused.items()):
        print(f"refused {code} {count}")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), [NodeId(n) for n in sys.argv[4:]]
    )
