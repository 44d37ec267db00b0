"""Questions and answers to protobuf and back. The generated types stop here.

Functions named `…_in` read a message, `…_out` make one; `encode_…` and `decode_…` do so with bytes.
What cannot be understood raises, and never becomes an empty answer: PartialInvalidError for what a
peer sent, ManifestRefusedError for a manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, assert_never

from google.protobuf.message import DecodeError

import protos.fenhe.federation.v1.federation_pb2 as pb
from federation.availability import ManifestRefusedError
from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.model import (
    Answer,
    Basis,
    Cell,
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

__all__ = [
    "AskSite",
    "answer_in",
    "answer_out",
    "ask_site_in",
    "ask_site_out",
    "decode_ask_site_answer",
    "decode_manifest",
    "decode_partial_answer",
    "decode_partial_request",
    "decode_signed_manifest",
    "encode_ask_site",
    "encode_manifest",
    "encode_partial_answer",
    "encode_partial_request",
    "encode_signed_manifest",
    "event_in",
    "event_out",
    "explanation_in",
    "explanation_out",
    "query_request_in",
    "query_request_out",
    "table_in",
    "table_out",
]

_FRESHNESS: Final[Mapping[Freshness, pb.Freshness.ValueType]] = {
    Freshness.LIVE: pb.FRESHNESS_LIVE,
    Freshness.REPLICA: pb.FRESHNESS_REPLICA,
    Freshness.BEST: pb.FRESHNESS_BEST,
}
_BASIS: Final[Mapping[Basis, pb.Basis.ValueType]] = {
    Basis.RESIDENCE: pb.BASIS_RESIDENCE,
    Basis.PROVIDER: pb.BASIS_PROVIDER,
}
_EXECUTOR: Final[Mapping[ExecutorKind, pb.Executor.ValueType]] = {
    ExecutorKind.DIRECT: pb.EXECUTOR_DIRECT,
    ExecutorKind.RAY: pb.EXECUTOR_RAY,
}
_FRESHNESS_IN: Final = {number: word for word, number in _FRESHNESS.items()}
_BASIS_IN: Final = {number: word for word, number in _BASIS.items()}
_EXECUTOR_IN: Final = {number: word for word, number in _EXECUTOR.items()}

_INT64_MAX: Final = 2**63 - 1
_Message = TypeVar("_Message", bound=Any)


# -- tables -------------------------------------------------------------------------------------


def table_out(table: Table) -> pb.Table:
    """The message of a table. Whole numbers beyond 64 bits become numbers."""
    return pb.Table(columns=map(_column_out, table.columns), row_count=table.row_count)


def _column_out(column: Column) -> pb.Column:
    values = column.values
    has_nulls = any(value is None for value in values)
    message = pb.Column(
        name=column.name,
        type=column.type.value,
        nulls=[value is None for value in values] if has_nulls else [],
    )
    match column.type:
        case ColumnType.STRING | ColumnType.DATE:
            message.strings.extend("" if value is None else str(value) for value in values)
        case ColumnType.INTEGER if all(_fits(value) for value in values):
            message.integers.extend(_whole(value) for value in values)
        case ColumnType.INTEGER | ColumnType.NUMBER:
            message.type = ColumnType.NUMBER.value
            message.numbers.extend(0.0 if value is None else float(value) for value in values)
        case ColumnType.BOOLEAN:
            message.booleans.extend(bool(value) for value in values)
        case _:
            assert_never(column.type)
    return message


def _fits(value: Cell) -> bool:
    return value is None or abs(_whole(value)) <= _INT64_MAX


def _whole(value: Cell) -> int:
    return 0 if value is None else int(value)


def table_in(message: pb.Table) -> Table:
    """The table of a message.

    Raises:
        PartialInvalidError: An unknown type, or lists whose lengths differ from row_count.
    """
    if len({column.name for column in message.columns}) != len(message.columns):
        raise PartialInvalidError("a table has two columns of one name")
    return Table(tuple(_column_in(column, message.row_count) for column in message.columns))


def _column_in(message: pb.Column, row_count: int) -> Column:
    try:
        column_type = ColumnType(message.type)
    except ValueError:
        raise PartialInvalidError("a column is of an unknown type") from None
    lists: dict[ColumnType, Sequence[Cell]] = {
        ColumnType.STRING: message.strings,
        ColumnType.DATE: message.strings,
        ColumnType.INTEGER: message.integers,
        ColumnType.NUMBER: message.numbers,
        ColumnType.BOOLEAN: message.booleans,
    }
    values = lists[column_type]
    if len(values) != row_count or len(message.nulls) not in (0, row_count):
        raise PartialInvalidError("a column's values are not as many as the rows")
    if message.nulls:
        cells = tuple(
            None if is_null else value for value, is_null in zip(values, message.nulls, strict=True)
        )
    else:
        cells = tuple(values)
    return Column(message.name, column_type, cells)


# -- coverage -----------------------------------------------------------------------------------


def _coverage_out(coverage: Coverage) -> pb.Coverage:
    message = pb.Coverage(
        sites=map(_site_out, coverage.sites),
        residents_covered=coverage.residents_covered,
        cells_suppressed=coverage.cells_suppressed,
        cell_count_min=coverage.cell_count_min,
    )
    if coverage.residents_known is not None:
        message.residents_known = coverage.residents_known
    return message


def _site_out(site: SiteCoverage) -> pb.SiteCoverage:
    message = pb.SiteCoverage(
        node_id=site.node_id,
        state=site.state.value,
        answered_by=site.answered_by,
        residents_covered=site.residents_covered,
        residents_quarantined=site.residents_quarantined,
        reason=site.reason,
    )
    if site.as_of_ms is not None:
        message.as_of_ms = site.as_of_ms
    if site.residents_known is not None:
        message.residents_known = site.residents_known
    return message


def _coverage_in(message: pb.Coverage) -> Coverage:
    return Coverage(
        sites=tuple(map(_site_in, message.sites)),
        cells_suppressed=message.cells_suppressed,
        cell_count_min=max(1, message.cell_count_min),
    )


def _site_in(message: pb.SiteCoverage) -> SiteCoverage:
    try:
        state = SiteState(message.state)
    except ValueError:
        raise PartialInvalidError("a site is in an unknown state") from None
    return SiteCoverage(
        node_id=message.node_id,
        state=state,
        answered_by=message.answered_by,
        as_of_ms=message.as_of_ms if message.HasField("as_of_ms") else None,
        residents_covered=message.residents_covered,
        residents_known=message.residents_known if message.HasField("residents_known") else None,
        residents_quarantined=message.residents_quarantined,
        reason=message.reason,
    )


# -- the asker's side ---------------------------------------------------------------------------


def query_request_out(request: QueryRequest) -> pb.QueryRequest:
    """The message of a question."""
    return pb.QueryRequest(
        sql=request.sql,
        scope=request.scope,
        freshness=_FRESHNESS[request.freshness],
        executor=_EXECUTOR[request.executor] if request.executor else pb.EXECUTOR_UNSPECIFIED,
        basis=_BASIS[request.basis],
        timeout_ms=request.timeout_ms,
        cell_count_min=request.cell_count_min,
        purpose=request.purpose,
    )


def query_request_in(message: pb.QueryRequest) -> QueryRequest:
    """The question of a message; what is unspecified takes the proto's defaults."""
    return QueryRequest(
        sql=message.sql,
        scope=message.scope,
        freshness=_FRESHNESS_IN.get(message.freshness, Freshness.BEST),
        executor=_EXECUTOR_IN.get(message.executor),
        basis=_BASIS_IN.get(message.basis, Basis.RESIDENCE),
        timeout_ms=message.timeout_ms,
        cell_count_min=message.cell_count_min,
        purpose=message.purpose,
    )


def event_out(event: SiteProgress | Answer) -> pb.QueryEvent:
    """The message of one step, or of the answer."""
    if isinstance(event, Answer):
        return pb.QueryEvent(answer=answer_out(event))
    return pb.QueryEvent(progress=pb.SiteProgress(node_id=event.node_id, state=event.state.value))


def event_in(message: pb.QueryEvent) -> SiteProgress | Answer:
    """The step or the answer of a message. Raises PartialInvalidError."""
    if message.WhichOneof("event") == "answer":
        return answer_in(message.answer)
    try:
        state = SiteProgressState(message.progress.state)
    except ValueError:
        raise PartialInvalidError("a site's progress is unknown") from None
    return SiteProgress(message.progress.node_id, state)


def answer_out(answer: Answer) -> pb.Answer:
    """The message of a final answer."""
    return pb.Answer(
        query_id=answer.query_id,
        table=table_out(answer.table),
        suppressed_rows=answer.suppressed_rows,
        coverage=_coverage_out(answer.coverage),
        executor=answer.executor.value,
        elapsed_ms=answer.elapsed_ms,
        tasks=answer.tasks,
        complete=answer.complete,
    )


def answer_in(message: pb.Answer) -> Answer:
    """The final answer of a message. Raises PartialInvalidError."""
    try:
        executor = ExecutorKind(message.executor)
    except ValueError:
        raise PartialInvalidError("the answer's executor is unknown") from None
    return Answer(
        query_id=message.query_id,
        table=table_in(message.table),
        suppressed_rows=tuple(message.suppressed_rows),
        coverage=_coverage_in(message.coverage),
        executor=executor,
        elapsed_ms=message.elapsed_ms,
        tasks=tuple(message.tasks),
        complete=message.complete,
    )


def explanation_out(explanation: Explanation) -> pb.Explanation:
    """The message of an explanation."""
    return pb.Explanation(
        node_sql=explanation.node_sql,
        merge_steps=explanation.merge_steps,
        sites=explanation.sites,
        privacy=explanation.privacy,
        plan_digest=explanation.plan_digest,
    )


def explanation_in(message: pb.Explanation) -> Explanation:
    """The explanation of a message."""
    return Explanation(
        node_sql=message.node_sql,
        merge_steps=tuple(message.merge_steps),
        sites=tuple(message.sites),
        privacy=tuple(message.privacy),
        plan_digest=message.plan_digest,
    )


# -- between nodes ------------------------------------------------------------------------------


def encode_partial_request(request: PartialRequest) -> bytes:
    """Body of a link request "federation.partial", without its manifest."""
    return pb.PartialRequest(
        sql=request.sql,
        freshness=_FRESHNESS[request.freshness],
        basis=_BASIS[request.basis],
        site=request.site,
    ).SerializeToString()


def decode_partial_request(body: bytes) -> PartialRequest:
    """The request of a body.

    Raises:
        PartialInvalidError: It is undecodable, or leaves freshness or basis open: what a node
            answers must not depend on its own defaults.
    """
    message = _decode(pb.PartialRequest(), body, PartialInvalidError)
    if message.freshness not in _FRESHNESS_IN or message.basis not in _BASIS_IN:
        raise PartialInvalidError("a partial request leaves freshness or basis open")
    return PartialRequest(
        sql=message.sql,
        freshness=_FRESHNESS_IN[message.freshness],
        basis=_BASIS_IN[message.basis],
        site=message.site,
    )


def encode_partial_answer(answer: PartialAnswer) -> bytes:
    """Body of the answer to a link request "federation.partial"."""
    return pb.PartialAnswer(
        table=table_out(answer.table),
        suppressed_rows=answer.suppressed_rows,
        coverage=_coverage_out(answer.coverage),
    ).SerializeToString()


def decode_partial_answer(body: bytes) -> PartialAnswer:
    """The answer of a body; whether it is one to the plan is `partials.check_answer`'s business.

    Raises:
        PartialInvalidError: It is undecodable or inconsistent.
    """
    message = _decode(pb.PartialAnswer(), body, PartialInvalidError)
    return PartialAnswer(
        table=table_in(message.table),
        suppressed_rows=tuple(message.suppressed_rows),
        coverage=_coverage_in(message.coverage),
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes that the asking node signs; deterministic."""
    return pb.Manifest(
        query_id=manifest.query_id,
        principal=manifest.principal,
        asking_node=manifest.asking_node,
        purpose=manifest.purpose,
        scope=manifest.scope,
        cell_count_min=manifest.cell_count_min,
        sites_min=manifest.sites_min,
        deadline_ms=manifest.deadline_ms,
        plan_digest=manifest.plan_digest,
        config_epoch=manifest.config_epoch,
        organization_id=manifest.organization_id,
    ).SerializeToString(deterministic=True)


def decode_manifest(body: bytes) -> Manifest:
    """The manifest of signed bytes. Raises ManifestRefusedError."""
    message = _decode(pb.Manifest(), body, ManifestRefusedError)
    return Manifest(
        query_id=message.query_id,
        principal=message.principal,
        asking_node=message.asking_node,
        purpose=message.purpose,
        scope=message.scope,
        cell_count_min=message.cell_count_min,
        sites_min=message.sites_min,
        deadline_ms=message.deadline_ms,
        plan_digest=message.plan_digest,
        config_epoch=message.config_epoch,
        organization_id=message.organization_id,
    )


def encode_signed_manifest(signed: SignedManifest) -> bytes:
    """The manifest with its signature, as it travels."""
    return pb.SignedManifest(
        manifest=signed.manifest, signature=signed.signature, certificate=signed.certificate
    ).SerializeToString()


def decode_signed_manifest(body: bytes) -> SignedManifest:
    """The signed manifest of a body; nothing is verified yet. Raises ManifestRefusedError."""
    message = _decode(pb.SignedManifest(), body, ManifestRefusedError)
    return SignedManifest(message.manifest, message.signature, message.certificate)


# -- between an executor and its own node -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskSite:
    """What an executor asks its own node to ask a direct child."""

    child: str
    request: PartialRequest
    signed: SignedManifest
    remaining_ms: int


def ask_site_out(ask: AskSite) -> pb.AskSiteRequest:
    """The message of AskSite."""
    return pb.AskSiteRequest(
        site=ask.child,
        remaining_ms=ask.remaining_ms,
        signed_manifest=encode_signed_manifest(ask.signed),
        partial_request=encode_partial_request(ask.request),
    )


def ask_site_in(message: pb.AskSiteRequest) -> AskSite:
    """What is asked. Raises PartialInvalidError or ManifestRefusedError."""
    return AskSite(
        child=message.site,
        request=decode_partial_request(message.partial_request),
        signed=decode_signed_manifest(message.signed_manifest),
        remaining_ms=message.remaining_ms,
    )


def encode_ask_site(ask: AskSite) -> bytes:
    """The bytes of AskSite, for a caller without the generated stub."""
    return ask_site_out(ask).SerializeToString()


def decode_ask_site_answer(body: bytes) -> PartialAnswer:
    """The partial answer in AskSite's response. Raises PartialInvalidError."""
    message = _decode(pb.AskSiteResponse(), body, PartialInvalidError)
    return decode_partial_answer(message.partial_answer)


def _decode(message: _Message, body: bytes, error: Callable[[str], Exception]) -> _Message:
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise error("a message of a peer cannot be read") from None
    return message
