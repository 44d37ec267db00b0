"""What one node may use of its machine, and the reading of the files that say so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from hardware_profiles.errors import ProfileFileError
from hierarchy_config.config_file import FaultList, read_text, read_yaml, report_shape
from hierarchy_config.model import CareLevel

__all__ = [
    "BUNDLE_BYTES_MAX",
    "PROCESS_MEMORY_MB",
    "PROFILE_NAMES",
    "HardwareProfile",
    "MariadbProfile",
    "load_profile",
    "profile_text",
]

_FOLDER: Final = Path(__file__).parent / "profiles"

PROFILE_NAMES: Final = tuple(level.value for level in CareLevel)

PROCESS_MEMORY_MB: Final = 256
"""What the node's own process takes beside its caches: about 90 MB resident, and room to work."""

BUNDLE_BYTES_MAX: Final = 1 << 20
"""The largest bundle a clinic may put; rpc_max_bytes has to let it through."""

_FRAME_OVERHEAD_BYTES: Final = 64 << 10

_HOUR: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_SPAN: Final = f"{_HOUR}-(?:{_HOUR}|24:00)"
_HOURS: Final = f"^{_SPAN}(?:,{_SPAN})*$"


def _whole(least: int, most: int) -> object:
    return Field(ge=least, le=most, strict=True)


Cores = Annotated[int, _whole(1, 1024)]
Workers = Annotated[int, _whole(1, 512)]
Megabytes = Annotated[int, _whole(1, 4 << 20)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MariadbProfile(_Model):
    """The node's own MariaDB server; durability is not a setting and stands in no profile."""

    innodb_buffer_pool_mb: Annotated[int, _whole(16, 1 << 20)]
    innodb_log_file_mb: Annotated[int, _whole(8, 65536)]
    max_connections: Annotated[int, _whole(10, 10_000)]


class HardwareProfile(_Model):
    """Limits of one node. Sizes in MiB (`_mb`) or bytes (`_bytes`).

    Raises:
        pydantic.ValidationError: A value is out of its range, or the values together ask for more
            than the machine described has. `load_profile` turns it into a ProfileFileError.
    """

    level: CareLevel
    cores: Cores
    memory_mb: Megabytes

    grpc_workers: Workers
    database_pool: Workers
    rpc_max_bytes: Annotated[int, _whole(BUNDLE_BYTES_MAX + _FRAME_OVERHEAD_BYTES, 64 << 20)]
    calls_per_s: Annotated[int, _whole(1, 1_000_000)] = 200
    calls_at_once: Annotated[int, _whole(8, 100_000)] = 64
    lookups_per_minute: Annotated[int, _whole(1, 100_000)] = 60
    cache_mb: Megabytes
    redis: StrictBool

    batch_bytes_max: Annotated[int, _whole(4096, 1 << 20)]
    window_bytes: Annotated[int, _whole(4096, 64 << 20)]

    verify_rows_s: Annotated[int, _whole(0, 1_000_000)] = 200

    reseal_rows_s: Annotated[int, _whole(1, 1_000_000)] = 200

    intake_rows_s: Annotated[int, _whole(0, 10_000_000)] = 0
    intake_hours: Annotated[str, Field(pattern=_HOURS)] = "00:00-24:00"

    matching_residents_max: Annotated[int, _whole(0, 100_000_000)] = 10_000
    matching_percent: Annotated[int, _whole(1, 100)] = 25

    columnar_threads: Cores
    columnar_memory_mb: Annotated[int, _whole(32, 1 << 20)]
    columnar_segment_rows: Annotated[int, _whole(1000, 100_000_000)]
    query_concurrency: Workers

    ray: StrictBool
    ray_workers: Annotated[int, _whole(0, 1024)]
    ray_object_store_mb: Annotated[int, _whole(0, 1 << 20)]

    disk_free_min_mb: Megabytes
    disk_free_min_percent: Annotated[int, _whole(1, 50)]

    log_keep_mb: Megabytes = 1024
    log_keep_days: Annotated[int, _whole(1, 3650)] = 30

    audit_unanchored_hours: Annotated[int, _whole(4, 87_600)] = 48

    mariadb: MariadbProfile

    @property
    def memory_used_mb(self) -> int:
        """The most memory that the node with its own database takes, in MiB."""
        return (
            PROCESS_MEMORY_MB
            + self.cache_mb
            + self.columnar_memory_mb
            + self.ray_object_store_mb
            + self.mariadb.innodb_buffer_pool_mb
        )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        wrong = [expected for holds, expected in self._relations() if not holds]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _relations(self) -> tuple[tuple[bool, str], ...]:
        return (
            (self.columnar_threads <= self.cores, "columnar_threads of at most cores"),
            (self.ray_workers <= self.cores, "ray_workers of at most cores"),
            (self.ray == (self.ray_workers > 0), "ray_workers above 0 exactly when ray is on"),
            # Ray refuses to start with a smaller store.
            (
                self.ray_object_store_mb >= 80 if self.ray else self.ray_object_store_mb == 0,
                "ray_object_store_mb of at least 80 with ray, 0 without",
            ),
            # The links, the sequencer and the columnar feed need connections of their own.
            (
                self.database_pool >= self.grpc_workers + 2,
                "database_pool of at least grpc_workers + 2",
            ),
            (
                self.mariadb.max_connections >= self.database_pool + 4,
                "mariadb.max_connections of at least database_pool + 4",
            ),
            (
                self.window_bytes >= self.batch_bytes_max,
                "window_bytes of at least batch_bytes_max",
            ),
            (
                self.rpc_max_bytes >= self.batch_bytes_max + _FRAME_OVERHEAD_BYTES,
                "rpc_max_bytes of at least batch_bytes_max + 65536",
            ),
            (
                self.memory_used_mb <= self.memory_mb * 3 // 4,
                (
                    f"{self.memory_used_mb} MB of the process, caches, columnar replica, Ray and "
                    "MariaDB within three quarters of memory_mb"
                ),
            ),
        )


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Read a profile: the shipped one of that name (a level), or a file.

    Raises:
        ProfileFileError: With every fault of the file.
    """
    named = isinstance(name_or_path, str) and name_or_path in PROFILE_NAMES
    path = _FOLDER / f"{name_or_path}.yaml" if named else Path(name_or_path)
    faults = FaultList(str(path))
    text = read_text(path, faults.report)
    document = read_yaml(text, faults.report) if text is not None else None
    if document is not None:
        try:
            return HardwareProfile.model_validate(document)
        except ValidationError as error:
            report_shape(error, HardwareProfile, faults.report)
    raise ProfileFileError(faults.all())


def profile_text(profile: HardwareProfile) -> str:
    """Return a profile as the text of a profile file that loads to the same profile."""
    return yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False)
