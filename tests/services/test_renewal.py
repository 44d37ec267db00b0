"""Certificates are renewed at half of their life, and at the door after years away."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hierarchy_config import NodeId
from node.callers import credentials_of
from node.security.caller import CallerKind
from node.security.certificates import certificates_from_pem
from node.security.folders import NodeFolder
from node.settings import load_settings, save_settings
from tests.services.people import Person, put_request
from tests.services.region import Region, nodes
from tests.services.waiting import CLOCK, until

TOWNSHIP, VILLAGE = NODES = nodes("141002100", "141002100200")
DAY_MS = 86_400_000
PEOPLE = 10


@dataclass(frozen=True)
class Earlier:
    """A clock that lags by some days."""

    days: int

    def now_ms(self) -> int:
        return CLOCK.now_ms() - self.days * DAY_MS

    def monotonic_ms(self) -> int:
        return CLOCK.monotonic_ms()


def aged(root: Path, days: int) -> Region:
    """A township and its village, certified so long ago; their callers have new credentials."""
    region = Region(root, NODES, made_by=Earlier(days))
    door = free_address()
    change(region, TOWNSHIP, door_listen=door)
    change(region, VILLAGE, parent_door=door)
    for folder in (root / "credentials").iterdir():
        for each in folder.iterdir():
            each.unlink()
        kind, _, code = folder.name.partition("-")
        data = region.place.node_dir(NodeId(code))
        credentials_of(data, CallerKind(kind), "demo", folder, clock=CLOCK, days=30)
    return region


def free_address() -> str:
    """An address of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def change(region: Region, node: NodeId, **said: str) -> None:
    """Change settings of a node."""
    folder = region.place.node_dir(node)
    save_settings(folder, load_settings(folder).model_copy(update=said))


def days_left(region: Region, node: NodeId) -> int:
    """For how long the certificate in a node's folder holds."""
    chain = NodeFolder(region.place.node_dir(node)).tls.chain
    ends = certificates_from_pem(chain.read_bytes())[0].not_valid_after_utc
    left: timedelta = ends - datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC)
    return left.days


def lives(region: Region, node: NodeId) -> int:
    """How often a node's process has begun to serve."""
    log = (region.place.node_dir(node) / "node.log").read_text(encoding="utf-8")
    return sum('"serving"' in line or " serving " in line for line in log.splitlines())


def last_error(region: Region) -> str:
    """What the village says of its link."""
    (link,) = [each for each in region.fleet.status(VILLAGE).links if each.role == "parent"]
    return str(link.last_error)


def test_a_village_that_was_away_for_a_year_serves_and_then_delivers(tmp_path: Path) -> None:
    """Limited, it takes what its people bring; renewed at the door, it sends it all."""
    with aged(tmp_path / "region", 400) as region:
        region.start(VILLAGE)
        until("it says why", lambda: last_error(region).startswith("CERTIFICATE_EXPIRED: "))
        people = [Person(each, VILLAGE) for each in range(PEOPLE)]
        region.put(VILLAGE, put_request("while-limited", *people), "client")
        assert days_left(region, VILLAGE) < 0
        # The root of this region was away as long, and has the key to sign for itself.
        region.start(TOWNSHIP)
        until("the township is renewed", lambda: days_left(region, TOWNSHIP) > 360)
        until("the village is renewed", lambda: days_left(region, VILLAGE) > 360)
        region.linked(VILLAGE)
        until("the backlog is there", lambda: region.rows(TOWNSHIP)["residents"] == PEOPLE)
        assert lives(region, VILLAGE) == 2


def test_half_of_its_life_over_a_certificate_is_renewed_while_care_goes_on(tmp_path: Path) -> None:
    """Over the link, in one life of the process; the root for itself."""
    with aged(tmp_path / "region", 200) as region:
        assert days_left(region, VILLAGE) < 180
        region.start()
        region.linked(VILLAGE)
        for node in NODES:
            until(f"{node} is renewed", lambda node=node: days_left(region, node) > 360)  # type: ignore[misc]
        region.linked(VILLAGE)
        region.put(VILLAGE, put_request("after-renewal", Person(1, VILLAGE)), "client")
        until("the link goes on", lambda: region.rows(TOWNSHIP)["residents"] == 1)
        assert [lives(region, node) for node in NODES] == [1, 1]
