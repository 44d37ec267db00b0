"""What a running node is made of: builds every part on the open store, in one place.

Nothing runs and nothing serves before app.py says so. The order is that of dependence: each part is
given what it works with, and what it adds to the hub's answers is added when it is made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from hierarchy_config import NodeId
from node.auditing.room import AuditRoom
from node.cache import CacheFollower, FollowerTask
from node.clock import Clock
from node.consent.room import ConsentRoom
from node.doctor import CheckupRoom
from node.foundations import Foundations, utc_now
from node.guards import DiskGuard, server_folder
from node.ingestion.room import IntakeRoom
from node.joining.room import JoiningRoom
from node.keys.room import KeysRoom
from node.link_store import NodeLinkStore
from node.links import LinkHub
from node.links.making import LinkMaker
from node.matching.model import MatchMode, MatchSettings
from node.matching.room import MatchingRoom
from node.merging.room import MergingRoom
from node.opening import OpenStore, open_store
from node.people.room import PeopleRoom
from node.pump import LogPump
from node.questions import Questions
from node.reconcile.room import ReconcileRoom
from node.recovery import SeedingRoom
from node.region import RegionGround, RegionRoom, lay_ground
from node.residence.room import ResidenceRoom
from node.revocation.room import RevocationRoom
from node.services.auditing import AuditServicer, standing_out
from node.services.bundle_writes import BundleWrites
from node.services.care import CareDesk
from node.services.operations import ReplicationServicer
from node.services.point_reads import PointReads
from node.services.region import RegionServicer
from node.services.registration import Servicers
from node.services.residence import ResidenceServicer
from node.services.status import NodeServicer, StatusSources
from node.services.wire import joined_wire, resident_wire
from node.transit.room import TransitRoom
from node.watch import Figures, WatchRoom
from replication.core.model import Hello, Lane

__all__ = ["Assembly", "Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of, once its store is open."""

    store: OpenStore
    pump: LogPump
    link_store: NodeLinkStore
    hub: LinkHub
    questions: Questions
    watch: WatchRoom
    seeding: SeedingRoom
    ground: RegionGround
    region: RegionRoom
    transit: TransitRoom
    residence: ResidenceRoom
    reconcile: ReconcileRoom
    joining: JoiningRoom
    revocation: RevocationRoom
    keys: KeysRoom
    auditing: AuditRoom
    checkup: CheckupRoom
    consent: ConsentRoom
    people: PeopleRoom
    intake: IntakeRoom
    matching: MatchingRoom
    merging: MergingRoom
    disk: DiskGuard
    threads: ThreadPoolExecutor
    started_ms: int


class Assembly:
    """Makes the parts of one node; what they hold is given back by `exits`."""

    def __init__(
        self,
        base: Foundations,
        clock: Clock,
        exits: AsyncExitStack,
        *,
        restart: Callable[[], None],
        address: Callable[[], str],
    ) -> None:
        """Nothing is opened yet.

        Args:
            base: Settings, hierarchy, profile, credentials.
            clock: The time.
            exits: Closes what is opened here, in the other order.
            restart: Called when the data folder says something new.
            address: Where this node serves; asked once it does.
        """
        self._base = base
        self._clock = clock
        self._exit = exits
        self._restart = restart
        self._address = address

    async def open(self, started_ms: int) -> Parts:
        """Open the store and put the parts on it together; nothing serves yet."""
        base, clock = self._base, self._clock
        threads = self.threads("rpc", base.profile.grpc_workers)
        link_threads = self.threads("link", base.profile.database_pool)
        loop = asyncio.get_running_loop()
        store = await loop.run_in_executor(threads, self._store)
        self._exit.callback(store.close)
        disk = await loop.run_in_executor(threads, self._disk, store)
        pump = self._pump(store)
        link_store = self._link_store(store, pump, disk)
        ground = await loop.run_in_executor(threads, lay_ground, base, store, clock)
        hub = self._hub(store, link_store, pump, link_threads, ground)
        questions = Questions(
            base, store, hub, clock, utc=lambda: utc_now(clock), address=self._address
        )
        figures = Figures(base.node_id, base.hierarchy, store.engine, hub, link_store.is_recovering)
        region = self._region(ground, store, hub, figures, threads)
        revocation = self._revocation(store, hub, ground, region, threads)
        joining = self._joining(store, hub, ground, revocation, threads)
        keys = self._keys(store, hub, disk)
        for each in (questions, region, joining, revocation, keys):
            hub.handlers = {**hub.handlers, **each.handlers}
        for room in (region, revocation, keys):
            hub.child_handlers = {**hub.child_handlers, **room.child_handlers}
        residence = ResidenceRoom(store, hub, link_store, threads=threads, notify=pump.notify)
        seeding = SeedingRoom(base, store, hub, link_store, questions, threads)
        transit = TransitRoom(base, store, hub, link_store, pump, threads=threads, clock=clock)
        watch = WatchRoom(
            base, store, hub, figures, disk, threads=threads, clock=clock, notify=pump.notify
        )
        is_full = partial(_refuses_writes, region, disk)
        matching = self._matching(store, pump, disk)
        people = self._people(store, pump, disk, threads)
        thread = self.threads("reconcile", 1)
        reconcile = ReconcileRoom(
            base, store, hub, link_store, thread=thread, clock=clock, notify=pump.notify
        )
        auditing = await loop.run_in_executor(threads, self._auditing, store, hub, disk, ground)
        watch.audit = auditing.alarms
        checkup = self._checkup(store, hub, watch, joining, questions=questions)
        checkup.checkup.add("ANCHORS", auditing.checked)
        checkup.checkup.add("REVOKED", revocation.checked)
        return Parts(
            store,
            pump,
            link_store,
            hub,
            questions,
            watch,
            seeding,
            ground,
            region,
            transit,
            residence,
            reconcile,
            joining,
            revocation,
            keys,
            auditing,
            checkup,
            ConsentRoom(store, disk_is_full=is_full, notify=pump.notify),
            people,
            self._intake(store, pump, is_full, matching),
            matching,
            MergingRoom(store, disk_is_full=is_full, notify=pump.notify, proposals=matching),
            disk,
            threads,
            started_ms,
        )

    def _store(self) -> OpenStore:
        base, folder = self._base, self._base.paths.data
        return open_store(folder, base.settings, base.hierarchy, base.profile, self._clock)

    def _pump(self, store: OpenStore) -> LogPump:
        return LogPump(
            store.durable_head,
            self.threads("head", 1),
            ends=store.tail,
            lane_heads=store.lane_heads,
        )

    def _region(
        self,
        ground: RegionGround,
        store: OpenStore,
        hub: LinkHub,
        figures: Figures,
        threads: ThreadPoolExecutor,
    ) -> RegionRoom:
        return RegionRoom(
            self._base,
            ground,
            store,
            hub,
            figures,
            threads=threads,
            clock=self._clock,
            restart=self._restart,
        )

    def _revocation(
        self,
        store: OpenStore,
        hub: LinkHub,
        ground: RegionGround,
        region: RegionRoom,
        threads: ThreadPoolExecutor,
    ) -> RevocationRoom:
        room = RevocationRoom(
            self._base, store, hub, ground.former.authority, threads=threads, clock=self._clock
        )
        region.admits(room.readmit)
        hub.met = partial(_met, (region.met, room.met))
        return room

    def _joining(
        self,
        store: OpenStore,
        hub: LinkHub,
        ground: RegionGround,
        revocation: RevocationRoom,
        threads: ThreadPoolExecutor,
    ) -> JoiningRoom:
        return JoiningRoom(
            self._base,
            store,
            hub,
            ground,
            threads=threads,
            clock=self._clock,
            address=self._address,
            admit=revocation.admit,
        )

    def _keys(self, store: OpenStore, hub: LinkHub, disk: DiskGuard) -> KeysRoom:
        return KeysRoom(
            self._base,
            store,
            hub,
            thread=self.threads("keys", 1),
            clock=self._clock,
            disk_is_full=disk.is_full,
        )

    def _auditing(
        self, store: OpenStore, hub: LinkHub, disk: DiskGuard, ground: RegionGround
    ) -> AuditRoom:
        room = AuditRoom(
            self._base,
            store,
            hub,
            disk,
            threads=self.threads("audit", 2),
            clock=self._clock,
            utc=lambda: utc_now(self._clock),
            former=ground.former,
        )
        room.begin()
        self._exit.push_async_callback(room.end)
        return room

    def _checkup(
        self,
        store: OpenStore,
        hub: LinkHub,
        watch: WatchRoom,
        joining: JoiningRoom,
        *,
        questions: Questions,
    ) -> CheckupRoom:
        return CheckupRoom(
            self._base,
            store,
            hub,
            watch,
            joining=joining,
            questions=questions,
            threads=self.threads("checkup", 1),
            clock=self._clock,
        )

    def _people(
        self, store: OpenStore, pump: LogPump, disk: DiskGuard, threads: ThreadPoolExecutor
    ) -> PeopleRoom:
        people = PeopleRoom(
            self._base,
            store.storage.context,
            threads=threads,
            stretching=self.threads("stretch", 1),
            clock=self._clock,
            notify=pump.notify,
            disk_is_full=disk.is_full,
        )
        pump.subscribe(lambda _head: people.log_advanced(pump.lane_heads.get(Lane.CARE)))
        return people

    def _intake(
        self,
        store: OpenStore,
        pump: LogPump,
        is_full: Callable[[], bool],
        matching: MatchingRoom,
    ) -> IntakeRoom:
        return IntakeRoom(
            self._base,
            store,
            thread=self.threads("intake", 1),
            clock=self._clock,
            notify=pump.notify,
            disk_is_full=is_full,
            matching=matching,
        )

    def _matching(self, store: OpenStore, pump: LogPump, disk: DiskGuard) -> MatchingRoom:
        base = self._base
        room = MatchingRoom(
            store.storage,
            MatchSettings(
                MatchMode(base.settings.matching),
                base.profile.matching_residents_max,
                base.profile.matching_percent,
            ),
            base.paths.match_model,
            thread=self.threads("matching", 1),
            clock=self._clock,
            disk_is_full=disk.is_full,
        )
        pump.subscribe(room.log_advanced)
        return room

    def _link_store(self, store: OpenStore, pump: LogPump, disk: DiskGuard) -> NodeLinkStore:
        return NodeLinkStore(
            store.engine,
            store.storage,
            store.log,
            store.links,
            store.marks,
            node_id=self._base.node_id,
            hierarchy=self._base.hierarchy,
            clock=self._clock,
            notify=pump.notify,
            durable_head=store.durable_head,
            head=lambda: pump.head,
            disk_is_full=disk.is_full,
        )

    def servicers(self, parts: Parts) -> Servicers:
        base, clock = self._base, self._clock
        status = StatusSources(
            base.node_id,
            base.hierarchy,
            parts.store.storage,
            parts.hub,
            parts.watch.figures,
            parts.store.epoch,
            parts.threads,
            clock,
            base.profile.level.value,
            parts.store.database,
            lambda: parts.questions.columnar_sequence,
            parts.started_ms,
            parts.watch.book,
            lambda: parts.seeding.pruner.standing,
            parts.ground.epochs.decided_after,
            lambda: standing_out(parts.auditing),
        )
        return Servicers(
            self._desk(parts),
            NodeServicer(status),
            ReplicationServicer(parts.watch, clock),
            parts.hub,
            parts.questions,
            RegionServicer(parts.region),
            ResidenceServicer(parts.residence),
            parts.seeding,
            parts.transit.where,
            parts.reconcile,
            parts.joining,
            parts.revocation,
            parts.keys,
            AuditServicer(parts.auditing),
            parts.consent,
            parts.people,
            clock,
            lambda: utc_now(clock),
            parts.checkup,
            parts.intake,
            parts.matching,
            parts.merging,
        )

    def threads(self, name: str, count: int) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._exit.callback(pool.shutdown)
        return pool

    def _hub(
        self,
        store: OpenStore,
        link_store: NodeLinkStore,
        pump: LogPump,
        threads: ThreadPoolExecutor,
        ground: RegionGround,
    ) -> LinkHub:
        base = self._base
        maker = LinkMaker(
            base.node_id,
            base.hierarchy,
            base.profile,
            base.credentials,
            link_store,
            epoch=store.epoch,
            incarnation=store.incarnation,
            threads=threads,
            clock=self._clock,
            utc=lambda: utc_now(self._clock),
            former=ground.former,
            revoked=store.revoked,
        )
        return LinkHub(
            base.node_id,
            base.hierarchy,
            maker.make,
            self._clock,
            random.SystemRandom().random,
            head=lambda: pump.head,
        )

    def following(self, store: OpenStore, pump: LogPump) -> FollowerTask:
        """The cache's reader of the log, told of every pulse."""
        follower = CacheFollower(store.cache, store.storage)
        following = FollowerTask(follower, self.threads("cache", 1))
        pump.subscribe(following.log_advanced)
        return following

    def _disk(self, store: OpenStore) -> DiskGuard:
        """The guard of the disks that the data folder and a database server here write to."""
        base = self._base
        server = server_folder(store.engine)
        return DiskGuard(
            [base.paths.data, *([server] if server else [])],
            base.profile.disk_free_min_mb,
            base.profile.disk_free_min_percent,
            self._clock,
        )

    def _desk(self, parts: Parts) -> CareDesk:
        base, storage, threads = self._base, parts.store.storage, parts.threads
        return CareDesk(
            base.node_id,
            base.hierarchy,
            storage,
            threads,
            self._clock,
            partial(_refuses_writes, parts.region, parts.disk),
            PointReads(
                lambda asked: storage.resident_answers(asked, resident_wire, joined_wire), threads
            ),
            BundleWrites(storage.put_bundles, threads, parts.pump.notify),
        )


def _met(listeners: Sequence[Callable[[NodeId, Hello], None]], peer: NodeId, hello: Hello) -> None:
    """A link is up: tell each part that greets."""
    for listener in listeners:
        listener(peer, hello)


def _refuses_writes(region: RegionRoom, disk: DiskGuard) -> bool:
    """Whether the disk is full. Raises RegionClosedError: the region has closed this node."""
    region.keeper.refuse_if_closed()
    return disk.is_full()
