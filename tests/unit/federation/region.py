"""A region in memory: a city, a county, two townships and three villages, each a coordinator.

Questions travel through the wire's bytes, so that what one node says is what the next one reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from federation.availability import ConfigEpochMismatchError, SiteUnavailableError
from federation.coordinator import Coordinator
from federation.core.coverage import SiteState
from federation.core.model import (
    EVERYBODY,
    Answer,
    Audience,
    Cell,
    ExecutorKind,
    Freshness,
    Manifest,
    PartialAnswer,
    PartialRequest,
    QueryRequest,
    SiteProgress,
    Table,
)
from federation.core.partials import table_of
from federation.core.plan import LogicalPlan
from federation.errors import FederationError
from federation.executors import DirectExecutor
from federation.local import ScanResult
from federation.manifest import SignedManifest
from federation.runner import QueryRunner
from federation.wire import (
    decode_manifest,
    decode_partial_answer,
    decode_partial_request,
    encode_manifest,
    encode_partial_answer,
    encode_partial_request,
)
from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId, Thresholds

CITY, COUNTY = "1410", "141002"
TOWNSHIP, OTHER_TOWNSHIP = "141002001", "141002002"
VILLAGE, OTHER_VILLAGE, THIRD_VILLAGE = "141002001201", "141002001202", "141002002201"

_PARENTS = {
    CITY: None,
    COUNTY: CITY,
    TOWNSHIP: COUNTY,
    OTHER_TOWNSHIP: COUNTY,
    VILLAGE: TOWNSHIP,
    OTHER_VILLAGE: TOWNSHIP,
    THIRD_VILLAGE: OTHER_TOWNSHIP,
}
_LEVELS = {
    4: CareLevel.CITY,
    6: CareLevel.COUNTY,
    9: CareLevel.TOWNSHIP,
    12: CareLevel.VILLAGE,
}

NOW_MS = 1_790_000_000_000
BY_SEX = "SELECT sex, COUNT(*) AS n FROM residents GROUP BY sex"


def hierarchy(cell_count_min: int = 1, overrides: Mapping[str, int] | None = None) -> Hierarchy:
    """The region's hierarchy with these thresholds."""
    nodes = {
        NodeId(code): NodeEntry(
            node_id=NodeId(code),
            level=_LEVELS[len(code)],
            name_zh=code,
            pinyin=code,
            parent=NodeId(parent) if parent else None,
            endpoint=None,
            profile=_LEVELS[len(code)].value,
        )
        for code, parent in _PARENTS.items()
    }
    own = {NodeId(code): least for code, least in (overrides or {}).items()}
    return Hierarchy("linfen", 3, nodes, thresholds=Thresholds(cell_count_min, own))


@dataclass(frozen=True)
class Person:
    """A resident: where at home, and of which sex."""

    home: str
    sex: str


@dataclass
class ScannerByHand:
    """Counts people by sex; stands for a columnar replica."""

    people: list[Person]
    error: FederationError | None = None
    scanned: list[frozenset[str]] = field(default_factory=list)

    async def scan(
        self,
        plan: LogicalPlan,
        sites: frozenset[str],
        cell_count_max: int,
        remaining_ms: int,
        audience: Audience = EVERYBODY,
    ) -> ScanResult:
        if self.error is not None:
            raise self.error
        self.scanned.append(sites)
        here = [person for person in self.people if person.home in sites]
        counts = {sex: sum(p.sex == sex for p in here) for sex in sorted({p.sex for p in here})}
        numbers = list(counts.values())
        columns: list[Sequence[Cell]] = [list(counts), numbers, numbers, [True] * len(counts)]
        residents = {home: sum(p.home == home for p in here) for home in {p.home for p in here}}
        return ScanResult(table_of(plan, columns), residents)


@dataclass
class IndexByHand:
    """Freshness and the main index of one node."""

    as_of_ms: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)

    def marks(self) -> Mapping[str, int]:
        return self.as_of_ms

    async def residents_by_home(self, sites: frozenset[str]) -> Mapping[str, int]:
        return {site: self.known[site] for site in sites if site in self.known}

    async def quarantined_by_home(self) -> Mapping[str, int]:
        return self.quarantined


def sign(manifest: bytes) -> SignedManifest:
    """A signature that `verify` accepts."""
    return SignedManifest(manifest, b"signed", b"certificate")


def verify(signed: SignedManifest, asking_node: str) -> bool:
    """Whether `sign` made it."""
    return signed.signature == b"signed"


class AuditFailedError(FenheError):
    """The audit of a node in memory that was told to fail."""

    code = "AUDIT_FAILED_IN_TEST"


class Region:
    """Every node's coordinator, and the links between them."""

    def __init__(
        self,
        people: list[Person],
        *,
        cell_count_min: int = 1,
        overrides: Mapping[str, int] | None = None,
        full_boundary: str = COUNTY,
    ) -> None:
        self.hierarchy = hierarchy(cell_count_min, overrides)
        self.offline: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[tuple[str, str, int]] = []
        self.lies: dict[str, PartialAnswer] = {}
        self.refuses: dict[str, SiteState] = {}
        self.scanners: dict[str, ScannerByHand] = {}
        self.indexes: dict[str, IndexByHand] = {}
        self.coordinators: dict[str, Coordinator] = {}
        self.noted: list[tuple[str, str]] = []
        self.audit_fails = False
        self.epochs: dict[str, int] = {}
        for code in _PARENTS:
            self._add(code, people, leaves=code == full_boundary)

    def _add(self, code: str, people: list[Person], *, leaves: bool) -> None:
        subtree = self.hierarchy.subtree(NodeId(code))
        scanner = ScannerByHand([person for person in people if person.home in subtree])
        known = {str(home): sum(person.home == home for person in people) for home in subtree}
        index = IndexByHand(dict.fromkeys(map(str, subtree), NOW_MS - 60_000), known)
        self.scanners[code], self.indexes[code] = scanner, index
        self.coordinators[code] = Coordinator(
            code,
            self.hierarchy,
            asker=self,
            executor=DirectExecutor(self, scanner),
            index=index,
            verify=verify,
            leaves_full_boundary=lambda _: leaves,
            now_ms=lambda: NOW_MS,
            witness=self._note,
            audience=lambda _: EVERYBODY,
        )

    async def _note(self, manifest: Manifest, dataset: str) -> None:
        if self.audit_fails:
            raise AuditFailedError("the audit cannot be written")
        self.noted.append((manifest.query_id, dataset))

    def runner(self, code: str = CITY) -> QueryRunner:
        """What an analyst at this node asks through."""
        executor = DirectExecutor(self, self.scanners[code])
        return QueryRunner(
            self.coordinators[code],
            {ExecutorKind.DIRECT: executor},
            default=ExecutorKind.DIRECT,
            sign=sign,
            new_query_id=lambda: "query-1",
            now_ms=lambda: NOW_MS,
        )

    async def ask(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """Implements SiteAsker for every node of the region."""
        self.asked.append((child, request.site, remaining_ms))
        if child in self.offline:
            raise SiteUnavailableError(child, "it is offline")
        if child in self.refuses:
            raise SiteUnavailableError(child, "it refuses", state=self.refuses[child])
        if child in self.silent:
            await asyncio.Event().wait()
        if child in self.lies:
            return self.lies[child]
        body = encode_partial_request(request)
        if child in self.epochs:
            manifest = decode_manifest(signed.manifest)
            signed = sign(encode_manifest(replace(manifest, config_epoch=self.epochs[child])))
        try:
            answer = await self.coordinators[child].answer(
                decode_partial_request(body), signed, remaining_ms
            )
        except ConfigEpochMismatchError as error:
            raise SiteUnavailableError(child, error.message) from error
        return decode_partial_answer(encode_partial_answer(answer))


def people_of(counts: Mapping[str, tuple[int, int]]) -> list[Person]:
    """People by home: (women, men)."""
    return [
        Person(home, sex)
        for home, (women, men) in counts.items()
        for sex, number in (("female", women), ("male", men))
        for _ in range(number)
    ]


def cells(table: Table) -> dict[object, object]:
    """A table of one key and one figure as a dictionary."""
    return dict(table.rows())  # type: ignore[arg-type]


PEOPLE = people_of(
    {
        COUNTY: (1, 0),
        TOWNSHIP: (0, 2),
        VILLAGE: (30, 40),
        OTHER_VILLAGE: (5, 6),
        THIRD_VILLAGE: (7, 8),
    }
)
ALL = {"female": 43, "male": 56}


async def ask(
    region: Region,
    freshness: Freshness = Freshness.BEST,
    *,
    at: str = CITY,
    scope: str = "",
    timeout_ms: int = 0,
) -> Answer:
    """The answer to the question of the tests."""
    request = QueryRequest(BY_SEX, scope=scope, freshness=freshness, timeout_ms=timeout_ms)
    events = [event async for event in region.runner(at).run(request, "spiffe://linfen/1410")]
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert all(isinstance(event, SiteProgress) for event in events[:-1])
    return answer


def states(answer: Answer) -> dict[str, str]:
    """State by site."""
    return {site.node_id: site.state.value for site in answer.coverage.sites}
