"""The faults of a run: begun and ended by the clock, counted as they fire."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hierarchy_config import NodeId
from node.mariadb_server import MariaDBStartError
from node.security.authority import LEAF_LIFETIME, load_authority
from node.security.certificates import (
    Validity,
    certificates_to_pem,
    new_private_key,
    private_key_to_pem,
    sign_leaf,
)
from node.security.folders import NodeFolder
from node.security.principal import Principal
from tests.chaos.place import ChaosPlace, Teller
from tests.chaos.plan import Planned
from tests.chaos.proxy import CLEAR, Conditions
from tests.chaos.reparent import Reparenting
from tests.chaos.restores import Restores
from tests.services.waiting import CLOCK

__all__ = ["Faults"]

_LINES: Final = {
    "half_open": (Conditions(up=False, down=False),),
    "one_way": (Conditions(up=False), Conditions(down=False)),
    "delay": (
        Conditions(delay_s=0.3, jitter_s=0.4),
        Conditions(delay_s=0.05, jitter_s=0.5, stalls=0.05, stall_s=1.0),
        Conditions(bytes_per_s=8_000, delay_s=0.1),
    ),
}
_BALLAST: Final = "ballast"
_SERVER: Final = "mariadbd"


@dataclass(frozen=True, slots=True)
class _Under:
    """A fault that goes on: until when, on what, how it ends, and what it does meanwhile."""

    until_s: float
    target: NodeId | str
    end: Callable[[], None]
    work: threading.Thread | None

    def is_over(self, now_s: float) -> bool:
        return now_s >= self.until_s and (self.work is None or not self.work.is_alive())


class Faults:
    """Begins faults on a place, and ends each when its time is over."""

    def __init__(self, place: ChaosPlace, seed: int, tell: Teller, *, reparent: bool) -> None:
        self._place = place
        self.tell = tell
        self._under: list[_Under] = []
        self._busy: set[NodeId | str] = set()
        self._at_work: dict[NodeId | str, threading.Thread] = {}
        self._failed: list[Exception] = []
        self.fired: Counter[str] = Counter()
        self.impossible: set[str] = set() if place.small_disk else {"full_disk"}
        if not reparent:
            self.impossible.add("reparent")
        self.ended_by_themselves: Counter[NodeId] = Counter()
        chance = random.Random(seed)
        self.restores = Restores(place, chance, tell)
        self.change = Reparenting(place, chance, tell, spared=self.restores.nodes)

    def begin(self, fault: Planned, now_s: float) -> bool:
        """Begin a fault on a node that is under no other; False: none is free, try again later."""
        if fault.kind in self.impossible:
            return True
        begin: Callable[[Planned], tuple[NodeId | str, Callable[[], None]] | None]
        begin = getattr(self, f"_{fault.kind}", self._line)
        begun = begin(fault)
        if begun is None:
            return False
        target, end = begun
        self.fired[fault.kind] += 1
        self.tell(f"{now_s:6.1f} s {fault.kind} {target} for {fault.lasts_s:.1f} s")
        self._busy.add(target)
        work = self._at_work.pop(target, None)
        self._under.append(_Under(now_s + fault.lasts_s, target, end, work))
        return True

    def has_had_its_turn(self, kind: str) -> bool:
        """Whether a kind has fired, or cannot."""
        return self.fired[kind] > 0 or kind in self.impossible

    def end_due(self, now_s: float) -> None:
        """End what is over, and start again what has ended by itself."""
        for due in [each for each in self._under if each.is_over(now_s)]:
            self._under.remove(due)
            self._end(due)
        for node in self._place.fleet.ended():
            if node not in self._busy:
                self.ended_by_themselves[node] += 1
                self._place.fleet.start(node)

    def heal(self) -> None:
        """End everything."""
        # A store is put back while others run; the change of the hierarchy waits for every node.
        order = {self.change.name: 2}
        for each in sorted(
            self._under, key=lambda each: order.get(str(each.target), each.work is not None)
        ):
            if each.target == self.change.name:
                self.change.rest_is_healed.set()
            self._end(each)
        self._under.clear()
        for line in (*self._place.lines.values(), *self._place.former_lines):
            self._place.proxies.cut(line, CLEAR)

    def _end(self, under: _Under) -> None:
        if under.work is not None:
            under.work.join()
            if self._failed:
                raise self._failed[0]
        under.end()
        self._busy.discard(under.target)

    def _free_node(self, luck: float, nodes: tuple[NodeId, ...] = ()) -> NodeId | None:
        free = [
            node
            for node in nodes or self._place.nodes
            if node not in self._busy and self._place.fleet.is_running(node)
        ]
        return free[int(luck * len(free))] if free else None

    def _kill(self, fault: Planned) -> tuple[NodeId, Callable[[], None]] | None:
        node = self._free_node(fault.luck)
        if node is None:
            return None
        self._place.fleet.kill(node)
        return node, lambda: self._place.fleet.start(node)

    def _pause(self, fault: Planned) -> tuple[NodeId, Callable[[], None]] | None:
        node = self._free_node(fault.luck)
        if node is None:
            return None
        self._place.fleet.signal(node, signal.SIGSTOP)
        return node, lambda: self._place.fleet.signal(node, signal.SIGCONT)

    def _cut(self, fault: Planned) -> tuple[str, Callable[[], None]] | None:
        return self._condition(fault, Conditions(open=False), resets=True)

    def _line(self, fault: Planned) -> tuple[str, Callable[[], None]] | None:
        some = _LINES[fault.kind]
        return self._condition(fault, some[int(fault.luck * 997) % len(some)], resets=False)

    def _condition(
        self, fault: Planned, conditions: Conditions, *, resets: bool
    ) -> tuple[str, Callable[[], None]] | None:
        free = [node for node in self._place.lines if f"link of {node}" not in self._busy]
        if not free:
            return None
        node = free[int(fault.luck * len(free))]
        line, proxies = self._place.lines[node], self._place.proxies
        if resets:
            proxies.cut(line, conditions)
        else:
            line.conditions = conditions

        def end() -> None:
            if fault.kind == "half_open":
                # What was held for so long has been forgotten on the way.
                proxies.cut(line, CLEAR)
            line.conditions = CLEAR

        return f"link of {node}", end

    def _kill_mariadbd(self, _fault: Planned) -> tuple[str, Callable[[], None]] | None:
        server = self._place.server
        if _SERVER in self._busy or not server.running:
            return None
        server.kill()
        return _SERVER, self._start_mariadbd

    def _start_mariadbd(self) -> None:
        try:
            self._place.server.start()
        except MariaDBStartError:
            # The port is in its last minute of the connections that broke: again.
            self._place.server.start()

    def _rotate(self, fault: Planned) -> tuple[NodeId, Callable[[], None]] | None:
        """A new key and certificate in place of the old ones, taken up by the next connection."""
        nodes = tuple(self._place.lines)
        node = nodes[int(fault.luck * len(nodes))]
        parent = self._place.parent(node)
        if parent is None or node in self._busy or node in self._renamed():
            return None
        if parent in self._busy:
            # A store that is put back has no authority for a moment.
            return None
        tree = self._place.tree
        folder = NodeFolder(self._place.place.node_dir(node))
        authority = load_authority(self._place.place.node_dir(parent))
        key = new_private_key()
        leaf = sign_leaf(
            authority,
            Principal(tree.region, node),
            tree.dns_name(node),
            key.public_key(),
            Validity.starting(datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC), LEAF_LIFETIME),
        )
        _replace(folder.tls.private_key, private_key_to_pem(key))
        _replace(folder.tls.chain, certificates_to_pem((leaf, *authority.chain)))
        self._place.proxies.cut(self._place.lines[node], CLEAR)
        return node, lambda: None

    def _renamed(self) -> frozenset[NodeId]:
        """Nodes whose certificates a change of the hierarchy makes anew."""
        return self.change.moving if self.change.begun else frozenset()

    def _full_disk(self, fault: Planned) -> tuple[NodeId, Callable[[], None]] | None:
        """Fill the small disk below the watermark, or to its last byte."""
        node = self._place.small_disk
        if node is None or node in self._busy:
            return None
        ballast = self._place.place.node_dir(node) / _BALLAST
        keep = 0 if fault.luck < 0.5 else 4 << 20
        size = max(0, shutil.disk_usage(ballast.parent).free - keep)
        try:
            with ballast.open("wb") as file:
                for _ in range(size >> 16):
                    file.write(b"\0" * (1 << 16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        return node, lambda: ballast.unlink(missing_ok=True)

    def _restore(self, fault: Planned) -> tuple[NodeId, Callable[[], None]] | None:
        return self._put_back(fault, self.restores.on_sqlite)

    def _restore_mariadb(self, fault: Planned) -> tuple[NodeId, Callable[[], None]] | None:
        """The same for a node whose database server stays up meanwhile."""
        if _SERVER in self._busy or not self._place.server.running:
            return None
        begun = self._put_back(fault, self.restores.on_mariadb)
        if begun is None:
            return None
        node, started = begun
        self._busy.add(_SERVER)

        def end() -> None:
            self._busy.discard(_SERVER)
            started()

        return node, end

    def _put_back(
        self, fault: Planned, nodes: tuple[NodeId, ...]
    ) -> tuple[NodeId, Callable[[], None]] | None:
        """Put a store back to its backup while its node is dead."""
        node = self._free_node(fault.luck, nodes)
        if node is None or self.restores.under_way:
            return None
        self._place.fleet.kill(node)
        self.restores.under_way = True
        self._begin_work(node, lambda: self.restores.put_back(node))

        def end() -> None:
            self.restores.under_way = False
            self._place.fleet.start(node)

        return node, end

    def _reparent(self, _fault: Planned) -> tuple[str, Callable[[], None]] | None:
        """Other faults go on meanwhile, also at the nodes that are moved."""
        self._begin_work(self.change.name, self.change.apply)
        return self.change.name, lambda: None

    def _begin_work(self, target: NodeId | str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 -- raised again where the run ends the fault
                self._failed.append(error)

        self._at_work[target] = thread = threading.Thread(target=run)
        thread.start()


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.replace(path)
