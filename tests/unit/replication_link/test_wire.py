"""Frames on the wire: every frame comes back as it went, and what is broken is refused."""

from __future__ import annotations

import re
import tracemalloc

import pytest
import zstandard
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

number = st.integers(0, 2**62)
small = st.integers(0, 2**31 - 1)
time = st.integers(-(2**62), 2**62)
text = st.text(max_size=20)
code = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
sentence = st.from_regex(r"[ -~]{0,20}", fullmatch=True).filter(
    lambda said: not re.search("[0-9]{13}", said)
)
word = st.from_regex(r"[0-9a-z]{0,16}", fullmatch=True)
blob = st.binary(max_size=32)
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
            origin_node=draw(word),
            origin_epoch=draw(number),
            origin_sequence=draw(number),
            lane=where,
            home_node=draw(word),
            form=draw(st.sampled_from(Form)),
            codec=1,
            schema_version=1,
            committed_at_ms=draw(time),
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
        node_id=word,
        protocol_min=small,
        protocol_max=small,
        schema=small,
        store_epoch=number,
        store_incarnation=word,
        peer_store_epoch_seen=number,
        config_epoch=number,
        cursors=st.lists(cursor, max_size=3).map(tuple),
        features=st.lists(text, max_size=3).map(tuple),
        clock_ms=small,
        signing_certificate=blob,
        schema_min=small,
    ),
    st.builds(Refusal, code, sentence, sentence),
    st.builds(Receipt, cursor, st.just("") | code, blob, word),
    st.builds(Mark, st.dictionaries(word, time, max_size=3), number),
    st.builds(Request, number, st.lists(text, max_size=3).map(tuple), text, small, blob, blob),
    st.builds(
        AnswerPart,
        number,
        small,
        st.booleans(),
        st.just("") | code,
        sentence,
        blob,
        blob,
    ),
    st.builds(Cancel, number),
    st.builds(Credit, number, small),
    st.builds(Goodbye, sentence),
)


@given(frames)
def test_a_frame_comes_back_as_it_went(frame: Frame) -> None:
    """Encode, serialise, parse, decode: the same frame."""
    message = pb.Frame.FromString(encode_frame(frame).SerializeToString())
    assert decode_frame(message) == frame


def test_a_release_that_does_not_say_its_oldest_schema_bears_every_one() -> None:
    """Its Hello has no such field, and is no fault."""
    older = pb.Frame(hello=pb.Hello(node_id="141002", protocol_min=1, protocol_max=2, schema=1))
    back = decode_frame(pb.Frame.FromString(older.SerializeToString()))
    assert isinstance(back, Hello)
    assert (back.schema, back.schema_min) == (1, 0)


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
        assert packing or size != len(body) or body


def test_refuses_to_unpack_more_than_the_limit() -> None:
    """A peer cannot make this node allocate what it likes."""
    message = pb.Frame(
        batch=pb.Batch(lane=common.LANE_BULK, body_bytes=BODY_BYTES_MAX + 1, packing="zstd")
    )
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        decode_frame(message)


def test_a_body_that_unpacks_to_more_than_it_says_is_not_unpacked() -> None:
    """The packed bytes name a size of their own, and the library would take their word for it."""
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(64 * 1024 * 1024))
    message = pb.Frame(
        batch=pb.Batch(lane=common.LANE_BULK, packing="zstd", body=packed, body_bytes=100)
    )
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="another size"):
            decode_frame(message)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [10, 64 * 1024 * 1024])
def test_a_body_of_unknown_size_ends_at_what_was_said(size: int) -> None:
    """Packed bytes without a size of their own are unpacked up to body_bytes, no further."""
    packer = zstandard.ZstdCompressor(level=1, write_content_size=False)
    message = pb.Frame(
        batch=pb.Batch(
            lane=common.LANE_BULK, packing="zstd", body=packer.compress(bytes(size)), body_bytes=100
        )
    )
    with pytest.raises(RemoteProtocolError):
        decode_frame(message)


_ENTRY = pb.Entry(origin_node="141002001201", home_node="141002001201", form=common.FORM_FULL)


@pytest.mark.parametrize(
    "wrong",
    [
        pb.Entry(origin_sequence=2**63),
        pb.Entry(origin_epoch=2**64 - 1),
        pb.Entry(schema_version=2**31),
        pb.Entry(codec=2**15),
        pb.Entry(row_count=2**32 - 1),
        pb.Entry(committed_at_ms=2**63 - 1),
        pb.Entry(origin_node="1" * 33),
        pb.Entry(home_node="村"),
        pb.Entry(home_node="1410\x1b[2J"),
    ],
)
def test_an_entry_that_no_store_can_hold_is_refused(wrong: pb.Entry) -> None:
    """Before it meets a database, and before a relay passes it on to one that is stricter."""
    entry = pb.Entry()
    entry.CopyFrom(_ENTRY)
    entry.MergeFrom(wrong)
    body = pb.BatchBody(entries=[entry]).SerializeToString()
    message = pb.Frame(
        batch=pb.Batch(lane=common.LANE_BULK, number=1, body=body, body_bytes=len(body))
    )
    with pytest.raises(RemoteProtocolError):
        decode_frame(message)


_TOO_FAR = pb.Cursor(lane=common.LANE_BULK, number=2**64 - 1)


@pytest.mark.parametrize(
    "message",
    [
        pb.Frame(batch=pb.Batch(lane=common.LANE_BULK, number=2**63)),
        pb.Frame(batch=pb.Batch(lane=common.LANE_BULK, covers_to=2**63)),
        pb.Frame(hello=pb.Hello(store_epoch=2**63)),
        pb.Frame(hello=pb.Hello(store_incarnation="x" * 65)),
        pb.Frame(hello=pb.Hello(cursors=[_TOO_FAR])),
        pb.Frame(receipt=pb.Receipt(cursor=_TOO_FAR)),
        pb.Frame(receipt=pb.Receipt(cursor=pb.Cursor(lane=common.LANE_BULK), signature=bytes(513))),
        pb.Frame(receipt=pb.Receipt(cursor=pb.Cursor(lane=common.LANE_BULK), key_id="k" * 129)),
        pb.Frame(mark=pb.Mark(at_sequence=2**63)),
        pb.Frame(mark=pb.Mark(homes=[pb.Mark.HomeMark(home_node="1410", as_of_ms=-(2**63))])),
    ],
)
def test_a_number_or_name_beyond_its_column_is_refused(message: pb.Frame) -> None:
    """Numbers travel unsigned and texts unbounded; a store's columns are neither."""
    with pytest.raises(RemoteProtocolError):
        decode_frame(message)


@pytest.mark.parametrize("said", ["蔺暮雪", "of 14260119800101001X", "two\nlines", "x" * 1001])
def test_what_could_be_about_a_person_is_not_repeated(said: str) -> None:
    """A peer's sentence goes into the log and the status of this node."""
    shown = [
        decode_frame(pb.Frame(refusal=pb.Refusal(code="DENIED", reason=said, hint=said))),
        decode_frame(pb.Frame(goodbye=pb.Goodbye(reason=said))),
        decode_frame(pb.Frame(answer_part=pb.AnswerPart(status="DENIED", reason=said))),
    ]
    for frame in shown:
        assert said not in repr(frame)
        assert "not repeated" in repr(frame)


@pytest.mark.parametrize("word", ["蔺暮雪", "lower", "TWO WORDS", "X" * 65])
def test_a_code_that_is_none_is_refused(word: str) -> None:
    """It would be counted, logged and shown as one of the catalogue's."""
    for message in (
        pb.Frame(refusal=pb.Refusal(code=word)),
        pb.Frame(receipt=pb.Receipt(cursor=pb.Cursor(lane=common.LANE_BULK), refused=word)),
        pb.Frame(answer_part=pb.AnswerPart(status=word)),
    ):
        with pytest.raises(RemoteProtocolError):
            decode_frame(message)


def test_refuses_a_frame_of_an_unknown_kind() -> None:
    """A frame that a newer peer invented is an error, not silence."""
    with pytest.raises(RemoteProtocolError, match="unknown kind"):
        decode_frame(pb.Frame())
