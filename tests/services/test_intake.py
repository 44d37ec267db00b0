"""A load that is killed goes on, through the real command at a real node; and HL7 over a socket."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import hl7
import pytest
from hl7.client import MLLPClient
from typer.testing import CliRunner

from node.cli.main import app
from tests.contracts.ingestion.place import OBSERVATIONS, observation_lines
from tests.house.tree import ROOT
from tests.services.command import fenhe
from tests.services.region import Region, nodes
from tests.services.waiting import until

COUNTY, TOWNSHIP = nodes("141002", "141002100")
EXAMPLES: Final = ROOT / "examples"
PEOPLE: Final = 300
EACH: Final = 20
MESSAGE: Final = (
    "MSH|^~\\&|LAB|HOSP|FENHE|X|20260301||ORU^R01|{i}|P|2.5\r"
    "PID|1||Q{i}^^^H^MR||张^三||19900307|M\r"
    "OBR|1|O{i}|F{i}|P|||20260301\rOBX|1|NM|8480-6^SBP^LN||{value}|mmHg|||||F\r"
)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A county alone, on SQLite."""
    with Region(tmp_path_factory.mktemp("intake") / "region", (COUNTY, TOWNSHIP)) as region:
        region.start(COUNTY)
        yield region


def intake(region: Region, *words: str) -> Any:
    """What `fenhe intake … --json` says."""
    folder = str(region.place.credentials_dir(f"operator-{COUNTY}"))
    done = CliRunner().invoke(app, ["intake", *words, "--as", folder, "--json"])
    assert done.exit_code in {0, 5}, done.output
    return json.loads(done.stdout)


def test_a_load_that_is_killed_goes_on(region: Region, tmp_path: Path) -> None:
    """SIGKILL of the node in the middle: nothing lost, nothing twice, counts right."""
    mapping, file = tmp_path / "m.yaml", tmp_path / "results.csv"
    mapping.write_text(OBSERVATIONS, encoding="utf-8")
    lines = [*observation_lines(PEOPLE, EACH), "P1,,,,,8480-6,abc,mmHg,2026-01-01"]
    file.write_text("\n".join(lines), encoding="utf-8")
    began = intake(region, "load", str(file), "--mapping", str(mapping), "--no-wait")

    def read() -> int:
        (run,) = [r for r in intake(region, "status") if r["run_id"] == began["run_id"]]
        return int(run["read"])

    until("a window is durable", lambda: read() > 0)
    region.fleet.kill(COUNTY)
    region.start(COUNTY)

    done = intake(region, "load", str(file), "--mapping", str(mapping))
    assert done["run_id"] == began["run_id"]
    assert (done["state"], done["read"]) == ("done", PEOPLE * EACH + 1)
    assert (done["accepted"], done["quarantined"]) == (PEOPLE * EACH, 1)
    assert (done["residents"], done["records"]) == (PEOPLE, PEOPLE * EACH)
    assert region.rows(COUNTY)["observations"] == PEOPLE * EACH
    assert region.rows(COUNTY)["residents"] == PEOPLE


def test_a_unit_is_shown_and_fixed_and_the_audit_knows_who_did(region: Region) -> None:
    """And what came in; asked a second time, nothing is stored a second time."""
    (item,) = intake(region, "quarantine", "list")["items"]
    number = str(item["item_id"])
    shown = intake(region, "quarantine", "show", number)
    assert {"column": "value", "text": "abc"} in shown["cells"]
    assert [each["column"] for each in shown["cells"]] == observation_lines(0, 0)[0].split(",")

    answers = [intake(region, "quarantine", "fix", number, "--set", "value=120") for _ in range(2)]

    assert answers == [{"accepted": 1, "waiting": 0}, {"accepted": 0, "waiting": 0}]
    assert region.rows(COUNTY)["observations"] == PEOPLE * EACH + 1
    with sqlite3.connect(region.place.node_dir(COUNTY) / "store.db") as store:
        query = "SELECT DISTINCT action FROM audit WHERE principal LIKE '%/operator/%'"
        actions = {action for (action,) in store.execute(query)}
    assert actions >= {"import", "put", "read", "retry"}


def state_of(answer: bytes) -> str:
    """MSA-1 of an acknowledgement."""
    return str(hl7.parse(answer.strip(b"\x0b\x1c\r").decode())["MSA"][0][1])


def test_a_client_of_the_library_gets_its_acknowledgements(region: Region) -> None:
    """AA for a result, AE for one at fault, AR for what is no message."""
    folder = str(region.place.credentials_dir(f"operator-{COUNTY}"))
    words = ("--mapping", "hl7-v2", "--listen", "127.0.0.1:0", "--as", folder, "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "node", "intake", "mllp", *words], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            said = ""
            assert server.stdout is not None
            while "}" not in said:
                line = server.stdout.readline()
                assert line, "the command ended"
                said += line
            host, port = json.loads(said)["listening"].split(":")
            texts = (MESSAGE.format(i=1, value=128), MESSAGE.format(i=2, value="abc"), "no message")
            with MLLPClient(host, int(port)) as client:
                states = [state_of(client.send_message(text)) for text in texts]
            assert states == ["AA", "AE", "AR"]
            with socket.create_connection((host, int(port))) as noise:
                noise.sendall(b"noise")
        finally:
            server.terminate()
    (run,) = [r for r in intake(region, "status") if r["source"] == "hl7"]
    assert (run["read"], run["accepted"], run["quarantined"]) == (3, 1, 2)


def test_the_example_of_the_readme(region: Region) -> None:
    """Nine of twelve rows come in, three wait with the rule that each broke."""
    file, mapping = EXAMPLES / "clinic-visits.csv", EXAMPLES / "clinic-visits.yaml"
    before = region.rows(COUNTY)
    done = intake(region, "load", str(file), "--mapping", str(mapping))
    assert (done["read"], done["accepted"], done["quarantined"]) == (12, 9, 3)
    now = region.rows(COUNTY)
    assert {table: now[table] - before[table] for table in ("residents", "encounters")} == {
        "residents": 7,
        "encounters": 9,
    }
    waiting = intake(region, "quarantine", "list", "--run", str(done["run_id"]))["items"]
    assert len(waiting) == 3
    folder = region.place.credentials_dir(f"operator-{COUNTY}")
    again = fenhe("intake", "load", file, "--mapping", mapping, "--as", folder)
    assert done["run_id"] in again.stdout
    assert "has come in before" in again.stderr
    assert region.rows(COUNTY) == now
