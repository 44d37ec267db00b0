"""Where a record is, as the message of care.proto."""

from __future__ import annotations

from dataclasses import asdict

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.common.v1.common_pb2 as common
from node.clock import format_ms
from node.transit.model import SentLetter
from node.transit.where import RecordWhere

__all__ = ["where_out"]


def where_out(found: RecordWhere) -> care.WhereResponse:
    """The answer to RecordService/Where."""
    record = found.record
    return care.WhereResponse(
        record_id=record.record_id,
        version=common.Version(
            author_epoch=record.version.author_epoch, number=record.version.number
        ),
        author_node=record.author_node,
        home_node=record.home_node,
        letter=None if found.letter is None else _letter_out(found.letter),
        hops=[care.Hop(**asdict(hop)) for hop in found.hops],
    )


def _letter_out(letter: SentLetter) -> care.Letter:
    parcel, proof = letter.parcel, letter.proof
    return care.Letter(
        letter_id=letter.letter_id,
        state=parcel.state.value,
        code=parcel.code,
        attempts=parcel.attempts,
        next_at="" if parcel.next_ms is None else format_ms(parcel.next_ms),
        receipt_at="" if proof is None else format_ms(proof.at_ms),
        receipt_key_id="" if proof is None else proof.key_id,
    )
