"""kill -9 in the middle: what a node has acknowledged is there, everywhere, exactly once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import grpc
import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.node.v1.auditing_pb2 as auditing
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.node.v1 import auditing_pb2_grpc
from tests.services.people import Person, observation, put_request
from tests.services.region import Region, nodes
from tests.services.stores import HeldRow, opened
from tests.services.waiting import until

COUNTY, TOWNSHIP, VILLAGE = NODES = nodes("141002", "141002100", "141002100200")
ROWS_BETWEEN_KILLS: Final = 40


class Writer(threading.Thread):
    """A clinic's system that never gives up: what was not answered is sent again, word for word.

    What was acknowledged is noted here, outside the node, after the call has returned.
    """

    def __init__(self, region: Region, log: Path) -> None:
        super().__init__()
        self._region = region
        self._log = log
        self._enough = threading.Event()
        self._over = threading.Event()
        self.bundles = self.row_versions = self.repeated = 0
        self.versions: dict[tuple[str, str], int] = {}
        self.fault: str | None = None
        self._channel: grpc.Channel | None = None

    def run(self) -> None:
        with self._log.open("w", encoding="utf-8") as log:
            while not self._enough.is_set() and self.fault is None:
                request = self._next()
                if (answer := self._send(request)) is not None:
                    self._note(request, answer)
                    print(request.request_id, answer.acknowledged, file=log, flush=True)
        if self._channel is not None:
            self._channel.close()

    def finish(self) -> None:
        """Let the bundle on its way be answered, then end."""
        self._enough.set()
        self.join(60)
        assert not self.is_alive()
        assert self.fault is None, self.fault

    def give_up(self) -> None:
        """End at once, the bundle on its way answered or not."""
        self._enough.set()
        self._over.set()
        self.join()

    def _next(self) -> care.PutBundleRequest:
        """A new person, and every time an amendment of the person before."""
        request = put_request(f"kills-{self.bundles:06d}", Person(self.bundles, VILLAGE))
        if self.bundles:
            before = Person(self.bundles - 1, VILLAGE)
            request.records.append(observation(before, "systolic", 90))
        return request

    def _send(self, request: care.PutBundleRequest) -> care.PutBundleResponse | None:
        while not self._over.is_set():
            if self._channel is None:
                self._channel = self._region.open_channel(VILLAGE, "client")
            stub = care_pb2_grpc.RecordServiceStub(self._channel)
            try:
                answer: care.PutBundleResponse = stub.PutBundle(request, timeout=5)
                return answer
            except grpc.RpcError as error:
                self._channel.close()
                self._channel = None
                status = error.code()
                if status not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                    self.fault = f"{status}: {error.details()}"
                    return None
                self._over.wait(0.1)
        return None

    def _note(self, request: care.PutBundleRequest, answer: care.PutBundleResponse) -> None:
        for resident_id in answer.resident_ids:
            self.versions["residents", resident_id] = 1
        for record_id, record in zip(answer.record_ids, request.records, strict=True):
            key = (f"{record.WhichOneof('body')}s", record_id)
            self.versions[key] = self.versions.get(key, 0) + 1
        self.bundles += 1
        self.row_versions += answer.acknowledged
        self.repeated += answer.repeated_request


def kill_in_turn(region: Region, writer: Writer, kills: int) -> None:
    """SIGKILL village and township alternately while the writer writes; start each again."""
    for number in range(kills):
        goal = writer.row_versions + ROWS_BETWEEN_KILLS
        until("the writer goes on", lambda goal=goal: writer.row_versions >= goal)  # type: ignore[misc]
        victim = (VILLAGE, TOWNSHIP)[number % 2]
        region.fleet.kill(victim)
        region.start(victim)


@pytest.mark.parametrize(
    ("database", "kills"),
    [("sqlite", 10), pytest.param("mysql", 6, marks=pytest.mark.mariadb)],
)
def test_loses_nothing_and_doubles_nothing_under_kills(
    tmp_path: Path, database: str, kills: int
) -> None:
    """Every acknowledged row is at its origin, its parent and above, once, at its last version."""
    with Region(tmp_path / "region", NODES, database) as region:
        region.start()
        writer = Writer(region, tmp_path / "acknowledged.log")
        writer.start()
        try:
            kill_in_turn(region, writer, kills)
            writer.finish()
        finally:
            writer.give_up()
        acknowledged = len(writer.versions) + writer.bundles  # an identifier a person
        for node in NODES:
            until(
                f"everything is at {node}",
                lambda node=node: sum(region.rows(node).values()) == acknowledged,  # type: ignore[misc]
            )
        check_audits(region)
        assert set(region.fleet.stop().values()) == {0}
        check_stores(region, writer)


def check_audits(region: Region) -> None:
    """No death is taken for a change of the audit, neither by the node nor by those it anchors at.

    Both the victims and the county, which holds what the township anchored, are asked.
    """
    for node in (VILLAGE, TOWNSHIP):
        until(
            f"the audit of {node} is anchored",
            lambda node=node: region.fleet.status(node).audit.state == "anchored",  # type: ignore[misc]
            90,
        )
        with region.open_channel(node) as channel:
            verify = auditing_pb2_grpc.AuditServiceStub(channel).VerifyAudit
            [*_, last] = verify(auditing.VerifyAuditRequest(), timeout=60)
        assert last.report.holds, last.report
        assert last.report.complete, last.report
        assert last.report.entries > 0
        assert sum(each.anchors for each in last.report.comparisons) > 0


def check_stores(region: Region, writer: Writer) -> None:
    """Rows, log, requests and audit of every node agree with what was acknowledged."""
    with opened(region.place, VILLAGE) as origin:
        assert origin.requests() == writer.bundles
        assert origin.audited_rows() == writer.row_versions
        entries = origin.log()
        is_whole = entries[0]["sequence"] == 1
        logged = sum(entry["row_count"] for entry in entries)
        # What everybody has leaves the log in time, but for its newest entries.
        assert logged == writer.row_versions if is_whole else logged < writer.row_versions
        at_origin = origin.origins()
    for node in NODES:
        with opened(region.place, node) as store:
            held = store.rows()
            identifiers = {key: held.pop(key) for key in list(held) if key[0] == "identifiers"}
            assert len(identifiers) == writer.bundles
            assert held == {
                key: HeldRow((1, number), VILLAGE, VILLAGE, "full")
                for key, number in writer.versions.items()
            }
            log = store.log()
            first = log[0]["sequence"]
            numbers = sorted(entry["sequence"] for entry in log)
            assert numbers == list(range(first, first + len(log)))
            origins = store.origins()
            assert set(origins.values()) == {1}
            assert at_origin.keys() <= origins.keys() or first > 1
            assert origins == at_origin or not is_whole or first > 1
            assert store.quarantined() == 0
            assert store.audit_break() is None
