"""What a node may use of its machine at each level.

Owns the profiles (memory, workers, cache, batch sizes, DuckDB, Ray, the disk's reserve), the
MariaDB configuration made from them, and the proposal of a profile for a machine. Promises that a
profile in hand fits together and into its own machine. Never starts or measures anything.
"""

from __future__ import annotations

from hardware_profiles.detection import Machine, Proposal, detect, fit, read_machine
from hardware_profiles.errors import MachineTooSmallError, ProfileError, ProfileFileError
from hardware_profiles.mariadb import SocketPathError, mariadb_configuration
from hardware_profiles.profile import (
    BUNDLE_BYTES_MAX,
    PROFILE_NAMES,
    HardwareProfile,
    MariadbProfile,
    load_profile,
    profile_text,
)

__all__ = [
    "BUNDLE_BYTES_MAX",
    "PROFILE_NAMES",
    "HardwareProfile",
    "Machine",
    "MachineTooSmallError",
    "MariadbProfile",
    "ProfileError",
    "ProfileFileError",
    "Proposal",
    "SocketPathError",
    "detect",
    "fit",
    "load_profile",
    "mariadb_configuration",
    "profile_text",
    "read_machine",
]
