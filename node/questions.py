"""Joins federation to this node: feeds the columnar replica, answers and asks over links.

Federation declares what it needs (a source of rows, a way to ask a child, an index of residents, a
signer); this file supplies each from the node's own parts. Questions to children leave only over
links.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from federation.availability import ExtraMissingError, SiteUnavailableError
from federation.columnar import ColumnarLimits, ColumnarReplica
from federation.coordinator import Coordinator
from federation.core.coverage import SiteState
from federation.core.model import (
    ExecutorKind,
    Manifest,
    PartialAnswer,
    PartialRequest,
    QueryRequest,
)
from federation.errors import FederationError
from federation.executors import DirectExecutor, Executor
from federation.local import LocalSite
from federation.manifest import SignedManifest
from federation.ray_runner import RayExecutor, RaySettings
from federation.runner import QueryRunner
from federation.sites import places_of
from federation.wire import (
    decode_manifest,
    decode_partial_answer,
    decode_partial_request,
    decode_signed_manifest,
    encode_partial_answer,
    encode_partial_request,
    encode_signed_manifest,
)
from hardware_profiles import HardwareProfile
from hierarchy_config import CopyForm, Hierarchy, NodeId
from node.asking import asked_by, audience_of
from node.clock import Clock, today
from node.columnar_feed import StorageSource
from node.foundations import Foundations
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.loopback import ExecutorCertificates
from node.opening import OpenStore
from node.security.caller import Caller, CallerKind, local_operator
from node.security.credentials import NodeCredentials
from node.security.errors import PeerIdentityError, SignatureInvalidError
from node.security.identity import KeyJudge
from node.security.signatures import verify_chain
from node.storage import Storage
from replication.channel import AskError, AskRefusedError
from replication.core.model import Request

__all__ = ["PARTIAL_METHOD", "Questions"]

FEED_PAUSE_S: Final = 0.25
FEED_PAUSE_S_MAX: Final = 5.0
FEED_SHARE: Final = 0.05
"""Most of the time that feeding may take while writes go on."""
PARTIAL_METHOD: Final = "federation.partial"
_PRINCIPAL_MAX: Final = 200
_MANIFEST_TAG: Final = b"fenhe-manifest-1\0"


class LinkAsker:
    """federation.executors.SiteAsker over this node's links."""

    def __init__(self, hub: LinkHub) -> None:
        self._hub = hub

    async def ask(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """Ask a direct child; every failure is a SiteUnavailableError with its reason."""
        try:
            body = await self._hub.ask(
                NodeId(child),
                PARTIAL_METHOD,
                encode_partial_request(request),
                remaining_ms=remaining_ms,
                manifest=encode_signed_manifest(signed),
            )
            return decode_partial_answer(body)
        except AskRefusedError as error:
            state = _REFUSALS.get(error.status, SiteState.MISSING)
            raise SiteUnavailableError(child, error.message, state=state) from error
        except (AskError, FederationError) as error:
            raise SiteUnavailableError(child, error.message) from error


# Nobody stands in for a site that says no to the question itself. Whatever else a child answers,
# known here or not, only says that it cannot.
_REFUSALS: Final[Mapping[str, SiteState]] = {
    "MANIFEST_REFUSED": SiteState.DENIED,
    "PLAN_MISMATCH": SiteState.DENIED,
    "QUERY_REFUSED": SiteState.DENIED,
    "UNKNOWN_METHOD": SiteState.NO_ANALYTICS,
}


class HomeIndex:
    """federation.coordinator.SiteIndex over this node's storage."""

    def __init__(self, storage: Storage, node_id: NodeId, hierarchy: Hierarchy) -> None:
        self._storage = storage
        self._caller = local_operator(node_id, hierarchy, "coverage of a federated question")

    def marks(self) -> Mapping[str, int]:
        """How fresh the copies are."""
        return self._storage.marks()

    async def residents_by_home(self, sites: frozenset[str]) -> Mapping[str, int]:
        """Residents by this node's index; a home nobody was registered at has none.

        Unknown while the node recovers: its index may lack some.
        """
        if self._storage.recovery.active:
            return {}
        known = await asyncio.to_thread(self._storage.residents_by_home, self._caller)
        return {site: known.get(site, 0) for site in sites}

    async def quarantined_by_home(self) -> Mapping[str, int]:
        """Residents with a change that waits in this node's quarantine."""
        return await asyncio.to_thread(self._storage.quarantined_by_home)


@dataclass(frozen=True, slots=True)
class ManifestSeal:
    """Signs manifests with this node's key and verifies those of others."""

    credentials: NodeCredentials
    hierarchy: Hierarchy
    utc: Callable[[], datetime]
    revoked: KeyJudge | None = None

    def sign(self, manifest: bytes) -> SignedManifest:
        """The manifest with this node's signature."""
        signer = self.credentials.signer
        return SignedManifest(manifest, signer.sign(_MANIFEST_TAG + manifest), signer.chain_pem)

    def verify(self, signed: SignedManifest, asking_node: str) -> bool:
        """Whether the asking node itself signed it."""
        try:
            peer = verify_chain(
                signed.certificate,
                self.credentials.root_pem,
                self.hierarchy,
                self.utc(),
                revoked=self.revoked,
            )
            peer.verify(_MANIFEST_TAG + signed.manifest, signed.signature)
        except (SignatureInvalidError, PeerIdentityError):
            return False
        return peer.identity.kind is CallerKind.NODE and peer.identity.node_id == asking_node


class Questions:
    """Everything of this node that has to do with federated questions."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        clock: Clock,
        utc: Callable[[], datetime],
        address: Callable[[], str],
    ) -> None:
        """Construction opens nothing; `start` does. `address`: where this node serves."""
        self._base = base
        self._store = store
        self._clock = clock
        self._log = get_logger("questions")
        self._source = StorageSource(store.storage, store.durable_head)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._more = asyncio.Event()
        self._asker = LinkAsker(hub)
        self._seal = ManifestSeal(base.credentials, base.hierarchy, utc, store.revoked)
        self._certificates = ExecutorCertificates(
            base.paths.data, base.node_id, base.hierarchy, address=address, utc=utc
        )
        self._ray: RayExecutor | None = None
        self._replica: ColumnarReplica | None = None
        self._local: LocalSite | None = None
        self._coordinator: Coordinator | None = None
        self._runner: QueryRunner | None = None

    @property
    def columnar_sequence(self) -> int:
        """Log sequence the columnar replica stands at; 0 without one."""
        return self._replica.sequence if self._replica is not None else 0

    @property
    def columnar_on_disk(self) -> int | None:
        """Log sequence that the replica's files stand at; None without a replica."""
        return self._replica.stored_sequence if self._replica is not None else None

    async def flush_columnar(self) -> None:
        """Bring the replica to disk as far as it has come."""
        if self._replica is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._replica.flush)

    def columnar_residents(self, low: str, high: str) -> Mapping[str, tuple[str, ...]]:
        """Ids in [low, high) that the replica holds, by dataset. Blocks; none without a replica."""
        if self._replica is None:
            return {}
        with self._replica.snapshot() as snapshot:
            return snapshot.residents_between(low, high)

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """What this node answers over its links."""
        return {PARTIAL_METHOD: self._answer_partial}

    @property
    def runner(self) -> QueryRunner:
        """Asks questions at this node; there once it has started."""
        if self._runner is None:
            raise FederationError("this node has not started yet")
        return self._runner

    def log_advanced(self, _head: int) -> None:
        """There may be more to feed."""
        self._more.set()

    async def start(self) -> None:
        """Open the columnar replica, if the analytics extra is installed, and be ready to ask."""
        base = self._base
        self._replica = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        if self._replica is not None:
            self._source.rebuild = self._replica.rebuild
        recovery = self._store.storage.recovery
        self._local = LocalSite(
            self._replica,
            self._source,
            concurrency=base.profile.query_concurrency,
            # A node that gets back what it lost does not know what it lacks.
            is_seeding=lambda: recovery.active,
        )
        direct = DirectExecutor(self._asker, self._local)
        self._coordinator = Coordinator(
            base.node_id,
            base.hierarchy,
            asker=self._asker,
            executor=direct,
            index=HomeIndex(self._store.storage, base.node_id, base.hierarchy),
            verify=self._seal.verify,
            leaves_full_boundary=self._leaves_full_boundary,
            now_ms=self._clock.now_ms,
            witness=self._audit,
            audience=lambda manifest: audience_of(
                manifest, base.hierarchy, today(self._clock).isoformat()
            ),
        )
        executors: dict[ExecutorKind, Executor] = {ExecutorKind.DIRECT: direct}
        if base.profile.ray:
            self._ray = RayExecutor(
                ray_settings(base.profile),
                self._local,
                issue=self._certificates,
                new_token=lambda: os.urandom(32).hex(),
            )
            executors[ExecutorKind.RAY] = self._ray
        self._runner = QueryRunner(
            self._coordinator,
            executors,
            default=ExecutorKind.RAY if base.profile.ray else ExecutorKind.DIRECT,
            sign=self._seal.sign,
            new_query_id=lambda: os.urandom(8).hex(),
            now_ms=self._clock.now_ms,
        )

    async def run(self) -> None:
        """Feed the replica for ever: some seconds behind the log at most.

        A question feeds before it counts, so patience costs no freshness and saves many small
        feeds, each of which costs about the same.
        """
        self._more.set()
        loop = asyncio.get_running_loop()
        pause = FEED_PAUSE_S
        while self._replica is not None:
            await self._more.wait()
            await asyncio.sleep(pause)
            self._more.clear()
            started = loop.time()
            before = -1
            while before != self._replica.sequence:
                before = self._replica.sequence
                await loop.run_in_executor(self._thread, self._replica.feed_once, self._source)
            taken = loop.time() - started
            pause = min(max(FEED_PAUSE_S, taken / FEED_SHARE), FEED_PAUSE_S_MAX)

    async def stop(self) -> None:
        """Write the delta down and close."""
        if self._ray is not None:
            await self._ray.stop()
        replica, self._replica = self._replica, None
        if self._local is not None:
            await asyncio.to_thread(self._local.close)
        if replica is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, replica.close)
        self._thread.shutdown()

    def asked_by(self, request: QueryRequest, caller: Caller) -> QueryRequest:
        """A question as its asker may ask it here. Raises DeniedError."""
        return asked_by(request, caller, self._base.node_id, self._base.hierarchy)

    @staticmethod
    def query_id_of(signed_manifest: bytes) -> str:
        """The question that a signed manifest belongs to."""
        return decode_manifest(decode_signed_manifest(signed_manifest).manifest).query_id

    async def ask_child(
        self, child: str, partial_request: bytes, signed_manifest: bytes, remaining_ms: int
    ) -> bytes:
        """Pass a question of this node's own executor on over the child's link.

        Raises:
            ManifestRefusedError: It is not this node's own question, or not for this child.
        """
        if self._coordinator is None:
            raise FederationError("this node has not started yet")
        answer = await self._coordinator.ask_site(
            child,
            decode_partial_request(partial_request),
            decode_signed_manifest(signed_manifest),
            remaining_ms,
        )
        return encode_partial_answer(answer)

    async def _answer_partial(self, _peer: NodeId, request: Request) -> bytes:
        """Answer an ancestor; who it is and whether it may is in the signed manifest."""
        if self._coordinator is None:
            raise AskRefusedError("NOT_STARTED", "this node is starting")
        answer = await self._coordinator.answer(
            decode_partial_request(request.body),
            decode_signed_manifest(request.manifest),
            request.remaining_ms,
        )
        return encode_partial_answer(answer)

    async def _audit(self, manifest: Manifest, dataset: str) -> None:
        """Write who asks what and why into this node's audit, before anything is counted."""
        hierarchy = self._base.hierarchy
        asker = NodeId(manifest.asking_node)
        caller = Caller(
            CallerKind.NODE if asker != self._base.node_id else CallerKind.ANALYST,
            manifest.principal[:_PRINCIPAL_MAX],
            asker,
            manifest.purpose,
            hierarchy.subtree(asker),
        )
        await asyncio.to_thread(
            self._store.storage.note_question, caller, dataset, manifest.query_id
        )

    def _leaves_full_boundary(self, dataset: str) -> bool:
        """Whether the parent gets anything less than full copies of this dataset."""
        return self._base.hierarchy.copy_forms(self._base.node_id, dataset) != (CopyForm.FULL,)

    def _open(self) -> ColumnarReplica | None:
        try:
            replica = ColumnarReplica.open(
                self._base.paths.columnar,
                columnar_limits(self._base.profile),
                source=self._store.incarnation,
            )
        except ExtraMissingError as error:
            self._log.warning("no analytics", reason=error.message, hint=error.hint)
            return None
        replica.set_places(places_of(self._base.hierarchy))
        return replica


def ray_settings(profile: HardwareProfile) -> RaySettings:
    """What the profile lets Ray use; its workers share what the columnar replica may."""
    return RaySettings(
        workers=profile.ray_workers,
        object_store_mb=profile.ray_object_store_mb,
        memory_mb=profile.columnar_memory_mb,
        threads=profile.columnar_threads,
    )


def columnar_limits(profile: HardwareProfile) -> ColumnarLimits:
    """What the profile lets the columnar replica use."""
    return ColumnarLimits(
        threads=profile.columnar_threads,
        memory_mb=profile.columnar_memory_mb,
        segment_rows=profile.columnar_segment_rows,
    )
