"""The hierarchy changes while the region runs: real processes, mutual TLS, writes going on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc
import pytest
from cryptography import x509

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
import protos.fenhe.node.v1.region_pb2 as region_pb
from hierarchy_config import Hierarchy, NodeId, load_region, region_text
from node.initialise import NewNode, initialise
from node.security.certificates import authority_name, certificates_from_pem
from node.security.folders import NodeFolder
from protos.fenhe.node.v1 import region_pb2_grpc
from tests.services.people import Person, observation, put_request
from tests.services.region import Region, nodes
from tests.services.stores import HeldRow, opened
from tests.services.waiting import CLOCK, until

NODES = nodes(
    "1410",
    "141002",
    "141002100",
    "141002100200",
    "141002100203",
    "141002104",
    "141024",
    "141024100",
)
CITY, OLD, TOWNSHIP, VILLAGE, AWAY, STAYING, NEW, BESIDE = NODES
MOVING: Final = frozenset({TOWNSHIP, VILLAGE, AWAY})
CALL_S: Final = 60.0


class Clinic(threading.Thread):
    """Registers people at a village without a pause, with the credentials it was once given."""

    def __init__(self, region: Region, home: NodeId, first: int) -> None:
        super().__init__()
        self._region = region
        self._home = home
        self._first = first
        self._enough = threading.Event()
        self.people: list[Person] = []
        self.faults: list[str] = []

    def run(self) -> None:
        number = self._first
        while not self._enough.is_set():
            person = Person(number, self._home)
            try:
                self._region.put(self._home, put_request(f"clinic-{number}", person))
            except grpc.RpcError as error:
                # A node that starts its parts again is away for a moment; the same is sent again.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.faults.append(f"{error.code()}: {error.details()}")
                self._enough.wait(0.1)
                continue
            self.people.append(person)
            number += 1

    def give_up(self) -> list[Person]:
        """Stop, whatever was refused; who was acknowledged."""
        self._enough.set()
        self.join(CALL_S)
        assert not self.is_alive()
        return self.people

    def finish(self) -> list[Person]:
        """Stop, and say who was acknowledged."""
        self._enough.set()
        self.join(CALL_S)
        assert not self.is_alive()
        assert not self.faults, self.faults[:3]
        return self.people


class Office:
    """The operator at the root."""

    def __init__(self, region: Region) -> None:
        self.region = region

    def in_force(self, node: NodeId = CITY) -> Hierarchy:
        """The region file of a node."""
        return load_region(self.region.place.node_dir(node) / "region.yaml")

    def moved(self, node: NodeId, parent: NodeId) -> str:
        """The file in force with one node under another parent."""
        tree = self.in_force()
        moved = {**tree.nodes, node: replace(tree.entry(node), parent=parent)}
        return region_text(replace(tree, nodes=moved))

    def closed(self, node: NodeId, successor: NodeId) -> str:
        """The file in force less a node, which another succeeds; it may be a new one."""
        tree = self.in_force()
        kept = {code: entry for code, entry in tree.nodes.items() if code != node}
        heir = tree.nodes.get(successor) or replace(
            tree.entry(node), node_id=successor, endpoint=None
        )
        kept[successor] = replace(heir, succeeds=node)
        return region_text(replace(tree, nodes=kept))

    def plan(self, text: str) -> region_pb.PlanResponse:
        with self.region.open_channel(CITY) as channel:
            stub = region_pb2_grpc.RegionServiceStub(channel)
            return stub.Plan(region_pb.PlanRequest(region_text=text), timeout=CALL_S)

    def apply(self, text: str, **more: object) -> list[str]:
        """The steps of putting a file in force."""
        request = region_pb.ApplyRequest(request_id="", region_text=text, **more)  # type: ignore[arg-type]
        with self.region.open_channel(CITY) as channel:
            stub = region_pb2_grpc.RegionServiceStub(channel)
            return [each.step for each in stub.Apply(request, timeout=CALL_S)]

    def rollback(self, **more: object) -> list[str]:
        """The steps of going back."""
        request = region_pb.RollbackRequest(request_id="", **more)  # type: ignore[arg-type]
        with self.region.open_channel(CITY) as channel:
            stub = region_pb2_grpc.RegionServiceStub(channel)
            return [each.step for each in stub.Rollback(request, timeout=CALL_S)]

    def epoch(self, number: int) -> region_pb.EpochSummary | None:
        """An epoch as the root tells of it; None while it does not answer."""
        with self.region.open_channel(CITY) as channel:
            stub = region_pb2_grpc.RegionServiceStub(channel)
            try:
                said = stub.History(region_pb.HistoryRequest(), timeout=5)
            except grpc.RpcError:
                return None
        return next((each for each in said.epochs if each.epoch == number), None)

    def settled(self, number: int) -> None:
        """Wait until everything has followed from an epoch."""

        def is_settled() -> bool:
            known = self.epoch(number)
            self.last = known
            return known is not None and list(known.progress) == ["settled"]

        try:
            until(f"epoch {number} is settled", is_settled, 90)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.last}") from error


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """A running region and whoever may change it."""
    with Region(tmp_path / "region", NODES) as region:
        region.start()
        region.linked()
        yield Office(region)


def test_a_township_moves_with_its_villages(office: Office) -> None:
    """Rows, certificates and callers follow, the old county lets go, who was away catches up."""
    region = office.region
    before = [Person(number, VILLAGE) for number in range(1, 40)]
    absent = [Person(number, AWAY) for number in range(100, 120)]
    staying = [Person(number, STAYING) for number in range(200, 210)]
    region.put(VILLAGE, put_request("before-move", *before))
    region.put(AWAY, put_request("absent-ones", *absent))
    region.put(STAYING, put_request("staying-ones", *staying))
    until("the old county has them", lambda: _homes(region, OLD) == {VILLAGE, AWAY, STAYING})
    until("the county holds all", lambda: region.rows(OLD)["residents"] == 69)
    # Written by the old county about people who leave it: it keeps what it wrote.
    by_county = observation(before[0], "by-county", 133)
    region.put(OLD, put_request_of(by_county))
    until(
        "the village has the county's record",
        lambda: region.rows(VILLAGE)["observations"] == len(before) + 1,
    )
    region.fleet.stop((AWAY,))
    until("the township misses it", lambda: not _connected(region, TOWNSHIP, AWAY))
    text = office.moved(TOWNSHIP, NEW)

    plan = office.plan(text)
    moved = plan.changes[0]
    assert (moved.kind, moved.node_id, moved.nodes_below) == ("moved", TOWNSHIP, 2)
    assert moved.residents == len(before) + len(absent)
    assert list(plan.new_certificates) == sorted(MOVING)
    assert [(each.node_id, each.homes) for each in plan.purges] == [(OLD, 3)]
    assert list(plan.away) == [AWAY]
    assert list(plan.blocks) == []

    with pytest.raises(grpc.RpcError) as refused:
        office.apply(text)
    assert "REGION_NOT_HELD" in (refused.value.details() or "")

    clinic = Clinic(region, VILLAGE, 1000)
    clinic.start()
    try:
        assert office.apply(text, without=[AWAY])[-1] == "decided"
        office.settled(2)
        region.linked(TOWNSHIP, VILLAGE)
    finally:
        during = clinic.finish()
    region.start(AWAY)
    region.linked(AWAY)
    until("the absent one has the epoch", lambda: office.in_force(AWAY).epoch == 2)
    late = Person(300, AWAY)
    until("it serves again", lambda: _put(region, AWAY, put_request("late-comer", late)))

    everybody = {person.resident_id for person in (*before, *absent, *during, late)}
    assert len(during) > 0
    until("the new county has everybody", lambda: everybody <= _residents(region, NEW), 60)
    _assert_same(region, TOWNSHIP, NEW, everybody)
    with opened(region.place, OLD) as store:
        left = {row.home for row in store.rows().values() if row.author != OLD}
        of_log = {entry["home_node"] for entry in store.log() if entry["audience"] == 0}
        assert (by_county.record_id in {key[1] for key in store.rows()}) is True
    assert left == {STAYING}
    assert of_log & {VILLAGE, AWAY} <= {VILLAGE}, "only what it wrote itself"
    assert _quarantined(region) == {}
    for node in MOVING:
        until(f"{node} has its name", lambda node=node: _is_renamed(region, office, node))  # type: ignore[misc]


def test_a_change_is_taken_back_and_made_again(office: Office) -> None:
    """Until the purge was ordered; rows and certificates go there, back and there again."""
    region = office.region
    people = [Person(number, VILLAGE) for number in range(1, 30)]
    region.put(VILLAGE, put_request("before-move", *people))
    everybody = {person.resident_id for person in people}
    until("the old county has them", lambda: everybody <= _residents(region, OLD))

    office.apply(office.moved(TOWNSHIP, NEW), purge_after_s=3600)
    until("the new county has them", lambda: everybody <= _residents(region, NEW), 60)
    assert everybody <= _residents(region, OLD)
    for node in MOVING:
        until(f"{node} has its name", lambda node=node: _is_renamed(region, office, node), 60)  # type: ignore[misc]

    until("the way back is taken", lambda: _steps(office.rollback) == "decided", 60)
    office.settled(3)
    back = Person(50, VILLAGE)
    until("it serves again", lambda: _put(region, VILLAGE, put_request("came-back", back)), 60)
    everybody.add(back.resident_id)
    _assert_same(region, TOWNSHIP, OLD, everybody)
    assert _residents(region, NEW) == set()
    for node in MOVING:
        until(f"{node} has its name", lambda node=node: _is_renamed(region, office, node), 60)  # type: ignore[misc]

    again = office.moved(TOWNSHIP, NEW)
    until("it is applied again", lambda: _steps(lambda: office.apply(again)) == "decided", 60)
    office.settled(4)
    _assert_same(region, TOWNSHIP, NEW, everybody)
    assert _residents(region, OLD) == set()
    with pytest.raises(grpc.RpcError) as refused:
        office.rollback()
    assert "REGION_ROLLBACK" in (refused.value.details() or "")
    assert _quarantined(region) == {}


def test_processes_die_during_the_change(office: Office) -> None:
    """Kill -9 of the moved node before it knows, of both counties, of the root: it goes on."""
    region = office.region
    people = [Person(number, VILLAGE) for number in range(1, 60)]
    region.put(VILLAGE, put_request("before-move", *people))
    everybody = {person.resident_id for person in people}
    until("the old county has them", lambda: everybody <= _residents(region, OLD))
    clinic = Clinic(region, VILLAGE, 1000)
    clinic.start()
    try:
        assert office.apply(office.moved(TOWNSHIP, NEW))[-1] == "decided"
        region.fleet.kill(TOWNSHIP)
        until("the old county has switched", lambda: office.in_force(OLD).epoch == 2)
        region.fleet.kill(OLD)
        region.start(TOWNSHIP, OLD)
        until("the moved one has switched", lambda: office.in_force(TOWNSHIP).epoch == 2)
        region.fleet.kill(NEW)
        region.fleet.kill(TOWNSHIP)
        region.start(TOWNSHIP, NEW)
        until("the root has switched", lambda: office.in_force(CITY).epoch == 2)
        region.fleet.kill(CITY)
        region.start(CITY)
        office.settled(2)
        region.linked()
    finally:
        everybody |= {person.resident_id for person in clinic.finish()}
    until("the new county has everybody", lambda: everybody <= _residents(region, NEW), 60)
    _assert_same(region, TOWNSHIP, NEW, everybody)
    assert _residents(region, OLD) == set()
    assert _quarantined(region) == {}


def test_a_village_is_closed_into_another(office: Office) -> None:
    """It delivers and takes no more; its people are at home at the successor, who may amend."""
    region = office.region
    people = [Person(number, AWAY) for number in range(1, 40)]
    others = [Person(number, VILLAGE) for number in range(100, 110)]
    region.put(VILLAGE, put_request("of-the-heir", *others))
    region.put(AWAY, put_request("of-the-closed", *people))
    until("the township has them", lambda: region.rows(TOWNSHIP)["residents"] == 49)
    by_township = observation(people[0], "by-township", 133)
    region.put(TOWNSHIP, put_request_of(by_township))
    clinic = Clinic(region, AWAY, 1000)
    clinic.start()
    text = office.closed(AWAY, VILLAGE)
    plan = office.plan(text)
    assert [(each.kind, each.node_id) for each in plan.changes] == [("closed", AWAY)]
    assert list(plan.blocks) == []

    assert office.apply(text)[-1] == "decided"
    until("the closed one refuses", lambda: any("REGION_CLOSED" in f for f in clinic.faults))
    late = clinic.give_up()
    office.settled(2)
    decided = {n: region.fleet.status(n).config_epoch_decided for n in (AWAY, VILLAGE, TOWNSHIP)}
    assert decided == {AWAY: 2, VILLAGE: 0, TOWNSHIP: 0}

    everybody = {person.resident_id for person in (*people, *late)}
    for node in (VILLAGE, TOWNSHIP, OLD):
        until(f"they are at home, says {node}", lambda node=node: _at_home(region, node, everybody))  # type: ignore[misc]
    index = {_home_of_index(region, each) for each in sorted(everybody)}
    until("the city's index says so", lambda: _indexed(region, everybody) == {VILLAGE}, 60)
    assert index <= {AWAY, VILLAGE}
    amended = care.PutBundleRequest(
        request_id="amends-a-taken-over",
        residents=[replace_home(people[1])],
        records=[observation(people[1], "systolic", 177)],
    )
    region.put(VILLAGE, amended)
    _assert_same_homes(region, VILLAGE, TOWNSHIP, frozenset({VILLAGE}))
    _assert_same_homes(region, TOWNSHIP, OLD, frozenset({VILLAGE}))
    assert _quarantined(region) == {}


def test_a_code_is_succeeded(office: Office) -> None:
    """The same place under a new code: a new node takes over what the old one held."""
    region = office.region
    people = [Person(number, AWAY) for number in range(1, 20)]
    region.put(AWAY, put_request("of-the-old-code", *people))
    until("the township has them", lambda: region.rows(TOWNSHIP)["residents"] == 19)
    new = NodeId("141002100204")

    assert office.apply(office.closed(AWAY, new))[-1] == "decided"
    until("the township has switched", lambda: office.in_force(TOWNSHIP).epoch == 2, 60)
    made = NewNode(
        new,
        region.place.address(AWAY),
        parent_data=region.place.node_dir(TOWNSHIP),
        parent_endpoint=region.place.address(TOWNSHIP),
    )
    region.fleet.stop((AWAY,))
    initialise(region.place.node_dir(new), office.in_force(TOWNSHIP), made, CLOCK)
    region.start(new)
    office.settled(2)

    everybody = {person.resident_id for person in people}
    for node in (new, TOWNSHIP, OLD):
        until(
            f"they are at home, says {node}",
            lambda node=node: _at_home(region, node, everybody, new),  # type: ignore[misc]
        )
    assert _quarantined(region) == {}


def _at_home(region: Region, node: NodeId, residents: set[str], home: NodeId = VILLAGE) -> bool:
    """Whether every row of some residents has the home that is theirs now."""
    with opened(region.place, node) as store:
        rows = store.rows()
    own = {key[1]: row for key, row in rows.items() if key[0] == "residents"}
    theirs = [own[each] for each in residents if each in own]
    return (
        len(theirs) == len(residents)
        and all((row.home, row.author) == (home, home) for row in theirs)
        and not any(row.home == AWAY for row in rows.values())
    )


def _indexed(region: Region, residents: set[str]) -> set[str | None]:
    return {_home_of_index(region, each) for each in residents}


def _home_of_index(region: Region, resident: str) -> str | None:
    with opened(region.place, CITY) as store:
        row = store.rows().get(("resident_index", resident))
    return None if row is None else row.home


def replace_home(person: Person) -> empi.Resident:
    """The person as his new home knows him, with another telephone."""
    return replace(person, home=VILLAGE).message()


def _assert_same_homes(
    region: Region, one: NodeId, other: NodeId, homes: frozenset[NodeId]
) -> None:
    def of(node: NodeId) -> dict[tuple[str, str], HeldRow]:
        with opened(region.place, node) as store:
            return {key: row for key, row in store.rows().items() if row.home in homes}

    until(f"{one} and {other} hold the same", lambda: of(one) == of(other), 60)


def _steps(change: Callable[[], list[str]]) -> str:
    """The last step; "" while the root starts again or something is not settled."""
    try:
        return change()[-1]
    except grpc.RpcError:
        return ""


def put_request_of(record: care.Record) -> care.PutBundleRequest:
    """A bundle of one record."""
    return care.PutBundleRequest(request_id="one-record-more", records=[record])


def _put(region: Region, node: NodeId, request: care.PutBundleRequest) -> bool:
    try:
        region.put(node, request)
    except grpc.RpcError:
        return False
    return True


def _connected(region: Region, node: NodeId, peer: NodeId) -> bool:
    links = region.fleet.status(node).links
    return any(link.connected for link in links if link.peer == peer)


def _residents(region: Region, node: NodeId) -> set[str]:
    with opened(region.place, node) as store:
        return {key[1] for key in store.rows() if key[0] == "residents"}


def _homes(region: Region, node: NodeId) -> set[str]:
    with opened(region.place, node) as store:
        return {row.home for row in store.rows().values()}


def _assert_same(region: Region, one: NodeId, other: NodeId, residents: set[str]) -> None:
    """Both hold the same rows, at the same versions, of these homes."""

    def of(node: NodeId) -> dict[tuple[str, str], HeldRow]:
        with opened(region.place, node) as store:
            return {key: row for key, row in store.rows().items() if row.home in MOVING}

    def agree() -> bool:
        rows = of(one)
        return rows == of(other) and residents <= {key[1] for key in rows}

    until(f"{one} and {other} hold the same, of everybody", agree, 60)


def _quarantined(region: Region) -> dict[NodeId, int]:
    found = {}
    for node in NODES:
        with opened(region.place, node) as store:
            found[node] = store.quarantined()
    return {node: number for node, number in found.items() if number}


def _is_renamed(region: Region, office: Office, node: NodeId) -> bool:
    folder = NodeFolder(region.place.node_dir(node))
    leaf = certificates_from_pem(folder.tls.chain.read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    said = names.get_values_for_type(x509.DNSName)
    own = authority_name(certificates_from_pem(folder.authority_chain.read_bytes())[0])
    due = office.in_force(node).dns_name(node)
    return said == [due] and own.dns_name == due
