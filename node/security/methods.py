"""The table of methods: who may call what, as whom, where, and for what purpose.

A method that is not in it is denied to everyone. Row scope is not decided here: the storage sees
the Caller. This table decides whether the call reaches a handler at all. docs/permissions.md shows
it; a test holds the two together, and another holds the table to expectations of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId
from node.errors import DeniedError, PurposeError
from node.security.caller import CallerKind
from node.security.identity import PeerIdentity
from node.security.purposes import Purpose
from node.security.roles import Role

__all__ = [
    "DOOR_METHODS",
    "METHODS",
    "PURPOSE_HEADER",
    "DataLevel",
    "MethodRule",
    "Relation",
    "authorize",
    "default_purpose",
    "purpose_of",
    "roles_for",
    "rule_for",
]

PURPOSE_HEADER: Final = "fenhe-purpose"
"""The metadata in which a caller may state his purpose."""


class Relation(StrEnum):
    """Where the caller's node must stand, seen from the node that is called."""

    CHILD = "child"
    """Directly below."""
    HERE = "here"
    """The called node itself: it issued the certificate, or is the caller."""
    ANYWHERE = "anywhere"
    """Any node of the region."""


class DataLevel(IntEnum):
    """The most sensitive data that a method gives or takes, by GB/T 39725-2020, 6.3."""

    OPEN = 1
    """May be published: no data of persons."""
    REDUCED = 2
    """De-identified, or figures about many."""
    PARTLY = 3
    """De-identified in part: of one person, who is not named."""
    PERSONAL = 4
    """Of a person who is named: for those who care for him."""
    SPECIAL = 5
    """Of named persons, and most harmful to them: for few, each for a reason."""


@dataclass(frozen=True, slots=True)
class MethodRule:
    """Who may call a method, and what passes through it.

    `roles`: of a member of staff, one of them; none: none is asked. `levels`: of the called node.
    `purposes`: the first stands if the caller states none.
    """

    kinds: frozenset[CallerKind]
    relation: Relation
    roles: frozenset[Role] = frozenset()
    levels: frozenset[CareLevel] = frozenset(CareLevel)
    data: DataLevel = DataLevel.OPEN
    purposes: tuple[Purpose, ...] = (Purpose.OPERATION,)

    @property
    def child_only(self) -> bool:
        """Whether only nodes directly below may call."""
        return self.relation is Relation.CHILD


def _rule(relation: Relation, *kinds: CallerKind) -> MethodRule:
    return MethodRule(frozenset(kinds), relation)


def _care(
    *roles: Role, of: MethodRule, data: DataLevel = DataLevel.PERSONAL, purposes: str = ""
) -> MethodRule:
    """A rule for those who care for residents; `purposes`: names, the first by default."""
    stated = tuple(map(Purpose, purposes.split())) or _CARE.purposes
    return replace(of, roles=frozenset(roles), data=data, purposes=stated)


_CARE = replace(
    _rule(Relation.HERE, CallerKind.CLIENT, CallerKind.STAFF, CallerKind.OPERATOR),
    roles=frozenset({Role.DOCTOR, Role.NURSE}),
    data=DataLevel.PERSONAL,
    purposes=(Purpose.TREATMENT, Purpose.PUBLIC_HEALTH),
)
# Of how much a member of staff may ask, node/asking.py says.
_QUESTIONS = replace(
    _rule(Relation.HERE, CallerKind.ANALYST, CallerKind.STAFF, CallerKind.OPERATOR),
    roles=frozenset({Role.ANALYST}),
    data=DataLevel.REDUCED,
    purposes=(Purpose.STATISTICS, Purpose.RESEARCH, Purpose.PUBLIC_HEALTH),
)
_EVERYONE = _rule(Relation.ANYWHERE, *CallerKind)
_STAFF = _rule(Relation.HERE, CallerKind.STAFF, CallerKind.OPERATOR)
_OPERATOR = _rule(Relation.HERE, CallerKind.OPERATOR)
_AUDIT = replace(
    _STAFF,
    roles=frozenset({Role.AUDITOR}),
    data=DataLevel.PARTLY,
    purposes=(Purpose.AUDIT, Purpose.OPERATION),
)
_MANAGES = replace(_STAFF, roles=frozenset({Role.ADMINISTRATOR}), purposes=(Purpose.MANAGEMENT,))
_WORKSTATION = _rule(Relation.HERE, CallerKind.CLIENT, CallerKind.STAFF, CallerKind.OPERATOR)
_REFLECTION = _rule(Relation.HERE, CallerKind.OPERATOR, CallerKind.STAFF)
_INVITES = replace(_OPERATOR, levels=frozenset(CareLevel) - {CareLevel.VILLAGE})
_QUARANTINE = replace(_OPERATOR, data=DataLevel.PARTLY)
_STICK = replace(_OPERATOR, purposes=(Purpose.REPLICATION,))
_ACCESS = replace(
    _CARE,
    kinds=frozenset({CallerKind.CLIENT, CallerKind.STAFF}),
    # Above the counties nobody is held in full, so nobody's rows can be opened or closed.
    levels=frozenset(CareLevel) - {CareLevel.CITY},
    purposes=(Purpose.MANAGEMENT, Purpose.REGISTRATION, Purpose.TREATMENT),
)
_STAFF_ACCESS = replace(_ACCESS, kinds=frozenset({CallerKind.STAFF}))
_REVIEW = replace(
    _STAFF_ACCESS,
    kinds=frozenset({CallerKind.STAFF, CallerKind.OPERATOR}),
    roles=frozenset({Role.AUDITOR, Role.ADMINISTRATOR}),
    purposes=(Purpose.AUDIT,),
)
_CARERS = (Role.DOCTOR, Role.NURSE, Role.REGISTRAR)
_REGISTERS = "registration treatment public_health"
_INTAKE = _care(Role.REGISTRAR, Role.ADMINISTRATOR, of=_CARE, purposes=_REGISTERS)
# Above the counties nobody is held in full, so nobody can be compared.
_HOLDERS = replace(_CARE, levels=frozenset(CareLevel) - {CareLevel.CITY})
_STEWARD = _care(
    Role.REGISTRAR,
    of=replace(_STAFF, levels=frozenset(CareLevel) - {CareLevel.CITY}),
    purposes="registration",
)
_READS = "treatment registration public_health"

METHODS: Final[Mapping[str, MethodRule]] = MappingProxyType(
    {
        "/fenhe.empi.v1.ResidentService/Register": _care(*_CARERS, of=_CARE, purposes=_REGISTERS),
        "/fenhe.empi.v1.ResidentService/Get": _care(*_CARERS, of=_CARE, purposes=_READS),
        "/fenhe.empi.v1.ResidentService/Find": _care(*_CARERS, of=_CARE, purposes=_READS),
        "/fenhe.empi.v1.StewardService/Merge": _STEWARD,
        "/fenhe.empi.v1.StewardService/Unmerge": _STEWARD,
        "/fenhe.empi.v1.StewardService/TellApart": _STEWARD,
        "/fenhe.empi.v1.StewardService/ListEvents": _STEWARD,
        "/fenhe.empi.v1.StewardService/ListPairs": _STEWARD,
        # At the desk, before somebody is registered a second time.
        "/fenhe.empi.v1.StewardService/Candidates": _care(
            *_CARERS, of=_HOLDERS, purposes=_REGISTERS
        ),
        "/fenhe.empi.v1.ResidenceService/Move": _care(
            Role.REGISTRAR, Role.ADMINISTRATOR, of=_STAFF, purposes="registration"
        ),
        "/fenhe.empi.v1.ResidenceService/Where": _care(*_CARERS, of=_CARE, purposes=_REGISTERS),
        "/fenhe.empi.v1.ResidenceService/ListProposals": _care(
            Role.REGISTRAR, of=_STAFF, purposes="registration"
        ),
        "/fenhe.empi.v1.ResidenceService/DecideProposal": _care(
            Role.REGISTRAR, of=_STAFF, purposes="registration"
        ),
        "/fenhe.care.v1.RecordService/PutBundle": _CARE,
        "/fenhe.care.v1.RecordService/Get": _CARE,
        "/fenhe.care.v1.RecordService/Timeline": _CARE,
        "/fenhe.care.v1.RecordService/Where": _CARE,
        "/fenhe.control.v1.ConsentService/PutConsent": _care(
            *_CARERS, of=_ACCESS, purposes="registration"
        ),
        "/fenhe.control.v1.ConsentService/ListConsents": _care(
            *_CARERS, Role.AUDITOR, of=_ACCESS, purposes="registration audit"
        ),
        "/fenhe.control.v1.ConsentService/RevokeConsent": _care(
            *_CARERS, of=_ACCESS, purposes="registration"
        ),
        # Who opens a relation is not who reads by it: at the desk, or a clinic's system.
        "/fenhe.control.v1.AccessService/PutRelation": _care(
            Role.REGISTRAR, of=_ACCESS, purposes="registration"
        ),
        "/fenhe.control.v1.AccessService/EndRelation": _care(
            Role.REGISTRAR, Role.ADMINISTRATOR, of=_ACCESS, purposes="registration"
        ),
        # Nobody grants what he does not see himself, nor what was lent to him (consent/access.py).
        "/fenhe.control.v1.AccessService/CreateGrant": _care(
            Role.DOCTOR, of=_STAFF_ACCESS, purposes="treatment"
        ),
        "/fenhe.control.v1.AccessService/RevokeGrant": _care(
            Role.DOCTOR, Role.ADMINISTRATOR, of=_STAFF_ACCESS, purposes="treatment management"
        ),
        "/fenhe.control.v1.AccessService/ListAccess": _care(
            *_CARERS,
            Role.ADMINISTRATOR,
            Role.AUDITOR,
            of=_ACCESS,
            purposes="management registration audit",
        ),
        "/fenhe.control.v1.AccessService/BreakGlass": _care(
            Role.DOCTOR,
            Role.NURSE,
            of=_STAFF_ACCESS,
            data=DataLevel.SPECIAL,
            purposes="treatment",
        ),
        "/fenhe.control.v1.AccessService/ListReviews": _REVIEW,
        "/fenhe.control.v1.AccessService/CloseReview": _REVIEW,
        "/fenhe.federation.v1.QueryService/Ask": _QUESTIONS,
        "/fenhe.federation.v1.QueryService/Explain": _QUESTIONS,
        # Only the executors that this node itself certified, over loopback.
        "/fenhe.federation.v1.ExecutorService/AskSite": replace(
            _rule(Relation.HERE, CallerKind.EXECUTOR),
            data=DataLevel.REDUCED,
            purposes=(Purpose.STATISTICS,),
        ),
        # Counts of a sibling are nobody's business, so not from anywhere.
        "/fenhe.node.v1.NodeService/Status": _rule(
            Relation.HERE, *(set(CallerKind) - {CallerKind.EXECUTOR})
        ),
        "/fenhe.node.v1.AuditService/SearchAudit": _AUDIT,
        "/fenhe.node.v1.AuditService/AboutResident": _AUDIT,
        "/fenhe.node.v1.AuditService/VerifyAudit": _AUDIT,
        "/fenhe.node.v1.AuditService/ExportAudit": _AUDIT,
        "/fenhe.node.v1.AuditService/AcceptAudit": _OPERATOR,
        "/fenhe.node.v1.MaintenanceService/Verify": _OPERATOR,
        "/fenhe.node.v1.ReplicationService/Status": _rule(
            Relation.HERE, CallerKind.CLIENT, CallerKind.STAFF, CallerKind.OPERATOR
        ),
        "/fenhe.node.v1.ReplicationService/ListQuarantine": _QUARANTINE,
        "/fenhe.node.v1.ReplicationService/ShowQuarantine": _QUARANTINE,
        "/fenhe.node.v1.ReplicationService/RetryQuarantine": _QUARANTINE,
        "/fenhe.node.v1.ReplicationService/SkipQuarantine": _QUARANTINE,
        "/fenhe.node.v1.ReplicationService/AskQuarantine": _QUARANTINE,
        "/fenhe.node.v1.BundleService/Export": _STICK,
        "/fenhe.node.v1.BundleService/Import": _STICK,
        "/fenhe.node.v1.RecoveryService/Standing": _OPERATOR,
        "/fenhe.node.v1.RecoveryService/GiveUp": _OPERATOR,
        # A parent never dials, a sibling never links.
        "/fenhe.replication.v1.LinkService/Connect": replace(
            _rule(Relation.CHILD, CallerKind.NODE),
            levels=frozenset(CareLevel) - {CareLevel.VILLAGE},
            data=DataLevel.PERSONAL,
            purposes=(Purpose.REPLICATION,),
        ),
        "/fenhe.node.v1.RegionService/Plan": _OPERATOR,
        "/fenhe.node.v1.RegionService/Apply": _OPERATOR,
        "/fenhe.node.v1.RegionService/Rollback": _OPERATOR,
        "/fenhe.node.v1.RegionService/History": _OPERATOR,
        # Signed by the root and no secret: a node that was left behind finds its way with it.
        "/fenhe.node.v1.RegionService/Epochs": _rule(Relation.ANYWHERE, CallerKind.NODE),
        "/fenhe.node.v1.RevocationService/Revoke": _OPERATOR,
        "/fenhe.node.v1.RevocationService/ListRevoked": _OPERATOR,
        # What a system of the clinic's sends, and what was not admitted of it.
        "/fenhe.node.v1.IntakeService/Offer": _INTAKE,
        "/fenhe.node.v1.IntakeService/Send": _INTAKE,
        "/fenhe.node.v1.IntakeService/Follow": _INTAKE,
        "/fenhe.node.v1.IntakeService/ListRuns": _INTAKE,
        "/fenhe.node.v1.IntakeService/Watermark": _INTAKE,
        "/fenhe.node.v1.IntakeService/Messages": _INTAKE,
        "/fenhe.node.v1.IntakeService/ListItems": _INTAKE,
        "/fenhe.node.v1.IntakeService/ShowItem": _INTAKE,
        "/fenhe.node.v1.IntakeService/RetryItems": _INTAKE,
        "/fenhe.node.v1.KeysService/Status": _OPERATOR,
        "/fenhe.node.v1.KeysService/Rotate": _OPERATOR,
        "/fenhe.node.v1.KeysService/EscrowStatus": _OPERATOR,
        # Two operators have to ask (node/keys/recovery.py).
        "/fenhe.node.v1.KeysService/Recover": _OPERATOR,
        "/fenhe.node.v1.DoctorService/Examine": _OPERATOR,
        "/fenhe.node.v1.DoctorService/PlantCanary": _OPERATOR,
        "/fenhe.node.v1.DoctorService/FindCanaries": _OPERATOR,
        "/fenhe.node.v1.InvitationService/CreateInvitation": _INVITES,
        "/fenhe.node.v1.InvitationService/ListInvitations": _INVITES,
        "/fenhe.node.v1.InvitationService/WithdrawInvitation": _INVITES,
        # Who works here: certificates of operators, or staff who have signed in. Which divisions
        # and roles an administrator may give, node/people/powers.py judges.
        "/fenhe.control.v1.OrganizationService/AddOrganization": _MANAGES,
        "/fenhe.control.v1.OrganizationService/GetOrganization": _STAFF,
        "/fenhe.control.v1.OrganizationService/ListOrganizations": _STAFF,
        "/fenhe.control.v1.OrganizationService/CloseOrganization": _MANAGES,
        "/fenhe.control.v1.OrganizationService/AddDepartment": _MANAGES,
        "/fenhe.control.v1.OrganizationService/CloseDepartment": _MANAGES,
        "/fenhe.control.v1.StaffService/AddStaff": _MANAGES,
        "/fenhe.control.v1.StaffService/GetStaff": _STAFF,
        "/fenhe.control.v1.StaffService/ListStaff": _STAFF,
        "/fenhe.control.v1.StaffService/EndStaff": _MANAGES,
        "/fenhe.control.v1.StaffService/AddQualification": _MANAGES,
        "/fenhe.control.v1.StaffService/GiveRole": _MANAGES,
        "/fenhe.control.v1.StaffService/TakeRole": _MANAGES,
        "/fenhe.control.v1.StaffService/ListRoles": _STAFF,
        "/fenhe.control.v1.AccountService/AddAccount": _MANAGES,
        "/fenhe.control.v1.AccountService/ListAccounts": _MANAGES,
        "/fenhe.control.v1.AccountService/DisableAccount": _MANAGES,
        "/fenhe.control.v1.AccountService/EnableAccount": _MANAGES,
        "/fenhe.control.v1.AccountService/UnlockAccount": _MANAGES,
        "/fenhe.control.v1.AccountService/SetPassword": _MANAGES,
        "/fenhe.control.v1.AccountService/RemoveTotp": _MANAGES,
        "/fenhe.control.v1.AccountService/ChangePassword": _STAFF,
        "/fenhe.control.v1.AccountService/EnrolTotp": _STAFF,
        "/fenhe.control.v1.AccountService/ConfirmTotp": _STAFF,
        "/fenhe.control.v1.SessionService/SignIn": _WORKSTATION,
        "/fenhe.control.v1.SessionService/Renew": _STAFF,
        "/fenhe.control.v1.SessionService/SignOut": _STAFF,
        "/fenhe.control.v1.SessionService/ListSessions": _STAFF,
        "/fenhe.control.v1.SessionService/EndSession": _STAFF,
        "/grpc.health.v1.Health/Check": _EVERYONE,
        "/grpc.health.v1.Health/Watch": _EVERYONE,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _REFLECTION,
    }
)

DOOR_METHODS: Final[frozenset[str]] = frozenset(
    {
        "/fenhe.node.v1.DoorService/Begin",
        "/fenhe.node.v1.DoorService/Join",
        "/fenhe.node.v1.DoorService/Renew",
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


def roles_for(method: str) -> frozenset[Role]:
    """The roles of which a member of staff needs one for a method; none: none is asked."""
    rule = rule_for(method)
    return frozenset() if rule is None else rule.roles


def authorize(
    method: str,
    peer: PeerIdentity,
    here: NodeId,
    hierarchy: Hierarchy,
    roles: Collection[Role] = (),
) -> None:
    """Let a call through, or raise.

    Args:
        method: Full name as gRPC gives it, "/package.Service/Method".
        peer: The identified caller.
        here: The node that is called.
        hierarchy: The epoch in force.
        roles: Of a member of staff who has signed in; a certificate alone has none.

    Raises:
        DeniedError: The method is not in the table, or not for this kind of caller, his roles or
            callers of that node, or not at a node of this level.
    """
    rule = rule_for(method)
    if rule is None or peer.kind not in rule.kinds:
        raise DeniedError(f"{method} is not open to callers of kind {peer.kind}")
    if not _stands(rule.relation, peer.node_id, here, hierarchy):
        raise DeniedError(
            f"{method} at node {here} is not open to callers of node {peer.node_id}",
            hint=_HINTS[rule.relation],
        )
    level = hierarchy.entry(here).level
    if level not in rule.levels:
        raise DeniedError(
            f"{method} is not open at a node of level {level}",
            hint="Ask at a node below, as `fenhe hierarchy tree` lists them.",
        )
    if peer.kind is CallerKind.STAFF and rule.roles and rule.roles.isdisjoint(roles):
        named = ", ".join(sorted(rule.roles))
        raise DeniedError(
            f"{method} is open to staff who have signed in as {named}",
            hint="Sign in with an account that has one of these roles.",
        )


def purpose_of(method: str, kind: CallerKind, stated: str) -> Purpose:
    """For what a call is made: as the caller states, if the method is for that; else its first.

    An operator's purpose is operation, whatever he calls.

    Raises:
        PurposeError: The method is not for the purpose stated.
        DeniedError: The method is in no table.
    """
    rule = rule_for(method)
    if rule is None:
        raise DeniedError(f"{method} is not open to callers of kind {kind}")
    if kind is CallerKind.OPERATOR:
        allowed: tuple[Purpose, ...] = (Purpose.OPERATION, *rule.purposes)
    else:
        allowed = rule.purposes
    if not stated:
        return allowed[0]
    for purpose in allowed:
        if purpose == stated:
            return purpose
    # Not what was typed: it may be anything.
    raise PurposeError(f"{method} is called for {', '.join(allowed)}, and for nothing else")


def default_purpose(method: str) -> str:
    """What a method is for if nothing is stated; "" for one that is in no table."""
    rule = rule_for(method)
    return "" if rule is None else rule.purposes[0]


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
