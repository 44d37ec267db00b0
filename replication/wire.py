"""Frames to protobuf and back. The generated types stop here.

A frame that cannot be understood raises RemoteProtocolError: it is never skipped. So does one with
a number or a name that no store holds: a peer's 2**63 would otherwise end in a database's error,
and what one database takes and the next does not would stop every node between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, assert_never

import zstandard
from google.protobuf.message import DecodeError

import protos.fenhe.common.v1.common_pb2 as common
import protos.fenhe.replication.v1.replication_pb2 as pb
from replication.core.model import (
    AnswerPart,
    Batch,
    Cancel,
    Credit,
    Cursor,
    Form,
    Frame,
    Goodbye,
    Hello,
    Lane,
    LogEntry,
    Mark,
    Receipt,
    Refusal,
    Request,
    StreamEpoch,
)
from replication.errors import RemoteProtocolError

__all__ = ["BODY_BYTES_MAX", "decode_frame", "encode_frame", "frame_of", "packed_frame"]

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
"""Most a batch body may unpack to, bytes: a peer cannot make this node allocate more."""

_PACK_ABOVE: Final = 512
_COUNT_MAX: Final = 2**62
"""Numbers travel unsigned; databases keep them signed."""
_SMALL_MAX: Final = 2**31 - 1
_CODEC_MAX: Final = 2**15 - 1
_NODE_MAX: Final = 32
_NAME_MAX: Final = 64
_KEY_MAX: Final = 128
_SIGNATURE_MAX: Final = 512
_HASH_MAX: Final = 32
_POSITION_MAX: Final = 255
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_SENTENCE: Final = re.compile(r"(?:(?![0-9]{13})[ -~]){0,1000}")
_FORM_OUT: Final = {
    Form.FULL: common.FORM_FULL,
    Form.DEIDENTIFIED: common.FORM_DEIDENTIFIED,
    Form.INDEX: common.FORM_INDEX,
    Form.SEALED: common.FORM_SEALED,
}
_FORM_IN: Final = {number: form for form, number in _FORM_OUT.items()}


def encode_frame(frame: Frame) -> pb.Frame:
    """The protobuf message of a frame."""
    match frame:
        case Batch():
            return pb.Frame(batch=_batch_out(frame))
        case Receipt():
            return pb.Frame(
                receipt=pb.Receipt(
                    cursor=_cursor_out(frame.cursor),
                    signature=frame.signature,
                    key_id=frame.key_id,
                    refused=frame.refused,
                )
            )
        case Mark():
            homes = [
                pb.Mark.HomeMark(home_node=home, as_of_ms=ms) for home, ms in frame.homes.items()
            ]
            return pb.Frame(mark=pb.Mark(homes=homes, at_sequence=frame.at_sequence))
        case Hello():
            return pb.Frame(hello=_hello_out(frame))
        case Refusal():
            return pb.Frame(
                refusal=pb.Refusal(code=frame.code, reason=frame.reason, hint=frame.hint)
            )
        case Goodbye():
            return pb.Frame(goodbye=pb.Goodbye(reason=frame.reason))
        case Request() | AnswerPart() | Cancel() | Credit():
            return _channel_out(frame)
        case _:
            assert_never(frame)


def decode_frame(message: pb.Frame) -> Frame:
    """The frame of a protobuf message.

    Raises:
        RemoteProtocolError: The message holds no frame known here, or a broken one.
    """
    kind = message.WhichOneof("body")
    reader = _READERS.get(kind or "")
    if reader is None:
        raise RemoteProtocolError("a frame of an unknown kind arrived")
    try:
        return reader(getattr(message, str(kind)))
    except (ValueError, zstandard.ZstdError) as error:
        raise RemoteProtocolError(f"a {kind} frame cannot be decoded") from error


def packed_frame(frame: Frame) -> bytes:
    """A frame as bytes, for a file."""
    return encode_frame(frame).SerializeToString()


def frame_of(data: bytes) -> Frame:
    """The frame that packed_frame made bytes of.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        return decode_frame(pb.Frame.FromString(data))
    except DecodeError as error:
        raise RemoteProtocolError("a frame in a file cannot be decoded") from error


def _cursor_out(cursor: Cursor) -> pb.Cursor:
    return pb.Cursor(
        lane=_lane_out(cursor.lane),
        stream_epoch=_epoch_out(cursor.stream_epoch),
        number=cursor.number,
        covers_to=cursor.covers_to,
        running_hash=cursor.running_hash,
        position=cursor.position,
    )


def _cursor_in(message: pb.Cursor) -> Cursor:
    return Cursor(
        lane=Lane(message.lane),
        stream_epoch=_epoch_in(message.stream_epoch),
        number=_count(message.number),
        covers_to=_count(message.covers_to),
        running_hash=_sized(message.running_hash, _HASH_MAX),
        position=_position(message.position),
    )


def _count(value: int, most: int = _COUNT_MAX, least: int = 0) -> int:
    if not least <= value <= most:
        raise RemoteProtocolError("a number is out of its range")
    return value


def _time(ms: int) -> int:
    """By the peer's clock, which may be wrong by any number of years."""
    return _count(ms, _COUNT_MAX, -_COUNT_MAX)


def _word(text: str, longest: int = _NODE_MAX) -> str:
    if len(text) > longest or not text.isascii() or not text.isprintable():
        raise RemoteProtocolError("a name is not one of this protocol")
    return text


def _sized(data: bytes, longest: int) -> bytes:
    if len(data) > longest:
        raise RemoteProtocolError("a hash or a signature is too long")
    return data


def _lane_out(lane: Lane) -> common.Lane.ValueType:
    return common.Lane.ValueType(lane.value)


def _epoch_out(epoch: StreamEpoch) -> pb.StreamEpoch:
    return pb.StreamEpoch(sender=epoch.sender, receiver=epoch.receiver)


def _epoch_in(message: pb.StreamEpoch) -> StreamEpoch:
    return StreamEpoch(_count(message.sender), _count(message.receiver))


def _hello_out(hello: Hello) -> pb.Hello:
    return pb.Hello(
        node_id=hello.node_id,
        protocol_min=hello.protocol_min,
        protocol_max=hello.protocol_max,
        schema=hello.schema,
        store_epoch=hello.store_epoch,
        store_incarnation=hello.store_incarnation,
        peer_store_epoch_seen=hello.peer_store_epoch_seen,
        config_epoch=hello.config_epoch,
        cursors=[_cursor_out(cursor) for cursor in hello.cursors],
        features=hello.features,
        clock_ms=hello.clock_ms,
        signing_certificate=hello.signing_certificate,
        schema_min=hello.schema_min,
    )


def _hello_in(message: pb.Hello) -> Hello:
    return Hello(
        node_id=_word(message.node_id),
        protocol_min=message.protocol_min,
        protocol_max=message.protocol_max,
        schema=message.schema,
        store_epoch=_count(message.store_epoch),
        store_incarnation=_word(message.store_incarnation, _NAME_MAX),
        peer_store_epoch_seen=_count(message.peer_store_epoch_seen),
        config_epoch=message.config_epoch,
        cursors=tuple(_cursor_in(cursor) for cursor in message.cursors),
        features=tuple(message.features),
        clock_ms=message.clock_ms,
        signing_certificate=message.signing_certificate,
        schema_min=message.schema_min,
    )


def _batch_out(batch: Batch) -> pb.Batch:
    body = pb.BatchBody(entries=[_entry_out(entry) for entry in batch.entries]).SerializeToString()
    packing = "zstd" if len(body) > _PACK_ABOVE else ""
    packed = zstandard.ZstdCompressor(level=1).compress(body) if packing else body
    return pb.Batch(
        lane=_lane_out(batch.lane),
        stream_epoch=_epoch_out(batch.stream_epoch),
        number=batch.number,
        previous=batch.previous,
        covers_from=batch.covers_from,
        covers_to=batch.covers_to,
        coalesced=batch.coalesced,
        digest=batch.digest,
        packing=packing,
        body=packed,
        body_bytes=len(body),
        position=batch.position,
        row_count=batch.row_count,
    )


def _batch_in(message: pb.Batch) -> Batch:
    if message.body_bytes > BODY_BYTES_MAX:
        raise RemoteProtocolError(f"a batch of {message.body_bytes} bytes is over the limit")
    match message.packing:
        case "":
            body = message.body
        case "zstd":
            body = _unpacked(message.body, message.body_bytes)
        case packing:
            raise RemoteProtocolError(f"packing {packing!r} is not known here")
    if len(body) != message.body_bytes:
        raise RemoteProtocolError("a batch body has another size than it says")
    try:
        entries = pb.BatchBody.FromString(body).entries
    except DecodeError as error:
        raise RemoteProtocolError("a batch body cannot be decoded") from error
    return Batch(
        lane=Lane(message.lane),
        stream_epoch=_epoch_in(message.stream_epoch),
        number=_count(message.number),
        previous=_count(message.previous),
        covers_from=_count(message.covers_from),
        covers_to=_count(message.covers_to),
        coalesced=message.coalesced,
        digest=message.digest,
        entries=tuple(_entry_in(entry, Lane(message.lane)) for entry in entries),
        row_count=message.row_count,
        body_bytes=message.body_bytes,
        position=_position(message.position),
    )


def _unpacked(packed: bytes, size: int) -> bytes:
    """The body of a batch that says it unpacks to `size` bytes."""
    # The library believes a size in the packed bytes themselves before any limit that it is given.
    said = zstandard.frame_content_size(packed)
    if said not in (-1, size):
        raise RemoteProtocolError("a batch body has another size than it says")
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size or 1)


def _entry_out(entry: LogEntry) -> pb.Entry:
    return pb.Entry(
        origin_node=entry.origin_node,
        origin_epoch=entry.origin_epoch,
        origin_sequence=entry.origin_sequence,
        home_node=entry.home_node,
        form=_FORM_OUT[entry.form],
        codec=entry.codec,
        schema_version=entry.schema_version,
        committed_at_ms=entry.committed_at_ms,
        row_count=entry.row_count,
        rows=entry.rows,
    )


def _entry_in(message: pb.Entry, lane: Lane) -> LogEntry:
    form = _FORM_IN.get(message.form)
    if form is None:
        raise RemoteProtocolError(f"row form {message.form} is not known here")
    return LogEntry(
        sequence=0,
        origin_node=_word(message.origin_node),
        origin_epoch=_count(message.origin_epoch),
        origin_sequence=_count(message.origin_sequence),
        lane=lane,
        home_node=_word(message.home_node),
        form=form,
        codec=_count(message.codec, _CODEC_MAX),
        schema_version=_count(message.schema_version, _SMALL_MAX),
        committed_at_ms=_time(message.committed_at_ms),
        row_count=_count(message.row_count, _SMALL_MAX),
        rows=message.rows,
    )


def _channel_out(frame: Request | AnswerPart | Cancel | Credit) -> pb.Frame:
    match frame:
        case Request():
            return pb.Frame(
                request=pb.Request(
                    id=frame.id,
                    route=frame.route,
                    method=frame.method,
                    remaining_ms=frame.remaining_ms,
                    manifest=frame.manifest,
                    body=frame.body,
                )
            )
        case AnswerPart():
            return pb.Frame(
                answer_part=pb.AnswerPart(
                    id=frame.id,
                    n=frame.n,
                    last=frame.last,
                    status=frame.status,
                    reason=frame.reason,
                    digest=frame.digest,
                    body=frame.body,
                )
            )
        case Cancel():
            return pb.Frame(cancel=pb.Cancel(id=frame.id))
        case Credit():
            return pb.Frame(credit=pb.Credit(id=frame.id, bytes=frame.bytes))
        case _:
            assert_never(frame)


_READERS: Final[dict[str, Callable[[Any], Frame]]] = {
    "hello": _hello_in,
    "refusal": lambda m: Refusal(_code(m.code), _said(m.reason), _said(m.hint)),
    "batch": _batch_in,
    "receipt": lambda m: Receipt(
        _cursor_in(m.cursor),
        _code(m.refused) if m.refused else "",
        _sized(m.signature, _SIGNATURE_MAX),
        _word(m.key_id, _KEY_MAX),
    ),
    "mark": lambda m: Mark(
        {_word(h.home_node): _time(h.as_of_ms) for h in m.homes}, _count(m.at_sequence)
    ),
    "request": lambda m: Request(
        m.id, tuple(m.route), m.method, m.remaining_ms, m.manifest, m.body
    ),
    "answer_part": lambda m: AnswerPart(
        m.id,
        m.n,
        m.last,
        _code(m.status) if m.status else "",
        _said(m.reason),
        m.digest,
        m.body,
    ),
    "cancel": lambda m: Cancel(m.id),
    "credit": lambda m: Credit(m.id, m.bytes),
    "goodbye": lambda m: Goodbye(_said(m.reason)),
}


def _position(text: str) -> str:
    if len(text) > _POSITION_MAX or not text.isascii():
        raise RemoteProtocolError("a snapshot's position is not of this protocol")
    return text


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise RemoteProtocolError("a code is not of this protocol")
    return text


def _said(text: str) -> str:
    """A peer's sentence, which goes into this node's log and status.

    What is in another script, long, or has more digits in a row than a node's code could be about
    a person, whatever the protocol asks of the peer.
    """
    return text if _SENTENCE.fullmatch(text) else "(what the peer said is not repeated)"
