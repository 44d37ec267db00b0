"""Puts the services on the server: ours, gRPC health, gRPC reflection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from node.clock import Clock
from node.consent.room import ConsentRoom
from node.doctor import CheckupRoom
from node.ingestion.room import IntakeRoom
from node.joining.room import JoiningRoom
from node.keys.room import KeysRoom
from node.links import LinkHub
from node.matching.room import MatchingRoom
from node.merging.room import MergingRoom
from node.people.room import PeopleRoom
from node.questions import Questions
from node.reconcile.room import ReconcileRoom
from node.recovery import SeedingRoom
from node.revocation.room import RevocationRoom
from node.services.accounts import AccountServicer, SessionServicer
from node.services.auditing import AuditServicer
from node.services.bundles import BundleServicer
from node.services.care import CareDesk, RecordServicer, ResidentServicer
from node.services.checkup import CheckupServicer
from node.services.consent import AccessServicer, ConsentServicer
from node.services.intake import IntakeServicer
from node.services.joining import InvitationServicer
from node.services.keys import KeysServicer
from node.services.links import LinkServicer
from node.services.maintenance import MaintenanceServicer
from node.services.operations import ReplicationServicer
from node.services.people import OrganizationServicer, StaffServicer
from node.services.queries import ExecutorServicer, QueryServicer
from node.services.recovery import RecoveryServicer
from node.services.region import RegionServicer
from node.services.residence import ResidenceServicer
from node.services.revocation import RevocationServicer
from node.services.status import NodeServicer
from node.services.steward import StewardServicer
from node.transit.where import Wherever
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.control.v1 import consent_pb2_grpc, people_pb2_grpc
from protos.fenhe.empi.v1 import (
    empi_pb2,
    empi_pb2_grpc,
    residence_pb2_grpc,
    steward_pb2_grpc,
)
from protos.fenhe.federation.v1 import federation_pb2_grpc
from protos.fenhe.node.v1 import (
    auditing_pb2_grpc,
    bundles_pb2_grpc,
    doctor_pb2_grpc,
    intake_pb2_grpc,
    joining_pb2_grpc,
    keys_pb2_grpc,
    maintenance_pb2_grpc,
    node_pb2_grpc,
    operations_pb2_grpc,
    recovery_pb2_grpc,
    region_pb2_grpc,
    revocation_pb2_grpc,
)
from protos.fenhe.replication.v1 import replication_pb2_grpc

__all__ = ["SERVICE_NAMES", "Servicers", "add_servicers"]

SERVICE_NAMES: Final = (
    "fenhe.care.v1.RecordService",
    "fenhe.control.v1.AccessService",
    "fenhe.control.v1.ConsentService",
    "fenhe.control.v1.AccountService",
    "fenhe.control.v1.OrganizationService",
    "fenhe.control.v1.SessionService",
    "fenhe.control.v1.StaffService",
    "fenhe.empi.v1.ResidenceService",
    "fenhe.empi.v1.ResidentService",
    "fenhe.empi.v1.StewardService",
    "fenhe.federation.v1.ExecutorService",
    "fenhe.federation.v1.QueryService",
    "fenhe.node.v1.KeysService",
    "fenhe.node.v1.AuditService",
    "fenhe.node.v1.MaintenanceService",
    "fenhe.node.v1.BundleService",
    "fenhe.node.v1.DoctorService",
    "fenhe.node.v1.IntakeService",
    "fenhe.node.v1.InvitationService",
    "fenhe.node.v1.NodeService",
    "fenhe.node.v1.RecoveryService",
    "fenhe.node.v1.RegionService",
    "fenhe.node.v1.ReplicationService",
    "fenhe.node.v1.RevocationService",
    "fenhe.replication.v1.LinkService",
)


@dataclass(frozen=True)
class Servicers:
    """What the services work with."""

    desk: CareDesk
    status: NodeServicer
    operations: ReplicationServicer
    hub: LinkHub
    questions: Questions
    region: RegionServicer
    residence: ResidenceServicer
    seeding: SeedingRoom
    where: Wherever
    reconcile: ReconcileRoom
    joining: JoiningRoom
    revocation: RevocationRoom
    keys: KeysRoom
    auditing: AuditServicer
    consent: ConsentRoom
    people: PeopleRoom
    clock: Clock
    utc: Callable[[], datetime]
    checkup: CheckupRoom
    intake: IntakeRoom
    matching: MatchingRoom
    merging: MergingRoom


async def add_servicers(server: grpc.aio.Server, servicers: Servicers) -> health.aio.HealthServicer:
    """Add every service; returns the health servicer, which is told about the shutdown."""
    note = servicers.desk.storage.note
    records = RecordServicer(servicers.desk, servicers.where)
    care_pb2_grpc.add_RecordServiceServicer_to_server(records, server)
    residents = ResidentServicer(servicers.desk)
    empi_pb2_grpc.add_ResidentServiceServicer_to_server(residents, server)
    _answer_in_bytes(server, residents)
    node_pb2_grpc.add_NodeServiceServicer_to_server(servicers.status, server)
    operations_pb2_grpc.add_ReplicationServiceServicer_to_server(servicers.operations, server)
    region_pb2_grpc.add_RegionServiceServicer_to_server(servicers.region, server)
    residence_pb2_grpc.add_ResidenceServiceServicer_to_server(servicers.residence, server)
    steward_pb2_grpc.add_StewardServiceServicer_to_server(
        StewardServicer(servicers.merging, servicers.matching, servicers.desk), server
    )
    bundles_pb2_grpc.add_BundleServiceServicer_to_server(
        BundleServicer(servicers.seeding.stick, note), server
    )
    recovery_pb2_grpc.add_RecoveryServiceServicer_to_server(
        RecoveryServicer(servicers.seeding, note), server
    )
    maintenance_pb2_grpc.add_MaintenanceServiceServicer_to_server(
        MaintenanceServicer(servicers.reconcile, note), server
    )
    auditing_pb2_grpc.add_AuditServiceServicer_to_server(servicers.auditing, server)
    intake_pb2_grpc.add_IntakeServiceServicer_to_server(IntakeServicer(servicers.intake), server)
    joining_pb2_grpc.add_InvitationServiceServicer_to_server(
        InvitationServicer(servicers.joining.desk), server
    )
    revocation_pb2_grpc.add_RevocationServiceServicer_to_server(
        RevocationServicer(servicers.revocation.desk), server
    )
    keys_pb2_grpc.add_KeysServiceServicer_to_server(KeysServicer(servicers.keys), server)
    doctor_pb2_grpc.add_DoctorServiceServicer_to_server(
        CheckupServicer(servicers.checkup, servicers.checkup.clock), server
    )
    _add_consent(server, servicers.consent)
    _add_people(server, servicers)
    replication_pb2_grpc.add_LinkServiceServicer_to_server(
        LinkServicer(servicers.hub, servicers.utc), server
    )
    federation_pb2_grpc.add_QueryServiceServicer_to_server(
        QueryServicer(servicers.questions), server
    )
    federation_pb2_grpc.add_ExecutorServiceServicer_to_server(
        ExecutorServicer(servicers.questions), server
    )
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    described = (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(described, server)
    for name in ("", *SERVICE_NAMES):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return health_servicer


def _add_consent(server: grpc.aio.Server, room: ConsentRoom) -> None:
    consents, access = ConsentServicer(room), AccessServicer(room)
    consent_pb2_grpc.add_ConsentServiceServicer_to_server(consents, server)
    consent_pb2_grpc.add_AccessServiceServicer_to_server(access, server)


def _add_people(server: grpc.aio.Server, servicers: Servicers) -> None:
    room = servicers.people
    people_pb2_grpc.add_OrganizationServiceServicer_to_server(OrganizationServicer(room), server)
    people_pb2_grpc.add_StaffServiceServicer_to_server(StaffServicer(room), server)
    accounts = AccountServicer(room, servicers.clock)
    people_pb2_grpc.add_AccountServiceServicer_to_server(accounts, server)
    people_pb2_grpc.add_SessionServiceServicer_to_server(SessionServicer(room), server)


def _answer_in_bytes(server: grpc.aio.Server, residents: ResidentServicer) -> None:
    """Take ResidentService.Get over from the generated code: its answers are bytes already."""
    get: grpc.RpcMethodHandler[empi_pb2.GetResidentRequest, bytes] = (
        grpc.unary_unary_rpc_method_handler(
            residents.Get, request_deserializer=empi_pb2.GetResidentRequest.FromString
        )
    )
    server.add_registered_method_handlers("fenhe.empi.v1.ResidentService", {"Get": get})
