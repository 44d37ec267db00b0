"""The base of every error in Fenhe.

An error answers two questions by its type: whose fault it is, and whether trying again may help.

    FenheError
    ├── HierarchyError      (hierarchy_config)
    ├── ProfileError        (hardware_profiles)
    ├── ReplicationError    (replication)
    ├── FederationError     (federation)
    └── NodeError           (node)

`code` is stable and stands in docs/errors.md. Neither the message nor the hint ever holds patient
data: both may be logged and sent to a peer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

__all__ = ["Fault", "FenheError", "HierarchyError"]


class Fault(StrEnum):
    """Whose fault an error is."""

    CALLER = "caller"
    PEER = "peer"
    OPERATOR = "operator"
    HERE = "here"


class FenheError(Exception):
    """Base of all errors raised by Fenhe's own code."""

    code: ClassVar[str] = "FENHE_ERROR"
    fault: ClassVar[Fault] = Fault.HERE
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint

    @property
    def message(self) -> str:
        """The sentence without the hint."""
        return str(self.args[0])


class HierarchyError(FenheError):
    """The hierarchy file, or a question about it, is wrong."""

    code = "HIERARCHY_ERROR"
    fault = Fault.OPERATOR
