"""Errors of files on a stick.

NodeError
├── StickFileError        it is no such file, or not whole, or was altered
├── StickAddresseeError   it is for another node, or from one that is no neighbour
└── StickKeyMissingError  the neighbour's certificate is not known here
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = ["StickAddresseeError", "StickFileError", "StickKeyMissingError"]


class StickFileError(NodeError):
    """What was read is no bundle of this program, or was altered or cut on its way."""

    code = "STICK_FILE_INVALID"
    fault = Fault.CALLER
    default_hint = (
        "Copy the file anew from the node that wrote it; what was applied before the fault stays."
    )


class StickAddresseeError(NodeError):
    """A bundle opens only at the neighbour that it was written for."""

    code = "STICK_NOT_FOR_HERE"
    fault = Fault.CALLER
    default_hint = "Carry it to the node that its writer named: fenhe replication export PEER FILE."


class StickKeyMissingError(NodeError):
    """A bundle is sealed to the neighbour's certificate, which comes with its link or its files."""

    code = "STICK_KEY_MISSING"
    fault = Fault.OPERATOR
    default_hint = (
        "Write a bundle at the neighbour first and import it here: it brings the certificate; or "
        "let the two be linked once."
    )
