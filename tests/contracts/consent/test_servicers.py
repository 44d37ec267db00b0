"""What the services make of a request, for people who have signed in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytest

import protos.fenhe.control.v1.consent_pb2 as pb
from node.consent.access import AccessDesk
from node.consent.consents import ConsentDesk
from node.consent.reviews import ReviewDesk
from node.consent.room import ConsentRoom
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.services import consent as services
from node.services.consent import AccessServicer, ConsentServicer
from tests.contracts.consent.world import HERE, ORGANIZATION, World, caller, row_id_of

HIS = row_id_of(1)
CONTEXT: Any = None
T = TypeVar("T")


class Room:
    """The desks of a township, and how often readers of the log were told."""

    def __init__(self, world: World) -> None:
        world.add_resident(1, HERE)
        world.store()
        context = world.storage.context
        self.consents = ConsentDesk(context, lambda: None)
        self.access = AccessDesk(context, lambda: None)
        self.reviews = ReviewDesk(context, lambda: None)
        self.told = 0

    def notify(self) -> None:
        self.told += 1


@pytest.fixture
def room(world: World) -> Room:
    """On each database."""
    return Room(world)


@dataclass
class Asking:
    """Who the calls are made by, in place of the interceptor's word."""

    caller: Caller | None = None

    def __call__(self, asker: Caller, work: Coroutine[Any, Any, T]) -> T:
        self.caller = asker
        return asyncio.run(_result_of(work))


async def _result_of(work: Coroutine[Any, Any, T]) -> T:
    return await work


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Asking:
    """What the services take for the caller of the call."""
    made = Asking()
    monkeypatch.setattr(services, "current_call", lambda: made)
    return made


def _person(role: Role) -> Caller:
    return caller(CallerKind.STAFF, organization=ORGANIZATION, staff_id=role.value, role=role)


REGISTRAR, DOCTOR, AUDITOR = map(_person, (Role.REGISTRAR, Role.DOCTOR, Role.AUDITOR))


def test_people_write_read_and_revoke_consents(room: Room, asking: Asking) -> None:
    """One way through every call of the service."""
    consents = ConsentServicer(cast(ConsentRoom, room))
    consent = asking(
        REGISTRAR,
        consents.PutConsent(
            pb.PutConsentRequest(
                request_id="c",
                resident_id=HIS,
                purpose="research",
                recipient="everyone",
                decision="deny",
                until_on="2090-01-01",
                note="paper",
            ),
            CONTEXT,
        ),
    )
    assert (consent.decision, consent.until_on, consent.note) == ("deny", "2090-01-01", "paper")
    page = asking(
        REGISTRAR, consents.ListConsents(pb.ListConsentsRequest(resident_id=HIS), CONTEXT)
    )
    assert list(page.consents) == [consent]
    revoke = pb.RevokeConsentRequest(consent_id=consent.consent_id)
    assert asking(REGISTRAR, consents.RevokeConsent(revoke, CONTEXT)).revoked_at
    assert room.told == 2


def test_people_open_read_review_and_end_access(room: Room, asking: Asking) -> None:
    """One way through every call of the other."""
    access = AccessServicer(cast(ConsentRoom, room))
    relate = pb.PutRelationRequest(request_id="r", resident_id=HIS, kind="contract")
    relation = asking(REGISTRAR, access.PutRelation(relate, CONTEXT))
    assert relation.organization_id == ORGANIZATION
    grant = asking(
        DOCTOR,
        access.CreateGrant(
            pb.CreateGrantRequest(
                request_id="g", resident_id=HIS, grantee="staff:x", hours=1, reason="second opinion"
            ),
            CONTEXT,
        ),
    )
    broken = asking(
        DOCTOR,
        access.BreakGlass(
            pb.BreakGlassRequest(request_id="b", resident_id=HIS, reason="unconscious"), CONTEXT
        ),
    )
    assert (broken.home_node, broken.overrides_consent) == (HERE, False)
    shown: list[str] = []
    request = pb.ListAccessRequest(resident_id=HIS, page_size=1)
    while True:
        part = asking(DOCTOR, access.ListAccess(request, CONTEXT))
        shown += [each.relation_id for each in part.relations]
        shown += [each.grant_id for each in part.grants]
        if not part.next_after:
            break
        request.after = part.next_after
    assert shown == sorted([relation.relation_id, grant.grant_id, broken.grant.grant_id])

    listed = asking(AUDITOR, access.ListReviews(pb.ListReviewsRequest(), CONTEXT))
    assert [(each.grant, each.state) for each in listed.reviews] == [(broken.grant, "open")]
    close = pb.CloseReviewRequest(grant_id=broken.grant.grant_id, finding="justified", note="yes")
    assert asking(AUDITOR, access.CloseReview(close, CONTEXT)).closed_by == AUDITOR.principal
    ended = asking(
        DOCTOR, access.RevokeGrant(pb.RevokeGrantRequest(grant_id=grant.grant_id), CONTEXT)
    )
    assert ended.revoked_at
    end = pb.EndRelationRequest(relation_id=relation.relation_id)
    assert asking(REGISTRAR, access.EndRelation(end, CONTEXT)).ended_at
    assert room.told == 6
