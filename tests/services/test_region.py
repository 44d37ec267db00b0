"""A whole region of processes: what goes up and down, what stays apart, what can be asked."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId, dump_region, load_region, with_endpoints
from tests.services.command import fenhe
from tests.services.connections import connections_of
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
HOMES = (VILLAGE, SISTER, OTHER_TOWNSHIP, OTHER_COUNTY)
PEOPLE_A_HOME: Final = 12
"""More than the least number of residents of a cell that may be shown."""
QUESTION: Final = (
    "SELECT county, COUNT(DISTINCT resident_id) AS people FROM observations"
    " WHERE code = '8480-6' GROUP BY county"
)
ROOT: Final = Path(__file__).parents[2]


class Traps:
    """Listen where the region file says that the villages are; nobody may ever knock."""

    def __init__(self, *villages: NodeId) -> None:
        self.knocks: list[str] = []
        self._sockets = {village: socket.create_server(("127.0.0.1", 0)) for village in villages}
        self._threads = [
            threading.Thread(target=self._listen, args=(village, each))
            for village, each in self._sockets.items()
        ]

    @property
    def addresses(self) -> dict[NodeId, str]:
        """host:port of each."""
        return {
            village: f"127.0.0.1:{each.getsockname()[1]}" for village, each in self._sockets.items()
        }

    def __enter__(self) -> Traps:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets.values():
            each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _listen(self, village: NodeId, listening: socket.socket) -> None:
        while True:
            try:
                connection, peer = listening.accept()
            except OSError:
                return
            connection.close()
            self.knocks.append(f"{village} from {peer}")


@dataclass
class River:
    """The running region, all who live in it, and the traps in place of the villages."""

    region: Region
    traps: Traps
    people: list[Person] = field(default_factory=list)
    more_records: list[NodeId] = field(default_factory=list)
    """The homes of records written beside those of put_request."""

    def settle_people(self, home: NodeId, *numbers: int) -> list[Person]:
        """Register people; each number once in this module."""
        people = [Person(ALL.index(home) * 1000 + number, home) for number in numbers]
        self.region.put(home, put_request(f"people-{people[0].number}", *people))
        self.people.extend(people)
        return people

    def person(self, home: NodeId) -> Person:
        """One who lives there."""
        return next(person for person in self.people if person.home == home)

    def settled(self) -> None:
        """Wait until every row is where policy sends it, in the columnar replicas too."""
        for node in ALL:
            rows = self._due(node)
            until(
                f"{node} holds {rows} rows and has them in its columnar replica",
                lambda node=node, rows=rows: self._stands(node, rows),  # type: ignore[misc]
                60,
            )

    def _due(self, node: NodeId) -> int:
        """Four rows a person and one a record; the city's are of other forms, but as many."""
        subtree = self.region.place.hierarchy.subtree(node)
        people = sum(person.home in subtree for person in self.people)
        return 4 * people + sum(home in subtree for home in self.more_records)

    def _stands(self, node: NodeId, rows: int) -> bool:
        status = self.region.fleet.status(node)
        held = sum(status.rows.values())
        assert held <= rows, f"{node} holds {held} rows"
        return held == rows and status.columnar_sequence == status.log_sequence


@pytest.fixture(scope="module", params=["sqlite", pytest.param("mysql", marks=pytest.mark.mariadb)])
def river(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[River]:
    """Seven nodes with people at every leaf; the villages' addresses are known to nobody above."""
    folder = tmp_path_factory.mktemp("river")
    with Traps(VILLAGE, SISTER) as traps, Region(folder / "region", ALL, request.param) as region:
        for node in ALL:
            file = region.place.node_dir(node) / "region.yaml"
            hidden = with_endpoints(load_region(file), traps.addresses)
            file.unlink()
            dump_region(hidden, file)
        region.start()
        region.linked()
        river = River(region, traps)
        for home in HOMES:
            river.settle_people(home, *range(PEOPLE_A_HOME))
        river.settled()
        yield river


def test_a_record_made_above_comes_down_to_the_home_and_nowhere_else(river: River) -> None:
    """Written at the township while the village is down, it arrives there once, not next door."""
    region = river.region
    (person,) = river.settle_people(VILLAGE, 900)
    until(
        "the township knows the newcomer",
        lambda: _status_of(region, TOWNSHIP, person) is grpc.StatusCode.OK,
    )
    region.fleet.kill(VILLAGE)
    above = observation(person, "taken above", 141.5)
    region.put(
        TOWNSHIP, care.PutBundleRequest(request_id="downlink-900", records=[above]), "client"
    )
    river.more_records.append(VILLAGE)
    region.start(VILLAGE)
    asked = care.GetRecordRequest(record_id=above.record_id)
    until("the record is at home", lambda: _held(region, VILLAGE, asked))
    arrived = region.records(VILLAGE, "Get", asked)
    assert (arrived.author_node, arrived.observation.value) == (TOWNSHIP, 141.5)
    # A lane keeps its order: once these have gone up, an echo of that would have, too.
    river.settle_people(VILLAGE, 901)
    river.settled()
    for node, copies in (
        (VILLAGE, 1),
        (TOWNSHIP, 1),
        (COUNTY, 1),
        (SISTER, 0),
        (OTHER_TOWNSHIP, 0),
    ):
        with opened(region.place, node) as store:
            assert (("observations", above.record_id) in store.rows()) == bool(copies), node
            written_above = [key for key in store.origins().elements() if key[0] == TOWNSHIP]
            assert len(written_above) == copies, node


def test_siblings_hold_nothing_of_each_other(river: River) -> None:
    """Rows, log and quarantine of a node speak of its own subtree only."""
    region = river.region
    river.settled()
    for node in ALL:
        subtree = region.place.hierarchy.subtree(node)
        # An ancestor may have written of a resident here: that came down to his home.
        authors = subtree | set(region.place.hierarchy.path_to_root(node))
        with opened(region.place, node) as store:
            rows = store.rows().values()
            assert {row.home for row in rows} <= subtree
            assert {row.author for row in rows} <= authors
            log = store.log()
            assert {entry["home_node"] for entry in log} <= subtree
            assert {entry["origin_node"] for entry in log} <= authors
            assert store.quarantined() == 0
            held = store.texts("resident_id")
        strangers = {person.resident_id for person in river.people if person.home not in subtree}
        assert not strangers & held
        known = {person.resident_id for person in river.people if person.home in subtree}
        assert known <= held


def test_the_city_cannot_join_its_index_to_its_records(river: River) -> None:
    """Index entries carry resident ids, de-identified rows pseudonyms: none is in both."""
    river.settled()
    with opened(river.region.place, CITY) as store:
        rows = store.rows()
        assert {row.form for row in rows.values()} == {"index", "deidentified"}
        assert "identifiers" not in {table for table, _ in rows}
        indexed = {row_id for table, row_id in rows if table == "resident_index"}
        assert {person.resident_id for person in river.people} <= indexed
        other = {row_id for table, row_id in rows if table != "resident_index"}
        assert not indexed & other
        with opened(river.region.place, COUNTY) as below:
            assert not other & {row_id for _, row_id in below.rows()}


def test_no_file_of_any_node_holds_an_identifier_in_clear(river: River) -> None:
    """Names, numbers, phones and addresses are in no database, WAL, segment or log file."""
    river.settled()
    marked = [river.person(home) for home in HOMES]
    clear = {form for person in marked for marker in person.markers for form in _clear(marker)}
    mariadb = _files(river.region.place.root / "mariadb")
    # What is no secret is found: the search sees into the files.
    open_id = {marked[0].resident_id.encode()}
    assert any(
        _found(path, open_id) for path in _files(river.region.place.node_dir(COUNTY)) + mariadb
    )
    for node in ALL:
        for path in _files(river.region.place.node_dir(node)):
            assert not _found(path, clear), path
    for path in mariadb:
        assert not _found(path, clear), path


def test_the_city_holds_no_resident_in_any_form(river: River) -> None:
    """Not even a digest that somebody who guesses the number could compare."""
    river.settled()
    marked = [river.person(home) for home in HOMES]
    digests = {form for person in marked for marker in person.markers for form in _digests(marker)}
    for path in _files(river.region.place.node_dir(CITY)):
        assert not _found(path, digests), path
    with opened(river.region.place, CITY) as store:
        assert store.texts("name", "phone", "address", "birth_date", "value_index") == {None}


def test_reads_end_at_the_caller_s_subtree(river: River) -> None:
    """Somebody else's resident looks as if he did not exist; an own one is shown in full."""
    region = river.region
    own, other = river.person(VILLAGE), river.person(SISTER)
    shown = region.residents(
        VILLAGE, "Get", empi.GetResidentRequest(resident_id=own.resident_id), "client"
    )
    assert (shown.name, shown.phone) == (own.name, own.phone)
    assert _status_of(region, VILLAGE, other) is grpc.StatusCode.NOT_FOUND
    assert _status_of(region, VILLAGE, Person(19_999, VILLAGE)) is grpc.StatusCode.NOT_FOUND
    identity = empi.Identifier(system="identity_number", value=other.identity_number)
    asked = empi.FindResidentRequest(identifier=identity)
    assert not region.residents(VILLAGE, "Find", asked).HasField("resident")
    assert region.residents(TOWNSHIP, "Find", asked).resident.name == other.name


def test_questions_reach_villages_that_cannot_be_reached(river: River) -> None:
    """The city's question is answered live by villages that no node above could ever dial."""
    region = river.region
    river.settled()
    answer = _query(region, CITY, "live")
    assert answer["complete"], answer["coverage"]
    assert {site["state"] for site in answer["coverage"]["sites"]} == {"live"}
    assert {site["node_id"] for site in answer["coverage"]["sites"]} == set(ALL)
    people: dict[str, int] = dict(answer["rows"])
    homes = [person.home for person in river.people]
    assert people[COUNTY] >= sum(home != OTHER_COUNTY for home in homes)
    assert people[OTHER_COUNTY] == homes.count(OTHER_COUNTY)
    assert river.traps.knocks == []


def test_a_village_that_is_down_is_answered_for_as_of_a_time(river: River) -> None:
    """Its township's copy stands in, and the answer says so."""
    region = river.region
    river.settled()
    before = _query(region, CITY, "best")
    region.fleet.kill(SISTER)
    until(
        "the township has noticed",
        lambda: (
            not any(
                link.connected
                for link in region.fleet.status(TOWNSHIP).links
                if link.peer == SISTER
            )
        ),
    )
    after = _query(region, CITY, "best")
    region.start(SISTER)
    region.linked(SISTER)
    (site,) = [site for site in after["coverage"]["sites"] if site["node_id"] == SISTER]
    assert (site["state"], site["answered_by"]) == ("replica", TOWNSHIP)
    assert site["as_of"]
    assert after["rows"] == before["rows"]


def test_no_node_dials_but_its_parent(river: River) -> None:
    """Every connection of every process is one it accepted, or the one to its own parent."""
    region = river.region
    ports = {node: int(region.place.address(node).rpartition(":")[2]) for node in ALL}
    for node in ALL:
        parent = region.place.hierarchy.parent(node)
        allowed = {ports[parent]} if parent is not None else set()
        dialled = {
            remote
            for local, remote in connections_of(region.fleet.pid(node))
            if local != ports[node] and remote in ports.values()
        }
        assert dialled == allowed, node
    assert river.traps.knocks == []


def _query(region: Region, node: NodeId, freshness: str) -> dict[str, Any]:
    folder = region.place.credentials_dir(f"analyst-{node}")
    words = ("--freshness", freshness, "--executor", "direct", "--json")
    done = fenhe("query", "--as", folder, *words, QUESTION)
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _held(region: Region, node: NodeId, asked: care.GetRecordRequest) -> bool:
    try:
        region.records(node, "Get", asked)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def _status_of(region: Region, node: NodeId, person: Person) -> grpc.StatusCode:
    """What a read of somebody ends with."""
    try:
        region.residents(node, "Get", empi.GetResidentRequest(resident_id=person.resident_id))
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _found(path: Path, forms: set[bytes]) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # a file of a running database may be gone by now
        return []
    return [form for form in forms if form in content]


def _clear(marker: str) -> set[bytes]:
    """Text in every encoding it might have been written in."""
    plain = marker.encode()
    inner = base64.b64encode(b"\0\0\0" + plain)[4:-4]
    return {
        plain,
        marker.encode("utf-16-le"),
        marker.encode("gb18030"),
        json.dumps(marker)[1:-1].encode(),
        plain.hex().encode(),
        inner,
    }


def _digests(marker: str) -> set[bytes]:
    """Digests without a key."""
    made = [hashlib.new(name, marker.encode()) for name in ("md5", "sha1", "sha256")]
    return {form for each in made for form in (each.digest(), each.hexdigest().encode())}
