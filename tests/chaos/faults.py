"""The faults of a run: planned from a seed, begun and ended by the clock, counted as they fire."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config import CareLevel, NodeId
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
from tests.chaos.place import ChaosPlace, Teller, line_of, run_quietly
from tests.chaos.proxy import CLEAR, Conditions
from tests.services.stores import HeldRow, opened
from tests.services.waiting import CLOCK

__all__ = ["KINDS", "Faults", "Forgiven", "Planned", "plan"]

Row = tuple[str, str]

RATES: Final = {
    "kill": 22.0,
    "cut": 5.0,
    "half_open": 2.5,
    "one_way": 3.0,
    "delay": 3.0,
    "pause": 3.0,
    "rotate": 2.5,
    "kill_mariadbd": 2.0,
    "full_disk": 0.7,
    "restore": 0.9,
}
"""How often a minute each kind is planned; once at least."""
KINDS: Final = tuple(RATES)
_LASTS_S: Final = {
    "kill": (0.0, 3.0),
    "cut": (2.0, 12.0),
    "half_open": (3.0, 12.0),
    "one_way": (3.0, 12.0),
    "delay": (5.0, 15.0),
    "pause": (1.0, 8.0),
    "kill_mariadbd": (0.5, 4.0),
    "full_disk": (4.0, 10.0),
}
_LINES: Final = {
    "half_open": (Conditions(up=False, down=False),),
    "one_way": (Conditions(up=False), Conditions(down=False)),
    "delay": (
        Conditions(delay_s=0.3, jitter_s=0.4),
        Conditions(delay_s=0.05, jitter_s=0.5, stalls=0.05, stall_s=1.0),
        Conditions(bytes_per_s=8_000, delay_s=0.1),
    ),
}
_RESTORE_AFTER: Final = 0.5
"""Part of the run after which stores are put back; their backups are made before it."""
_BALLAST: Final = "ballast"


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: when it begins (seconds from the start), what, for how long, and its luck."""

    at_s: float
    kind: str
    lasts_s: float
    luck: float


@dataclass(frozen=True, slots=True)
class Forgiven:
    """A row version that only the restored node had; `left`: the number that others still have.

    What was acknowledged before `until_ms` is forgiven above `left`.
    """

    row: Row
    node: NodeId
    left: int
    until_ms: int


def plan(seed: int, minutes: float) -> list[Planned]:
    """The faults of a run in order of time; every kind at least once."""
    chance = random.Random(seed)
    total_s = minutes * 60
    planned = []
    for kind, rate in RATES.items():
        for _ in range(max(1, round(rate * minutes))):
            first = _RESTORE_AFTER if kind == "restore" else 0.05
            at_s = chance.uniform(first, 0.95 if kind != "restore" else 0.8) * total_s
            lasts_s = chance.uniform(*_LASTS_S.get(kind, (0.0, 0.0)))
            planned.append(Planned(at_s, kind, lasts_s, chance.random()))
    return sorted(planned, key=lambda each: each.at_s)


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

    def __init__(self, place: ChaosPlace, seed: int, tell: Teller) -> None:
        self._place = place
        self._tell = tell
        self._chance = random.Random(seed)
        self._under: list[_Under] = []
        self._busy: set[NodeId | str] = set()
        self._at_work: dict[NodeId | str, threading.Thread] = {}
        self.failed: list[Exception] = []
        self.fired: Counter[str] = Counter()
        self.forgiven: list[Forgiven] = []
        self.restored: Counter[NodeId] = Counter()
        self.restored_ms: dict[NodeId, int] = {}
        self.impossible: set[str] = set() if place.small_disk else {"full_disk"}
        self.ended_by_themselves: Counter[NodeId] = Counter()
        self._backups = place.root / "backups"
        self._key = place.root / "backup.key"
        candidates = [
            node
            for node in place.nodes
            if place.on_sqlite(node)
            and node != place.small_disk
            and place.place.hierarchy.entry(node).level in {CareLevel.VILLAGE, CareLevel.TOWNSHIP}
        ]
        self._to_restore = self._chance.sample(candidates, 2)

    def back_up(self) -> None:
        """Make a backup of each node that may be put back later."""
        fenhe("backup", "key", "new", str(self._key))
        for node in self._to_restore:
            folder = str(self._place.place.node_dir(node))
            where = ("--data", folder, "--to", str(self._backups), "--key", str(self._key))
            fenhe("backup", *where)
            self._tell(f"backed up {node}")

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
        self._tell(f"{now_s:6.1f} s {fault.kind} {target} for {fault.lasts_s:.1f} s")
        self._busy.add(target)
        self._under.append(_Under(now_s + fault.lasts_s, target, end, self._at_work.get(target)))
        return True

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
        for each in self._under:
            self._end(each)
        self._under.clear()
        for line in self._place.lines.values():
            self._place.proxies.cut(line, CLEAR)

    def _end(self, under: _Under) -> None:
        if under.work is not None:
            under.work.join()
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
        if "mariadbd" in self._busy or not server.running:
            return None
        server.kill()
        return "mariadbd", self._start_mariadbd

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
        if parent is None or node in self._busy:
            return None
        tree = self._place.place.hierarchy
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
        """Put a store back to its backup, in a folder that was emptied, as a new life."""
        node = self._free_node(fault.luck, tuple(self._to_restore))
        if node is None:
            return None
        self._place.fleet.kill(node)
        self._at_work[node] = work = threading.Thread(target=self._put_back, args=(node,))
        work.start()

        def end() -> None:
            del self._at_work[node]
            if self.failed:
                raise self.failed[0]
            self._place.fleet.start(node)

        return node, end

    def _put_back(self, node: NodeId) -> None:
        try:
            self._restore_store(node)
        except Exception as error:  # noqa: BLE001 -- raised again where the run ends the fault
            self.failed.append(error)

    def _restore_store(self, node: NodeId) -> None:
        place = self._place.place
        folder = place.node_dir(node)
        former = _rows_by(self._place, node, node)
        old = folder.with_name(f"{folder.name}.{self.restored[node]}.old")
        folder.rename(old)
        self.restored[node] += 1
        epoch = 1 + self.restored[node]
        fenhe(
            *("restore", "--from", str(self._backups), "--data", str(folder)),
            *("--key", str(self._key), "--node", node, "--epoch", str(epoch)),
        )
        shutil.copyfile(old / "node.log", folder / "node.log")
        self._forgive(node, former, _rows_by(self._place, node, node))

    def _forgive(self, node: NodeId, former: dict[Row, HeldRow], back: dict[Row, HeldRow]) -> None:
        """Note what the restored node alone had: what nobody above has, had no receipt."""
        tree = self._place.place.hierarchy
        held_elsewhere = [back] + [
            self._rows_above(above, node)
            for above in line_of(self._place.place, node)[1:]
            if tree.parent(above) is not None
        ]
        self.restored_ms[node] = now_ms = CLOCK.now_ms()
        for row, held in former.items():
            number = held.version[1]
            left = max((rows[row].version[1] for rows in held_elsewhere if row in rows), default=0)
            if left < number:
                self.forgiven.append(Forgiven(row, node, left, now_ms))
        alone = sum(pardon.node == node and pardon.until_ms == now_ms for pardon in self.forgiven)
        self._tell(f"restored {node}: of its {len(former)} rows it alone had {alone}")

    def _rows_above(self, holder: NodeId, author: NodeId) -> dict[Row, HeldRow]:
        while True:
            try:
                return _rows_by(self._place, holder, author)
            except SQLAlchemyError:
                # Its database is under a fault of its own; it is back in a moment.
                threading.Event().wait(0.5)


def _rows_by(place: ChaosPlace, holder: NodeId, author: NodeId) -> dict[Row, HeldRow]:
    """The rows of an author in the store of a holder."""
    with opened(place.place, holder) as store:
        return {key: row for key, row in store.rows().items() if row.author == author}


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.replace(path)


def fenhe(*words: str) -> str:
    """Run a command of the program to its end."""
    return run_quietly(sys.executable, "-m", "node", *words)
