"""Errors of the audit.

AuditError
├── AuditUnanchoredError        no other node holds the audit's end: what reads in bulk stops
├── AuditReadsStoppedError      for longer than the profile allows: reading stops altogether
├── AuditNoRoomError            the room kept for the audit on the disk is used up
├── AuditTryLaterError          a neighbour does not keep more of it for the moment
├── AuditStatementError         a neighbour's statement is none, or not its own
│   └── AuditSignerUnknownError     nothing here can say whether it is
├── AuditContradictedError      a head contradicts what was anchored before
├── AuditFindingUnknownError    there is nothing of that node to accept
└── AuditExportCutError         an export came without its end, or altered
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "AuditContradictedError",
    "AuditError",
    "AuditExportCutError",
    "AuditFindingUnknownError",
    "AuditNoRoomError",
    "AuditReadsStoppedError",
    "AuditSignerUnknownError",
    "AuditStatementError",
    "AuditTryLaterError",
    "AuditUnanchoredError",
]

_LINK = "See the link to the parent (at the root: to a child) in `fenhe node status`"


class AuditError(NodeError):
    """Base of this room's errors."""

    code = "AUDIT_ERROR"


class AuditUnanchoredError(AuditError):
    """The end of this node's audit has been held by no other node for four hours."""

    code = "AUDIT_UNANCHORED"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = (
        f"{_LINK}; once it is up, and the neighbour is of a release that anchors, this ends by "
        "itself within a minute. Care for residents goes on meanwhile, page by page."
    )


class AuditReadsStoppedError(AuditError):
    """The audit has been unanchored for longer than the profile allows: nothing is read."""

    code = "AUDIT_READS_STOPPED"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = (
        f"{_LINK}, or raise audit_unanchored_hours in the profile if no line can reach this node;"
        " writing goes on. In an emergency a doctor or nurse who has signed in reads one resident"
        " by `fenhe access break-glass`."
    )


class AuditNoRoomError(AuditError):
    """The disk is so full that an entry of the audit may not fit: nothing is read."""

    code = "AUDIT_NO_ROOM"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = "Free space on the node's disk at once; reading resumes by itself."


class AuditTryLaterError(AuditError):
    """The node that was asked keeps no more for the moment: its disk is full, or it was too soon.

    It passes: the head is anchored at a later try. What the asking node does meanwhile is said in
    its own time limits, AUDIT_UNANCHORED and AUDIT_READS_STOPPED.
    """

    code = "AUDIT_TRY_LATER"
    fault = Fault.PEER
    retryable = True
    default_hint = "Nothing if it passes; if it lasts, free space on the disk of the node named."


class AuditStatementError(AuditError):
    """What a neighbour says of an audit is not of this protocol, or not signed by it."""

    code = "AUDIT_STATEMENT_INVALID"
    fault = Fault.PEER
    default_hint = "Compare the versions, clocks and certificates of both nodes."


class AuditSignerUnknownError(AuditStatementError):
    """A statement's certificate is not here, or carries a name of a former hierarchy."""

    code = "AUDIT_SIGNER_UNKNOWN"
    default_hint = "Compare with the anchors that the node itself holds, while it is linked."


class AuditContradictedError(AuditError):
    """A head of the audit contradicts one that the same node had anchored before."""

    code = "AUDIT_CONTRADICTED"
    fault = Fault.PEER
    default_hint = (
        "Run `fenhe audit verify` at that node: it names the first entry that differs. Find out who"
        " changed its database; only then let it begin anew: `fenhe audit accept CODE`, at the node"
        " that anchors."
    )


class AuditFindingUnknownError(AuditError):
    """No contradiction of that node is open here."""

    code = "AUDIT_FINDING_UNKNOWN"
    fault = Fault.CALLER
    default_hint = "Ask at the node that raised the alarm AUDIT_CONTRADICTED: the parent."


class AuditExportCutError(AuditError):
    """An export of the audit ended without its count and digest, or they do not fit."""

    code = "AUDIT_EXPORT_CUT"
    fault = Fault.PEER
    retryable = True
    default_hint = "Delete what was written and export again."
