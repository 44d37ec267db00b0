"""One running node: what it takes, what it refuses, whom it answers, how it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from typer.testing import CliRunner

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.federation.v1.federation_pb2 as pb
from node.cli.main import app
from node.security.credentials import Credentials
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.federation.v1 import federation_pb2_grpc
from tests.services.people import DAY, Person, encounter_of, observation, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.stores import opened
from tests.services.waiting import CLOCK

COUNTY, TOWNSHIP = nodes("141002", "141002100")
STOP_S_MAX: Final = 8.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A county that runs; the township has credentials and no process."""
    with Region(tmp_path_factory.mktemp("one") / "region", (COUNTY, TOWNSHIP)) as region:
        region.start(COUNTY)
        yield region


def dial(who: Credentials) -> grpc.Channel:
    """A channel by hand-made credentials."""
    return grpc.secure_channel(
        who.address,
        channel_credentials(who.tls),
        options=channel_options(who.server_name, GrpcLimits()),
    )


def refusal(region: Region, request: care.PutBundleRequest, kind: str = "operator") -> Any:
    """Put a bundle that is refused: the error, after a look that nothing was stored."""
    with opened(region.place, COUNTY) as store:
        before = (store.tables(), store.requests(), len(store.log()), store.audited_rows())
    with pytest.raises(grpc.RpcError) as refused:
        region.put(COUNTY, request, kind)
    with opened(region.place, COUNTY) as store:
        after = (store.tables(), store.requests(), len(store.log()), store.audited_rows())
    assert after == before
    return refused.value


def faults_of(error: Any) -> set[tuple[str, str]]:
    """(field, code) of each fault in the details of a refused bundle."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    assert dict(error.trailing_metadata())["fenhe-code"] == "BUNDLE_REFUSED"
    return fault_details(error)


def fault_details(error: Any) -> set[tuple[str, str]]:
    """(field, code) of each fault in the details of an error."""
    metadata = dict(error.trailing_metadata())
    (detail,) = Status.FromString(metadata["grpc-status-details-bin"]).details
    faults = care.BundleFaults()
    assert detail.Unpack(faults)
    assert all(fault.expected for fault in faults.faults)
    return {(fault.field, fault.code) for fault in faults.faults}


def sound(number: int) -> care.PutBundleRequest:
    """A bundle without a fault."""
    return put_request(f"one-node-{number:05d}", Person(number, COUNTY))


def bad_identity_number(request: care.PutBundleRequest) -> None:
    """A wrong check character."""
    number = request.residents[0].identifiers[0]
    number.value = number.value[:-1] + ("1" if number.value[-1] != "1" else "2")


def unknown_diagnosis(request: care.PutBundleRequest) -> None:
    """No code of ICD-10."""
    record = request.records.add(resident_id=request.residents[0].resident_id)
    record.condition.code = "Z99.999X"


def unknown_observation(request: care.PutBundleRequest) -> None:
    """No code of the shipped list."""
    request.records[1].observation.code = "99999-9"


def future_date(request: care.PutBundleRequest) -> None:
    """Measured in a later century."""
    request.records[1].observation.observed_on = "2199-01-01"


def home_nowhere(request: care.PutBundleRequest) -> None:
    """A home outside the hierarchy."""
    request.residents[0].home_node = "999999"


def home_elsewhere(request: care.PutBundleRequest) -> None:
    """Another node's resident."""
    request.residents[0].home_node = TOWNSHIP


def too_many_rows(request: care.PutBundleRequest) -> None:
    """More than 1,000 rows."""
    for number in range(1000):
        request.records.add().CopyFrom(observation(Person(10, COUNTY), f"row {number}", 120))


def too_many_bytes(request: care.PutBundleRequest) -> None:
    """Fewer rows, over 1 MiB."""
    for number in range(900):
        record = request.records.add()
        record.CopyFrom(encounter_of(Person(10, COUNTY)))
        record.record_id = Person(10, COUNTY).record_id(f"large {number}")
        record.encounter.department = "科" * 400


@pytest.mark.parametrize(
    ("spoil", "field", "code"),
    [
        (bad_identity_number, "residents[0].identifiers[0].value", "IDENTITY_NUMBER_INVALID"),
        (unknown_diagnosis, "records[2].condition.code", "ICD10_UNKNOWN"),
        (unknown_observation, "records[1].observation.code", "OBSERVATION_CODE_UNKNOWN"),
        (future_date, "records[1].observation.observed_on", "DATE_IN_FUTURE"),
        (home_nowhere, "residents[0].home_node", "HOME_UNKNOWN"),
        (home_elsewhere, "residents[0].home_node", "NOT_HOME_NODE"),
        (too_many_rows, "bundle", "BUNDLE_TOO_LARGE"),
        (too_many_bytes, "bundle", "BUNDLE_TOO_LARGE"),
    ],
)
def test_refuses_a_bundle_whole_with_the_fault_of_the_row(
    region: Region, spoil: Callable[[care.PutBundleRequest], None], field: str, code: str
) -> None:
    """INVALID_ARGUMENT names the row and what was expected; nothing of the bundle is stored."""
    request = sound(10)
    spoil(request)
    assert (field, code) in faults_of(refusal(region, request))


def test_names_the_faults_of_every_row(region: Region) -> None:
    """Several rows are wrong: each is told, not only the first."""
    request = sound(11)
    for spoil in (bad_identity_number, unknown_observation, unknown_diagnosis):
        spoil(request)
    codes = {code for _, code in faults_of(refusal(region, request))}
    assert codes >= {"IDENTITY_NUMBER_INVALID", "OBSERVATION_CODE_UNKNOWN", "ICD10_UNKNOWN"}


def test_never_repeats_what_was_wrong(region: Region) -> None:
    """The text of a refusal holds no value of the bundle."""
    request = sound(12)
    bad_identity_number(request)
    error = refusal(region, request)
    said = (error.details() or "").encode() + b"".join(
        value if isinstance(value, bytes) else value.encode()
        for _, value in error.trailing_metadata()
    )
    for marker in (*Person(12, COUNTY).markers, request.residents[0].identifiers[0].value):
        assert marker.encode() not in said


def test_the_same_request_again_has_the_same_answer(region: Region) -> None:
    """A retry stores nothing anew and says that it is one; another body under its id is refused."""
    request = sound(20)
    first = region.put(COUNTY, request)
    with opened(region.place, COUNTY) as store:
        before = store.tables()
    again = region.put(COUNTY, request)
    assert not first.repeated_request
    assert again.repeated_request
    assert list(again.resident_ids) == list(first.resident_ids)
    assert list(again.record_ids) == list(first.record_ids)
    assert again.acknowledged == first.acknowledged == 4
    with opened(region.place, COUNTY) as store:
        assert store.tables() == before
    request.records[1].observation.value += 1
    assert refusal(region, request).code() is grpc.StatusCode.ALREADY_EXISTS


def test_an_amendment_is_a_new_version(region: Region) -> None:
    """The author sends a record again with another value; readers get the newest."""
    person = Person(21, COUNTY)
    region.put(COUNTY, put_request("amended-21", person))
    amended = observation(person, "systolic", 133)
    request = care.PutBundleRequest(request_id="amending-21", records=[amended])
    assert region.put(COUNTY, request).acknowledged == 1
    asked = care.GetRecordRequest(record_id=amended.record_id)
    read = region.records(COUNTY, "Get", asked)
    assert (read.version.number, read.observation.value) == (2, 133)
    assert (read.observation.observed_on, read.home_node) == (DAY, COUNTY)


def test_a_record_is_taken_back_by_its_author(region: Region) -> None:
    """As it was read and with deleted set; the timeline loses it, its id keeps saying so."""
    person = Person(22, COUNTY)
    region.put(COUNTY, put_request("taken-back-22", person))
    record_id = observation(person, "systolic", 120).record_id
    asked = care.GetRecordRequest(record_id=record_id)
    gone = region.records(COUNTY, "Get", asked)
    gone.deleted = True
    request = care.PutBundleRequest(request_id="taking-back-22", records=[gone])
    assert region.put(COUNTY, request).acknowledged == 1
    read = region.records(COUNTY, "Get", asked)
    assert (read.deleted, read.version.number) == (True, 2)
    assert read.observation == care.Observation()
    whose = care.TimelineRequest(resident_id=person.resident_id)
    shown = {record.record_id for record in region.records(COUNTY, "Timeline", whose).records}
    assert shown
    assert record_id not in shown


def test_refuses_a_record_of_nobody_known(region: Region) -> None:
    """A record must be of somebody this node knows."""
    request = care.PutBundleRequest(
        request_id="nobody-30", records=[observation(Person(30, COUNTY), "systolic", 120)]
    )
    error = refusal(region, request)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert fault_details(error) == {("records[0].resident_id", "UNKNOWN_RESIDENT")}


def test_an_analyst_may_not_write(region: Region) -> None:
    """Credentials for questions store nothing."""
    assert refusal(region, sound(40), "analyst").code() is grpc.StatusCode.PERMISSION_DENIED


def test_credentials_of_another_node_are_no_use_here(region: Region) -> None:
    """A clinic of the township is not a clinic of the county."""
    client = region.credentials("client", TOWNSHIP)
    here = region.credentials("operator", COUNTY)
    who = replace(client, address=here.address, server_name=here.server_name)
    with dial(who) as channel, pytest.raises(grpc.RpcError) as refused:
        care_pb2_grpc.RecordServiceStub(channel).PutBundle(sound(41), timeout=CALL_S)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_nobody_gets_in_without_a_certificate(region: Region) -> None:
    """A caller who trusts the region and shows nothing does not get past the handshake."""
    who = region.credentials("operator", COUNTY)
    trusting = grpc.ssl_channel_credentials(who.tls.root.read_bytes())
    options = channel_options(who.server_name, GrpcLimits())
    with (
        grpc.secure_channel(who.address, trusting, options=options) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        care_pb2_grpc.RecordServiceStub(channel).PutBundle(sound(42), timeout=CALL_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_describes_itself_to_its_operator_only(region: Region) -> None:
    """Reflection lists the services to the operator and is denied to an analyst."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")

    def listed(kind: str) -> set[str]:
        with region.open_channel(COUNTY, kind) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=CALL_S)
            return {service.name for service in answer.list_services_response.service}

    assert "fenhe.care.v1.RecordService" in listed("operator")
    with pytest.raises(grpc.RpcError) as refused:
        listed("analyst")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_stops_in_order(tmp_path: Path) -> None:
    """SIGTERM: watchers hear NOT_SERVING, the process ends with 0, nothing is left behind."""
    with Region(tmp_path / "region", (COUNTY,)) as region:
        region.start()
        folder, pid = region.place.node_dir(COUNTY), region.fleet.pid(COUNTY)
        with region.open_channel(COUNTY, "analyst") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="fenhe.care.v1.RecordService")
            assert health.Check(request, timeout=CALL_S).status == SERVING
            watch = health.Watch(request, timeout=CALL_S)
            assert next(watch).status == SERVING
            before_ms = CLOCK.monotonic_ms()
            assert region.fleet.stop() == {COUNTY: 0}
            assert CLOCK.monotonic_ms() - before_ms < STOP_S_MAX * 1000
            assert next(watch).status == NOT_SERVING
        assert not (folder / "run.json").exists()
        assert not _session(pid)
        assert not (folder / "store.db-wal").exists()
        assert (folder / "stderr.log").read_text(encoding="utf-8") == ""


def _session(leader: int) -> list[int]:
    """Processes of the session that a process led."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[3]) == leader and words[0] != "Z":
            found.append(int(path.parent.name))
    return found


def test_a_refused_question_says_its_reason(region: Region) -> None:
    """For programs in the trailing metadata, for people on the command line."""
    sql = "SELECT MIN(value) FROM observations"
    with region.open_channel(COUNTY, "analyst") as channel, pytest.raises(grpc.RpcError) as refused:
        list(federation_pb2_grpc.QueryServiceStub(channel).Ask(pb.QueryRequest(sql=sql), timeout=9))
    call: Any = refused.value
    told = dict(call.trailing_metadata())
    assert (told["fenhe-code"], told["fenhe-refusal"]) == ("QUERY_REFUSED", "SQL_MIN_MAX")
    folder = region.place.credentials_dir(f"analyst-{COUNTY}")
    typed = CliRunner().invoke(app, ["query", sql, "--as", str(folder)])
    assert typed.exit_code == 1
    assert typed.stderr.startswith("QUERY_REFUSED: SQL_MIN_MAX: ")
    assert "Next: Count in bands" in typed.stderr


def test_the_basis_of_a_question_reaches_the_planner(region: Region) -> None:
    """By provider, distinct people are refused with the option that mends it."""
    folder = str(region.place.credentials_dir(f"analyst-{COUNTY}"))
    sql = "SELECT COUNT(DISTINCT resident_id) AS people FROM encounters"
    refused = CliRunner().invoke(app, ["query", sql, "--as", folder, "--basis", "provider"])
    assert "SQL_DISTINCT_BY_PROVIDER" in refused.stderr
    assert "--basis residence" in refused.stderr
    sql = "SELECT author, COUNT(*) AS n FROM encounters GROUP BY author"
    words = ["query", sql, "--as", folder, "--basis", "provider", "--timeout", "120"]
    told = CliRunner().invoke(app, words)
    assert "QUERY_REFUSED" not in told.stderr
    assert told.stdout.split()[:2] == ["author", "n"], told.stderr
