"""Errors of hardware profiles: always the operator's to correct."""

from __future__ import annotations

from hierarchy_config.config_file import ConfigFault
from hierarchy_config.errors import Fault, FenheError

__all__ = ["MachineTooSmallError", "ProfileError", "ProfileFileError"]


class ProfileError(FenheError):
    """Base of this room's errors."""

    code = "PROFILE_ERROR"
    fault = Fault.OPERATOR


class ProfileFileError(ProfileError):
    """A profile file is not one; `faults` holds all that is wrong with it."""

    code = "PROFILE_INVALID"
    default_hint = "Correct each line named above; `fenhe profile show village` prints a sound one."

    def __init__(self, faults: tuple[ConfigFault, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


class MachineTooSmallError(ProfileError):
    """The machine has less memory than the smallest node needs."""

    code = "MACHINE_TOO_SMALL"
    default_hint = "Give the node's machine or container at least 640 MiB of memory."
