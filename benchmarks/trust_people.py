"""A doctor who has signed in at a node, and residents whom his hospital cares for."""

from __future__ import annotations

from typing import Any, Final

import protos.fenhe.control.v1.consent_pb2 as access
import protos.fenhe.control.v1.people_pb2 as people
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId
from node.cli.client import connected
from node.demo.place import DemoPlace
from node.security.credentials import load_credentials
from protos.fenhe.control.v1 import consent_pb2_grpc, people_pb2_grpc
from protos.fenhe.empi.v1 import empi_pb2_grpc

__all__ = ["care_for", "hospital_of", "register", "sign_in"]

_CALL_S: Final = 60
_FIRST: Final = "the first one of all"
_SECOND: Final = "four words make one"
_NAME: Final = "bench"


def register(place: DemoPlace, node: NodeId, number: int) -> list[str]:
    """So many residents as a clinic registers them, with an identifier each; their ids."""
    with _channel(place, "client", node) as channel:
        request = empi.RegisterRequest(
            request_id="bench-residents",
            residents=[
                empi.Resident(
                    name=f"居民{each}",
                    sex=empi.SEX_FEMALE,
                    birth_date="1961-05-04",
                    phone="13900000000",
                    address="临汾市尧都区",
                    identifiers=[empi.Identifier(system="health_card", value=f"C{each:08d}")],
                )
                for each in range(number)
            ],
        )
        answer = empi_pb2_grpc.ResidentServiceStub(channel).Register(request, timeout=_CALL_S)
    return list(answer.resident_ids)


def hospital_of(place: DemoPlace, node: NodeId) -> str:
    """A hospital at the node with a doctor who has an account; the hospital's id."""
    with _channel(place, "operator", node) as channel:
        organizations = people_pb2_grpc.OrganizationServiceStub(channel)
        staff = people_pb2_grpc.StaffServiceStub(channel)
        accounts = people_pb2_grpc.AccountServiceStub(channel)
        hospital = organizations.AddOrganization(
            people.AddOrganizationRequest(
                division=node, name="卫生室", kind="clinic", request_id="bench-hospital"
            ),
            timeout=_CALL_S,
        ).id
        doctor = staff.AddStaff(
            people.AddStaffRequest(
                organization_id=hospital, name="李四", request_id="bench-doctor"
            ),
            timeout=_CALL_S,
        ).id
        staff.GiveRole(
            people.GiveRoleRequest(staff_id=doctor, role="doctor", request_id="bench-role"),
            timeout=_CALL_S,
        )
        accounts.AddAccount(
            people.AddAccountRequest(
                name=_NAME, staff_id=doctor, password=_FIRST, request_id="bench-account"
            ),
            timeout=_CALL_S,
        )
    with _channel(place, "client", node) as channel:
        people_pb2_grpc.SessionServiceStub(channel).SignIn(
            people.SignInRequest(name=_NAME, password=_FIRST, new_password=_SECOND),
            timeout=_CALL_S,
        )
    return str(hospital)


def care_for(place: DemoPlace, node: NodeId, hospital: str, residents: list[str]) -> None:
    """Write down that the hospital cares for the residents."""
    with _channel(place, "client", node) as channel:
        stub = consent_pb2_grpc.AccessServiceStub(channel)
        for each in residents:
            stub.PutRelation(
                access.PutRelationRequest(
                    request_id=f"bench-{each}",
                    resident_id=each,
                    organization_id=hospital,
                    kind="contract",
                ),
                timeout=_CALL_S,
            )


def sign_in(place: DemoPlace, node: NodeId) -> str:
    """A fresh token of the doctor's."""
    with _channel(place, "client", node) as channel:
        session = people_pb2_grpc.SessionServiceStub(channel).SignIn(
            people.SignInRequest(name=_NAME, password=_SECOND), timeout=_CALL_S
        )
    return str(session.token)


def _channel(place: DemoPlace, kind: str, node: NodeId) -> Any:
    who = load_credentials(place.credentials_dir(f"{kind}-{node}"))
    return connected(who, signed_in=False)
