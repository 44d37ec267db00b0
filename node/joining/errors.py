"""Errors of joining: at the parent who invites, at the door, at the child who knocks.

JoinError
├── InviteNotChildError       only a node directly below is invited
├── DoorClosedError           this node's door is not open
├── DoorBusyError             too many have knocked; try later
├── InvitationRefusedError    a wrong code, or nobody is invited: the two look the same
│   ├── InvitationSpentError      the rest is said to those alone who have proven the code
│   ├── InvitationExpiredError
│   ├── InvitationUsedError
│   └── InvitationWithdrawnError
├── JoinClockError            one of the two clocks is wrong
├── JoinPseudonymError        the county that is to lend its key does not answer
├── JoinCodeError             what was typed is no code
├── DoorUnreachableError      nobody opens, or it is no door
├── JoinStretchError          the door asks for less work on the code than is safe
├── JoinProofError            who answered does not know the code
├── JoinAnswerError           the answer is proven, and cannot be used
├── JoinFolderError           the folder is not free
└── JoinStoreError            the database is not empty
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "DoorBusyError",
    "DoorClosedError",
    "DoorUnreachableError",
    "InvitationExpiredError",
    "InvitationRefusedError",
    "InvitationSpentError",
    "InvitationUsedError",
    "InvitationWithdrawnError",
    "InviteNotChildError",
    "JoinAnswerError",
    "JoinClockError",
    "JoinCodeError",
    "JoinError",
    "JoinFolderError",
    "JoinProofError",
    "JoinPseudonymError",
    "JoinStoreError",
    "JoinStretchError",
]

_NEW_CODE = "Ask the parent's operator for a new code: `fenhe node invite CODE`."


class JoinError(NodeError):
    """Base of this room's errors."""

    code = "JOIN_ERROR"


class InviteNotChildError(JoinError):
    """A node is invited by the node directly above it, and by no other."""

    code = "INVITE_NOT_CHILD"
    fault = Fault.CALLER
    default_hint = (
        "Invite at its parent: `fenhe hierarchy tree` shows who that is; a place that is not in the"
        " region yet is added with `fenhe hierarchy apply`."
    )


class DoorClosedError(JoinError):
    """This node's side door is not open, so that nobody could use a code."""

    code = "DOOR_CLOSED"
    fault = Fault.OPERATOR
    default_hint = (
        "Set door_listen in node.yaml to a free host:port and start the node again; its log says"
        " why the door is closed."
    )


class DoorBusyError(JoinError):
    """Too many have knocked at the door from there, or at all."""

    code = "DOOR_BUSY"
    fault = Fault.CALLER
    retryable = True
    default_hint = "Wait a minute and run the same command again; the code is not used up."


class InvitationRefusedError(JoinError):
    """The proof is wrong, or nobody is invited under this division code: the two look the same."""

    code = "JOIN_REFUSED"
    fault = Fault.CALLER
    default_hint = (
        "Have the code read out again, and compare the division code and the parent's address;"
        " after five wrong codes an invitation is void and the parent invites anew."
    )


class InvitationSpentError(InvitationRefusedError):
    """The code is right, but wrong ones were tried five times before it."""

    code = "JOIN_SPENT"
    default_hint = f"{_NEW_CODE} If it was not you who tried, tell them so."


class InvitationExpiredError(InvitationRefusedError):
    """The code is right and its time is over by the parent's clock."""

    code = "JOIN_EXPIRED"
    default_hint = f"{_NEW_CODE} The keys made here are kept and used again."


class InvitationUsedError(InvitationRefusedError):
    """The code is right and a machine with other keys has joined with it."""

    code = "JOIN_USED"
    default_hint = (
        "If it was this machine, use the folder of the first try. If it was not, tell the parent's"
        " operator at once: somebody else has joined in this place. He revokes it:"
        " `fenhe node revoke CODE`."
    )


class InvitationWithdrawnError(InvitationRefusedError):
    """The code is right and was taken back, or another was made after it."""

    code = "JOIN_WITHDRAWN"
    default_hint = _NEW_CODE


class JoinClockError(JoinError):
    """The clocks of the two machines differ by so much that a good certificate looks bad."""

    code = "JOIN_CLOCK"
    fault = Fault.OPERATOR
    default_hint = (
        "Set the clock that is wrong (compare both times with a telephone) and run the same command"
        " again; the code still holds for this machine."
    )


class JoinPseudonymError(JoinError):
    """The county that lends its pseudonym key is not connected, or does not have it."""

    code = "JOIN_PSEUDONYM"
    fault = Fault.PEER
    retryable = True
    default_hint = (
        "See that the county named with --pseudonym-from is linked (`fenhe node status` at the"
        " city), and run the same command again."
    )


class JoinCodeError(JoinError):
    """What was typed cannot be a code; nothing was sent."""

    code = "JOIN_CODE_INVALID"
    fault = Fault.CALLER
    default_hint = (
        "Type it as it was read out: the division code, then eleven letters and digits. A typing"
        " mistake is found here and costs nothing."
    )


class DoorUnreachableError(JoinError):
    """Nobody opens at the address, or what answers is no door."""

    code = "DOOR_UNREACHABLE"
    fault = Fault.PEER
    retryable = True
    default_hint = (
        "Compare the address with what `fenhe node invite` printed (the door has a port of its own,"
        " by default the node's plus one), and see that the parent runs and that no firewall"
        " stands between."
    )


class JoinStretchError(JoinError):
    """The door asks to stretch the code with less work, or far more, than a door of ours does."""

    code = "JOIN_STRETCH"
    fault = Fault.PEER
    default_hint = (
        "Somebody may stand between this machine and the parent to guess the code: try another line"
        " and let the parent's operator make a new code."
    )


class JoinProofError(JoinError):
    """Who answered does not know the code, or the answer was altered; nothing of it was used."""

    code = "JOIN_PROOF"
    fault = Fault.PEER
    default_hint = (
        "Somebody may stand between this machine and the parent: compare the parent's address, and"
        " try another line. The code still holds for this machine."
    )


class JoinAnswerError(JoinError):
    """The parent's answer is proven to be its own and cannot make a node."""

    code = "JOIN_ANSWER"
    fault = Fault.PEER
    default_hint = "Bring both machines to one release of the program, and run the command again."


class JoinFolderError(JoinError):
    """The data folder is not free for a new node; nothing was changed."""

    code = "JOIN_FOLDER"
    fault = Fault.OPERATOR
    default_hint = "Name another folder with --data; a folder with a node in it is never touched."


class JoinStoreError(JoinError):
    """The database named for the node holds tables already."""

    code = "JOIN_STORE"
    fault = Fault.OPERATOR
    default_hint = "Make an empty database of this node's own and name it with --database."
