"""A profile fits together and into its machine, or says everything that is wrong with it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hardware_profiles import (
    BUNDLE_BYTES_MAX,
    PROFILE_NAMES,
    HardwareProfile,
    ProfileFileError,
    load_profile,
    profile_text,
)
from hierarchy_config import CareLevel

VILLAGE = load_profile("village")


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The village's profile with some values changed, as a document."""
    return {**VILLAGE.model_dump(mode="json"), **changes}


def keys(path: Path) -> list[str]:
    """Key of each fault of a file."""
    with pytest.raises(ProfileFileError) as caught:
        load_profile(path)
    assert caught.value.code == "PROFILE_INVALID"
    assert caught.value.hint
    return [fault.key for fault in caught.value.faults]


def test_each_level_has_a_profile_and_each_is_larger_than_the_one_below() -> None:
    """City, county, township, village."""
    assert tuple(CareLevel) == PROFILE_NAMES
    profiles = [load_profile(name) for name in PROFILE_NAMES]
    assert [profile.level for profile in profiles] == list(CareLevel)
    for above, below in pairwise(profiles):
        assert above.cores > below.cores
        assert above.memory_used_mb > below.memory_used_mb
        assert above.grpc_workers > below.grpc_workers


def test_a_village_fits_a_small_pc() -> None:
    """2 cores, 2 GiB with the clinic's own program beside it, no Ray, no Redis."""
    assert (VILLAGE.cores, VILLAGE.ray, VILLAGE.redis) == (2, False, False)
    assert VILLAGE.memory_mb <= 4096
    assert VILLAGE.memory_used_mb <= 512


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_lets_the_largest_bundle_through(name: str) -> None:
    """A bundle of 1 MiB in its envelope is under the limit of a call."""
    assert load_profile(name).rpc_max_bytes > BUNDLE_BYTES_MAX


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_what_is_written_loads_to_the_same_profile(name: str, tmp_path: Path) -> None:
    """So that a proposal can be kept as a file."""
    path = tmp_path / "profile.yaml"
    path.write_text(profile_text(load_profile(name)), encoding="utf-8")
    assert load_profile(path) == load_profile(name) == load_profile(str(path))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"columnar_threads": 3}, "columnar_threads of at most cores"),
        ({"ray": True}, "ray_workers above 0"),
        ({"ray_workers": 1}, "ray_workers above 0"),
        ({"ray": True, "ray_workers": 1}, "ray_object_store_mb of at least 80"),
        ({"ray": True, "ray_workers": 3, "ray_object_store_mb": 80}, "ray_workers of at most"),
        ({"ray_object_store_mb": 80}, "0 without"),
        ({"database_pool": 5}, "database_pool of at least"),
        ({"grpc_workers": 10, "database_pool": 12}, "max_connections of at least"),
        ({"window_bytes": 65535}, "window_bytes of at least"),
        ({"memory_mb": 512}, "within three quarters of memory_mb"),
    ],
)
def test_refuses_values_that_do_not_fit_together(changes: dict[str, Any], expected: str) -> None:
    """Each relation is named with what would be right."""
    with pytest.raises(ValidationError, match=expected):
        HardwareProfile.model_validate(changed(changes))


def test_reports_every_fault_of_a_file_together(tmp_path: Path) -> None:
    """Unknown, missing, out of range and of the wrong type, each with its key."""
    path = tmp_path / "profile.yaml"
    document = changed({"colour": "red", "cores": 0, "cache_mb": "16", "ray": "no"})
    del document["level"]
    document["mariadb"] = {**document["mariadb"], "speed": 9}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert sorted(keys(path)) == ["cache_mb", "colour", "cores", "level", "mariadb.speed", "ray"]


def test_a_profile_that_is_not_there_is_a_fault_of_its_file(tmp_path: Path) -> None:
    """A name that no level has is taken for a path."""
    assert keys(tmp_path / "none.yaml") == ["(file)"]
    assert keys(Path("hospital")) == ["(file)"]


def test_a_profile_never_changes() -> None:
    """Frozen, inner part included."""
    with pytest.raises(ValidationError):
        VILLAGE.cores = 4  # type: ignore[misc]
    with pytest.raises(ValidationError):
        VILLAGE.mariadb.max_connections = 4  # type: ignore[misc]
