"""When a node asks at the door, what it serves with meanwhile, and what its status says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from hardware_profiles import load_profile
from hierarchy_config import NodeId
from node.foundations import Foundations, utc_now
from node.links.hub import LinkHub, LinkState
from node.region.renewal import is_half_over
from node.renewing.child import Asker
from node.renewing.errors import ClockWrongError
from node.renewing.standin import serving_files
from node.renewing.watch import RenewalWatch
from node.security.certificates import certificates_from_pem
from node.security.credentials import load_node_credentials, outside_validity
from node.security.errors import PeerIdentityError
from node.security.folders import NodeFolder
from node.security.signatures import verify_chain
from node.settings import NodePaths, NodeSettings
from tests.contracts.joining.place import DAY_MS, HIERARCHY
from tests.unit.renewing.test_door import Place
from tests.unit.security.region import CITY, TOWNSHIP, VILLAGE


@dataclass
class FakeHub:
    """Links whose state a test sets."""

    states: dict[NodeId, LinkState]


@dataclass
class Runner:
    """A live stream."""

    is_up: bool = True


class FakeAsker:
    """Says what a test says, and counts."""

    parent = TOWNSHIP

    def __init__(self, *answers: bool | Exception) -> None:
        self.doors: list[str] = []
        self._answers = list(answers)

    def ask(self, door: str) -> bool:
        self.doors.append(door)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Watched:
    """A village's watch, stepped by hand."""

    def __init__(self, place: Place, asker: FakeAsker | None, node: NodeId = VILLAGE) -> None:
        self.clock = place.clock
        self.base = base_of(place, node)
        self.link = LinkState(TOWNSHIP, "parent")
        self.restarts = 0
        self._asker = asker

    def run(self, work: Callable[[RenewalWatch], Any]) -> None:
        """Run a test's steps on an event loop."""

        async def lives() -> None:
            with ThreadPoolExecutor(1) as threads:
                watch = RenewalWatch(
                    self.base,
                    cast(LinkHub, FakeHub({TOWNSHIP: self.link})),
                    cast(Asker | None, self._asker),
                    endpoint=self._endpoint,
                    restart=self._restarted,
                    threads=threads,
                    clock=self.clock,
                    jitter=lambda: 0.5,
                )
                await work(watch)

        asyncio.run(lives())

    async def _endpoint(self, _parent: NodeId) -> str:
        return "township:4510"

    def _restarted(self) -> None:
        self.restarts += 1


def base_of(place: Place, node: NodeId) -> Foundations:
    """What a node reads from its folder now."""
    now = utc_now(place.clock)
    return Foundations(
        NodePaths(place.folders[node]),
        NodeSettings(node_id=node, listen="a:1"),
        HIERARCHY,
        load_profile("village"),
        load_node_credentials(place.folders[node], node, HIERARCHY, now),
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A township and its village, just certified."""
    return Place(tmp_path)


def test_a_limited_node_asks_until_it_is_renewed(place: Place) -> None:
    """At the port after the parent's, with longer and longer pauses; then it begins anew."""
    place.away()
    asker = FakeAsker(OSError(28, "no space"), False, True)
    watched = Watched(place, asker)

    async def works(watch: RenewalWatch) -> None:
        assert not await watch.step()
        assert not await watch.step()
        assert asker.doors == ["township:4511"]
        watched.clock.ms += 2_000
        assert not await watch.step()
        watched.clock.ms += 2_000
        assert not await watch.step()
        assert len(asker.doors) == 2
        watched.clock.ms += 2_000
        await watch.run()

    watched.run(works)
    assert watched.restarts == 1
    assert watched.link.last_error.startswith("CERTIFICATE_EXPIRED: ")


def test_a_wrong_clock_stands_in_the_status_until_it_is_set(place: Place) -> None:
    """The node links again by itself when the certificate holds by its own clock."""
    place.clock.ms -= 3_000 * DAY_MS
    asker = FakeAsker(ClockWrongError("this machine says 2018, the parent 2027"))
    watched = Watched(place, asker)

    async def works(watch: RenewalWatch) -> None:
        assert not await watch.step()
        assert watched.link.last_error.startswith("CLOCK_WRONG: this machine says 2018")
        assert "Set the clock" in watched.link.last_hint
        watched.clock.ms += 3_000 * DAY_MS
        assert await watch.step()

    watched.run(works)


def test_a_certificate_that_ends_while_the_node_runs_limits_it(place: Place) -> None:
    """It begins another life, in which it asks at the door."""
    watched = Watched(place, FakeAsker())

    async def works(watch: RenewalWatch) -> None:
        assert not await watch.step()
        watched.clock.ms += 366 * DAY_MS
        assert await watch.step()

    watched.run(works)


def test_a_link_that_is_down_for_a_minute_is_reason_to_ask(place: Place) -> None:
    """By the parent's clock this certificate may have ended; while the link is up nobody asks."""
    asker = FakeAsker(ClockWrongError("two times"), False)
    watched = Watched(place, asker)

    async def works(watch: RenewalWatch) -> None:
        watched.link.runner = cast(Any, Runner())
        watched.clock.ms += 3_600_000
        assert not await watch.step()
        watched.link.runner = None
        watched.clock.ms += 59_000
        assert not await watch.step()
        assert asker.doors == []
        watched.clock.ms += 1_000
        assert not await watch.step()
        assert len(asker.doors) == 1
        assert watched.link.last_error == "CLOCK_WRONG: two times"

    watched.run(works)


def test_a_limited_node_serves_under_a_certificate_that_opens_no_link(place: Place) -> None:
    """It holds now, names the node, leads to the root, and nobody takes it for a node's word."""
    place.away()
    base = base_of(place, VILLAGE)
    files = serving_files(base, place.clock)
    assert files.chain != base.credentials.tls.chain
    pem = files.chain.read_bytes()
    chain = certificates_from_pem(pem)
    now = utc_now(place.clock)
    assert outside_validity(chain, now) is None
    assert chain[0].public_key() == place.key().public_key()
    with pytest.raises(PeerIdentityError, match="itself"):
        verify_chain(pem, base.credentials.root_pem, HIERARCHY, now)
    assert serving_files(base, place.clock).chain.read_bytes() == pem
    place.clock.ms += 20 * DAY_MS
    assert serving_files(base, place.clock).chain.read_bytes() != pem


def test_without_an_authority_that_holds_the_node_still_starts(place: Place) -> None:
    """As with a clock that is years behind: it serves with what it has, and asks."""
    place.clock.ms -= 3_000 * DAY_MS
    base = base_of(place, VILLAGE)
    assert serving_files(base, place.clock) == base.credentials.tls


def test_half_of_a_life_is_the_time_to_renew(place: Place) -> None:
    """Of the certificate, or of the authority, whichever comes first."""
    base = base_of(place, VILLAGE)
    day = DAY_MS
    for days, due in ((0, False), (182, False), (184, True)):
        at = replace(place.clock, ms=place.clock.ms + days * day)
        assert is_half_over(base, utc_now(at)) is due


def test_the_root_signs_for_itself_if_its_key_is_there(place: Place) -> None:
    """Limited or half-way; without the key its operator is told, and it goes on asking."""
    place.away()
    watched = Watched(place, None, CITY)
    key = NodeFolder(place.folders[CITY]).root_key
    aside = key.rename(key.with_suffix(".safe"))

    async def waits(watch: RenewalWatch) -> None:
        assert not await watch.step()
        aside.rename(key)
        watched.clock.ms += 3_600_000
        assert await watch.step()

    watched.run(waits)
    held = load_node_credentials(place.folders[CITY], CITY, HIERARCHY, utc_now(place.clock))
    assert held.limited is None
