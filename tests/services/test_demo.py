"""The demo as a newcomer runs it; its facts are compared with the databases it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from node.demo.databases import DATABASE
from node.demo.people import mean_systolic_pooled, read_input
from node.demo.place import DEMO_NODES, DemoPlace
from node.mariadb_server import PrivateMariaDB
from tests.house.tree import ROOT

RECORD_TABLES = (
    "encounters",
    "conditions",
    "observations",
    "medications",
    "procedures",
    "immunizations",
)


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`fenhe demo` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "node", "demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended while we looked
            if str(folder) in line and "pytest" not in line:
                found.append(line)
    return found


def counts(engine: Engine) -> dict[str, int]:
    """Rows by table that are not retracted, read from the database itself."""
    with engine.connect() as connection:
        return {
            table: connection.execute(
                text(f"SELECT COUNT(*) FROM {table} WHERE deleted = 0")
            ).scalar_one()
            for table in ("residents", "resident_index", *RECORD_TABLES)
        }


def check_nodes(facts: dict[str, Any], node: str, held: dict[str, int]) -> None:
    """The demo's figures of a node are those of its database."""
    said = next(each for each in facts["nodes"] if each["node_id"] == node)
    residents = held["resident_index"] if node == "1410" else held["residents"]
    assert said["residents"] == residents
    assert said["records"] == sum(held[table] for table in RECORD_TABLES)


def check_facts(facts: dict[str, Any]) -> None:
    """Everything accepted, delivered, equal to the pooled input; one village from a copy."""
    villages = DemoPlace.slice().nodes
    people = len(read_input())
    assert [node["node_id"] for node in facts["nodes"]] == list(DEMO_NODES)
    assert facts["input"] == {
        "source": "nhefs.csv",
        "rows": people,
        "accepted": people,
        "rejected": 0,
    }
    assert facts["replication"]["acknowledged"] == facts["replication"]["delivered"] > people
    pooled = {
        (cell.county, cell.sex): (cell.people, cell.mean_systolic)
        for cell in mean_systolic_pooled([code for code in villages if len(code) == 12])
    }
    for name in ("query", "query_with_village_down"):
        answer = facts[name]
        assert answer["columns"] == ["county", "sex", "people", "mean_systolic"]
        rows = {(row[0], row[1]): row for row in answer["rows"]}
        assert rows.keys() == pooled.keys()
        for key, row in rows.items():
            assert row[2] == pooled[key][0]
            assert row[3] == pytest.approx(pooled[key][1], abs=1e-9)
        coverage = answer["coverage"]
        assert {site["node_id"] for site in coverage["sites"]} == set(DEMO_NODES)
        assert coverage["residents_covered"] == coverage["residents_known"] == people
        assert answer["executor"] == "ray"
        assert any("ray worker" in line for line in answer["tasks"])
    states = [site["state"] for site in facts["query"]["coverage"]["sites"]]
    assert set(states) == {"live"}
    down = [
        site
        for site in facts["query_with_village_down"]["coverage"]["sites"]
        if site["state"] == "replica"
    ]
    assert len(down) == 1
    assert down[0]["as_of"] is not None
    assert facts["equals_pooled"] is True


def test_demo_on_sqlite_tells_the_truth(tmp_path: Path) -> None:
    """One JSON object on stdout, true against the databases; nothing is left running."""
    data = tmp_path / "demo-data"
    done = run_demo("--once", "--json", "--data", str(data))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    check_facts(facts)
    assert processes_of(data) == []
    for node in DEMO_NODES:
        engine = create_engine(f"sqlite:///{data}/nodes/{node}/store.db")
        check_nodes(facts, node, counts(engine))
        engine.dispose()

    other = run_demo("--once", "--data", str(data), "--database", "mysql")
    assert other.returncode == 1
    assert "rm -r" in other.stderr, "it says how to delete what is there"


def test_demo_on_mariadb_tells_the_truth(tmp_path: Path) -> None:
    """The same with one private MariaDB a node."""
    data = tmp_path / "demo-data"
    done = run_demo("--once", "--json", "--data", str(data), "--database", "mysql")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    check_facts(facts)
    assert processes_of(data) == []
    for node in ("1410", "141002100200"):
        with PrivateMariaDB(data / "mariadb" / node) as server:
            engine = create_engine(server.url(DATABASE))
            check_nodes(facts, node, counts(engine))
            engine.dispose()


def test_demo_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    """Nothing of the user's is written over."""
    (tmp_path / "precious.txt").write_text("mine")
    done = run_demo("--once", "--data", str(tmp_path))
    assert done.returncode == 1
    assert "rm -r" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
