"""Where a node is reached and where it dials, with a directory, without one, with a broken one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import structlog

from hardware_profiles import HardwareProfile
from hierarchy_config import (
    ConsulMissingError,
    DirectoryUnreachableError,
    FileDirectory,
    Hierarchy,
    NodeDirectory,
    NodeId,
    parse_region,
)
from hierarchy_config.consul_directory import ConsulDirectory
from node.foundations import Foundations
from node.security.credentials import NodeCredentials
from node.settings import NodePaths, NodeSettings
from node.whereabouts import (
    ParentAddressUnknownError,
    Whereabouts,
    open_directory,
    public_address,
)

CITY, COUNTY = NodeId("1410"), NodeId("141002")


def region(epoch: int = 1, endpoint: str = "") -> Hierarchy:
    """A city, which has an endpoint or none, and a county."""
    of_city = f', endpoint: "{endpoint}"' if endpoint else ""
    nodes = f"[{{id: 1410{of_city}}}, {{id: 141002}}]"
    return parse_region(f"region: linfen\nepoch: {epoch}\nnodes: {nodes}\n")


@dataclass(frozen=True)
class Given:
    """What the county is told: an address in node.yaml, one in its region file, a directory."""

    parent_endpoint: str | None = None
    region_endpoint: str = ""
    directory: str | None = "file:directory"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[Given], Whereabouts]]:
    """Makes the county's Whereabouts."""
    with ThreadPoolExecutor(1) as thread:

        def whereabouts(given: Given) -> Whereabouts:
            settings = NodeSettings(
                node_id=COUNTY,
                listen="10.0.0.2:7443",
                parent_endpoint=given.parent_endpoint,
                directory=given.directory,
            )
            base = Foundations(
                NodePaths(tmp_path),
                settings,
                region(endpoint=given.region_endpoint),
                # Of no use here.
                profile=cast("HardwareProfile", None),
                credentials=cast("NodeCredentials", None),
            )
            return Whereabouts(base, thread)

        yield whereabouts


@pytest.fixture
def directory(tmp_path: Path) -> FileDirectory:
    """The directory in which both nodes are."""
    shared = FileDirectory(tmp_path / "directory")
    shared.publish(region(), expected=None)
    return shared


@pytest.mark.parametrize(
    ("registered", "in_settings", "in_region", "dialled"),
    [
        ("10.0.0.9:1", "10.0.0.8:1", "10.0.0.7:1", "10.0.0.9:1"),
        (None, "10.0.0.8:1", "10.0.0.7:1", "10.0.0.8:1"),
        (None, None, "10.0.0.7:1", "10.0.0.7:1"),
    ],
)
async def test_dials_in_the_documented_order(
    make: Callable[[Given], Whereabouts],
    directory: FileDirectory,
    registered: str | None,
    in_settings: str | None,
    in_region: str,
    dialled: str,
) -> None:
    """As registered, else as node.yaml says, else as the region file says."""
    if registered is not None:
        directory.register(CITY, registered)
    assert await make(Given(in_settings, in_region)).parent_endpoint(CITY) == dialled


async def test_asks_again_at_each_dial(
    make: Callable[[Given], Whereabouts], directory: FileDirectory
) -> None:
    """A parent that came up elsewhere is found where it is."""
    places = make(Given())
    with pytest.raises(ParentAddressUnknownError):
        await places.parent_endpoint(CITY)
    directory.register(CITY, "10.0.0.9:1")
    assert await places.parent_endpoint(CITY) == "10.0.0.9:1"
    directory.register(CITY, "10.0.0.9:2")
    assert await places.parent_endpoint(CITY) == "10.0.0.9:2"


async def test_without_a_directory_nothing_is_asked(make: Callable[[Given], Whereabouts]) -> None:
    """The addresses at hand serve; looking around ends at once."""
    places = make(Given("10.0.0.8:1", directory=None))
    assert not places.has_directory
    assert await places.parent_endpoint(CITY) == "10.0.0.8:1"
    await places.run("10.0.0.2:7443")
    await places.stop()


async def test_registers_where_it_listens_and_takes_it_back(
    make: Callable[[Given], Whereabouts], directory: FileDirectory
) -> None:
    """The port it got, not the one it asked for."""
    places = make(Given())
    await places.look("10.0.0.2:40001")
    assert directory.registration_of(COUNTY) == "10.0.0.2:40001"
    await places.stop()
    assert directory.registration_of(COUNTY) is None


async def test_a_directory_that_is_missing_is_one_line_in_the_log(
    make: Callable[[Given], Whereabouts],
) -> None:
    """With its next step; links are made with what is known without it."""
    places = make(Given("10.0.0.8:1"))
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert await places.parent_endpoint(CITY) == "10.0.0.8:1"
    assert [(line["event"], line["hint"]) for line in lines] == [
        ("the directory is not used", "Publish a region file first.")
    ]


async def test_a_directory_that_comes_back_is_used_again(
    make: Callable[[Given], Whereabouts], tmp_path: Path
) -> None:
    """And says so."""
    places = make(Given("10.0.0.8:1"))
    with structlog.testing.capture_logs() as lines:
        await places.parent_endpoint(CITY)
        FileDirectory(tmp_path / "directory").publish(region(), expected=None)
        await places.parent_endpoint(CITY)
    assert [line["event"] for line in lines] == [
        "the directory is not used",
        "the directory answers again",
    ]


async def test_an_unreadable_folder_is_no_crash(
    make: Callable[[Given], Whereabouts], tmp_path: Path
) -> None:
    """A file where the folder should be."""
    (tmp_path / "directory").write_text("no folder", encoding="utf-8")
    assert await make(Given("10.0.0.8:1")).parent_endpoint(CITY) == "10.0.0.8:1"


async def test_says_once_that_a_newer_region_is_published(
    make: Callable[[Given], Whereabouts], directory: FileDirectory
) -> None:
    """With both epochs and what to do; it is not put in force."""
    directory.publish(region(2), expected=directory.read().revision)
    with structlog.testing.capture_logs() as lines:
        places = make(Given())
        await places.look(None)
        await places.look(None)
    newer = [line for line in lines if line["event"] == "a newer region is published"]
    assert [(line["epoch"], line["in_force"]) for line in newer] == [(2, 1)]
    assert "region.yaml" in newer[0]["hint"]


@pytest.mark.parametrize("address", ["0.0.0.0:7443", "[::]:7443"])
def test_every_address_is_no_address(address: str) -> None:
    """Then the region file's endpoint is what others can use, if it says one."""
    assert public_address(address, region(endpoint="city.example:7443"), CITY) == (
        "city.example:7443"
    )
    assert public_address(address, region(), CITY) is None
    assert public_address("10.0.0.1:7443", region(), CITY) == "10.0.0.1:7443"


def test_names_of_directories(tmp_path: Path) -> None:
    """A folder beside the node's own, or a Consul agent."""
    assert isinstance(open_directory("file:../shared", tmp_path, "linfen"), FileDirectory)
    consul = open_directory("consul://127.0.0.1:8500", tmp_path, "linfen")
    assert isinstance(consul, ConsulDirectory)
    consul.close()


@pytest.mark.parametrize("error", [ConsulMissingError(), DirectoryUnreachableError("gone")])
async def test_a_directory_that_cannot_be_opened_is_done_without(
    make: Callable[[Given], Whereabouts], error: Exception
) -> None:
    """Such as Consul without its extra."""
    base = make(Given("10.0.0.8:1"))._base  # noqa: SLF001 - the same foundations

    def refuse(_said: str, _folder: Path, _region: str) -> NodeDirectory:
        raise error

    with ThreadPoolExecutor(1) as thread, structlog.testing.capture_logs() as lines:
        places = Whereabouts(replace(base), thread, refuse)
        assert await places.parent_endpoint(CITY) == "10.0.0.8:1"
    assert not places.has_directory
    assert [line["log_level"] for line in lines] == ["warning"]
