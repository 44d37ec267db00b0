"""Who may not link: refused where he dials, and both ends' operators can see why."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

import protos.fenhe.common.v1.common_pb2 as common
import protos.fenhe.node.v1.operations_pb2 as operations
import protos.fenhe.replication.v1.replication_pb2 as pb
from hierarchy_config import NodeId
from node.security.folders import NodeFolder, TlsFiles
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings, save_settings
from protos.fenhe.node.v1 import operations_pb2_grpc
from protos.fenhe.replication.v1 import replication_pb2_grpc
from replication.core.model import PROTOCOL_MAX, PROTOCOL_MIN, SCHEMA_MIN, SCHEMA_VERSION, Hello
from replication.wire import encode_frame
from tests.services.people import Person, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.stores import opened
from tests.services.waiting import until

COUNTY, PARENT, CHILD, OTHER_TOWNSHIP, STRANGER = NODES = nodes(
    "141002", "141002104", "141002104200", "141002100", "141002100200"
)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A township runs; a village of another township dials it instead of its own parent.

    The township's own child is not started: tests speak in its name.
    """
    with Region(tmp_path_factory.mktemp("links") / "region", NODES) as region:
        folder = region.place.node_dir(STRANGER)
        wrong = {"parent_endpoint": region.place.address(PARENT)}
        save_settings(folder, load_settings(folder).model_copy(update=wrong))
        region.start(PARENT, STRANGER)
        yield region


def connect(region: Region, files: TlsFiles, *frames: pb.Frame) -> list[pb.Frame]:
    """Dial the township's LinkService with some certificate; what it says until it ends."""
    options = channel_options(region.place.hierarchy.dns_name(PARENT), GrpcLimits())
    with grpc.secure_channel(
        region.place.address(PARENT), channel_credentials(files), options=options
    ) as channel:
        stub = replication_pb2_grpc.LinkServiceStub(channel)
        said: list[pb.Frame] = []
        try:
            said.extend(stub.Connect(iter(frames), timeout=CALL_S))
        except grpc.RpcError as error:
            if not said and error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
        return said


def refused(region: Region, files: TlsFiles) -> str:
    """The text of a denied Connect."""
    with pytest.raises(grpc.RpcError) as denied:
        connect(region, files, hello_of(CHILD))
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return str(denied.value.details())


def hello_of(node: NodeId, schema: int = SCHEMA_VERSION) -> pb.Frame:
    """A greeting in the name of a node."""
    return encode_frame(
        Hello(
            node_id=node,
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            schema=schema,
            store_epoch=1,
            store_incarnation="00" * 16,
            peer_store_epoch_seen=0,
            config_epoch=1,
        )
    )


def test_a_node_that_dials_another_than_its_parent_says_so(region: Region) -> None:
    """The village never trusts the wrong township, its status says why, and it goes on working."""

    def last_error() -> str:
        (link,) = [each for each in region.fleet.status(STRANGER).links if each.role == "parent"]
        assert not link.connected
        return link.last_error

    # Before the other township listens, nobody answers at all.
    until("the village's status says why", lambda: last_error().startswith("PEER_IDENTITY: "))
    said = last_error()
    assert f"does not prove to be {OTHER_TOWNSHIP}" in said
    assert "parent_endpoint" in said
    region.put(STRANGER, put_request("stranger-1", Person(1, STRANGER)), "client")
    with opened(region.place, PARENT) as store:
        assert not store.rows()


def test_a_node_of_another_parent_is_denied(region: Region) -> None:
    """A village that knows the township's name is still none of its children."""
    said = refused(region, NodeFolder(region.place.node_dir(STRANGER)).tls)
    assert said.startswith("DENIED: ")
    assert STRANGER in said
    assert "parent" in said


def test_a_parent_never_dials_down(region: Region) -> None:
    """Not even the county may open a link to its township: children dial."""
    said = refused(region, NodeFolder(region.place.node_dir(COUNTY)).tls)
    assert COUNTY in said


@pytest.mark.parametrize("kind", ["client", "operator"])
def test_only_nodes_link(region: Region, kind: str) -> None:
    """A clinic's or an operator's certificate opens no link."""
    said = refused(region, region.credentials(kind, PARENT).tls)
    assert kind in said


def test_a_child_cannot_speak_for_another_node(region: Region) -> None:
    """Certificate and Hello name two nodes: refused on the wire, and the township's status says."""
    files = NodeFolder(region.place.node_dir(CHILD)).tls
    said = connect(region, files, hello_of(STRANGER))
    (refusal,) = [frame.refusal for frame in said if frame.HasField("refusal")]
    assert refusal.code
    assert refusal.reason

    def last_error() -> str:
        links = region.fleet.status(PARENT).links
        return next(each.last_error for each in links if each.peer == CHILD)

    until("the township's status says why", lambda: last_error().startswith(refusal.code))


def test_a_node_of_a_release_too_old_is_told_so(region: Region) -> None:
    """On the wire; and the township's status says its versions, the refusal and the next step."""
    files = NodeFolder(region.place.node_dir(CHILD)).tls
    said = connect(region, files, hello_of(CHILD, schema=SCHEMA_MIN - 1))
    (refusal,) = [frame.refusal for frame in said if frame.HasField("refusal")]
    assert refusal.code == "SCHEMA_TOO_OLD"
    assert refusal.hint == f"Upgrade node {CHILD}."

    def link() -> operations.LinkReplication:
        with region.open_channel(PARENT) as channel:
            stub = operations_pb2_grpc.ReplicationServiceStub(channel)
            links = stub.Status(operations.ReplicationStatusRequest(), timeout=CALL_S).links
        return next(each for each in links if each.peer == CHILD)

    until("the status says why", lambda: link().last_error.startswith("SCHEMA_TOO_OLD: "))
    shown = link()
    assert shown.next_step == refusal.hint
    assert (shown.versions.protocol_max, shown.versions.schema_max) == (
        PROTOCOL_MAX,
        SCHEMA_MIN - 1,
    )


def test_nothing_but_a_hello_comes_first(region: Region) -> None:
    """A stream that starts with a batch ends there; nothing is applied."""
    files = NodeFolder(region.place.node_dir(CHILD)).tls
    batch = pb.Frame(batch=pb.Batch(lane=common.LANE_BULK, number=1, covers_to=1))
    said = connect(region, files, batch)
    assert not any(frame.HasField("receipt") for frame in said)
    with opened(region.place, PARENT) as store:
        assert not store.rows()
