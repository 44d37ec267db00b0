"""What a machine has, and the profile proposed for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import (
    PROFILE_NAMES,
    Machine,
    detect,
    fit,
    load_profile,
    read_machine,
)
from hardware_profiles.errors import MachineTooSmallError


def fake_root(root: Path, files: dict[str, str]) -> Path:
    """A tree with /proc/meminfo of 8 GiB and these files."""
    for name, text in {"proc/meminfo": "MemTotal:        8388608 kB\nx: 1\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("files", "memory_mb"),
    [
        ({}, 8192),
        ({"sys/fs/cgroup/memory.max": "max\n"}, 8192),
        ({"sys/fs/cgroup/memory.max": "2147483648\n"}, 2048),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n"}, 1024),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8192),
    ],
)
def test_memory_is_the_machines_or_the_control_groups(
    tmp_path: Path, files: dict[str, str], memory_mb: int
) -> None:
    """Both versions of control groups; no limit is none."""
    root = fake_root(tmp_path, files)
    assert read_machine(tmp_path, root=root).memory_mb == memory_mb


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/cpu.max": "100000 100000\n"},
        {"sys/fs/cgroup/cpu.max": "50000 100000\n"},
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    ],
)
def test_cores_are_at_most_the_control_groups_and_at_least_one(
    tmp_path: Path, files: dict[str, str]
) -> None:
    """One core, or half of one, is one."""
    assert read_machine(tmp_path, root=fake_root(tmp_path, files)).cores == 1


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/cpu.max": "max 100000\n"},
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    ],
)
def test_no_limit_of_cores_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    """As many as without control groups."""
    plain = read_machine(tmp_path, root=fake_root(tmp_path / "plain", {}))
    assert read_machine(tmp_path, root=fake_root(tmp_path / "group", files)).cores == plain.cores


def test_reads_this_machine(tmp_path: Path) -> None:
    """Real values are above nothing."""
    here = read_machine(tmp_path)
    assert here.cores >= 1
    assert here.memory_mb > 100
    assert here.disk_free_mb > 0


@pytest.mark.parametrize(
    ("machine", "level"),
    [
        (Machine(16, 65536, 500_000), "city"),
        (Machine(32, 262_144, 500_000), "city"),
        (Machine(15, 65536, 500_000), "county"),
        (Machine(8, 31_900, 500_000), "county"),
        (Machine(4, 8000, 100_000), "township"),
        (Machine(64, 4096, 100_000), "village"),
        (Machine(1, 1024, 10_000), "village"),
    ],
)
def test_proposes_the_highest_level_that_the_machine_carries(machine: Machine, level: str) -> None:
    """A little memory kept by firmware does not count against it."""
    assert detect(machine).profile.level == level


def test_says_what_it_lowered() -> None:
    """A village's profile on one core and 1 GiB."""
    proposal = detect(Machine(1, 1024, 2000))
    assert proposal.profile.cores == 1
    assert proposal.profile.memory_mb == 1024
    assert {"cores", "memory_mb", "disk_free_min_mb"} <= set(proposal.lowered)
    assert detect(Machine(2, 2048, 100_000)).lowered == ()


machines = st.builds(
    Machine,
    cores=st.integers(1, 256),
    memory_mb=st.integers(640, 1 << 20),
    disk_free_mb=st.integers(0, 1 << 24),
)


@given(machines, st.sampled_from(PROFILE_NAMES))
def test_every_level_fits_every_machine_of_640_mib(machine: Machine, level: str) -> None:
    """The fitted profile is sound and takes no more than the machine and the level allow."""
    shipped = load_profile(level)
    fitted = fit(shipped, machine)
    assert fitted.level == level
    assert fitted.cores <= min(machine.cores, shipped.cores)
    assert fitted.memory_used_mb <= min(machine.memory_mb, shipped.memory_mb) * 3 // 4
    assert fitted.ray == shipped.ray


@given(st.sampled_from(PROFILE_NAMES))
def test_fitting_a_profile_to_its_own_machine_changes_nothing(level: str) -> None:
    """The shipped values are what the described machine carries."""
    shipped = load_profile(level)
    assert fit(shipped, Machine(shipped.cores, shipped.memory_mb, 1 << 20)) == shipped


def test_refuses_a_machine_that_carries_no_node() -> None:
    """With the least that it needs."""
    with pytest.raises(MachineTooSmallError, match="640"):
        detect(Machine(2, 512, 10_000))
