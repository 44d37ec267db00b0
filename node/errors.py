"""Errors of the node itself, and the one table that says how an error leaves the process.

NodeError
├── SettingsError           a file of the data folder is wrong
├── DataFolderInUseError    another process holds it
├── PortInUseError
├── InvalidRequestError     the caller's message
├── NotFoundError           unknown, or outside the caller's scope: the two look the same
├── DeniedError
├── NotANeighbourError      a node was named that is not linked to this one
└── DiskFullError           below the watermark: writes are refused, reads go on
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import grpc

from hierarchy_config.errors import Fault, FenheError

__all__ = [
    "STATUS_BY_CODE",
    "DataFolderInUseError",
    "DeniedError",
    "DiskFullError",
    "InvalidRequestError",
    "NodeError",
    "NotANeighbourError",
    "NotFoundError",
    "PortInUseError",
    "PublicStatus",
    "PurposeError",
    "SettingsError",
    "public_status",
    "said_node",
]


class NodeError(FenheError):
    """Base of this room's errors."""

    code = "NODE_ERROR"


class SettingsError(NodeError):
    """A setting in the data folder is missing or wrong."""

    code = "SETTINGS_INVALID"
    fault = Fault.OPERATOR
    default_hint = "Correct the named file and start the node again."


class DataFolderInUseError(NodeError):
    """A second process was started on a data folder that a node holds."""

    code = "DATA_FOLDER_IN_USE"
    fault = Fault.OPERATOR
    default_hint = "Stop the other process first; one data folder serves one node."


class PortInUseError(NodeError):
    """Another program listens on the node's address."""

    code = "PORT_IN_USE"
    fault = Fault.OPERATOR
    default_hint = "Choose another port in node.yaml (listen), or stop the other program."


class InvalidRequestError(NodeError):
    """The caller's message breaks a rule; nothing was stored."""

    code = "INVALID_REQUEST"
    fault = Fault.CALLER
    default_hint = "Correct what the sentence names, and send it again; nothing was stored."


class NotFoundError(NodeError):
    """No such thing, or not for this caller: the two are told apart nowhere."""

    code = "NOT_FOUND"
    fault = Fault.CALLER
    default_hint = "Compare the id, and ask at a node that holds the record or the resident."


class DeniedError(NodeError):
    """The caller may not use this method."""

    code = "DENIED"
    fault = Fault.CALLER
    default_hint = (
        "Use credentials of a kind that the method allows: docs/permissions.md lists who may call"
        " it; staff sign in first."
    )


class PurposeError(NodeError):
    """The purpose that a caller stated is none for which this method is called."""

    code = "PURPOSE_NOT_ALLOWED"
    fault = Fault.CALLER
    default_hint = (
        "State one of the purposes that docs/permissions.md lists for the method in the metadata"
        " fenhe-purpose, or none."
    )


class DiskFullError(NodeError):
    """Free space is below the profile's watermark."""

    code = "DISK_FULL"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = "Free space on the data folder's disk; reads go on, writes resume by themselves."


class NotANeighbourError(NodeError):
    """Only the parent and the children of a node are linked to it."""

    code = "NOT_A_NEIGHBOUR"
    fault = Fault.CALLER
    default_hint = "Name division codes as `fenhe node status` lists them under its links."


@dataclass(frozen=True, slots=True)
class PublicStatus:
    """How an error looks from outside: gRPC status, HTTP status."""

    grpc: grpc.StatusCode
    http: int


_INVALID: PublicStatus = PublicStatus(grpc.StatusCode.INVALID_ARGUMENT, 400)
_PRECONDITION = PublicStatus(grpc.StatusCode.FAILED_PRECONDITION, 409)
_UNAVAILABLE = PublicStatus(grpc.StatusCode.UNAVAILABLE, 503)
_DENIED = PublicStatus(grpc.StatusCode.PERMISSION_DENIED, 403)
_UNAUTHENTICATED = PublicStatus(grpc.StatusCode.UNAUTHENTICATED, 401)
_TOO_MUCH = PublicStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429)
_INTERNAL = PublicStatus(grpc.StatusCode.INTERNAL, 500)

STATUS_BY_CODE: MappingProxyType[str, PublicStatus] = MappingProxyType(
    {
        "INVALID_REQUEST": _INVALID,
        "INTAKE_EXTRA_MISSING": _PRECONDITION,
        "MAPPING_INVALID": _INVALID,
        "MAPPING_COLUMNS": _INVALID,
        "CONTENT_UNREADABLE": _INVALID,
        "CONTENT_DANGEROUS": _INVALID,
        "CONTENT_INCOMPLETE": _PRECONDITION,
        "RUN_STATE": _PRECONDITION,
        "QUARANTINED_UNIT": PublicStatus(grpc.StatusCode.NOT_FOUND, 404),
        "SOURCE_UNREACHABLE": _UNAVAILABLE,
        "MATCHING_OFF": _PRECONDITION,
        "MATCHING_NOT_READY": _UNAVAILABLE,
        "NOT_FOUND": PublicStatus(grpc.StatusCode.NOT_FOUND, 404),
        "DENIED": _DENIED,
        "PURPOSE_NOT_ALLOWED": _DENIED,
        "PEER_IDENTITY": _UNAUTHENTICATED,
        "PEER_REVOKED": _DENIED,
        "SIGNATURE_INVALID": _UNAUTHENTICATED,
        "DISK_FULL": PublicStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
        "RECOVERING": _UNAVAILABLE,
        "EXTRA_MISSING": _PRECONDITION,
        "RAY_UNAVAILABLE": _UNAVAILABLE,
        "REQUEST_ID_REUSED": PublicStatus(grpc.StatusCode.ALREADY_EXISTS, 409),
        "DUPLICATE_IDENTIFIER": PublicStatus(grpc.StatusCode.ALREADY_EXISTS, 409),
        "NOT_AUTHOR": _PRECONDITION,
        "UNKNOWN_RESIDENT": _PRECONDITION,
        "UNKNOWN_RECORD": _PRECONDITION,
        "RESIDENT_MOVED": _PRECONDITION,
        "MERGE_NOT_HERE": _PRECONDITION,
        "MERGE_STANDS": _PRECONDITION,
        "MERGE_TOLD_APART": _PRECONDITION,
        "MERGE_TOO_LARGE": _PRECONDITION,
        "MERGE_UNKNOWN": PublicStatus(grpc.StatusCode.NOT_FOUND, 404),
        "RESIDENT_IN_TRANSFER": _UNAVAILABLE,
        "KEY_PURPOSE": _INVALID,
        "KEYS_BUSY": _UNAVAILABLE,
        "ESCROW_MISSING": PublicStatus(grpc.StatusCode.NOT_FOUND, 404),
        "ESCROW_INVALID": _PRECONDITION,
        "AUDIT_UNANCHORED": _UNAVAILABLE,
        "AUDIT_READS_STOPPED": _UNAVAILABLE,
        "AUDIT_NO_ROOM": PublicStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
        "AUDIT_TRY_LATER": _UNAVAILABLE,
        "AUDIT_FINDING_UNKNOWN": PublicStatus(grpc.StatusCode.NOT_FOUND, 404),
        "RATE_LIMITED": _TOO_MUCH,
        "LOOKUPS_LIMITED": _TOO_MUCH,
        "TOO_MANY_CALLS": _TOO_MUCH,
        "OVERLOADED": PublicStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 503),
        "DOOR_BUSY": PublicStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        "JOIN_REFUSED": _DENIED,
        "JOIN_SPENT": _DENIED,
        "JOIN_EXPIRED": _DENIED,
        "JOIN_USED": _DENIED,
        "JOIN_WITHDRAWN": _DENIED,
        "NOT_YOUR_DIVISION": _DENIED,
        "ROLE_LACKED": _DENIED,
        "PEOPLE_ENDED": _PRECONDITION,
        "ACCOUNT_EXISTS": PublicStatus(grpc.StatusCode.ALREADY_EXISTS, 409),
        "SIGN_IN_REFUSED": _UNAUTHENTICATED,
        "SIGN_IN_BUSY": PublicStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        "PASSWORD_MUST_CHANGE": _PRECONDITION,
        "ORGANIZATION_NEEDED": _PRECONDITION,
        "NO_ROLE_TODAY": _DENIED,
        "SESSION_ENDED": _UNAUTHENTICATED,
        "SESSION_NEEDED": _UNAUTHENTICATED,
        "MOVE_NOT_NEEDED": _PRECONDITION,
        "MOVE_REFUSED": _PRECONDITION,
        "CONSENT_NOT_AT_HOME": _PRECONDITION,
        "ACCESS_UNKNOWN": PublicStatus(grpc.StatusCode.NOT_FOUND, 404),
        "ACCESS_NOT_AUTHOR": _PRECONDITION,
        "BREAK_GLASS_NOBODY": _DENIED,
        "GRANT_BORROWED": _DENIED,
        "REVIEW_OF_ONESELF": _DENIED,
        "PROPOSAL_UNKNOWN": PublicStatus(grpc.StatusCode.NOT_FOUND, 404),
    }
)
"""Codes with a status of their own; the others follow the fault (public_status)."""

_BY_FAULT = MappingProxyType(
    {
        Fault.CALLER: _INVALID,
        Fault.PEER: _UNAVAILABLE,
        Fault.OPERATOR: _PRECONDITION,
        Fault.HERE: _INTERNAL,
    }
)


def said_node(text: str) -> str:
    """A division code that a caller named, for a sentence; anything else he wrote stays out."""
    return text if text.isdecimal() and text.isascii() and len(text) <= 16 else "what was named"


def public_status(error: FenheError) -> PublicStatus:
    """The status an error leaves the process with."""
    return STATUS_BY_CODE.get(error.code, _BY_FAULT[error.fault])
