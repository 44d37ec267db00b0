"""Residents move between real nodes: through the command, while nodes are killed or cut off."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
import protos.fenhe.empi.v1.residence_pb2 as pb
from hierarchy_config import NodeId
from node.cli.client import connected
from protos.fenhe.empi.v1 import residence_pb2_grpc
from tests.services.command import fenhe
from tests.services.people import Person, observation, put_request
from tests.services.region import Region, nodes
from tests.services.stores import opened
from tests.services.waiting import until

ALL = nodes(
    "1410",
    "141002",
    "141002100",
    "141002100200",
    "141002100203",
    "141002104",
    "141024",
)
CITY, COUNTY, TOWNSHIP, VILLAGE, SISTER, OTHER_TOWNSHIP, OTHER_COUNTY = ALL
ROOT: Final = Path(__file__).parents[2]
NUMBERS: Final = itertools.count(7000)
MOVE_S: Final = 90.0


@pytest.fixture(scope="module", params=["sqlite", pytest.param("mysql", marks=pytest.mark.mariadb)])
def region(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Region]:
    """Seven nodes."""
    with Region(tmp_path_factory.mktemp("moves") / "region", ALL, request.param) as region:
        region.start()
        region.linked()
        yield region


def settle(region: Region) -> Person:
    """Somebody new in the village, with four rows of his own, known up to the county."""
    person = Person(next(NUMBERS), VILLAGE)
    region.put(VILLAGE, put_request(f"settle-{person.number}", person))
    until("the county holds him", lambda: _rows_of(region, COUNTY, person) == 4, seconds=MOVE_S)
    return person


def _command(region: Region, node: NodeId, *words: str) -> Any:
    folder = region.place.credentials_dir(f"operator-{node}")
    done = fenhe("resident", *words, "--as", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _call(region: Region, node: NodeId, method: str, request: Any) -> Any:
    with connected(region.credentials("operator", node)) as channel:
        stub = residence_pb2_grpc.ResidenceServiceStub(channel)
        return getattr(stub, method)(request, timeout=30)


def _where(region: Region, node: NodeId, person: Person) -> pb.ResidentWhereabouts:
    found: pb.ResidentWhereabouts = _call(
        region, node, "Where", pb.WhereRequest(resident_id=person.resident_id)
    )
    return found


def _move(
    region: Region, node: NodeId, person: Person, to: NodeId, reason: str = "moved house"
) -> pb.ResidentWhereabouts:
    request = pb.MoveRequest(
        resident_id=person.resident_id,
        to_node=to,
        reason=reason,
        request_id=f"move-{person.number}",
    )
    answer: pb.ResidentWhereabouts = _call(region, node, "Move", request)
    return answer


def _rows_of(region: Region, node: NodeId, person: Person) -> int:
    """Rows about him in the node's tables, by his own and his records' ids."""
    with opened(region.place, node) as store:
        return store.rows_of_resident(person.resident_id)


def _state(region: Region, node: NodeId, person: Person) -> str:
    try:
        return _where(region, node, person).state
    except grpc.RpcError:
        return ""


def _settled(region: Region, person: Person, *at: NodeId) -> None:
    for node in at:
        until(
            f"the move is settled at {node}",
            lambda node=node: _state(region, node, person) == "settled",  # type: ignore[misc]
            seconds=MOVE_S,
        )


def _gone(region: Region, person: Person, *at: NodeId) -> None:
    for node in at:
        until(
            f"{node} holds nothing of him",
            lambda node=node: _rows_of(region, node, person) == 0,  # type: ignore[misc]
            seconds=MOVE_S,
        )


def _status(region: Region, node: NodeId, person: Person) -> tuple[grpc.StatusCode, str]:
    try:
        region.residents(node, "Get", empi.GetResidentRequest(resident_id=person.resident_id))
    except grpc.RpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize(
    ("asked_at", "to", "left"),
    [
        (VILLAGE, SISTER, ()),
        (OTHER_TOWNSHIP, OTHER_TOWNSHIP, (TOWNSHIP,)),
        (CITY, OTHER_COUNTY, (TOWNSHIP, COUNTY)),
    ],
)
def test_a_resident_moves(
    region: Region, asked_at: NodeId, to: NodeId, left: tuple[NodeId, ...]
) -> None:
    """Asked for at the old home, at the new one, at the common ancestor; siblings hold nothing."""
    person = settle(region)
    answer = _command(
        region, asked_at, "move", person.resident_id, "--to", to, "--reason", "moved house"
    )
    assert (answer["home_node"], answer["home_epoch"]) == (to, "2")
    _settled(region, person, VILLAGE, to)
    _gone(region, person, *left)
    assert _status(region, to, person)[0] is grpc.StatusCode.OK
    code, details = _status(region, VILLAGE, person)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert to in details
    where = _command(region, VILLAGE, "where", person.resident_id)
    assert (where["home_node"], where["forwarding"], where["held_here"]) == (to, True, False)
    tree = region.place.hierarchy
    for node in ALL:
        if node in tree.path_to_root(to):
            continue
        authored = 2 if node == VILLAGE else 0
        assert _rows_of(region, node, person) == authored, node
    region.put(
        VILLAGE,
        care.PutBundleRequest(
            request_id=f"after-{person.number}", records=[observation(person, "after", 150.0)]
        ),
    )
    asked = care.GetRecordRequest(record_id=person.record_id("after"))
    until(
        "what the old home wrote is at the new one",
        lambda: _reads(region, to, asked),
        seconds=MOVE_S,
    )


def _reads(region: Region, node: NodeId, asked: care.GetRecordRequest) -> bool:
    try:
        region.records(node, "Get", asked)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def test_a_dead_old_home_is_left_and_its_late_edits_are_proposals(region: Region) -> None:
    """The village is alone with its clinic while the township is down, then both come back."""
    person = settle(region)
    region.fleet.kill(TOWNSHIP)
    answer = _move(region, COUNTY, person, OTHER_TOWNSHIP)
    assert (answer.home_node, answer.home_epoch) == (OTHER_TOWNSHIP, 2)
    until(
        "the county ships in the old branch's place",
        lambda: _status(region, OTHER_TOWNSHIP, person)[0] is grpc.StatusCode.OK,
        seconds=MOVE_S,
    )
    edited = person.message()
    edited.phone = "13900001111"
    region.put(
        VILLAGE,
        care.PutBundleRequest(
            request_id=f"late-{person.number}",
            residents=[edited],
            records=[observation(person, "late", 166.0)],
        ),
    )
    region.start(TOWNSHIP)
    region.linked(TOWNSHIP, VILLAGE, SISTER)
    asked = care.GetRecordRequest(record_id=person.record_id("late"))
    until("the late record came", lambda: _reads(region, OTHER_TOWNSHIP, asked), seconds=MOVE_S)

    def proposed() -> list[Any]:
        found = _command(
            region, OTHER_TOWNSHIP, "proposals", "list", "--resident", person.resident_id
        )
        proposals: list[Any] = found["proposals"]
        return proposals

    until("the late edit is proposed", lambda: len(proposed()) == 1, seconds=MOVE_S)
    (proposal,) = proposed()
    assert [change["column"] for change in proposal["changes"]] == ["phone"]
    done = _command(region, OTHER_TOWNSHIP, "proposals", "accept", proposal["proposal_id"])
    assert done["state"] == "accepted"
    asked_for = empi.GetResidentRequest(resident_id=person.resident_id)
    assert region.residents(OTHER_TOWNSHIP, "Get", asked_for).phone == "13900001111"
    _settled(region, person, VILLAGE)
    _gone(region, person, TOWNSHIP)


@pytest.mark.parametrize("victim", [VILLAGE, OTHER_TOWNSHIP, COUNTY, TOWNSHIP])
def test_a_move_survives_the_death_of_any_node(region: Region, victim: NodeId) -> None:
    """Killed as soon as the move was asked for, it goes on where its tables say."""
    person = settle(region)
    _move(region, COUNTY, person, OTHER_TOWNSHIP)
    region.fleet.kill(victim)
    region.start(victim)
    region.linked(*(node for node in ALL if node != CITY))
    _settled(region, person, VILLAGE, OTHER_TOWNSHIP)
    _gone(region, person, TOWNSHIP, SISTER)
    assert _rows_of(region, OTHER_TOWNSHIP, person) == 4
    assert _rows_of(region, COUNTY, person) == 4


def test_a_move_that_nobody_can_grant_now_is_asked_for_again(region: Region) -> None:
    """The request is durable: it outlives the node that took it and the one that was away."""
    person = settle(region)
    region.fleet.kill(COUNTY)
    answer = _move(region, OTHER_TOWNSHIP, person, OTHER_TOWNSHIP)
    assert (answer.state, answer.home_node) == ("requested", "")
    region.fleet.kill(OTHER_TOWNSHIP)
    region.start(COUNTY, OTHER_TOWNSHIP)
    region.linked(*(node for node in ALL if node != CITY))
    _settled(region, person, OTHER_TOWNSHIP, VILLAGE)
    assert _where(region, COUNTY, person).home_node == OTHER_TOWNSHIP


def test_nobody_moves_a_resident_who_is_not_his(region: Region) -> None:
    """Neither home in the caller's subtree: refused before anybody is asked."""
    person = settle(region)
    with pytest.raises(grpc.RpcError) as refused:
        _move(region, OTHER_COUNTY, person, OTHER_TOWNSHIP)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as refused:
        _move(region, OTHER_TOWNSHIP, person, OTHER_TOWNSHIP, reason="")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as refused:
        _move(region, VILLAGE, person, VILLAGE)
    assert "MOVE_NOT_NEEDED" in str(refused.value.trailing_metadata()) or (
        refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    )
