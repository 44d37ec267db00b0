"""Nodes with the core packages alone: they store, replicate and say what they cannot do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import protos.fenhe.federation.v1.federation_pb2 as federation
from node.demo.processes import spawned
from protos.fenhe.federation.v1 import federation_pb2_grpc
from tests.house.tree import ROOT
from tests.services.people import Person, put_request
from tests.services.region import CALL_S, Region, nodes
from tests.services.waiting import until

CITY, COUNTY = nodes("1410", "141002")

# An entry of None makes Python say that the package is not installed.
_WITHOUT_EXTRAS = """\
import sys
for name in ("duckdb", "pyarrow", "ray", "redis", "hiredis", "consul"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A city and a county whose interpreters have no extra."""
    folder = tmp_path_factory.mktemp("core")
    (folder / "sitecustomize.py").write_text(_WITHOUT_EXTRAS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(folder), str(ROOT))))
        with Region(folder / "demo", (CITY, COUNTY), launch=spawned) as made:
            made.start()
            made.linked()
            yield made


def test_the_core_alone_stores_and_replicates(region: Region, tmp_path: Path) -> None:
    """What a county stores reaches the city."""
    region.put(COUNTY, put_request("core-alone-1", Person(1, COUNTY)))
    until("it is at the city", lambda: region.rows(CITY)["resident_index"] == 1)
    held = region.rows(CITY)
    assert (held["residents"], held["observations"], held["identifiers"]) == (1, 1, 0)


def test_without_analytics_an_answer_says_so(region: Region) -> None:
    """Every site is named with its state; nothing is silently absent."""
    answer = _ask(region, federation.EXECUTOR_DIRECT)
    assert {site.node_id: site.state for site in answer.coverage.sites} == {
        CITY: "no_analytics",
        COUNTY: "no_analytics",
    }
    assert not answer.complete


def test_without_ray_one_sentence_says_what_to_install(region: Region) -> None:
    """The executor that was asked for is missing: a code, a reason, a next step."""
    with pytest.raises(grpc.RpcError) as caught:
        _ask(region, federation.EXECUTOR_RAY)
    details = caught.value.details()
    assert details is not None
    assert details.startswith("EXTRA_MISSING: ray is not installed")
    assert "pip install 'fenhe[ray]'" in details


def _ask(region: Region, executor: federation.Executor.ValueType) -> federation.Answer:
    request = federation.QueryRequest(
        sql="SELECT sex, COUNT(*) AS n FROM residents GROUP BY sex", executor=executor
    )
    with region.open_channel(CITY, "analyst") as channel:
        events = list(federation_pb2_grpc.QueryServiceStub(channel).Ask(request, timeout=CALL_S))
    return events[-1].answer
