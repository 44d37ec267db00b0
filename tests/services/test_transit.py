"""Records written in one county for residents of another, between real nodes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import protos.fenhe.care.v1.care_pb2 as care
from hierarchy_config import NodeId
from node.demo.place import DemoPlace
from node.new_epoch import begin_new_epoch
from node.security.authority import load_authority
from node.security.certificates import (
    Validity,
    certificates_to_pem,
    new_private_key,
    private_key_to_pem,
    sign_leaf,
)
from node.security.folders import NodeFolder
from node.security.key_files import write_secret
from node.security.principal import Principal
from tests.services.command import fenhe
from tests.services.people import Person, put_request
from tests.services.region import Region, nodes
from tests.services.stores import opened
from tests.services.waiting import CLOCK, until

ALL = nodes(
    "1410",
    "141002",
    "141002100",
    "141002100200",
    "141024",
    "141024100",
    "141024100001",
)
CITY, COUNTY, TOWNSHIP, VILLAGE, OTHER_COUNTY, OTHER_TOWNSHIP, HOME = ALL
BETWEEN = (TOWNSHIP, COUNTY, CITY, OTHER_COUNTY, OTHER_TOWNSHIP)
DOSAGE = "每日三次绛州澄泥砚"


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """Two branches of the city, down to a village each."""
    with Region(tmp_path_factory.mktemp("transit") / "region", ALL) as made:
        made.start()
        made.linked()
        yield made


def settle(region: Region, number: int) -> Person:
    """Somebody whose home is the village of the other county."""
    person = Person(number, HOME)
    region.put(HOME, put_request(f"settle-{number:03d}", person))
    return person


def visit(region: Region, author: NodeId, person: Person, word: str) -> str:
    """He is given a medicine at the author's; the record's id."""
    record = care.Record(
        record_id=person.record_id(word),
        resident_id=person.resident_id,
        home_node=HOME,
        medication=care.Medication(code="J01CA04", dosage=f"{DOSAGE}{person.number}{word}"),
    )
    request = care.PutBundleRequest(request_id=f"visit-{word}-{person.number}", records=[record])
    [record_id] = region.put(author, request).record_ids
    return str(record_id)


def where(region: Region, node: NodeId, record_id: str) -> care.WhereResponse:
    """What the node says."""
    answer: care.WhereResponse = region.records(
        node, "Where", care.WhereRequest(record_id=record_id)
    )
    return answer


def states(region: Region, node: NodeId, record_id: str) -> dict[str, str]:
    """By node of the way, its state."""
    return {hop.node_id: hop.state for hop in where(region, node, record_id).hops}


def is_held(region: Region, node: NodeId, record_id: str) -> bool:
    """Whether a row of that id is in a table there."""
    with opened(region.place, node) as store:
        return ("medications", record_id) in store.rows()


def clear_in_files(region: Region, *wanted: str) -> list[str]:
    """Files of nodes on the way in which one of the words lies clear."""
    words = [word.encode() for word in wanted]
    return [
        str(path)
        for node in BETWEEN
        for path in sorted(region.place.node_dir(node).rglob("*"))
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


def test_it_waits_sealed_for_a_home_that_is_away_and_arrives(region: Region) -> None:
    """Each hop says what it has; nobody between can read it; then it climbs by policy."""
    person = settle(region, 1)
    region.fleet.stop((HOME,))
    record_id = visit(region, VILLAGE, person, "away")

    until(
        "it has come as far as the township above the home",
        lambda: states(region, VILLAGE, record_id).get(OTHER_TOWNSHIP) == "stored",
    )
    answer = where(region, VILLAGE, record_id)
    assert [hop.node_id for hop in answer.hops] == [VILLAGE, *BETWEEN, HOME]
    assert answer.hops[0].place == "author"
    assert {hop.state for hop in answer.hops[1:5]} == {"passed"}
    assert answer.hops[-1].state == "waiting"
    assert "no link" in answer.hops[-1].cause
    assert answer.letter.state == "sent"
    assert not clear_in_files(region, record_id, f"{DOSAGE}1away")
    for node in BETWEEN:
        assert not is_held(region, node, record_id)

    region.start(HOME)
    until(
        "the author has the home's receipt",
        lambda: where(region, VILLAGE, record_id).letter.state == "confirmed",
    )
    until("it has climbed", lambda: is_held(region, OTHER_COUNTY, record_id))
    assert is_held(region, OTHER_TOWNSHIP, record_id)
    for node in (TOWNSHIP, COUNTY, CITY):
        assert not is_held(region, node, record_id)
    until(
        "every node of the way says so",
        lambda: states(region, VILLAGE, record_id).get(CITY) == "confirmed",
    )
    hops = where(region, VILLAGE, record_id).hops
    assert [(hop.node_id, hop.state) for hop in hops[-4:]] == [
        (HOME, "confirmed"),
        (OTHER_TOWNSHIP, "confirmed"),
        (OTHER_COUNTY, "confirmed"),
        (CITY, "confirmed"),
    ]
    assert "deidentified" in hops[-1].cause
    assert where(region, VILLAGE, record_id).letter.receipt_key_id
    assert not clear_in_files(region, f"{DOSAGE}1away")
    assert region.fleet.status(HOME).quarantined == 0


def test_relays_forget_it_once_the_next_node_has_it(region: Region) -> None:
    """What is left in their logs is a number."""
    person = settle(region, 2)
    record_id = visit(region, VILLAGE, person, "forgotten")
    until(
        "it is confirmed",
        lambda: where(region, VILLAGE, record_id).letter.state == "confirmed",
    )

    def payloads() -> int:
        total = 0
        for node in (VILLAGE, *BETWEEN):
            with opened(region.place, node) as store:
                total += sum(e["bytes"] for e in store.log() if e["form"] == "sealed")
        return total

    until("no log has a payload of a letter", lambda: payloads() == 0)


def test_a_relay_put_back_from_a_backup_loses_none(region: Region, tmp_path: Path) -> None:
    """What lay in it alone is sent again by its author when it comes up in its new life."""
    person = settle(region, 3)
    region.fleet.stop((COUNTY,))
    store = region.place.node_dir(COUNTY) / "store.db"
    shutil.copy(store, tmp_path / "old.db")
    region.start(COUNTY)
    region.fleet.stop((CITY,))
    region.linked(TOWNSHIP)
    record_id = visit(region, TOWNSHIP, person, "lost")
    until(
        "the county alone has it",
        lambda: states(region, TOWNSHIP, record_id).get(COUNTY) == "stored",
    )
    region.fleet.stop((COUNTY,))
    for rest in store.parent.glob("store.db-*"):
        rest.unlink()
    shutil.copy(tmp_path / "old.db", store)
    begin_new_epoch(store.parent)

    region.start(CITY, COUNTY)
    until(
        "it arrived all the same",
        lambda: where(region, TOWNSHIP, record_id).letter.state == "confirmed",
    )
    assert is_held(region, HOME, record_id)


def test_a_home_with_a_new_key_is_sent_it_sealed_anew(region: Region) -> None:
    """The home says that it no longer has the key; the author asks for the new one."""
    person = settle(region, 4)
    first = visit(region, VILLAGE, person, "before")
    until("the key is known", lambda: where(region, VILLAGE, first).letter.state == "confirmed")
    region.fleet.stop((HOME,))
    _give_new_key(region.place, HOME)
    record_id = visit(region, VILLAGE, person, "after")
    until(
        "it waits above the home, sealed to the old key",
        lambda: states(region, VILLAGE, record_id).get(OTHER_TOWNSHIP) == "stored",
    )
    region.start(HOME)
    until(
        "it is confirmed",
        lambda: where(region, VILLAGE, record_id).letter.state == "confirmed",
    )
    assert where(region, VILLAGE, record_id).letter.attempts == 2
    assert region.fleet.status(HOME).quarantined == 0


def test_the_command_shows_the_way(region: Region) -> None:
    """In words, and as JSON."""
    person = settle(region, 5)
    record_id = visit(region, VILLAGE, person, "shown")
    until(
        "it is confirmed",
        lambda: where(region, VILLAGE, record_id).letter.state == "confirmed",
    )
    credentials = str(region.place.credentials_dir(f"operator-{VILLAGE}"))
    words = ("record", "where", record_id, "--as", credentials)
    shown = fenhe(*words).stdout
    assert "confirmed" in shown
    assert HOME in shown
    as_json = fenhe(*words, "--json").stdout
    assert json.loads(as_json)["letter"]["state"] == "confirmed"


def test_a_record_written_at_home_says_how_far_it_has_climbed(region: Region) -> None:
    """By the receipts of the nodes above."""
    person = settle(region, 6)
    record_id = person.record_id("systolic")
    until(
        "it has climbed",
        lambda: states(region, HOME, record_id).get(CITY) == "confirmed",
    )
    answer = where(region, HOME, record_id)
    assert [hop.node_id for hop in answer.hops] == [HOME, OTHER_TOWNSHIP, OTHER_COUNTY, CITY]
    assert not answer.HasField("letter")


def _give_new_key(place: DemoPlace, node: NodeId) -> None:
    """A new TLS key, and the parent's certificate for it, as if the node had lost the old one."""
    tree = place.hierarchy
    parent = tree.parent(node)
    assert parent is not None
    issuer = load_authority(place.node_dir(parent))
    key = new_private_key()
    now = datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC)
    leaf = sign_leaf(
        issuer,
        Principal(tree.region, node),
        tree.dns_name(node),
        key.public_key(),
        Validity.starting(now, timedelta(days=30)),
    )
    files = NodeFolder(place.node_dir(node)).tls
    files.private_key.unlink()
    write_secret(files.private_key, private_key_to_pem(key))
    files.chain.write_bytes(certificates_to_pem((leaf, *issuer.chain)))
