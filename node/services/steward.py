"""StewardService: which residents are one person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, Final

import grpc
from pydantic import FiniteFloat, TypeAdapter, ValidationError

import protos.fenhe.empi.v1.empi_pb2 as empi
import protos.fenhe.empi.v1.steward_pb2 as pb
from node.clock import format_ms
from node.errors import InvalidRequestError
from node.matching.model import Evidence, PairState
from node.matching.room import MatchingRoom
from node.merging.desk import Event, Wanted
from node.merging.fold import Decision
from node.merging.room import MergingRoom
from node.records.identity import IdentityNumberError, parse_identity_number
from node.security.caller import Caller
from node.services.care import CareDesk
from node.services.interceptor import current_call
from node.services.wire import joined_wire, resident_in, resident_wire
from node.storage import ResidentQuestion
from node.storage.specs import IDENTITY_NUMBER
from protos.fenhe.empi.v1 import steward_pb2_grpc

__all__ = ["StewardServicer", "evidence_out"]

_CANDIDATES: Final = 10
_PAIRS: Final = 50
Context = grpc.aio.ServicerContext[Any, Any]
_Said: Final = TypeAdapter(dict[str, tuple[str, FiniteFloat]])
_DECISIONS: Final = {
    Decision.SAME: pb.DECISION_SAME,
    Decision.DIFFERENT: pb.DECISION_DIFFERENT,
}


class StewardServicer(steward_pb2_grpc.StewardServiceServicer):
    """fenhe.empi.v1.StewardService."""

    def __init__(self, room: MergingRoom, matching: MatchingRoom, desk: CareDesk) -> None:
        self._room = room
        self._matching = matching
        self._desk = desk

    async def Merge(self, request: pb.DecideRequest, context: Context) -> pb.IdentityEvent:
        """Say that two residents are one person."""
        return await self._decided(self._room.desk.merge, request)

    async def Unmerge(self, request: pb.DecideRequest, context: Context) -> pb.IdentityEvent:
        """Undo what is in force over two residents."""
        return await self._decided(self._room.desk.unmerge, request)

    async def TellApart(self, request: pb.DecideRequest, context: Context) -> pb.IdentityEvent:
        """Say that two residents are two people."""
        return await self._decided(self._room.desk.tell_apart, request)

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Context
    ) -> pb.ListEventsResponse:
        """Somebody's ids, and what was decided over them."""
        caller, desk = current_call().caller, self._room.desk
        group, events = await asyncio.to_thread(desk.look, caller, request.resident_id)
        return pb.ListEventsResponse(
            survivor_id=group.survivor,
            member_ids=sorted(group.members | group.away),
            events=map(_event_out, events),
            is_cut=group.is_cut,
        )

    async def Candidates(
        self, request: pb.CandidatesRequest, context: Context
    ) -> pb.CandidatesResponse:
        """Who may be the one described."""
        caller, limit = current_call().caller, request.limit or _CANDIDATES
        found = await self._matching.candidates(caller, _described(request.resident), limit)
        known = await self._people(caller, [each.resident_id for each in found.found])
        return pb.CandidatesResponse(
            outcome=found.outcome.value,
            candidates=[
                pb.Candidate(
                    resident=known[each.resident_id],
                    probability=each.evidence.probability,
                    weight=each.evidence.weight,
                    evidence=_reasons_out(each.evidence),
                )
                for each in found.found
                if each.resident_id in known
            ],
            is_partial=found.is_partial,
            indexed=found.standing.indexed,
            residents=found.standing.residents,
        )

    async def ListPairs(
        self, request: pb.ListPairsRequest, context: Context
    ) -> pb.ListPairsResponse:
        """The queue of a steward."""
        caller, limit = current_call().caller, request.limit or _PAIRS
        if request.state not in {"", *PairState}:
            raise InvalidRequestError(f"state is one of {', '.join(PairState)}")
        state = PairState(request.state or PairState.WAITING)
        page = await self._matching.pairs(caller, state, request.after, limit)
        ids = [each for pair in page.pairs for each in (pair.first_id, pair.second_id)]
        known = await self._people(caller, ids)
        return pb.ListPairsResponse(
            pairs=[
                pb.Pair(
                    first=known[pair.first_id],
                    second=known[pair.second_id],
                    probability=pair.evidence.probability,
                    weight=pair.evidence.weight,
                    evidence=_reasons_out(pair.evidence),
                    state=pair.state.value,
                    found_at=format_ms(pair.found_at),
                )
                for pair in page.pairs
                if pair.first_id in known and pair.second_id in known
            ],
            next_after=page.next,
        )

    async def _people(self, caller: Caller, ids: Iterable[str]) -> dict[str, empi.Resident]:
        """Residents as the caller sees them, each read audited."""
        wanted = list(dict.fromkeys(ids))
        asked = [ResidentQuestion(caller, each) for each in wanted]
        answers = await self._desk.run(
            self._desk.storage.resident_answers, asked, resident_wire, joined_wire
        )
        return {
            each: empi.Resident.FromString(answer)
            for each, answer in zip(wanted, answers, strict=True)
            if answer is not None
        }

    async def _decided(
        self, decide: Callable[[Caller, Wanted], Event], request: pb.DecideRequest
    ) -> pb.IdentityEvent:
        wanted = Wanted(
            request.request_id,
            request.survivor_id,
            request.merged_id,
            request.reason,
            despite=request.despite,
        )
        event = await asyncio.to_thread(decide, current_call().caller, wanted)
        self._room.notify()
        return _event_out(event)


def _described(resident: empi.Resident) -> dict[str, str]:
    """What is known of somebody, by the names of matching.

    Raises:
        InvalidRequestError: A date or an identity number that cannot be: nobody would be found.
    """
    said = resident_in(resident)
    numbers = [each.value for each in said.identifiers if each.system == IDENTITY_NUMBER]
    try:
        if said.birth_date:
            date.fromisoformat(said.birth_date)
        for number in numbers:
            parse_identity_number(number)
    except IdentityNumberError as wrong:
        raise InvalidRequestError(f"an identity number has {wrong}") from None
    except ValueError:
        raise InvalidRequestError("birth_date is a day such as 1956-03-08") from None
    known = {
        "name": said.name,
        "sex": said.sex,
        "birth_date": said.birth_date,
        "identity_number": numbers[0] if numbers else "",
        "phone": said.phone or "",
        "address": said.address or "",
    }
    return {name: value for name, value in known.items() if value}


def _reasons_out(evidence: Evidence) -> list[pb.FieldEvidence]:
    return [
        pb.FieldEvidence(field=each.field, level=each.level, bits=each.bits)
        for each in evidence.why
    ]


def evidence_out(evidence: str) -> list[pb.FieldEvidence]:
    """What a pair's evidence says field by field, from {field: [level, bits]}.

    It may come from anywhere: what is not of that form says nothing.
    """
    try:
        said = _Said.validate_json(evidence)
    except ValidationError:
        return []
    return [
        pb.FieldEvidence(field=field, level=level, bits=bits)
        for field, (level, bits) in said.items()
    ]


def _event_out(event: Event) -> pb.IdentityEvent:
    return pb.IdentityEvent(
        event_id=event.event_id,
        decision=_DECISIONS[event.decision],
        survivor_id=event.survivor_id,
        merged_id=event.merged_id,
        decided_at=event.decided_at,
        decided_by=event.decided_by,
        author_node=event.author_node,
        reason=event.reason,
        evidence=evidence_out(event.evidence),
        model=event.model,
        ends=sorted(event.ends),
        in_force=event.in_force,
    )
