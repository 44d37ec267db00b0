"""The command line as an operator types it: make two nodes, run them, look at them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

import protos.fenhe.node.v1.node_pb2 as node_pb
from hierarchy_config import NodeId, dump_region, load_region
from node.cli.client import connected
from node.demo.place import DemoPlace
from node.security.credentials import load_credentials
from protos.fenhe.node.v1 import node_pb2_grpc
from tests.services.region import nodes
from tests.services.waiting import until

CITY, COUNTY, OTHER_COUNTY = nodes("1410", "141002", "141024")
NODES = (CITY, COUNTY)
ROOT: Final = Path(__file__).parents[2]
STOP_S_MAX: Final = 20


def fenhe(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "node", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(data: Path) -> Iterator[str]:
    """`fenhe node run` until the block ends; gives the address it serves at."""
    command = [sys.executable, "-m", "node", "node", "run", "--data", str(data)]
    with (
        (data / "said.log").open("wb") as said,
        subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said) as process,
    ):
        try:
            until("the node serves", lambda: (data / "run.json").exists() or _ended(process), 60)
            assert process.poll() is None, (data / "said.log").read_text(encoding="utf-8")
            yield json.loads((data / "run.json").read_text(encoding="utf-8"))["listen"]
        finally:
            process.terminate()
            assert process.wait(STOP_S_MAX) == 0


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def made(done: subprocess.CompletedProcess[str]) -> None:
    """A command that was to succeed did."""
    assert done.returncode == 0, done.stderr


def test_two_nodes_made_by_hand_link(tmp_path: Path) -> None:
    """`node init` for a root and for a child that it signs; both run, and status shows the link."""
    region = tmp_path / "region.yaml"
    dump_region(DemoPlace.slice(NODES), region)
    city, county = tmp_path / "city", tmp_path / "county"
    common = ("--region", str(region), "--listen", "127.0.0.1:0")
    made(fenhe("node", "init", CITY, "--data", str(city), *common))
    with running(city) as above:
        made(
            fenhe(
                *("node", "init", COUNTY, "--data", str(county), *common),
                *("--parent-data", str(city), "--parent-endpoint", above),
            )
        )
        with running(county):
            operators = {CITY: operator(city), COUNTY: operator(county)}
            for node, peer, role in ((COUNTY, CITY, "parent"), (CITY, COUNTY, "child")):
                until(
                    f"{node} has its link",
                    lambda node=node, peer=peer: is_connected(operators[node], peer),  # type: ignore[misc]
                )
                shown = link(operators[node], peer)
                assert (shown["role"], shown["connected"]) == (role, True)
            text = fenhe("node", "status", "--as", str(operators[COUNTY]))
            made(text)
            assert COUNTY in text.stdout


def operator(data: Path) -> Path:
    """A folder of operator's credentials, issued while the node runs."""
    folder = data.with_name(f"operator-{data.name}")
    words = ("node", "credentials", "operator", "test", "--data", str(data), "--out", str(folder))
    made(fenhe(*words, "--days", "1"))
    return folder


def is_connected(credentials: Path, peer: NodeId) -> bool:
    """What `node status` would say, without a process for every look."""
    with connected(load_credentials(credentials)) as channel:
        status = node_pb2_grpc.NodeServiceStub(channel).Status(node_pb.StatusRequest(), timeout=10)
    return any(each.connected for each in status.links if each.peer == peer)


def link(credentials: Path, peer: NodeId) -> dict[str, Any]:
    """One link in the JSON of `node status`."""
    done = fenhe("node", "status", "--as", str(credentials), "--json")
    made(done)
    links: list[dict[str, Any]] = json.loads(done.stdout)["links"]
    return next(each for each in links if each["peer"] == peer)


def test_init_writes_over_nothing(tmp_path: Path) -> None:
    """A second init on the same folder is refused, and so is a child without its parent."""
    region = tmp_path / "region.yaml"
    dump_region(DemoPlace.slice(NODES), region)
    words = ("node", "init", CITY, "--data", str(tmp_path / "city"), "--region", str(region))
    made(fenhe(*words))
    settings = (tmp_path / "city" / "node.yaml").read_bytes()
    again = fenhe(*words, "--listen", "127.0.0.1:1")
    assert again.returncode == 1
    assert "SETTINGS_INVALID: " in again.stderr
    assert (tmp_path / "city" / "node.yaml").read_bytes() == settings
    orphan = fenhe("node", "init", COUNTY, "--data", str(tmp_path / "c"), "--region", str(region))
    assert orphan.returncode == 1
    assert "--parent-data" in orphan.stderr
    assert not (tmp_path / "c").exists()


def test_a_child_is_signed_by_its_own_parent_only(tmp_path: Path) -> None:
    """Another node's folder given as the parent's is refused before anything is made."""
    region = tmp_path / "region.yaml"
    dump_region(DemoPlace.slice(nodes(*NODES, "141002100")), region)
    base = ("--region", str(region))
    made(fenhe("node", "init", CITY, "--data", str(tmp_path / "a"), *base))
    parent = ("--parent-data", str(tmp_path / "a"))
    done = fenhe("node", "init", "141002100", "--data", str(tmp_path / "b"), *base, *parent)
    assert done.returncode == 1
    assert "CERTIFICATE_UNUSABLE: " in done.stderr
    assert f"signed by its parent {COUNTY}" in " ".join(done.stderr.split())
    assert not (tmp_path / "b").exists()


def test_validate_prints_every_fault(tmp_path: Path) -> None:
    """A broken region file: each fault with its key, what stands there and what was expected."""
    file = tmp_path / "broken.yaml"
    nodes_said: list[dict[str, str]] = [
        {"id": CITY},
        {"id": COUNTY, "parent": "141002100"},
        {"id": "141002100", "parent": COUNTY},
        {"id": OTHER_COUNTY, "parent": "149999"},
        {"id": OTHER_COUNTY},
    ]
    said = {"region": "linfen", "epoch": 1, "nodes": nodes_said}
    file.write_text(yaml.safe_dump(said), encoding="utf-8")
    done = fenhe("hierarchy", "validate", str(file))
    assert done.returncode == 1
    for word in ("cycle", "149999", "nodes[1].parent", "nodes[4].id"):
        assert word in done.stderr, done.stderr
    file.write_text(yaml.safe_dump({**said, "epoch": 0, "colour": "green"}), encoding="utf-8")
    done = fenhe("hierarchy", "validate", str(file))
    assert done.returncode == 1
    for word in ("epoch", "colour", str(file)):
        assert word in "".join(done.stderr.split()), done.stderr
    sound = tmp_path / "sound.yaml"
    dump_region(DemoPlace.slice(NODES), sound)
    assert load_region(sound).root == CITY
    made(fenhe("hierarchy", "validate", str(sound)))
