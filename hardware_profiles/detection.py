"""What this machine has, and the profile that suits it.

Looks at the limits of the control group first: in a container /proc/meminfo tells of the host.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hardware_profiles.errors import MachineTooSmallError
from hardware_profiles.profile import (
    PROCESS_MEMORY_MB,
    PROFILE_NAMES,
    HardwareProfile,
    load_profile,
)

__all__ = ["Machine", "Proposal", "detect", "fit", "read_machine"]

# A cgroup without a limit says "max" (v2) or a number near 2**63 (v1).
_UNLIMITED_BYTES: Final = 1 << 60
_MEMORY_LEAST_MB: Final = 640
# A twentieth of the memory, at 0.95 MiB for a thousand residents.
_MATCHED_A_MB: Final = 50
# Below these DuckDB, Ray and MariaDB do not start or do nothing but swap.
_LEAST_MB: Final = {
    "cache_mb": 4,
    "columnar_memory_mb": 32,
    "ray_object_store_mb": 80,
    "innodb_buffer_pool_mb": 16,
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node may use here: cores, memory and free disk in MiB."""

    cores: int
    memory_mb: int
    disk_free_mb: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A profile for a machine. `lowered` names the values that are below the shipped profile's."""

    machine: Machine
    profile: HardwareProfile
    lowered: tuple[str, ...]


def detect(machine: Machine | None = None, *, level: str | None = None) -> Proposal:
    """Propose a profile: the highest level whose cores and memory are here, fitted to the machine.

    Args:
        machine: Default: this one.
        level: Propose for that level, however small the machine is.
    """
    here = machine or read_machine()
    base = load_profile(level) if level else _highest(here)
    profile = fit(base, here)
    before, after = base.model_dump(), profile.model_dump()
    lowered = tuple(key for key in before if before[key] != after[key])
    return Proposal(here, profile, lowered)


def _highest(machine: Machine) -> HardwareProfile:
    shipped = [load_profile(name) for name in PROFILE_NAMES]
    for profile in shipped:
        # Firmware and kernel keep some of the memory that was bought.
        if machine.cores >= profile.cores and machine.memory_mb >= profile.memory_mb * 9 // 10:
            return profile
    return shipped[-1]


def fit(profile: HardwareProfile, machine: Machine) -> HardwareProfile:
    """Return the profile with nothing above what the machine has; the level stays.

    Memory is cut in proportion down to each value's least. Never raises a value.

    Raises:
        MachineTooSmallError: Even the least values do not fit.
    """
    if machine.memory_mb < _MEMORY_LEAST_MB:
        raise MachineTooSmallError(
            f"this machine has {machine.memory_mb} MiB of memory, a node needs {_MEMORY_LEAST_MB}"
        )
    cores = min(profile.cores, machine.cores)
    memory_mb = min(profile.memory_mb, machine.memory_mb)
    sizes = _fitted_sizes(profile, memory_mb * 3 // 4 - PROCESS_MEMORY_MB)
    changes: dict[str, Any] = {
        "cores": cores,
        "memory_mb": memory_mb,
        "columnar_threads": min(profile.columnar_threads, cores),
        "ray_workers": min(profile.ray_workers, cores),
        "matching_residents_max": min(profile.matching_residents_max, memory_mb * _MATCHED_A_MB),
        "disk_free_min_mb": min(profile.disk_free_min_mb, max(64, machine.disk_free_mb // 10)),
        "mariadb": {
            **profile.mariadb.model_dump(),
            "innodb_buffer_pool_mb": sizes.pop("innodb_buffer_pool_mb"),
        },
        **sizes,
    }
    return HardwareProfile.model_validate({**profile.model_dump(), **changes})


def _fitted_sizes(profile: HardwareProfile, room_mb: int) -> dict[str, int]:
    """The memory sizes of a profile, cut so that together they fit into the room.

    Each keeps its least; of what lies above the least, all keep the same part.
    """
    sizes = {
        "cache_mb": profile.cache_mb,
        "columnar_memory_mb": profile.columnar_memory_mb,
        "ray_object_store_mb": profile.ray_object_store_mb,
        "innodb_buffer_pool_mb": profile.mariadb.innodb_buffer_pool_mb,
    }
    least = {name: min(size, _LEAST_MB[name]) for name, size in sizes.items()}
    above = sum(sizes.values()) - sum(least.values())
    part = min(1.0, max(0, room_mb - sum(least.values())) / max(1, above))
    return {name: least[name] + int((sizes[name] - least[name]) * part) for name in sizes}


def read_machine(folder: Path = Path(), *, root: Path = Path("/")) -> Machine:
    """Read what the node may use: `folder` is on the disk that will hold its data.

    `root` is where proc and sys are mounted.
    """
    group = root / "sys/fs/cgroup"
    cores = float(len(os.sched_getaffinity(0)))
    for limit in (_cores_v2(group), _cores_v1(group)):
        cores = min(cores, limit) if limit else cores
    memory = _memory_of_machine(root)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit_bytes = _number(group / name)
        if limit_bytes and limit_bytes < _UNLIMITED_BYTES:
            memory = min(memory, limit_bytes)
    return Machine(
        cores=max(1, int(cores)),
        memory_mb=memory >> 20,
        disk_free_mb=shutil.disk_usage(folder).free >> 20,
    )


def _memory_of_machine(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return 0


def _cores_v2(group: Path) -> float | None:
    try:
        quota, _, period = (group / "cpu.max").read_text(encoding="ascii").partition(" ")
    except OSError:
        return None
    return int(quota) / int(period) if quota.isdigit() else None


def _cores_v1(group: Path) -> float | None:
    quota = _number(group / "cpu/cpu.cfs_quota_us")
    period = _number(group / "cpu/cpu.cfs_period_us")
    return quota / period if quota and period else None


def _number(path: Path) -> int | None:
    """Return the whole number in a file; None if there is no such file or no limit in it."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
