"""Bytes and back: whatever one node says, the next one reads, or refuses."""

from __future__ import annotations

import math

import pytest

import protos.fenhe.federation.v1.federation_pb2 as pb
from federation.availability import ManifestRefusedError
from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.model import (
    Answer,
    Basis,
    Column,
    ColumnType,
    ExecutorKind,
    Explanation,
    Freshness,
    Manifest,
    PartialAnswer,
    PartialRequest,
    QueryRequest,
    SiteProgress,
    SiteProgressState,
    Table,
)
from federation.errors import PartialInvalidError
from federation.manifest import SignedManifest
from federation.wire import (
    AskSite,
    ask_site_in,
    ask_site_out,
    decode_ask_site_answer,
    decode_manifest,
    decode_partial_answer,
    decode_partial_request,
    decode_signed_manifest,
    encode_ask_site,
    encode_manifest,
    encode_partial_answer,
    encode_partial_request,
    encode_signed_manifest,
    event_in,
    event_out,
    explanation_in,
    explanation_out,
    query_request_in,
    query_request_out,
    table_in,
    table_out,
)

TABLE = Table(
    (
        Column("g0", ColumnType.STRING, ("male", None, "")),
        Column("g1", ColumnType.DATE, ("2026-01-01", None, "1999-12-31")),
        Column("n", ColumnType.INTEGER, (3, None, -(2**63) + 1)),
        Column("mean", ColumnType.NUMBER, (0.1, math.inf, None)),
        Column("exact", ColumnType.BOOLEAN, (True, False, None)),
    )
)
COVERAGE = Coverage(
    (
        SiteCoverage("141002", SiteState.REPLICA, "1410", 5, 7, 8, 9),
        SiteCoverage("141024", SiteState.MISSING, reason="it is offline"),
    ),
    cells_suppressed=2,
    cell_count_min=10,
)
ANSWER = Answer(
    "query-1", TABLE, (1,), COVERAGE, ExecutorKind.RAY, 12, ("ray worker 1 asked 141002",), False
)


def test_a_table_survives_the_wire() -> None:
    """Nulls, empty texts, negative numbers and infinities included."""
    assert table_in(table_out(TABLE)) == TABLE


def test_nan_survives_the_wire() -> None:
    """NaN is a number like any other."""
    table = Table((Column("v", ColumnType.NUMBER, (math.nan,)),))
    (value,) = table_in(table_out(table)).columns[0].values
    assert isinstance(value, float)
    assert math.isnan(value)


def test_whole_numbers_beyond_64_bits_become_numbers() -> None:
    """A sum over many sites is not lost to the format."""
    table = Table((Column("v", ColumnType.INTEGER, (2**70, None)),))
    column = table_in(table_out(table)).columns[0]
    assert column == Column("v", ColumnType.NUMBER, (float(2**70), None))


@pytest.mark.parametrize("event", [ANSWER, SiteProgress("141002", SiteProgressState.ASKED)])
def test_events_survive_the_wire(event: Answer | SiteProgress) -> None:
    """Steps and the answer."""
    message = pb.QueryEvent.FromString(event_out(event).SerializeToString())
    assert event_in(message) == event


def test_requests_survive_the_wire() -> None:
    """Questions, explanations, partial requests and answers, manifests."""
    request = QueryRequest("SELECT 1", "1410", Freshness.LIVE, None, Basis.PROVIDER, 5, 11, "why")
    assert query_request_in(query_request_out(request)) == request
    explanation = Explanation("SELECT", ("a",), ("b",), ("c",), "d")
    assert explanation_in(explanation_out(explanation)) == explanation
    partial = PartialRequest("SELECT 1", Freshness.BEST, Basis.RESIDENCE, "141002")
    assert decode_partial_request(encode_partial_request(partial)) == partial
    answer = PartialAnswer(TABLE, (0, 2), COVERAGE)
    assert decode_partial_answer(encode_partial_answer(answer)) == answer
    manifest = Manifest("q", "spiffe://linfen/1410", "1410", "why", "141002", 10, 1, 99, "ab", 3)
    assert decode_manifest(encode_manifest(manifest)) == manifest
    signed = SignedManifest(b"m", b"s", b"c")
    assert decode_signed_manifest(encode_signed_manifest(signed)) == signed
    ask = AskSite("141002", partial, signed, 500)
    assert ask_site_in(ask_site_out(ask)) == ask
    assert ask_site_in(pb.AskSiteRequest.FromString(encode_ask_site(ask))) == ask
    response = pb.AskSiteResponse(partial_answer=encode_partial_answer(answer))
    assert decode_ask_site_answer(response.SerializeToString()) == answer


def test_what_is_left_open_takes_the_defaults_of_the_proto() -> None:
    """Best, by residence, the node's own executor."""
    request = query_request_in(pb.QueryRequest(sql="SELECT 1"))
    assert request == QueryRequest("SELECT 1")


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff",
        encode_partial_request(PartialRequest("x", Freshness.LIVE, Basis.RESIDENCE, "1"))[:-1],
        pb.PartialRequest(sql="SELECT 1", site="1410").SerializeToString(),
        pb.PartialRequest(sql="SELECT 1", freshness=pb.FRESHNESS_LIVE).SerializeToString(),
    ],
)
def test_a_partial_request_that_is_not_whole_is_refused(body: bytes) -> None:
    """What a node answers does not depend on its own defaults."""
    with pytest.raises(PartialInvalidError):
        decode_partial_request(body)


@pytest.mark.parametrize(
    "message",
    [
        pb.Table(columns=[pb.Column(name="a", type="string", strings=["x"])], row_count=2),
        pb.Table(columns=[pb.Column(name="a", type="blob", strings=["x"])], row_count=1),
        pb.Table(columns=[pb.Column(name="a", type="integer", strings=["x"])], row_count=1),
        pb.Table(
            columns=[pb.Column(name="a", type="string", strings=["x"], nulls=[True, False])],
            row_count=1,
        ),
        pb.Table(
            columns=[pb.Column(name="a", type="string", strings=["x"])] * 2,
            row_count=1,
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(message: pb.Table) -> None:
    """Lengths, types and names must agree."""
    with pytest.raises(PartialInvalidError):
        table_in(message)


def test_unknown_states_and_bytes_are_refused() -> None:
    """Nothing unknown is taken for something known."""
    coverage = pb.Coverage(sites=[pb.SiteCoverage(node_id="1410", state="asleep")])
    with pytest.raises(PartialInvalidError):
        decode_partial_answer(pb.PartialAnswer(coverage=coverage).SerializeToString())
    with pytest.raises(PartialInvalidError):
        event_in(pb.QueryEvent(progress=pb.SiteProgress(node_id="1410", state="dreaming")))
    with pytest.raises(ManifestRefusedError):
        decode_manifest(b"\xff\xff")
    with pytest.raises(ManifestRefusedError):
        decode_signed_manifest(b"\xff\xff")
