"""Which methods leave which deed in the audit, and which leave none, with the reason.

Every method of the table of methods stands in one of the two; a test holds that, and that those of
the first leave what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from node.storage.audit import Action

__all__ = ["AUDITED", "NOT_AUDITED"]

AUDITED: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "/fenhe.empi.v1.ResidentService/Register": Action.PUT,
        "/fenhe.empi.v1.ResidentService/Get": Action.READ,
        "/fenhe.empi.v1.ResidentService/Find": Action.FIND,
        "/fenhe.empi.v1.StewardService/Merge": Action.LINK,
        "/fenhe.empi.v1.StewardService/Unmerge": Action.UNLINK,
        "/fenhe.empi.v1.StewardService/TellApart": Action.TELL_APART,
        "/fenhe.empi.v1.StewardService/ListEvents": Action.READ,
        "/fenhe.empi.v1.StewardService/Candidates": Action.FIND,
        "/fenhe.empi.v1.StewardService/ListPairs": Action.FIND,
        "/fenhe.empi.v1.ResidenceService/Move": Action.MOVE,
        "/fenhe.empi.v1.ResidenceService/Where": Action.WHERE,
        "/fenhe.empi.v1.ResidenceService/ListProposals": Action.READ,
        "/fenhe.empi.v1.ResidenceService/DecideProposal": Action.ACCEPT,
        "/fenhe.care.v1.RecordService/PutBundle": Action.PUT,
        "/fenhe.care.v1.RecordService/Get": Action.READ,
        "/fenhe.care.v1.RecordService/Timeline": Action.TIMELINE,
        "/fenhe.care.v1.RecordService/Where": Action.READ,
        "/fenhe.federation.v1.QueryService/Ask": Action.QUESTION,
        "/fenhe.node.v1.AuditService/SearchAudit": Action.SEARCH,
        "/fenhe.node.v1.AuditService/AboutResident": Action.ABOUT,
        "/fenhe.node.v1.AuditService/VerifyAudit": Action.VERIFY,
        "/fenhe.node.v1.AuditService/ExportAudit": Action.EXPORT,
        "/fenhe.node.v1.AuditService/AcceptAudit": Action.RECOGNISE,
        "/fenhe.node.v1.IntakeService/Offer": Action.IMPORT,
        "/fenhe.node.v1.IntakeService/Messages": Action.PUT,
        "/fenhe.node.v1.IntakeService/ShowItem": Action.READ,
        "/fenhe.node.v1.IntakeService/RetryItems": Action.RETRY,
        "/fenhe.node.v1.MaintenanceService/Verify": Action.VERIFY,
        "/fenhe.node.v1.ReplicationService/ListQuarantine": Action.READ,
        "/fenhe.node.v1.ReplicationService/ShowQuarantine": Action.READ,
        "/fenhe.node.v1.ReplicationService/RetryQuarantine": Action.RETRY,
        "/fenhe.node.v1.ReplicationService/SkipQuarantine": Action.SKIP,
        "/fenhe.node.v1.ReplicationService/AskQuarantine": Action.ASK,
        "/fenhe.node.v1.BundleService/Export": Action.EXPORT,
        "/fenhe.node.v1.BundleService/Import": Action.IMPORT,
        "/fenhe.node.v1.RecoveryService/GiveUp": Action.GIVE_UP,
        "/fenhe.node.v1.RegionService/Apply": Action.APPLY,
        "/fenhe.node.v1.RegionService/Rollback": Action.ROLLBACK,
        "/fenhe.node.v1.InvitationService/CreateInvitation": Action.INVITE,
        "/fenhe.node.v1.InvitationService/WithdrawInvitation": Action.WITHDRAW,
        "/fenhe.node.v1.DoorService/Join": Action.JOIN,
        "/fenhe.control.v1.ConsentService/PutConsent": Action.CONSENT,
        "/fenhe.control.v1.ConsentService/ListConsents": Action.READ,
        "/fenhe.control.v1.ConsentService/RevokeConsent": Action.REVOKE,
        "/fenhe.control.v1.AccessService/PutRelation": Action.RELATE,
        "/fenhe.control.v1.AccessService/EndRelation": Action.REVOKE,
        "/fenhe.control.v1.AccessService/CreateGrant": Action.GRANT,
        "/fenhe.control.v1.AccessService/RevokeGrant": Action.REVOKE,
        "/fenhe.control.v1.AccessService/ListAccess": Action.READ,
        "/fenhe.control.v1.AccessService/BreakGlass": Action.BREAK_GLASS,
        "/fenhe.control.v1.AccessService/ListReviews": Action.READ,
        "/fenhe.control.v1.AccessService/CloseReview": Action.REVIEW,
        "/fenhe.control.v1.OrganizationService/AddOrganization": Action.ADD,
        "/fenhe.control.v1.OrganizationService/GetOrganization": Action.READ,
        "/fenhe.control.v1.OrganizationService/ListOrganizations": Action.READ,
        "/fenhe.control.v1.OrganizationService/CloseOrganization": Action.END,
        "/fenhe.control.v1.OrganizationService/AddDepartment": Action.ADD,
        "/fenhe.control.v1.OrganizationService/CloseDepartment": Action.END,
        "/fenhe.control.v1.StaffService/AddStaff": Action.ADD,
        "/fenhe.control.v1.StaffService/GetStaff": Action.READ,
        "/fenhe.control.v1.StaffService/ListStaff": Action.READ,
        "/fenhe.control.v1.StaffService/EndStaff": Action.END,
        "/fenhe.control.v1.StaffService/AddQualification": Action.ADD,
        "/fenhe.control.v1.StaffService/GiveRole": Action.GIVE,
        "/fenhe.control.v1.StaffService/TakeRole": Action.TAKE,
        "/fenhe.control.v1.StaffService/ListRoles": Action.READ,
        "/fenhe.control.v1.AccountService/AddAccount": Action.ADD,
        "/fenhe.control.v1.AccountService/ListAccounts": Action.READ,
        "/fenhe.control.v1.AccountService/DisableAccount": Action.DISABLE,
        "/fenhe.control.v1.AccountService/EnableAccount": Action.ENABLE,
        "/fenhe.control.v1.AccountService/UnlockAccount": Action.UNLOCK,
        "/fenhe.control.v1.AccountService/SetPassword": Action.PASSWORD,
        "/fenhe.control.v1.AccountService/RemoveTotp": Action.TOTP,
        "/fenhe.control.v1.AccountService/ChangePassword": Action.PASSWORD,
        "/fenhe.control.v1.AccountService/EnrolTotp": Action.TOTP,
        "/fenhe.control.v1.AccountService/ConfirmTotp": Action.TOTP,
        "/fenhe.control.v1.SessionService/SignIn": Action.SIGN_IN,
        "/fenhe.control.v1.SessionService/SignOut": Action.SIGN_OUT,
        "/fenhe.control.v1.SessionService/ListSessions": Action.READ,
        "/fenhe.control.v1.SessionService/EndSession": Action.END,
        "/fenhe.node.v1.KeysService/Rotate": Action.ROTATE,
        "/fenhe.node.v1.KeysService/Recover": Action.RECOVER,
        "/fenhe.node.v1.RevocationService/Revoke": Action.REVOKE,
        "/fenhe.node.v1.DoctorService/PlantCanary": Action.PUT,
    }
)

_FIGURES: Final = "figures of the node; no resident and no record is in them"
_COUNTS: Final = "counts and shares of what a source sent; no value is in them"
_TECHNICAL: Final = "whether the server lives and what it is called; no data"

NOT_AUDITED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/fenhe.federation.v1.QueryService/Explain": "plans a question and reads no data",
        "/fenhe.federation.v1.ExecutorService/AskSite": (
            "passes on a question that is audited where it was asked and where it is counted"
        ),
        "/fenhe.control.v1.SessionService/Renew": (
            "a session that was signed in to goes on; its sign-in and its end are audited"
        ),
        "/fenhe.node.v1.DoorService/Renew": "a certificate of the same key; the child notes it",
        "/fenhe.node.v1.DoctorService/Examine": _FIGURES,
        "/fenhe.node.v1.DoctorService/FindCanaries": "residents of no person, by place alone",
        "/fenhe.node.v1.IntakeService/Send": (
            "the pieces of a file whose offer is audited; its rows are, as they are stored"
        ),
        "/fenhe.node.v1.IntakeService/Follow": _COUNTS,
        "/fenhe.node.v1.IntakeService/ListRuns": _COUNTS,
        "/fenhe.node.v1.IntakeService/Watermark": "up to where a table was read; no row of it",
        "/fenhe.node.v1.IntakeService/ListItems": "places in a file and rules; no value is opened",
        "/fenhe.node.v1.KeysService/Status": _FIGURES,
        "/fenhe.node.v1.KeysService/EscrowStatus": _FIGURES,
        "/fenhe.node.v1.RevocationService/ListRevoked": "signed by nodes above, and no secret",
        "/fenhe.node.v1.NodeService/Status": _FIGURES,
        "/fenhe.node.v1.ReplicationService/Status": _FIGURES,
        "/fenhe.node.v1.RecoveryService/Standing": _FIGURES,
        "/fenhe.replication.v1.LinkService/Connect": (
            "a neighbour's stream: rows come as replication, and questions over it are audited "
            "where they are answered"
        ),
        "/fenhe.node.v1.RegionService/Plan": "says what a region file would change; counts alone",
        "/fenhe.node.v1.RegionService/History": "the region's files, which every node has",
        "/fenhe.node.v1.RegionService/Epochs": "the region's files, which every node has",
        "/fenhe.node.v1.InvitationService/ListInvitations": "names nodes, and never a code",
        "/fenhe.node.v1.DoorService/Begin": "nothing is proven yet; a salt is given to anybody",
        "/grpc.health.v1.Health/Check": _TECHNICAL,
        "/grpc.health.v1.Health/Watch": _TECHNICAL,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _TECHNICAL,
    }
)
