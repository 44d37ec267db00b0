"""A clinic's system that never gives up: one process for a township and its villages.

`python -m tests.chaos.writer PLACE LOG RATE TOWNSHIP VILLAGE…` writes until its stdin is closed.
What was not answered is sent again, word for word; what was acknowledged is noted here, outside the
nodes, after the call has returned.
"""

from __future__ import annotations

import os
import random
import sys
import threading
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
from tests.chaos.acknowledged import Acknowledged, note
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


class Known:
    """Residents and records that this process has been told are stored; shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._residents: list[tuple[str, NodeId]] = []
        self._records: dict[NodeId, list[tuple[str, str, NodeId]]] = {}

    def met(self, resident_id: str, home: NodeId) -> None:
        with self._lock:
            self._residents.append((resident_id, home))
            del self._residents[:-_KNOWN_MAX]

    def wrote(self, author: NodeId, record_id: str, resident_id: str, home: NodeId) -> None:
        with self._lock:
            records = self._records.setdefault(author, [])
            records.append((record_id, resident_id, home))
            del records[:-_KNOWN_MAX]

    def resident(self, chance: random.Random, home: NodeId | None) -> tuple[str, NodeId] | None:
        """One of a home (None: of any)."""
        with self._lock:
            some = [each for each in self._residents if home in (None, each[1])]
        return chance.choice(some) if some else None

    def take_record(self, author: NodeId) -> tuple[str, str, NodeId] | None:
        """A record to amend; each is amended once."""
        with self._lock:
            records = self._records.get(author, [])
            return records.pop(0) if len(records) > 5 else None


class Desk(threading.Thread):
    """One place where records are written."""

    def __init__(
        self, place: Path, node: NodeId, known: Known, log: IO[str], bundles_per_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._node = node
        self._known = known
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
            kind < 0.35 or self._known.resident(self._chance, self._node) is None
        ):
            self._register()
        elif kind < 0.8:
            self._visit()
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
        self._note([("residents", resident_id, 1, self._node)])
        self._known.met(resident_id, self._node)

    def _visit(self) -> None:
        home = self._node if self._is_village else None
        whom = self._known.resident(self._chance, home)
        if whom is None:
            return
        request = self._request()
        request.records.extend(
            [
                care.Record(
                    resident_id=whom[0],
                    encounter=care.Encounter(**{"class": "ambulatory"}, started_on=DAY),
                ),
                care.Record(resident_id=whom[0], observation=_pressure(120)),
            ]
        )
        answer = self._send(request)
        if answer is None:
            return
        visit, pressure = answer.record_ids
        self._note([("encounters", visit, 1, whom[1]), ("observations", pressure, 1, whom[1])])
        self._known.wrote(self._node, pressure, *whom)

    def _amend(self) -> None:
        record = self._known.take_record(self._node)
        if record is None:
            self._visit()
            return
        record_id, resident_id, home = record
        request = self._request()
        request.records.append(
            care.Record(record_id=record_id, resident_id=resident_id, observation=_pressure(90))
        )
        if self._send(request) is not None:
            self._note([("observations", record_id, 2, home)])

    def _request(self) -> care.PutBundleRequest:
        self._count += 1
        return care.PutBundleRequest(request_id=f"{self._node}-{os.getpid()}-{self._count:07d}")

    def _note(self, rows: list[tuple[str, str, int, NodeId]]) -> None:
        now_ms = CLOCK.now_ms()
        note(
            self._log,
            [
                Acknowledged(table, row_id, number, self._node, home, now_ms)
                for table, row_id, number, home in rows
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


def _pressure(value: int) -> care.Observation:
    return care.Observation(code="8480-6", value=value, unit="mm[Hg]", observed_on=DAY)


def main(place: Path, log: Path, rate: float, nodes: list[NodeId]) -> None:
    """Write `rate` rows a second at these nodes until stdin ends."""
    known = Known()
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
