"""ConsentService and AccessService: who may read a resident's rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc

import protos.fenhe.control.v1.consent_pb2 as pb
from node.consent.model import Consent, Grant, Relation, Review, Wanted
from node.consent.room import ConsentRoom
from node.services.interceptor import current_call
from protos.fenhe.control.v1 import consent_pb2_grpc

__all__ = ["AccessServicer", "ConsentServicer"]

_PAGE: Final = 50
_PAGE_MAX: Final = 200

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


class ConsentServicer(consent_pb2_grpc.ConsentServiceServicer):
    """fenhe.control.v1.ConsentService."""

    def __init__(self, room: ConsentRoom) -> None:
        self._room = room

    async def PutConsent(self, request: pb.PutConsentRequest, context: Context) -> pb.Consent:
        """Write down a consent."""
        wanted = Wanted(
            request.request_id,
            request.resident_id,
            what=request.decision,
            whom=request.recipient,
            purpose=request.purpose,
            from_on=request.from_on,
            until_on=request.until_on,
            reason=request.note,
        )
        caller = current_call().caller
        return _consent_out(await _changed(self._room, self._room.consents.put, caller, wanted))

    async def ListConsents(
        self, request: pb.ListConsentsRequest, context: Context
    ) -> pb.ListConsentsResponse:
        """A resident's consents."""
        caller, size = current_call().caller, _size(request.page_size)
        found = await asyncio.to_thread(
            self._room.consents.listed,
            caller,
            request.resident_id,
            after=request.after,
            limit=size + 1,
        )
        return pb.ListConsentsResponse(
            consents=map(_consent_out, found[:size]),
            next_after=found[size - 1].consent_id if len(found) > size else "",
        )

    async def RevokeConsent(self, request: pb.RevokeConsentRequest, context: Context) -> pb.Consent:
        """End a consent."""
        caller, desk = current_call().caller, self._room.consents
        return _consent_out(await _changed(self._room, desk.revoke, caller, request.consent_id))


class AccessServicer(consent_pb2_grpc.AccessServiceServicer):
    """fenhe.control.v1.AccessService."""

    def __init__(self, room: ConsentRoom) -> None:
        self._room = room

    async def PutRelation(self, request: pb.PutRelationRequest, context: Context) -> pb.Relation:
        """Write down that an organization cares for a resident."""
        wanted = Wanted(
            request.request_id,
            request.resident_id,
            what=request.kind,
            whom=request.organization_id,
            from_on=request.from_on,
            until_on=request.until_on,
            identifier=(request.identifier_system, request.identifier_value),
        )
        caller, desk = current_call().caller, self._room.access
        return _relation_out(await _changed(self._room, desk.relate, caller, wanted))

    async def EndRelation(self, request: pb.EndRelationRequest, context: Context) -> pb.Relation:
        """End a relation."""
        caller, desk = current_call().caller, self._room.access
        ended = await _changed(self._room, desk.end_relation, caller, request.relation_id)
        return _relation_out(ended)

    async def CreateGrant(self, request: pb.CreateGrantRequest, context: Context) -> pb.Grant:
        """Grant access for a while."""
        wanted = Wanted(
            request.request_id,
            request.resident_id,
            whom=request.grantee,
            reason=request.reason,
            hours=request.hours,
        )
        caller, desk = current_call().caller, self._room.access
        return _grant_out(await _changed(self._room, desk.grant, caller, wanted))

    async def RevokeGrant(self, request: pb.RevokeGrantRequest, context: Context) -> pb.Grant:
        """End a grant."""
        caller, desk = current_call().caller, self._room.access
        return _grant_out(await _changed(self._room, desk.revoke_grant, caller, request.grant_id))

    async def ListAccess(
        self, request: pb.ListAccessRequest, context: Context
    ) -> pb.ListAccessResponse:
        """A resident's relations and grants."""
        caller, size = current_call().caller, _size(request.page_size)
        relations, grants = await asyncio.to_thread(
            self._room.access.listed,
            caller,
            request.resident_id,
            after=request.after,
            limit=size + 1,
        )
        ids = sorted([r.relation_id for r in relations] + [g.grant_id for g in grants])
        # One order for both kinds, so that one id says where the next page begins.
        last = ids[size - 1] if len(ids) > size else ""
        return pb.ListAccessResponse(
            relations=[_relation_out(r) for r in relations if not last or r.relation_id <= last],
            grants=[_grant_out(g) for g in grants if not last or g.grant_id <= last],
            next_after=last,
        )

    async def BreakGlass(
        self, request: pb.BreakGlassRequest, context: Context
    ) -> pb.BreakGlassResponse:
        """See one resident for half an hour, whatever consents say."""
        wanted = Wanted(request.request_id, request.resident_id, reason=request.reason)
        caller, desk = current_call().caller, self._room.access
        broken = await _changed(self._room, desk.break_glass, caller, wanted)
        return pb.BreakGlassResponse(
            grant=_grant_out(broken.grant),
            overrides_consent=broken.overrides,
            home_node=broken.grant.home_node,
        )

    async def ListReviews(
        self, request: pb.ListReviewsRequest, context: Context
    ) -> pb.ListReviewsResponse:
        """Glasses that were broken over residents of this home."""
        caller, size = current_call().caller, _size(request.page_size)
        found = await asyncio.to_thread(
            self._room.reviews.listed,
            caller,
            closed_too=request.all,
            after=request.after,
            limit=size + 1,
        )
        return pb.ListReviewsResponse(
            reviews=map(_review_out, found[:size]),
            next_after=found[size - 1].grant.grant_id if len(found) > size else "",
        )

    async def CloseReview(self, request: pb.CloseReviewRequest, context: Context) -> pb.Review:
        """Say what was found."""
        caller, desk = current_call().caller, self._room.reviews
        said = (request.grant_id, request.finding, request.note)
        return _review_out(await _changed(self._room, desk.close, caller, *said))


async def _changed(room: ConsentRoom, work: Callable[..., T], *args: Any) -> T:
    """Run what writes, in a thread; then tell the readers of the log."""
    done = await asyncio.to_thread(work, *args)
    room.notify()
    return done


def _size(asked: int) -> int:
    return min(asked or _PAGE, _PAGE_MAX)


def _consent_out(consent: Consent) -> pb.Consent:
    return pb.Consent(
        consent_id=consent.consent_id,
        resident_id=consent.resident_id,
        purpose=consent.purpose,
        recipient=consent.recipient,
        decision=consent.decision,
        from_on=consent.from_on,
        until_on=consent.until_on,
        note=consent.note,
        recorded_at=consent.recorded_at,
        given_to=consent.given_to,
        revoked_at=consent.revoked_at,
    )


def _relation_out(relation: Relation) -> pb.Relation:
    return pb.Relation(
        relation_id=relation.relation_id,
        resident_id=relation.resident_id,
        organization_id=relation.organization_id,
        kind=relation.kind,
        from_on=relation.from_on,
        until_on=relation.until_on,
        author_node=relation.author_node,
        opened_by=relation.opened_by,
        ended_at=relation.ended_at,
    )


def _grant_out(grant: Grant) -> pb.Grant:
    return pb.Grant(
        grant_id=grant.grant_id,
        resident_id=grant.resident_id,
        grantee=grant.grantee,
        kind=grant.kind,
        from_at=grant.from_at,
        until_at=grant.until_at,
        reason=grant.reason,
        granted_by=grant.granted_by,
        author_node=grant.author_node,
        revoked_at=grant.revoked_at,
    )


def _review_out(review: Review) -> pb.Review:
    return pb.Review(
        grant=_grant_out(review.grant),
        state=review.state,
        note=review.note,
        closed_at=review.closed_at,
        closed_by=review.closed_by,
    )
