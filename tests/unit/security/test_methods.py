"""The table of methods: complete, closed by default, and right in every cell."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor

from hierarchy_config.model import NodeId
from node.errors import DeniedError
from node.security.caller import CallerKind
from node.security.identity import PeerIdentity
from node.security.methods import DOOR_METHODS, METHODS, Relation, authorize, rule_for
from node.security.roles import Role
from tests.unit.security.region import (
    CITY,
    COUNTY,
    GOOD,
    HIERARCHY,
    OTHER_COUNTY,
    SIBLING,
    TOWNSHIP,
    VILLAGE,
)

PROTOS = Path(__file__).parents[3] / "protos"
CONNECT = "/fenhe.replication.v1.LinkService/Connect"
ASK_SITE = "/fenhe.federation.v1.ExecutorService/AskSite"
EPOCHS = "/fenhe.node.v1.RegionService/Epochs"
STATUS = "/fenhe.node.v1.NodeService/Status"
NODE, STAFF, CLIENT, ANALYST, EXECUTOR, OPERATOR = CallerKind

# Reviewed by hand: which kinds of the called node itself may call what; methods before services.
OPEN_TO = {
    "fenhe.empi.v1.ResidentService": {CLIENT, STAFF, OPERATOR},
    "fenhe.empi.v1.ResidenceService": {STAFF, OPERATOR},
    "/fenhe.empi.v1.ResidenceService/Where": {CLIENT, STAFF, OPERATOR},
    "fenhe.care.v1.RecordService": {CLIENT, STAFF, OPERATOR},
    "fenhe.federation.v1.QueryService": {ANALYST, STAFF, OPERATOR},
    "fenhe.federation.v1.ExecutorService": {EXECUTOR},
    "fenhe.node.v1.NodeService": {NODE, STAFF, CLIENT, ANALYST, OPERATOR},
    "fenhe.node.v1.ReplicationService": {OPERATOR},
    "/fenhe.node.v1.ReplicationService/Status": {CLIENT, STAFF, OPERATOR},
    "fenhe.node.v1.MaintenanceService": {OPERATOR},
    "fenhe.node.v1.BundleService": {OPERATOR},
    "fenhe.node.v1.RecoveryService": {OPERATOR},
    "fenhe.node.v1.RegionService": {OPERATOR},
    "fenhe.node.v1.InvitationService": {OPERATOR},
    "fenhe.node.v1.RevocationService": {OPERATOR},
    "fenhe.node.v1.KeysService": {OPERATOR},
    "fenhe.node.v1.DoctorService": {OPERATOR},
    "fenhe.control.v1.OrganizationService": {STAFF, OPERATOR},
    "fenhe.control.v1.StaffService": {STAFF, OPERATOR},
    "fenhe.control.v1.AccountService": {STAFF, OPERATOR},
    "fenhe.control.v1.SessionService": {STAFF, OPERATOR},
    "/fenhe.control.v1.SessionService/SignIn": {CLIENT, STAFF, OPERATOR},
    EPOCHS: {NODE},
    "fenhe.replication.v1.LinkService": set(),
    "grpc.health.v1.Health": set(CallerKind),
    "grpc.reflection.v1alpha.ServerReflection": {OPERATOR, STAFF},
}


def methods_of(descriptor: FileDescriptor) -> Iterator[str]:
    """Full names of the methods in a .proto file."""
    for service in descriptor.services_by_name.values():
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}"


def own_methods() -> set[str]:
    """Every method of every .proto of this project."""
    modules = [
        ".".join(path.relative_to(PROTOS.parent).with_suffix("").parts)
        for path in sorted(PROTOS.glob("fenhe/*/v1/*_pb2.py"))
    ]
    assert modules
    return {
        method
        for module in modules
        for method in methods_of(importlib.import_module(module).DESCRIPTOR)
    }


def peer(kind: CallerKind, node_id: NodeId) -> PeerIdentity:
    """Someone of a kind under a node."""
    return PeerIdentity(kind, node_id, "", "spiffe://…", "00", GOOD.not_after)


def may(method: str, kind: CallerKind, node_id: NodeId, here: NodeId) -> bool:
    """Whether a call gets through."""
    try:
        authorize(method, peer(kind, node_id), here, HIERARCHY, frozenset(Role))
    except DeniedError:
        return False
    return True


def test_has_a_rule_for_every_method() -> None:
    """A method added to a .proto without a rule fails here, and is denied meanwhile."""
    assert own_methods() - METHODS.keys() - DOOR_METHODS == set()


def test_the_door_has_its_own_methods_and_no_other() -> None:
    """What needs no certificate is on the door alone: the node's own server denies it to all."""
    assert DOOR_METHODS & METHODS.keys() == set()
    assert {each.split("/")[1] for each in DOOR_METHODS} == {"fenhe.node.v1.DoorService"}
    assert own_methods() >= DOOR_METHODS
    for method in DOOR_METHODS:
        assert not any(may(method, kind, CITY, CITY) for kind in CallerKind)


def test_has_no_rule_without_a_method() -> None:
    """A rule that outlived its method would one day open another."""
    known = own_methods()
    for module in ("grpc_health.v1.health_pb2", "grpc_reflection.v1alpha.reflection_pb2"):
        known |= set(methods_of(importlib.import_module(module).DESCRIPTOR))
    assert METHODS.keys() - known == set()


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", CallerKind)
def test_opens_nothing_to_callers_of_other_nodes(method: str, kind: CallerKind) -> None:
    """Parent, child, sibling, cousin: health, a link to child nodes, what the root has signed."""
    health = method.startswith("/grpc.health.v1.Health/")
    for here in HIERARCHY.nodes:
        for node_id in HIERARCHY.nodes:
            if node_id == here:
                continue
            link = method == CONNECT and kind is NODE and HIERARCHY.parent(node_id) == here
            left_behind = method == EPOCHS and kind is NODE
            assert may(method, kind, node_id, here) == (health or link or left_behind)


@pytest.mark.parametrize(
    ("child", "here", "open_to"),
    [
        (VILLAGE, TOWNSHIP, True),
        (SIBLING, TOWNSHIP, True),
        (COUNTY, CITY, True),
        (VILLAGE, COUNTY, False),
        (TOWNSHIP, VILLAGE, False),
        (SIBLING, VILLAGE, False),
        (VILLAGE, VILLAGE, False),
        (TOWNSHIP, OTHER_COUNTY, False),
    ],
)
def test_links_children_only(child: NodeId, here: NodeId, open_to: bool) -> None:
    """A link is opened by a node directly below, not by a grandchild, parent or sibling."""
    assert may(CONNECT, NODE, child, here) is open_to


@pytest.mark.parametrize("kind", [kind for kind in CallerKind if kind is not NODE])
def test_links_no_people(kind: CallerKind) -> None:
    """A client of a child node is not the child node."""
    assert not may(CONNECT, kind, VILLAGE, TOWNSHIP)


@pytest.mark.parametrize(
    "method",
    [
        "",
        "/fenhe.care.v1.RecordService/Delete",
        "/fenhe.care.v1.RecordService/get",
        "fenhe.care.v1.RecordService/Get",
        "/grpc.health.v1.Health/List",
        "/fenhe.care.v1.RecordService/Get/",
    ],
)
def test_denies_what_is_not_listed(method: str) -> None:
    """A method that nobody listed is closed to everyone, the operator included."""
    assert rule_for(method) is None
    for kind in CallerKind:
        assert not may(method, kind, CITY, CITY)


def test_says_why_and_what_to_do() -> None:
    """A denial names the method and the caller's node, and the next step."""
    with pytest.raises(DeniedError, match=SIBLING) as raised:
        authorize(STATUS, peer(CLIENT, SIBLING), VILLAGE, HIERARCHY)
    assert "issued the credentials" in raised.value.hint
    assert raised.value.code == "DENIED"


def test_tells_which_methods_are_for_children() -> None:
    """The rule itself says where the caller must stand."""
    link, executor = rule_for(CONNECT), rule_for(ASK_SITE)
    assert link is not None
    assert executor is not None
    assert link.child_only
    assert not executor.child_only
    assert executor.relation is Relation.HERE
