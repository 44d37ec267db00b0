"""The audit of real nodes: anchored over a link, asked by commands, tampered with, stopped."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
import protos.fenhe.empi.v1.residence_pb2 as residence
import protos.fenhe.empi.v1.steward_pb2 as steward_pb
import protos.fenhe.federation.v1.federation_pb2 as federation
import protos.fenhe.node.v1.auditing_pb2 as pb
import protos.fenhe.node.v1.bundles_pb2 as bundles
import protos.fenhe.node.v1.joining_pb2 as joining
import protos.fenhe.node.v1.maintenance_pb2 as maintenance
import protos.fenhe.node.v1.operations_pb2 as operations
import protos.fenhe.node.v1.recovery_pb2 as recovery
from node.auditing.deeds import AUDITED
from node.auditing.keeper import COUNTED_FACT
from node.auditing.standing import SavedStanding
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.empi.v1 import empi_pb2_grpc, residence_pb2_grpc, steward_pb2_grpc
from protos.fenhe.federation.v1 import federation_pb2_grpc
from protos.fenhe.node.v1 import (
    auditing_pb2_grpc,
    bundles_pb2_grpc,
    joining_pb2_grpc,
    maintenance_pb2_grpc,
    operations_pb2_grpc,
    recovery_pb2_grpc,
)
from tests.services.command import fenhe
from tests.services.people import Person, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.waiting import CLOCK, until

TOWNSHIP, VILLAGE = nodes("141002100", "141002100200")
PEOPLE = [Person(each, VILLAGE) for each in range(3)]
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A township and its village, linked, with three residents; both anchored somewhere or not."""
    with Region(tmp_path_factory.mktemp("audit") / "region", (TOWNSHIP, VILLAGE)) as made:
        made.start()
        made.linked(VILLAGE)
        made.put(VILLAGE, put_request("three-residents", *PEOPLE))
        until("the township has them", lambda: made.rows(TOWNSHIP)["residents"] == len(PEOPLE))
        until("it is anchored", lambda: state(made) == "anchored")
        yield made


def state(region: Region) -> str:
    """How the village's audit stands."""
    return region.fleet.status(VILLAGE).audit.state


def audit(region: Region, node: Any, *words: Any) -> subprocess.CompletedProcess[str]:
    """A command of `fenhe audit` as an operator."""
    return fenhe("audit", *words, "--as", region.place.credentials_dir(f"operator-{node}"))


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """Its JSON."""
    return json.loads(done.stdout)


def called(channel: grpc.Channel) -> Iterator[grpc.RpcError | None]:
    """Call what needs no preparation, one method after the other; an error is an answer too."""
    records = care_pb2_grpc.RecordServiceStub(channel)
    people = empi_pb2_grpc.ResidentServiceStub(channel)
    moves = residence_pb2_grpc.ResidenceServiceStub(channel)
    watch = operations_pb2_grpc.ReplicationServiceStub(channel)
    invitations = joining_pb2_grpc.InvitationServiceStub(channel)
    person = PEOPLE[0]
    number = empi.Identifier(system="identity_number", value=person.identity_number)
    steward = steward_pb2_grpc.StewardServiceStub(channel)
    calls: list[Any] = [
        (people.Register, empi.RegisterRequest(request_id="x" * 8)),
        (people.Get, empi.GetResidentRequest(resident_id=person.resident_id)),
        (people.Find, empi.FindResidentRequest(identifier=number)),
        (moves.Where, residence.WhereRequest(resident_id=person.resident_id)),
        (moves.ListProposals, residence.ListProposalsRequest()),
        *(
            (decide, _decision(f"decision-{number}"))
            for number, decide in enumerate((steward.Merge, steward.Unmerge, steward.TellApart))
        ),
        (steward.ListEvents, steward_pb.ListEventsRequest(resident_id=person.resident_id)),
        (steward.ListPairs, steward_pb.ListPairsRequest()),
        (records.Get, care.GetRecordRequest(record_id=person.record_id("encounter"))),
        (records.Timeline, care.TimelineRequest(resident_id=person.resident_id)),
        (records.Where, care.WhereRequest(record_id=person.record_id("encounter"))),
        (watch.ListQuarantine, operations.ListQuarantineRequest()),
        (
            recovery_pb2_grpc.RecoveryServiceStub(channel).GiveUp,
            recovery.RecoveryGiveUpRequest(),
        ),
        (
            invitations.CreateInvitation,
            joining.CreateInvitationRequest(node_id=VILLAGE),
        ),
        (
            invitations.WithdrawInvitation,
            joining.WithdrawInvitationRequest(node_id=VILLAGE),
        ),
        (
            auditing_pb2_grpc.AuditServiceStub(channel).AboutResident,
            pb.AboutResidentRequest(resident_id=person.resident_id),
        ),
        (auditing_pb2_grpc.AuditServiceStub(channel).SearchAudit, pb.SearchAuditRequest()),
    ]
    streams: list[Any] = [
        (
            federation_pb2_grpc.QueryServiceStub(channel).Ask,
            federation.QueryRequest(sql="SELECT COUNT(*) FROM residents", purpose="planning"),
        ),
        (maintenance_pb2_grpc.MaintenanceServiceStub(channel).Verify, maintenance.VerifyRequest()),
        (
            bundles_pb2_grpc.BundleServiceStub(channel).Export,
            bundles.ExportBundleRequest(peer=VILLAGE),
        ),
        (auditing_pb2_grpc.AuditServiceStub(channel).VerifyAudit, pb.VerifyAuditRequest()),
        (auditing_pb2_grpc.AuditServiceStub(channel).ExportAudit, pb.ExportAuditRequest()),
    ]
    for call, request in calls:
        yield _error(lambda call=call, request=request: call(request, timeout=CALL_S))
    for call, request in streams:
        yield _error(lambda call=call, request=request: list(call(request, timeout=CALL_S)))
    feed = bundles_pb2_grpc.BundleServiceStub(channel).Import
    pieces = [bundles.BundlePiece(data=b"no bundle")]
    yield _error(lambda: feed(iter(pieces), timeout=CALL_S))


def _decision(request_id: str) -> steward_pb.DecideRequest:
    """Over two of the residents."""
    one, other = (person.resident_id for person in PEOPLE[:2])
    return steward_pb.DecideRequest(
        request_id=request_id, survivor_id=one, merged_id=other, reason="for the audit"
    )


def _error(call: Any) -> grpc.RpcError | None:
    try:
        call()
    except grpc.RpcError as error:
        return error
    return None


ELSEWHERE = {
    "/fenhe.empi.v1.ResidentService/Register": "an empty bundle is refused before it is stored",
    "/fenhe.empi.v1.ResidenceService/Move": "tests/contracts/residence",
    "/fenhe.empi.v1.ResidenceService/DecideProposal": "tests/contracts/residence",
    "/fenhe.care.v1.RecordService/PutBundle": "tests/contracts/storage/test_bundles.py",
    "/fenhe.node.v1.ReplicationService/ShowQuarantine": "tests/contracts/storage",
    "/fenhe.node.v1.ReplicationService/RetryQuarantine": "tests/contracts/storage",
    "/fenhe.node.v1.ReplicationService/SkipQuarantine": "tests/contracts/storage",
    "/fenhe.node.v1.ReplicationService/AskQuarantine": "tests/contracts/storage",
    "/fenhe.node.v1.RegionService/Apply": "only at the root; noted before anything is offered",
    "/fenhe.node.v1.RegionService/Rollback": "only at the root",
    "/fenhe.node.v1.AuditService/AcceptAudit": "tests/contracts/auditing",
    "/fenhe.node.v1.DoorService/Join": "tests/contracts/joining",
    "/fenhe.node.v1.KeysService/Rotate": "tests/contracts/keys",
    "/fenhe.node.v1.KeysService/Recover": "tests/contracts/keys",
    "/fenhe.node.v1.RevocationService/Revoke": "tests/contracts/revocation",
    "/fenhe.node.v1.DoctorService/PlantCanary": "tests/contracts/doctor",
    **{
        name: "tests/services/test_intake.py"
        for name in AUDITED
        if name.startswith("/fenhe.node.v1.IntakeService/")
    },
    **{
        name: "tests/contracts/people, tests/contracts/consent"
        for name in AUDITED
        if name.startswith("/fenhe.control.v1.")
    },
}
"""Methods that need more than a call, and where their deeds are shown."""


def test_every_method_that_is_called_stands_in_the_audit(region: Region) -> None:
    """With the deed that the table says."""
    with region.open_channel(TOWNSHIP) as channel:
        errors = [error for error in called(channel) if error is not None]
    internal = [error for error in errors if error.code() is grpc.StatusCode.INTERNAL]
    assert internal == []
    expected = {action.value for name, action in AUDITED.items() if name not in ELSEWHERE}
    with sqlite3.connect(region.place.node_dir(TOWNSHIP) / "store.db") as store:
        found = set(store.execute("SELECT DISTINCT purpose, action FROM audit"))
    assert expected - {action for _, action in found} == set()
    assert ("planning", "question") in found
    assert ("node event", "start") in found
    assert ("node event", "epoch") in found


def test_who_has_looked_is_answered_by_both_nodes(region: Region) -> None:
    """Either node brings the other's looks; with the line down the other is named."""
    person = PEOPLE[1]
    for node in (TOWNSHIP, VILLAGE):
        region.residents(node, "Get", empi.GetResidentRequest(resident_id=person.resident_id))
    asked = pb.AboutResidentRequest(resident_id=person.resident_id)
    for node in (TOWNSHIP, VILLAGE):
        with region.open_channel(node) as channel:
            answer = auditing_pb2_grpc.AuditServiceStub(channel).AboutResident(asked, timeout=20)
        assert answer.complete
        by_node = {each.node_id: each for each in answer.nodes}
        assert set(by_node) == {TOWNSHIP, VILLAGE}
        for each in by_node.values():
            reads = [record for record in each.records if record.action == "read"]
            assert {record.principal.split("/")[-2] for record in reads} == {"operator"}
    stranger = audit(region, TOWNSHIP, "about", Person(9_999, VILLAGE).resident_id)
    assert stranger.stderr.startswith("NOT_FOUND:")


def test_search_export_and_verify_are_commands(region: Region, tmp_path: Path) -> None:
    """Paged, filtered; the export has count and digest; the village's chain is anchored."""
    person = PEOPLE[2]
    region.residents(VILLAGE, "Get", empi.GetResidentRequest(resident_id=person.resident_id))
    found = said(audit(region, VILLAGE, "search", "--resident", person.resident_id, "--json"))
    assert {"read", "put"} & {each["action"] for each in found}
    assert all(each["resident_id"] == person.resident_id for each in found)
    assert said(audit(region, VILLAGE, "search", "--action", "stop", "--json")) == []
    few = audit(region, VILLAGE, "search", "--count", "2", "--json")
    assert len(said(few)) == 2
    assert "older" in few.stderr
    file = tmp_path / "audit.xml"
    done = audit(region, VILLAGE, "export", "--out", file)
    assert done.returncode == 0, done.stderr
    lines = file.read_text(encoding="utf-8").splitlines()
    assert f"{len(lines)} messages" in done.stderr
    assert all(line.startswith("<AuditMessage>") for line in lines)
    assert PEOPLE[2].name not in file.read_text(encoding="utf-8")
    report = said(audit(region, VILLAGE, "verify", "--json"))
    assert report["holds"]
    assert report["complete"]
    assert report["comparisons"][0]["holder"] == TOWNSHIP
    assert report["comparisons"][0]["anchors"] >= 1


def test_unanchored_bulk_stops_then_reading_and_an_anchor_ends_it(region: Region) -> None:
    """The line is down for hours, as counted: codes, state and alarm; then the parent is back."""
    person = PEOPLE[0]
    get = empi.GetResidentRequest(resident_id=person.resident_id)
    question = federation.QueryRequest(sql="SELECT COUNT(*) FROM residents", purpose="planning")

    def asked() -> grpc.RpcError | None:
        with region.open_channel(VILLAGE) as channel:
            ask = federation_pb2_grpc.QueryServiceStub(channel).Ask
            return _error(lambda: list(ask(question, timeout=CALL_S)))

    region.fleet.stop((TOWNSHIP, VILLAGE))
    counted = SavedStanding(169 * HOUR_MS, CLOCK.now_ms()).text()
    with sqlite3.connect(region.place.node_dir(VILLAGE) / "store.db") as store:
        store.execute("UPDATE store_state SET value = ? WHERE name = ?", (counted, COUNTED_FACT))
    region.start(VILLAGE)
    assert state(region) == "reads_stopped"
    refused = asked()
    assert refused is not None
    assert "AUDIT_UNANCHORED" in str(refused.details())
    export = audit(region, VILLAGE, "export")
    assert export.stderr.startswith("AUDIT_UNANCHORED:"), export.stderr
    with pytest.raises(grpc.RpcError, match="AUDIT_READS_STOPPED"):
        region.residents(VILLAGE, "Get", get)
    region.put(VILLAGE, put_request("one-more-visit", Person(50, VILLAGE)))
    about = audit(region, VILLAGE, "about", person.resident_id)
    assert about.returncode == 5, about.stderr
    assert f"{TOWNSHIP} did not answer: LINK_DOWN" in about.stderr
    region.start(TOWNSHIP)
    region.linked(VILLAGE)
    until("it is anchored again", lambda: state(region) == "anchored")
    region.residents(VILLAGE, "Get", get)
    assert asked() is None


def test_a_cut_end_is_an_alarm_at_the_parent_and_shown_by_verify(region: Region) -> None:
    """Somebody deletes the last entries of the village's store while it is stopped."""
    until("it is anchored", lambda: state(region) == "anchored")
    region.fleet.stop((VILLAGE,))
    with sqlite3.connect(region.place.node_dir(VILLAGE) / "store.db") as store:
        store.execute("DELETE FROM audit WHERE chain_position > 3 OR chain_position IS NULL")
        store.execute(
            "UPDATE audit_chain SET position = 3, "
            "hash = (SELECT hash FROM audit WHERE chain_position = 3)"
        )
    region.start(VILLAGE)
    region.linked(VILLAGE)

    def contradicted() -> bool:
        with region.open_channel(TOWNSHIP) as channel:
            watch = operations_pb2_grpc.ReplicationServiceStub(channel)
            seen = watch.Status(operations.ReplicationStatusRequest(), timeout=CALL_S)
        return any(each.kind == "AUDIT_CONTRADICTED" for each in seen.alarms)

    until("the township says so", contradicted, 60)
    done = audit(region, VILLAGE, "verify", "--json")
    assert done.returncode == 5
    report = said(done)
    assert not report["holds"]
    assert int(report["comparisons"][0]["breaks"][0]["position"]) > 3
    why = audit(region, TOWNSHIP, "accept", VILLAGE, "--reason", "a drill")
    assert why.returncode == 0, why.stderr
    until("it is anchored anew", lambda: state(region) == "anchored")
