"""fenhe replication verify over real links: what was corrupted at rest is found and mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, select, update

from hierarchy_config import NodeId
from node.opening import database_url
from node.settings import load_settings
from node.storage.tables import AUDIT, REPLICATED
from tests.services.command import fenhe
from tests.services.people import Person, put_request
from tests.services.region import Region, nodes
from tests.services.waiting import until

COUNTY, TOWNSHIP, VILLAGE, SIBLING = NODES = nodes(
    "141002", "141002100", "141002100200", "141002100203"
)
DATABASES = ["sqlite", pytest.param("mysql", marks=pytest.mark.mariadb)]
PEOPLE = 12


@pytest.fixture(scope="module", params=DATABASES)
def region(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Region]:
    """A county with one township and two villages, all of whose rows have arrived."""
    with Region(tmp_path_factory.mktemp("verify") / "region", NODES, request.param) as made:
        made.start()
        made.linked(TOWNSHIP, VILLAGE, SIBLING)
        for number in range(PEOPLE):
            home = SIBLING if number % 3 == 0 else VILLAGE
            made.put(home, put_request(f"verify-{number:04d}", Person(number, home)))
        until("all at the county", lambda: made.rows(COUNTY)["observations"] == PEOPLE)
        yield made


def verify(region: Region, at: NodeId, *words: str) -> tuple[int, dict[str, Any]]:
    """The command's exit code and its JSON."""
    folder = region.place.credentials_dir(f"operator-{at}")
    words = ("replication", "verify", "--as", str(folder), "--json", *words)
    done = fenhe(*words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def in_database(region: Region, node: NodeId, *statements: Any) -> None:
    """Change a node's database behind its back."""
    folder: Path = region.place.node_dir(node)
    engine = create_engine(database_url(load_settings(folder).database, folder))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    engine.dispose()


def test_nothing_differs_after_ordinary_work(region: Region) -> None:
    """Every link of the township, in both directions."""
    code, report = verify(region, TOWNSHIP)
    assert (code, report["equal"]) == (0, True)
    assert [link["peer"] for link in report["links"]] == [COUNTY, VILLAGE, SIBLING]
    assert all(int(link["rows"]) > 0 and not link["fault"] for link in report["links"])


def test_what_was_corrupted_is_found_and_mended(region: Region) -> None:
    """At the parent and at the child, asked at either; then nothing differs, siblings neither."""
    residents, observations = REPLICATED["residents"], REPLICATED["observations"]
    ids = [Person(number, VILLAGE).resident_id for number in (1, 2, 4)]
    of_village = observations.c.resident_id
    in_database(
        region,
        TOWNSHIP,
        update(residents).where(residents.c.row_id == ids[0]).values(name=b"broken"),
        update(observations).where(of_village == ids[1]).values(value=1.0),
    )
    in_database(region, VILLAGE, delete(observations).where(of_village == ids[2]))
    code, found = verify(region, TOWNSHIP, "--peer", VILLAGE)
    assert (code, found["links"][0]["differing"]) == (5, "3")
    code, done = verify(region, VILLAGE, "--repair")
    link = done["links"][0]
    assert (code, link["repaired"], link["undecided"]) == (0, "3", [])
    assert done["equal"]
    code, again = verify(region, TOWNSHIP)
    assert (code, again["equal"]) == (0, True)
    folder = region.place.node_dir(TOWNSHIP)
    engine = create_engine(database_url(load_settings(folder).database, folder))
    with engine.connect() as connection:
        repaired = connection.execute(select(AUDIT.c.object_id).where(AUDIT.c.action == "repair"))
        assert len(repaired.all()) == 2
    engine.dispose()


def test_a_peer_that_is_none_is_told_so(region: Region) -> None:
    """Neither a stranger nor a grandchild."""
    folder = region.place.credentials_dir(f"operator-{COUNTY}")
    words = ("replication", "verify", "--as", str(folder), "--peer", VILLAGE)
    done = fenhe(*words)
    assert done.returncode == 1
    assert "RECONCILE_PEER" in done.stderr


def test_only_an_operator_of_the_node_may_ask(region: Region) -> None:
    """A clinic's system may not."""
    folder = region.place.credentials_dir(f"client-{VILLAGE}")
    done = fenhe("replication", "verify", "--as", str(folder))
    assert done.returncode == 1
    assert "DENIED" in done.stderr
