"""What a node refuses to start on: a clear error, exit code 1, and nothing changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import yaml
from sqlalchemy import create_engine, inspect

from hierarchy_config import NodeId
from node.demo.place import DemoPlace
from node.mariadb_server import PrivateMariaDB
from node.security.authority import load_authority
from node.security.certificates import (
    Validity,
    certificates_to_pem,
    private_key_from_pem,
    sign_leaf,
)
from node.security.folders import NodeFolder
from node.security.principal import Principal
from node.settings import load_settings, save_settings
from tests.services.command import fenhe
from tests.services.region import MARIADB, Region, nodes
from tests.services.waiting import CLOCK

COUNTY, TOWNSHIP, VILLAGE, OTHER_TOWNSHIP, OTHER_VILLAGE = NODES = nodes(
    "141002", "141002100", "141002100200", "141002104", "141002104200"
)
ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> DemoPlace:
    """Data folders that are in order; no node is ever started on them."""
    made, _ = DemoPlace.open(tmp_path_factory.mktemp("place") / "p", "sqlite", CLOCK, NODES)
    return made


@pytest.fixture
def folder(place: DemoPlace, tmp_path: Path) -> Path:
    """A copy of the village's data folder, to spoil."""
    return Path(shutil.copytree(place.node_dir(VILLAGE), tmp_path / "node"))


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Start a node that is expected to end by itself."""
    return fenhe("node", "run", "--data", str(folder))


def check_refused(folder: Path, code: str, *words: str) -> None:
    """Check exit code, text, the next step, and that no file was changed."""
    before = _content(folder)
    done = run(folder)
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert f"{code}: " in said
    assert "Next: " in said
    for word in words:
        assert word in said, said
    assert _content(folder) == before


def _content(folder: Path) -> dict[str, str]:
    """Every file by its digest, but the lock, which holds nothing."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_refuses_another_node_s_certificate(place: DemoPlace, folder: Path) -> None:
    """Certificate and key of the village next door do not make this village's node."""
    other = NodeFolder(place.node_dir(OTHER_VILLAGE)).tls
    shutil.copy(other.chain, NodeFolder(folder).tls.chain)
    shutil.copy(other.private_key, NodeFolder(folder).tls.private_key)
    check_refused(folder, "CERTIFICATE_UNUSABLE", OTHER_VILLAGE, VILLAGE)


def test_refuses_a_certificate_of_another_key(place: DemoPlace, folder: Path) -> None:
    """A certificate that was copied without its key is of no use."""
    shutil.copy(NodeFolder(place.node_dir(OTHER_VILLAGE)).tls.chain, NodeFolder(folder).tls.chain)
    check_refused(folder, "CERTIFICATE_UNUSABLE", "another key")


def test_refuses_a_certificate_signed_by_another_parent(place: DemoPlace, folder: Path) -> None:
    """A township cannot sign a village of another township."""
    authority = load_authority(place.node_dir(OTHER_TOWNSHIP))
    key = private_key_from_pem(NodeFolder(folder).tls.private_key.read_bytes())
    now = datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC)
    leaf = sign_leaf(
        authority,
        Principal(place.hierarchy.region, VILLAGE),
        place.hierarchy.dns_name(VILLAGE),
        key.public_key(),
        Validity.starting(now, timedelta(days=1)),
    )
    chain = certificates_to_pem((leaf, *authority.chain))
    NodeFolder(folder).tls.chain.write_bytes(chain)
    check_refused(folder, "CERTIFICATE_UNUSABLE", "tls.pem")


def test_refuses_a_certificate_under_the_parent_it_had_before(folder: Path) -> None:
    """A node that the region file puts under another parent needs a new certificate."""
    file = folder / "region.yaml"
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    for entry in said["nodes"]:
        if entry["id"] == VILLAGE:
            entry["parent"] = OTHER_TOWNSHIP
    file.write_text(yaml.safe_dump(said, allow_unicode=True), encoding="utf-8")
    check_refused(folder, "CERTIFICATE_UNUSABLE", "parent in region.yaml")


def test_refuses_a_port_in_use(folder: Path) -> None:
    """Another program has the port; the database is not even opened."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = load_settings(folder).model_copy(update={"listen": address})
        save_settings(folder, settings)
        check_refused(folder, "PORT_IN_USE", address)
    assert not (folder / "store.db").exists()


def test_refuses_a_malformed_region_file_naming_every_fault(folder: Path) -> None:
    """An unknown key, a cycle and a repeated code are told together."""
    file = folder / "region.yaml"
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    said["colour"] = "green"
    said["nodes"].append(dict(said["nodes"][-1]))
    for entry in said["nodes"]:
        if entry["id"] == COUNTY:
            entry["parent"] = TOWNSHIP
    file.write_text(yaml.safe_dump(said, allow_unicode=True), encoding="utf-8")
    check_refused(folder, "REGION_FILE_INVALID", "colour", OTHER_VILLAGE, "cycle")


@pytest.mark.parametrize("key", ["tls.key", "node.key", "blind_index.key"])
def test_refuses_an_exposed_key(folder: Path, key: str) -> None:
    """A key that others on the machine can read is named with the command that closes it."""
    (folder / "keys" / key).chmod(0o644)
    check_refused(folder, "KEY_FILE_EXPOSED", key, "chmod 600")


@pytest.mark.parametrize("key", ["tls.key", "node.key"])
def test_refuses_a_missing_key(folder: Path, key: str) -> None:
    """Without its keys a node does not make new ones, nor an empty database."""
    (folder / "keys" / key).unlink()
    check_refused(folder, "KEY_FILE", key)


def test_refuses_a_folder_without_settings(tmp_path: Path) -> None:
    """An empty folder is no node; the command that makes one is named."""
    check_refused(tmp_path, "SETTINGS_INVALID", "node.yaml", "fenhe node init")


def test_refuses_settings_it_does_not_know(folder: Path) -> None:
    """A misspelt setting is not passed over."""
    with (folder / "node.yaml").open("a", encoding="utf-8") as file:
        file.write("lissten: 127.0.0.1:1\n")
    check_refused(folder, "SETTINGS_INVALID", "lissten")


def test_a_second_process_leaves_the_first_alone(tmp_path: Path) -> None:
    """It is refused, and the first goes on with its folder as it was."""
    with Region(tmp_path / "region", nodes("141002")) as region:
        region.start()
        folder = region.place.node_dir(NodeId("141002"))
        running = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        done = run(folder)
        assert done.returncode == 1
        assert "DATA_FOLDER_IN_USE: " in done.stderr
        assert json.loads((folder / "run.json").read_text(encoding="utf-8")) == running
        assert region.fleet.status(NodeId("141002")).node_id == "141002"


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("setting", "value"),
    [("innodb_flush_log_at_trx_commit", "2"), ("innodb_doublewrite", "OFF")],
)
def test_refuses_a_database_that_could_lose_commits(
    folder: Path, tmp_path: Path, setting: str, value: str
) -> None:
    """Setting, value found and remedy are named; no table is made."""
    lines = [line for line in MARIADB.splitlines() if not line.startswith(setting)]
    configuration = "\n".join((*lines, f"{setting} = {value}", ""))
    with PrivateMariaDB(tmp_path / "unsafe", configuration=configuration) as server:
        url = server.create_database("unsafe")
        save_settings(folder, load_settings(folder).model_copy(update={"database": url}))
        check_refused(folder, "DURABILITY_UNSAFE", setting, f"set {setting}=")
        engine = create_engine(url)
        assert inspect(engine).get_table_names() == []
        engine.dispose()
