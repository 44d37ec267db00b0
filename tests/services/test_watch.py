"""Alarms and the quarantine of running nodes, as an operator sees them on the command line."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from sqlalchemy import delete, select, update

import protos.fenhe.node.v1.operations_pb2 as pb
from hierarchy_config import NodeId
from node.security.folders import NodeFolder
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings, save_settings
from node.storage import CHANGELOG
from node.storage.tables import REPLICATED
from protos.fenhe.node.v1 import operations_pb2_grpc
from protos.fenhe.replication.v1 import replication_pb2_grpc
from replication.core.codec import CODEC_JSON, encode_changes
from replication.core.hashing import batch_digest
from replication.core.model import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    SCHEMA_VERSION,
    Batch,
    Form,
    Hello,
    Lane,
    LogEntry,
    Operation,
    Receipt,
    RowChange,
    StreamEpoch,
    Version,
)
from replication.wire import decode_frame, encode_frame
from tests.services.people import Person, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.stores import opened
from tests.services.test_commands import fenhe
from tests.services.waiting import until

COUNTY, TOWNSHIP, VILLAGE, OTHER = NODES = nodes(
    "141002", "141002104", "141002104200", "141002104201"
)
SPEAKER = OTHER
ALARM_AFTER_S = 3


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """County, township and village run, quick to raise an alarm; tests speak for the other one."""
    with Region(tmp_path_factory.mktemp("watch") / "region", NODES) as region:
        for node in NODES:
            folder = region.place.node_dir(node)
            changes: dict[str, Any] = {"alarm_after_s": ALARM_AFTER_S}
            if node == VILLAGE:
                changes["metrics_listen"] = region.place.address(SPEAKER)  # it does not run
            save_settings(folder, load_settings(folder).model_copy(update=changes))
        region.start(COUNTY, TOWNSHIP, VILLAGE)
        region.linked(TOWNSHIP, VILLAGE)
        yield region


def command(region: Region, node: NodeId, *words: str) -> tuple[int, Any]:
    """A command's exit code and its JSON."""
    folder = region.place.credentials_dir(f"operator-{node}")
    done = fenhe(*words, "--as", str(folder), "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def alarms(region: Region, node: NodeId) -> set[tuple[str, str]]:
    """Kind and peer of the alarms that stand."""
    with region.open_channel(node) as channel:
        stub = operations_pb2_grpc.ReplicationServiceStub(channel)
        said = stub.Status(pb.ReplicationStatusRequest(), timeout=CALL_S).alarms
    return {(alarm.kind, alarm.peer) for alarm in said}


def metrics(region: Region, node: NodeId) -> str:
    """What the node tells Prometheus."""
    address = load_settings(region.place.node_dir(node)).metrics_listen
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=CALL_S) as answer:
        return str(answer.read().decode())


def test_a_healthy_node_says_so(region: Region) -> None:
    """Everything written has a receipt; nothing lags; exit code 0."""
    region.put(VILLAGE, put_request("healthy-1", Person(1, VILLAGE)))
    until("it is above", lambda: region.rows(COUNTY).get("residents") == 1)

    until("no lag", lambda: command(region, VILLAGE, "replication", "status")[0] == 0)
    _, said = command(region, VILLAGE, "replication", "status")

    [link] = said["links"]
    assert (link["peer"], link["role"], link["connected"]) == (TOWNSHIP, "parent", True)
    bulk = next(lane for lane in link["lanes"] if lane["lane"] == "LANE_BULK")
    assert int(bulk["receipt_number"]) >= 1
    assert bulk["receipt_at"]
    assert (bulk["lag_entries"], bulk["backlog_bytes"], bulk["state"]) == ("0", "0", "idle")
    assert abs(int(link["clock_skew_ms"])) < 5000
    shown = fenhe(
        *("replication", "status", "--as"),
        str(region.place.credentials_dir(f"operator-{VILLAGE}")),
    )
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_a_backlog_that_stands_still_raises_an_alarm_and_ends_it(region: Region) -> None:
    """In the status, its exit code, the metrics and the log; over once the parent is back."""
    region.fleet.kill(TOWNSHIP)
    region.put(VILLAGE, put_request("cut-off-1", Person(2, VILLAGE)))

    key = ("BACKLOG_STALLED", TOWNSHIP)
    until("the alarm stands", lambda: key in alarms(region, VILLAGE))
    code, said = command(region, VILLAGE, "replication", "status")
    assert code == 5
    [link] = said["links"]
    assert sum(int(lane["lag_entries"]) for lane in link["lanes"]) == 2
    assert sum(int(lane["backlog_bytes"]) for lane in link["lanes"]) > 0
    assert any(int(lane["lag_seconds"]) >= ALARM_AFTER_S - 1 for lane in link["lanes"])
    assert TOWNSHIP in said["alarms"][0]["next_step"]
    until(
        "the metric says so",
        lambda: (
            f'fenhe_alarm{{kind="BACKLOG_STALLED",peer="{TOWNSHIP}"}} 1.0'
            in metrics(region, VILLAGE)
        ),
    )
    status = region.fleet.status(VILLAGE)
    assert [alarm.kind for alarm in status.alarms] == ["BACKLOG_STALLED"]

    region.start(TOWNSHIP)
    until("the alarm is over", lambda: key not in alarms(region, VILLAGE))
    log = (region.place.node_dir(VILLAGE) / "node.log").read_text(encoding="utf-8")
    assert log.count('"BACKLOG_STALLED"') == 2


def speak(region: Region, *entries: LogEntry, number: int = 1, after: int = 0) -> Receipt:
    """Send the township one batch in the name of the village that does not run."""
    files = NodeFolder(region.place.node_dir(SPEAKER)).tls
    hello = Hello(
        node_id=SPEAKER,
        protocol_min=PROTOCOL_MIN,
        protocol_max=PROTOCOL_MAX,
        schema=SCHEMA_VERSION,
        store_epoch=1,
        store_incarnation="00" * 16,
        peer_store_epoch_seen=0,
        config_epoch=1,
        signing_certificate=files.chain.read_bytes(),
    )
    batch = Batch(
        lane=Lane.BULK,
        stream_epoch=StreamEpoch(1, 1),
        number=number,
        previous=number - 1,
        covers_from=after,
        covers_to=after + len(entries),
        coalesced=False,
        digest=batch_digest(Lane.BULK, entries, covers_from=after, covers_to=after + len(entries)),
        entries=entries,
        row_count=len(entries),
        body_bytes=0,
    )
    options = channel_options(region.place.hierarchy.dns_name(TOWNSHIP), GrpcLimits())
    with grpc.secure_channel(
        region.place.address(TOWNSHIP), channel_credentials(files), options=options
    ) as channel:
        stub = replication_pb2_grpc.LinkServiceStub(channel)
        done = threading.Event()

        def frames() -> Iterator[Any]:
            yield encode_frame(hello)
            yield encode_frame(batch)
            done.wait(CALL_S)

        try:
            for said in stub.Connect(frames(), timeout=CALL_S):
                frame = decode_frame(said)
                if isinstance(frame, Receipt):
                    return frame
        finally:
            done.set()
    raise AssertionError("no receipt came")


def entry(number: int, change: RowChange, codec: int = CODEC_JSON) -> LogEntry:
    """One row in an entry of the village that does not run."""
    return LogEntry(
        sequence=0,
        origin_node=SPEAKER,
        origin_epoch=1,
        origin_sequence=number,
        lane=Lane.BULK,
        home_node=change.home_node,
        form=Form.FULL,
        codec=codec,
        schema_version=1,
        committed_at_ms=1_795_000_000_000,
        row_count=1,
        rows=encode_changes([change]),
    )


def observation_of(person: Person, word: str, author: NodeId) -> RowChange:
    """A record of a person by an author."""
    return RowChange(
        table="observations",
        row_id=person.record_id(word),
        resident_id=person.resident_id,
        version=Version(1, 1),
        operation=Operation.PUT,
        author_node=author,
        home_node=person.home,
        home_epoch=1,
        schema_version=1,
        recorded_at="2026-03-01T08:00:00.000Z",
        form=Form.FULL,
        values={"code": "8480-6", "value": 120.0},
    )


def test_the_quarantine_has_exits_on_the_command_line(region: Region) -> None:
    """An entry nobody can read and a row of a strange author wait; the lane goes on behind them."""
    mine = Person(50, SPEAKER)
    receipt = speak(
        region,
        entry(1, observation_of(mine, "unread", SPEAKER), codec=99),
        entry(2, observation_of(mine, "strange", COUNTY)),
        entry(3, observation_of(mine, "sound", SPEAKER)),
    )
    assert (receipt.refused, receipt.cursor.number) == ("", 1)

    _, page = command(region, TOWNSHIP, "quarantine", "list")
    first, second = page["items"]
    assert (first["cause"], first["whole_entry"], second["cause"]) == (
        "ENTRY_UNREADABLE",
        True,
        "AUTHOR_NOT_BELOW",
    )
    log = region.place.node_dir(TOWNSHIP) / "node.log"
    until("the alarm was said", lambda: "QUARANTINE_GROWING" in log.read_text(encoding="utf-8"))
    assert command(region, TOWNSHIP, "quarantine", "show", first["item_id"])[1]["retry_at"]
    tried = command(region, TOWNSHIP, "quarantine", "retry", second["item_id"])[1]
    assert (tried["outcome"], tried["cause"]) == ("waiting", "AUTHOR_NOT_BELOW")

    code, said = command(region, TOWNSHIP, "quarantine", "skip", first["item_id"], "--reason", "x")
    assert code == 1
    assert "SKIP_REASON_MISSING" in said
    reason = ("--reason", "a test system's entry")
    for item in (first, second):
        done = command(region, TOWNSHIP, "quarantine", "skip", item["item_id"], *reason)[1]
        assert done["outcome"] == "discarded"
    assert command(region, TOWNSHIP, "quarantine", "list")[1]["items"] == []
    with opened(region.place, TOWNSHIP) as store:
        assert ("observations", mine.record_id("sound")) in store.rows()


def test_a_neighbour_is_asked_to_send_again(region: Region) -> None:
    """The village's current version comes through the lane, and replaces what waited."""
    person = Person(7, VILLAGE)
    region.put(VILLAGE, put_request("asked-again", person))
    until("it is here", lambda: region.rows(TOWNSHIP).get("residents", 0) >= 3)
    asked = set_aside(region, person)

    region.linked(VILLAGE)
    code, answer = command(region, TOWNSHIP, "quarantine", "ask", asked)
    assert code == 0, answer
    assert (answer["peer"], answer["rows"]) == (VILLAGE, 1)

    until(
        "it is superseded",
        lambda: (
            command(region, TOWNSHIP, "quarantine", "show", asked)[1]["closed_as"] == "superseded"
        ),
        60,
    )


def set_aside(region: Region, person: Person) -> str:
    """A row that the village wrote waits at the township, as come from the village; its number."""
    row = observation_of(person, "systolic", COUNTY)
    observations = REPLICATED["observations"]
    with opened(region.place, TOWNSHIP) as store:  # what is held here needs nobody to send it again
        held = store.connection.execute(
            delete(observations).where(observations.c.row_id == row.row_id)
        )
        assert held.rowcount == 1
        store.connection.commit()
    assert speak(region, entry(4, row), number=2, after=3).refused == ""
    with opened(region.place, TOWNSHIP) as store:
        t = CHANGELOG.quarantine
        mine = t.c.row_id == row.row_id
        item_id = store.connection.execute(select(t.c.item_id).where(mine)).scalar_one()
        store.connection.execute(update(t).where(mine).values(peer=VILLAGE))
        store.connection.commit()
    return str(item_id)
