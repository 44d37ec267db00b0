"""The table of methods: who may call what. A method that is not in it is denied to everyone.

Row scope is not decided here: the storage sees the Caller. This table decides whether the call
reaches a handler at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.errors import DeniedError
from node.security.caller import CallerKind
from node.security.identity import PeerIdentity

__all__ = ["DOOR_METHODS", "METHODS", "MethodRule", "Relation", "authorize", "rule_for"]


class Relation(StrEnum):
    """Where the caller's node must stand, seen from the node that is called."""

    CHILD = "child"
    """Directly below."""
    HERE = "here"
    """The called node itself: it issued the certificate, or is the caller."""
    ANYWHERE = "anywhere"
    """Any node of the region."""


@dataclass(frozen=True, slots=True)
class MethodRule:
    """Who may call a method: kinds of callers, and where their node stands."""

    kinds: frozenset[CallerKind]
    relation: Relation

    @property
    def child_only(self) -> bool:
        """Whether only nodes directly below may call."""
        return self.relation is Relation.CHILD


def _rule(relation: Relation, *kinds: CallerKind) -> MethodRule:
    return MethodRule(frozenset(kinds), relation)


_CARE = _rule(Relation.HERE, CallerKind.CLIENT, CallerKind.STAFF, CallerKind.OPERATOR)
_QUESTIONS = _rule(Relation.HERE, CallerKind.ANALYST, CallerKind.OPERATOR)
_EVERYONE = _rule(Relation.ANYWHERE, *CallerKind)
_STAFF = _rule(Relation.HERE, CallerKind.STAFF, CallerKind.OPERATOR)
_OPERATOR = _rule(Relation.HERE, CallerKind.OPERATOR)
_REFLECTION = _rule(Relation.HERE, CallerKind.OPERATOR, CallerKind.STAFF)

METHODS: Final[Mapping[str, MethodRule]] = MappingProxyType(
    {
        "/fenhe.empi.v1.ResidentService/Register": _CARE,
        "/fenhe.empi.v1.ResidentService/Get": _CARE,
        "/fenhe.empi.v1.ResidentService/Find": _CARE,
        "/fenhe.empi.v1.ResidenceService/Move": _STAFF,
        "/fenhe.empi.v1.ResidenceService/Where": _CARE,
        "/fenhe.empi.v1.ResidenceService/ListProposals": _STAFF,
        "/fenhe.empi.v1.ResidenceService/DecideProposal": _STAFF,
        "/fenhe.care.v1.RecordService/PutBundle": _CARE,
        "/fenhe.care.v1.RecordService/Get": _CARE,
        "/fenhe.care.v1.RecordService/Timeline": _CARE,
        "/fenhe.care.v1.RecordService/Where": _CARE,
        "/fenhe.federation.v1.QueryService/Ask": _QUESTIONS,
        "/fenhe.federation.v1.QueryService/Explain": _QUESTIONS,
        # Only the executors that this node itself certified, over loopback.
        "/fenhe.federation.v1.ExecutorService/AskSite": _rule(Relation.HERE, CallerKind.EXECUTOR),
        # Counts of a sibling are nobody's business, so not from anywhere.
        "/fenhe.node.v1.NodeService/Status": _rule(
            Relation.HERE, *(set(CallerKind) - {CallerKind.EXECUTOR})
        ),
        "/fenhe.node.v1.MaintenanceService/Verify": _OPERATOR,
        "/fenhe.node.v1.ReplicationService/Status": _CARE,
        "/fenhe.node.v1.ReplicationService/ListQuarantine": _OPERATOR,
        "/fenhe.node.v1.ReplicationService/ShowQuarantine": _OPERATOR,
        "/fenhe.node.v1.ReplicationService/RetryQuarantine": _OPERATOR,
        "/fenhe.node.v1.ReplicationService/SkipQuarantine": _OPERATOR,
        "/fenhe.node.v1.ReplicationService/AskQuarantine": _OPERATOR,
        "/fenhe.node.v1.BundleService/Export": _OPERATOR,
        "/fenhe.node.v1.BundleService/Import": _OPERATOR,
        "/fenhe.node.v1.RecoveryService/Standing": _OPERATOR,
        "/fenhe.node.v1.RecoveryService/GiveUp": _OPERATOR,
        # A parent never dials, a sibling never links.
        "/fenhe.replication.v1.LinkService/Connect": _rule(Relation.CHILD, CallerKind.NODE),
        "/fenhe.node.v1.RegionService/Plan": _OPERATOR,
        "/fenhe.node.v1.RegionService/Apply": _OPERATOR,
        "/fenhe.node.v1.RegionService/Rollback": _OPERATOR,
        "/fenhe.node.v1.RegionService/History": _OPERATOR,
        # Signed by the root and no secret: a node that was left behind finds its way with it.
        "/fenhe.node.v1.RegionService/Epochs": _rule(Relation.ANYWHERE, CallerKind.NODE),
        "/fenhe.node.v1.InvitationService/CreateInvitation": _OPERATOR,
        "/fenhe.node.v1.InvitationService/ListInvitations": _OPERATOR,
        "/fenhe.node.v1.InvitationService/WithdrawInvitation": _OPERATOR,
        # Management of who works here: certificates of operators, or staff who have signed in.
        # Beside each: the roles that are meant; node/people/powers.py judges divisions and roles.
        "/fenhe.control.v1.OrganizationService/AddOrganization": _STAFF,  # administrator
        "/fenhe.control.v1.OrganizationService/GetOrganization": _STAFF,  # every role
        "/fenhe.control.v1.OrganizationService/ListOrganizations": _STAFF,  # every role
        "/fenhe.control.v1.OrganizationService/CloseOrganization": _STAFF,  # administrator
        "/fenhe.control.v1.OrganizationService/AddDepartment": _STAFF,  # administrator
        "/fenhe.control.v1.OrganizationService/CloseDepartment": _STAFF,  # administrator
        "/fenhe.control.v1.StaffService/AddStaff": _STAFF,  # administrator
        "/fenhe.control.v1.StaffService/GetStaff": _STAFF,  # every role
        "/fenhe.control.v1.StaffService/ListStaff": _STAFF,  # every role
        "/fenhe.control.v1.StaffService/EndStaff": _STAFF,  # administrator
        "/fenhe.control.v1.StaffService/AddQualification": _STAFF,  # administrator
        "/fenhe.control.v1.StaffService/GiveRole": _STAFF,  # administrator, with that role himself
        "/fenhe.control.v1.StaffService/TakeRole": _STAFF,  # administrator
        "/fenhe.control.v1.StaffService/ListRoles": _STAFF,  # every role
        "/fenhe.control.v1.AccountService/AddAccount": _STAFF,  # administrator
        "/fenhe.control.v1.AccountService/ListAccounts": _STAFF,  # administrator
        "/fenhe.control.v1.AccountService/DisableAccount": _STAFF,  # administrator
        "/fenhe.control.v1.AccountService/EnableAccount": _STAFF,  # administrator
        "/fenhe.control.v1.AccountService/UnlockAccount": _STAFF,  # administrator
        "/fenhe.control.v1.AccountService/SetPassword": _STAFF,  # administrator
        "/fenhe.control.v1.AccountService/RemoveTotp": _STAFF,  # administrator
        "/fenhe.control.v1.AccountService/ChangePassword": _STAFF,  # every role, his own
        "/fenhe.control.v1.AccountService/EnrolTotp": _STAFF,  # every role, his own
        "/fenhe.control.v1.AccountService/ConfirmTotp": _STAFF,  # every role, his own
        "/fenhe.control.v1.SessionService/SignIn": _CARE,  # a workstation's certificate, no role
        "/fenhe.control.v1.SessionService/Renew": _STAFF,  # every role, his own
        "/fenhe.control.v1.SessionService/SignOut": _STAFF,  # every role, his own
        "/fenhe.control.v1.SessionService/ListSessions": _STAFF,  # every role, his own
        "/fenhe.control.v1.SessionService/EndSession": _STAFF,  # every role, his own
        "/grpc.health.v1.Health/Check": _EVERYONE,
        "/grpc.health.v1.Health/Watch": _EVERYONE,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _REFLECTION,
    }
)

DOOR_METHODS: Final[frozenset[str]] = frozenset(
    {
        "/fenhe.node.v1.DoorService/Begin",
        "/fenhe.node.v1.DoorService/Join",
    }
)
"""Methods of the side door alone: open to machines without a certificate, and proven by what they
say. They are not in METHODS, so that the node's own server denies them to everyone."""


_HINTS: Final[Mapping[Relation, str]] = MappingProxyType(
    {
        Relation.CHILD: (
            "Compare both nodes' region files; the child may stand under another parent."
        ),
        Relation.HERE: "Connect to the node that issued the credentials.",
        Relation.ANYWHERE: "Bring both nodes to the same configuration epoch.",
    }
)


def rule_for(method: str) -> MethodRule | None:
    """The rule of a method by its full name; None denies it to everyone."""
    return METHODS.get(method)


def authorize(method: str, peer: PeerIdentity, here: NodeId, hierarchy: Hierarchy) -> None:
    """Let a call through, or raise.

    Args:
        method: Full name as gRPC gives it, "/package.Service/Method".
        peer: The identified caller.
        here: The node that is called.
        hierarchy: The epoch in force.

    Raises:
        DeniedError: The method is not in the table, or not for this kind of caller, or not for
            callers of that node.
    """
    rule = rule_for(method)
    if rule is None or peer.kind not in rule.kinds:
        raise DeniedError(f"{method} is not open to callers of kind {peer.kind}")
    if not _stands(rule.relation, peer.node_id, here, hierarchy):
        raise DeniedError(
            f"{method} at node {here} is not open to callers of node {peer.node_id}",
            hint=_HINTS[rule.relation],
        )


def _stands(relation: Relation, caller: NodeId, here: NodeId, hierarchy: Hierarchy) -> bool:
    match relation:
        case Relation.CHILD:
            return hierarchy.parent(caller) == here
        case Relation.HERE:
            return caller == here
        case Relation.ANYWHERE:
            return caller in hierarchy.nodes
        case _:
            assert_never(relation)
