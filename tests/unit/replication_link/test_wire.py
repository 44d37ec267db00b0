"""Frames on the wire: every frame comes back as it went, and what is broken is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from replication.wire import BODY_BYTES_MAX, decode_frame, encode_frame

number = st.integers(0, 2**63)
small = st.integers(0, 2**31)
text = st.text(max_size=20)
blob = st.binary(max_size=40)
lane = st.sampled_from(Lane)
epoch = st.builds(StreamEpoch, number, number)
cursor = st.builds(Cursor, lane, epoch, number, number, blob)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """A batch whose counts fit its entries, as a sender makes it."""
    where = draw(lane)
    entries = tuple(
        LogEntry(
            sequence=0,
            origin_node=draw(text),
            origin_epoch=draw(number),
            origin_sequence=draw(number),
            lane=where,
            home_node=draw(text),
            form=draw(st.sampled_from(Form)),
            codec=1,
            schema_version=1,
            committed_at_ms=draw(small),
            row_count=draw(small),
            rows=draw(st.binary(max_size=1500)),
        )
        for _ in range(draw(st.integers(0, 3)))
    )
    return Batch(
        lane=where,
        stream_epoch=draw(epoch),
        number=draw(number),
        previous=draw(number),
        covers_from=draw(number),
        covers_to=draw(number),
        coalesced=draw(st.booleans()),
        digest=draw(blob),
        entries=entries,
        row_count=draw(small),
        body_bytes=0,
    )


frames = st.one_of(
    st.builds(
        Hello,
        node_id=text,
        protocol_min=small,
        protocol_max=small,
        schema=small,
        store_epoch=number,
        store_incarnation=text,
        peer_store_epoch_seen=number,
        config_epoch=number,
        cursors=st.lists(cursor, max_size=3).map(tuple),
        features=st.lists(text, max_size=3).map(tuple),
        clock_ms=small,
        signing_certificate=blob,
    ),
    st.builds(Refusal, text, text, text),
    st.builds(Receipt, cursor, text, blob, text),
    st.builds(Mark, st.dictionaries(text, small, max_size=3), number),
    st.builds(Request, number, st.lists(text, max_size=3).map(tuple), text, small, blob, blob),
    st.builds(AnswerPart, number, small, st.booleans(), text, text, blob, blob),
    st.builds(Cancel, number),
    st.builds(Credit, number, small),
    st.builds(Goodbye, text),
)


@given(frames)
def test_a_frame_comes_back_as_it_went(frame: Frame) -> None:
    """Encode, serialise, parse, decode: the same frame."""
    message = pb.Frame.FromString(encode_frame(frame).SerializeToString())
    assert decode_frame(message) == frame


@given(batches())
def test_a_batch_comes_back_with_its_size(batch: Batch) -> None:
    """The entries are packed and unpacked; body_bytes says what they take."""
    back = decode_frame(pb.Frame.FromString(encode_frame(batch).SerializeToString()))
    assert isinstance(back, Batch)
    assert back.entries == batch.entries
    assert (back.lane, back.number, back.previous) == (batch.lane, batch.number, batch.previous)
    assert back.digest == batch.digest


@given(blob, st.sampled_from(["", "zstd", "gzip"]), small)
def test_a_broken_batch_is_the_peers_fault(body: bytes, packing: str, size: int) -> None:
    """Whatever stands in the body, the only error is RemoteProtocolError."""
    message = pb.Frame(
        batch=pb.Batch(lane=common.LANE_BULK, number=1, body=body, packing=packing, body_bytes=size)
    )
    try:
        assert isinstance(decode_frame(message), Batch)
    except RemoteProtocolError:
        assert packing == "gzip" or size != len(body) or body


def test_refuses_to_unpack_more_than_the_limit() -> None:
    """A peer cannot make this node allocate what it likes."""
    message = pb.Frame(
        batch=pb.Batch(lane=common.LANE_BULK, body_bytes=BODY_BYTES_MAX + 1, packing="zstd")
    )
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        decode_frame(message)


def test_refuses_a_frame_of_an_unknown_kind() -> None:
    """A frame that a newer peer invented is an error, not silence."""
    with pytest.raises(RemoteProtocolError, match="unknown kind"):
        decode_frame(pb.Frame())
