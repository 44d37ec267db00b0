"""A township with a real columnar replica and two villages that answer by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import grpc

import protos.fenhe.federation.v1.federation_pb2 as pb
from federation.availability import SiteUnavailableError
from federation.columnar import ColumnarLimits, ColumnarReplica
from federation.coordinator import Coordinator
from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.model import (
    EVERYBODY,
    Basis,
    Cell,
    Freshness,
    Manifest,
    PartialAnswer,
    PartialRequest,
)
from federation.core.partials import table_of
from federation.core.plan import make_plan
from federation.executors import Ask, DirectExecutor, Stage
from federation.local import LocalSite
from federation.manifest import SignedManifest
from federation.ray_runner import Loopback
from federation.wire import ask_site_in, encode_manifest, encode_partial_answer
from tests.contracts.columnar.source import LogByHand, consent, observation, resident
from tests.contracts.executors.certificates import SERVER_NAME, Authority
from tests.unit.federation.region import (
    COUNTY,
    NOW_MS,
    OTHER_VILLAGE,
    TOWNSHIP,
    VILLAGE,
    IndexByHand,
    hierarchy,
    sign,
    verify,
)

SQL = "SELECT sex, COUNT(*) AS n, AVG(value) AS mean FROM observations GROUP BY sex"
PLAN = make_plan(SQL)
VILLAGES = (VILLAGE, OTHER_VILLAGE)

MANIFEST = Manifest(
    query_id="query-1",
    principal="spiffe://linfen/141002001/analyst/li",
    asking_node=TOWNSHIP,
    purpose="statistics",
    scope=TOWNSHIP,
    cell_count_min=1,
    sites_min=1,
    deadline_ms=NOW_MS,
    plan_digest=PLAN.digest,
    config_epoch=3,
)


def women(village: str, rows: int = 2, mean: float = 130.0) -> PartialAnswer:
    """A village's answer: some observations of as many women."""
    columns: dict[str, Sequence[Cell]] = {
        "g0": ["female"],
        "p0_n": [rows],
        "p1_n": [rows],
        "p1_sum": [rows * mean],
        "p1_residents": [rows],
        "residents": [rows],
        "residents_exact": [True],
    }
    table = table_of(PLAN, list(columns.values()))
    line = SiteCoverage(village, SiteState.LIVE, village, NOW_MS, residents_covered=rows)
    return PartialAnswer(table, (), Coverage((line,)))


class VillagesByHand:
    """Implements SiteAsker: each village answers, fails or keeps silent as told."""

    def __init__(self) -> None:
        self.replies: dict[str, Callable[[], Awaitable[PartialAnswer]]] = {}
        self.cancelled = asyncio.Event()
        self.asked = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """Both answer."""
        self.cancelled.clear()
        self.asked.clear()
        for village in VILLAGES:
            self.answers(village, women(village))

    def answers(self, village: str, answer: PartialAnswer) -> None:
        async def reply() -> PartialAnswer:
            return answer

        self.replies[village] = reply

    def fails(self, village: str, reason: str, state: SiteState = SiteState.MISSING) -> None:
        async def reply() -> PartialAnswer:
            raise SiteUnavailableError(village, reason, state=state)

        self.replies[village] = reply

    def is_silent(self, village: str) -> None:
        async def reply() -> PartialAnswer:
            self.asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            raise AssertionError

        self.replies[village] = reply

    async def ask(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        assert request.site == child
        return await self.replies[child]()


class Township:
    """The node: replica, asker, and ExecutorService on loopback over mutual TLS."""

    def __init__(self, folder: Path) -> None:
        self.log = LogByHand()
        limits = ColumnarLimits(threads=1, memory_mb=256, segment_rows=10_000)
        self.replica = ColumnarReplica.open(folder / "columnar", limits)
        self.local = LocalSite(self.replica, self.log, partition_rows_min=1)
        self.villages = VillagesByHand()
        self._authority = Authority()
        self._leaf = self._authority.leaf(SERVER_NAME)
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self.issued: list[str] = []
        self.noted: list[tuple[str, str]] = []
        self.coordinator = Coordinator(
            TOWNSHIP,
            hierarchy(),
            asker=self.villages,
            executor=DirectExecutor(self.villages, self.local),
            index=IndexByHand(),
            verify=verify,
            leaves_full_boundary=lambda _: False,
            now_ms=lambda: NOW_MS,
            witness=self._note,
            audience=lambda _: EVERYBODY,
        )

    async def _note(self, manifest: Manifest, dataset: str) -> None:
        self.noted.append((manifest.query_id, dataset))

    async def start(self) -> None:
        """Serve AskSite."""
        self._server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler(
            "fenhe.federation.v1.ExecutorService",
            {
                "AskSite": grpc.unary_unary_rpc_method_handler(
                    self._ask_site,
                    request_deserializer=pb.AskSiteRequest.FromString,
                    response_serializer=pb.AskSiteResponse.SerializeToString,
                )
            },
        )
        self._server.add_generic_rpc_handlers((handler,))
        credentials = grpc.ssl_server_credentials(
            [(self._leaf.key, self._leaf.certificate)],
            root_certificates=self._authority.root,
            require_client_auth=True,
        )
        self._port = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Stop serving and close the replica."""
        if self._server is not None:
            await self._server.stop(None)
        self.local.close()
        self.replica.close()

    async def _ask_site(
        self, message: pb.AskSiteRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> pb.AskSiteResponse:
        ask = ask_site_in(message)
        answer = await self.coordinator.ask_site(
            ask.child, ask.request, ask.signed, ask.remaining_ms
        )
        return pb.AskSiteResponse(partial_answer=encode_partial_answer(answer))

    def issue(self, query_id: str, lifetime_ms: int) -> Loopback:
        """Implements LoopbackIssuer."""
        self.issued.append(query_id)
        leaf = self._authority.leaf(f"executor-{query_id}.{SERVER_NAME}")
        return Loopback(
            address=f"127.0.0.1:{self._port}",
            server_name=SERVER_NAME,
            root_pem=self._authority.root,
            certificate_pem=leaf.certificate,
            key_pem=leaf.key,
        )

    def fill(self) -> None:
        """Rows of two homes, partly in a segment, partly in the delta, one of them amended."""
        self.log.put("residents", *(resident(number, home=TOWNSHIP) for number in range(7)))
        rows = [observation(number, home=TOWNSHIP, value=100.0) for number in range(10)]
        self.log.put("observations", *rows, observation(10, home=COUNTY, sex="male", value=90.0))
        self.log.put("consents", consent(1, 3), consent(2, 4, purpose="research"))
        while self.replica.feed_once(self.log) < len(self.log.entries):
            pass
        self.replica.flush()
        self.log.put("observations", observation(0, home=TOWNSHIP, value=200.0))
        self.log.put("consents", consent(3, 5, home=VILLAGE))
        self.log.put("observations", observation(11, home=TOWNSHIP, sex="male", value=80.0))


def stage(
    *,
    ask: tuple[str, ...] = (),
    scan: tuple[str, ...] = (),
    remaining_ms: int = 20_000,
    before: PartialAnswer | None = None,
) -> Stage:
    """A stage of the township."""
    lines = tuple(SiteCoverage(site, SiteState.REPLICA, TOWNSHIP, NOW_MS) for site in scan)
    return Stage(
        plan=PLAN,
        request=PartialRequest(SQL, Freshness.BEST, Basis.RESIDENCE, TOWNSHIP),
        signed=sign(encode_manifest(MANIFEST)),
        asks=tuple(Ask(child, child, frozenset({child})) for child in ask),
        scan=lines,
        cell_count_max=1,
        remaining_ms=remaining_ms,
        before=before,
        query_id="query-1",
    )


def figures(answer: PartialAnswer) -> Mapping[object, tuple[object, object]]:
    """By sex: rows and their mean."""
    names = answer.table.names
    found: dict[object, tuple[object, object]] = {}
    for row in answer.table.rows():
        cell = dict(zip(names, row, strict=True))
        found[cell["g0"]] = (cell["p1_n"], cell["p1_sum"] / cell["p1_n"])  # type: ignore[operator]
    return found
