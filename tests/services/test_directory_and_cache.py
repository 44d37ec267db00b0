"""Real nodes that find each other in a directory, and keep answers in a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sqlalchemy import func, select

import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import FileDirectory, NodeId
from node.settings import load_settings, save_settings
from node.storage.tables import AUDIT
from tests.contracts.cache.redis_server import RedisServer
from tests.services.region import Region, nodes
from tests.services.stores import opened
from tests.services.waiting import until

CODES = nodes("1410", "141002", "141002100", "141002100200")
TOWNSHIP, VILLAGE = CODES[2:]
NOWHERE = "127.0.0.1:1"
NAME = "赵八百一十二"


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    """A township and its village; neither runs yet."""
    with Region(tmp_path, CODES) as made:
        yield made


def _set(region: Region, node: NodeId, **changes: str | None) -> None:
    folder = region.place.node_dir(node)
    save_settings(folder, load_settings(folder).model_copy(update=changes))


def _name(region: Region, resident_id: str) -> str:
    request = empi.GetResidentRequest(resident_id=resident_id)
    found: empi.Resident = region.residents(VILLAGE, "Get", request, "client")
    return found.name


def _write(region: Region, name: str, resident_id: str = "") -> str:
    resident = empi.Resident(
        resident_id=resident_id,
        name=name,
        sex=empi.SEX_FEMALE,
        birth_date="1980-01-01",
        home_node=VILLAGE,
    )
    request = empi.RegisterRequest(request_id=f"request-{name}", residents=[resident])
    answer: empi.RegisterResponse = region.residents(VILLAGE, "Register", request, "client")
    return answer.resident_ids[0]


def test_a_child_dials_where_its_parent_has_registered(region: Region, tmp_path: Path) -> None:
    """Not where node.yaml and the region file would send it; a clean stop takes it back."""
    directory = FileDirectory(tmp_path / "directory")
    directory.publish(region.place.hierarchy, expected=None)
    for node in (TOWNSHIP, VILLAGE):
        _set(region, node, directory="file:../../directory")
    _set(region, VILLAGE, parent_endpoint=NOWHERE)
    region.start(VILLAGE, TOWNSHIP)
    region.linked(VILLAGE)
    assert directory.registration_of(TOWNSHIP) == region.place.address(TOWNSHIP)
    region.fleet.stop()
    assert directory.registration_of(TOWNSHIP) is None


@pytest.mark.redis
def test_answers_are_kept_in_redis_and_never_stale(region: Region) -> None:
    """Read, amend, read at once; every read audited; Redis sees no name and may go away."""
    server = RedisServer()
    server.start()
    try:
        _set(region, VILLAGE, redis_url=server.url)
        profile = region.place.node_dir(VILLAGE) / "profile.yaml"
        said = yaml.safe_load(profile.read_text(encoding="utf-8"))
        profile.write_text(yaml.safe_dump({**said, "redis": True}), encoding="utf-8")
        region.start(VILLAGE)
        resident_id = _write(region, NAME)
        until("an answer is kept", lambda: _name(region, resident_id) == NAME and _kept(server))
        for number in range(5):
            _write(region, f"{NAME}之{number}", resident_id)
            assert _name(region, resident_id) == f"{NAME}之{number}"
        seen = b"".join(key + value for key, value in server.contents().items())
        assert NAME.encode() not in seen
        server.stop()
        assert _name(region, resident_id) == f"{NAME}之4"
    finally:
        server.close()
    # At least one to keep the answer, five after the amendments, one without Redis.
    assert _audited_reads(region) >= 7


def _audited_reads(region: Region) -> int:
    with opened(region.place, VILLAGE) as store:
        reads = select(func.count()).select_from(AUDIT).where(AUDIT.c.action == "read")
        return int(store.connection.execute(reads).scalar_one())


def _kept(server: RedisServer) -> bool:
    return len(server.contents()) == 2
