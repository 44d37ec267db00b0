"""Errors of replication: whose fault, and will a retry help."""

from __future__ import annotations

from hierarchy_config.errors import Fault, FenheError

__all__ = ["LocalProtocolError", "RemoteProtocolError", "ReplicationError"]


class ReplicationError(FenheError):
    """Base of this room's errors."""

    code = "REPLICATION_ERROR"


class LocalProtocolError(ReplicationError):
    """This end tried what the protocol does not allow: a defect here."""

    code = "LOCAL_PROTOCOL_ERROR"
    default_hint = "This is a defect of this node's program; keep its log and report it."


class RemoteProtocolError(ReplicationError):
    """The peer broke the protocol; the link is closed and dialled again."""

    code = "REMOTE_PROTOCOL_ERROR"
    fault = Fault.PEER
    retryable = True
    default_hint = "Compare the versions of both nodes; if they agree, look at the peer's log."
