"""The register of looks, and what is found in a data folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import OperationalError

from hardware_profiles import load_profile
from hierarchy_config import NodeId
from node.demo.place import DemoPlace
from node.doctor.findings import Checkup, Finding, Severity
from node.doctor.folder import FolderLooks
from node.doctor.stopped import examine_folder
from node.errors import SettingsError
from node.settings import load_settings, save_settings
from tests.services.waiting import CLOCK

COUNTY = NodeId("141002")


class ClockAt:
    """Shifted from the machine's by some days."""

    def __init__(self, days: float) -> None:
        self._shift_ms = int(days * 86_400_000)

    def now_ms(self) -> int:
        return CLOCK.now_ms() + self._shift_ms

    def monotonic_ms(self) -> int:
        return CLOCK.monotonic_ms()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> DemoPlace:
    """One county's data folder, never started."""
    made, _ = DemoPlace.open(
        tmp_path_factory.mktemp("doctor") / "place", "sqlite", CLOCK, (COUNTY,)
    )
    return made


@pytest.fixture
def looks(place: DemoPlace) -> Iterator[FolderLooks]:
    """The folder, put right again afterwards."""
    data = place.node_dir(COUNTY)
    settings = load_settings(data)
    yield FolderLooks(data, settings, place.hierarchy, load_profile("county"), CLOCK)
    save_settings(data, settings)
    data.chmod(0o700)
    for path in (data / "keys").iterdir():
        path.chmod(0o600)


def worst(found: Iterator[Finding]) -> Severity:
    """How bad the worst of them is."""
    return max(each.severity for each in found)


def test_the_worst_stands_first() -> None:
    """Whoever reads only the first line reads the right one."""
    checkup = Checkup()
    checkup.add("B", lambda: [Finding("B", Severity.GOOD, "b")])
    checkup.add(
        "A", lambda: [Finding("A", Severity.WARNING, "a", "do"), Finding("A", Severity.GOOD, "")]
    )
    checkup.add("Z", lambda: [Finding("Z", Severity.BAD, "z", "do")])
    assert [each.topic for each in checkup.findings()] == ["Z", "A", "A", "B"]
    assert checkup.topics == ("B", "A", "Z")


def test_a_look_that_fails_is_a_finding_and_stops_no_other() -> None:
    """A database's own text, which may quote a cell, stays out."""

    def fails() -> list[Finding]:
        raise OperationalError("SELECT '蔺暮雪'", {}, ValueError("蔺暮雪"))

    def refuses() -> list[Finding]:
        raise SettingsError("node.yaml is wrong")

    checkup = Checkup()
    checkup.add("DB", fails)
    checkup.add("SET", refuses)
    checkup.add("OK", lambda: [Finding("OK", Severity.GOOD, "fine")])
    found = {each.topic: each for each in checkup.findings()}
    assert found["DB"].severity is found["SET"].severity is Severity.BAD
    assert "蔺" not in found["DB"].message
    assert all(each.next_step for each in found.values() if each.severity > Severity.GOOD)
    assert found["OK"].severity is Severity.GOOD


def test_a_sound_folder_is_good(looks: FolderLooks) -> None:
    """No false alarm about a node that was just made."""
    for look in (looks.files, looks.keys, looks.certificate, looks.authority):
        assert worst(look()) is Severity.GOOD


@pytest.mark.parametrize(("mode", "severity"), [(0o755, Severity.WARNING), (0o777, Severity.BAD)])
def test_a_folder_that_others_open_is_found(
    looks: FolderLooks, mode: int, severity: Severity
) -> None:
    """Worse if they may write."""
    looks.data.chmod(mode)
    [finding] = [each for each in looks.files() if each.severity > Severity.GOOD]
    assert finding.severity is severity
    assert "chmod 700" in finding.next_step


def test_a_password_that_others_may_read_is_found_and_not_told(looks: FolderLooks) -> None:
    """In node.yaml, by its mode."""
    with_password = replace(
        looks,
        settings=looks.settings.model_copy(update={"database": "mysql+pymysql://f:hunter2@h/d"}),
    )
    path = looks.data / "node.yaml"
    assert worst(with_password.files()) is Severity.GOOD
    path.chmod(0o644)
    found = [each for each in with_password.files() if each.severity is Severity.BAD]
    assert len(found) == 1
    assert "hunter2" not in found[0].message + found[0].next_step


def test_each_key_that_others_use_is_named(looks: FolderLooks) -> None:
    """With what to type."""
    path = looks.data / "keys" / "node.key"
    path.chmod(0o640)
    [finding] = looks.keys()
    assert (finding.severity, finding.about) == (Severity.BAD, "node.key")
    assert f"chmod 600 {path}" in finding.next_step


@pytest.mark.parametrize(
    ("days", "severity"),
    [
        (1, Severity.GOOD),
        (200, Severity.WARNING),
        (350, Severity.BAD),
        (500, Severity.BAD),
        (-900, Severity.BAD),
    ],
)
def test_a_certificate_is_good_then_half_spent_then_bad(
    looks: FolderLooks, days: int, severity: Severity
) -> None:
    """Also where the clock is years off, either way."""
    at = replace(looks, clock=ClockAt(days))
    assert worst(at.certificate()) is severity


def test_a_stopped_node_is_examined_without_a_trace(place: DemoPlace) -> None:
    """Nothing is made in the folder; no database yet is no fault."""
    data = place.node_dir(COUNTY)
    before = {(path, path.stat().st_mtime_ns) for path in data.rglob("*")}
    node_id, found = examine_folder(data, CLOCK, whole_audit=True)
    assert node_id == COUNTY
    assert max(each.severity for each in found) is Severity.GOOD, found
    assert {(path, path.stat().st_mtime_ns) for path in data.rglob("*")} == before


def test_the_clock_of_a_test_moves() -> None:
    """So that the days above are days."""
    ahead = datetime.fromtimestamp(ClockAt(2).now_ms() / 1000, UTC)
    assert ahead - datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC) > timedelta(hours=47)
