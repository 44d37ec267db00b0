"""Stores put back to their backups, and what is forgiven for it.

What a node was told or told others since its backup, and nobody else has, is gone: no replication
brings it back. So it is noted at the restore what the node alone had, and only that is forgiven.
"""

from __future__ import annotations

import random
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config import CareLevel, NodeId
from tests.chaos.place import ChaosPlace, Teller, run_quietly
from tests.services.region import database_file
from tests.services.stores import HeldRow, opened
from tests.services.waiting import CLOCK

__all__ = ["Forgiven", "Restores"]

Row = tuple[str, str]

_SQLITE_NODES: Final = 2
_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Forgiven:
    """A row version that only a restored node had; `left`: the number that is still to be had.

    `node`: its author, as a rule the restored one. What was acknowledged before `until_ms` is
    forgiven above `left`.
    """

    row: Row
    node: NodeId
    left: int
    until_ms: int


class Restores:
    """Makes the backups of the nodes that a run may put back, and puts them back."""

    def __init__(self, place: ChaosPlace, chance: random.Random, tell: Teller) -> None:
        self._place = place
        self._tell = tell
        self._backups = place.root / "backups"
        self._key = place.root / "backup.key"
        levels = {CareLevel.VILLAGE, CareLevel.TOWNSHIP}
        may = [node for node in place.nodes if place.tree.entry(node).level in levels]
        sqlite = [node for node in may if place.on_sqlite(node) and node != place.small_disk]
        self.on_sqlite = tuple(chance.sample(sqlite, _SQLITE_NODES))
        self.on_mariadb = (chance.choice([node for node in may if not place.on_sqlite(node)]),)
        self.forgiven: list[Forgiven] = []
        self.times: Counter[NodeId] = Counter()
        self.last_ms: dict[NodeId, int] = {}
        self.under_way = False
        """One at a time: what two had in common would be nobody's."""

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """All that may be put back."""
        return (*self.on_sqlite, *self.on_mariadb)

    @property
    def lost_residents(self) -> frozenset[str]:
        """Residents whom only a restored home knew: what others write about them goes nowhere."""
        return lost_residents(self.forgiven)

    def back_up(self) -> None:
        """Make a backup of each node that may be put back later."""
        fenhe("backup", "key", "new", str(self._key))
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(self._back_up, self.nodes))

    def put_back(self, node: NodeId) -> None:
        """Put the store of a dead node back, in a folder that was emptied, as a new life."""
        folder = self._place.place.node_dir(node)
        former = self._at_stake(node)
        old = folder.with_name(f"{folder.name}.{self.times[node]}.old")
        folder.rename(old)
        self.times[node] += 1
        fenhe(
            *("restore", "--from", str(self._backups), "--data", str(folder)),
            *("--key", str(self._key), "--node", node, "--epoch", str(1 + self.times[node])),
            *self._fresh_database(node),
        )
        shutil.copyfile(old / "node.log", folder / "node.log")
        self._forgive(node, former)

    def _back_up(self, node: NodeId) -> None:
        where = ("--data", str(self._place.place.node_dir(node)), "--to", str(self._backups))
        fenhe("backup", *where, "--key", str(self._key))
        self._tell(f"backed up {node}")

    def _fresh_database(self, node: NodeId) -> tuple[str, ...]:
        if self._place.on_sqlite(node):
            return ()
        url = self._place.server.create_database(f"node_{node}_{self.times[node]}")
        return ("--database", database_file(self._place.root / f"database-{node}", url))

    def _at_stake(self, node: NodeId) -> dict[Row, HeldRow]:
        """Rows that it may be the last to have: its own, and of nodes put back before it."""
        authors = {str(node), *self.times}
        held = self._held_at(node)
        return {key: row for key, row in held.items() if row.author in authors}

    def _forgive(self, node: NodeId, former: dict[Row, HeldRow]) -> None:
        """Note what the restored node alone had: neither the way up nor another home has it."""
        held_elsewhere = [
            self._held_at(other) for other in self._place.nodes if other != self._place.city
        ]
        self.last_ms[node] = now_ms = CLOCK.now_ms()
        alone = 0
        for row, held in former.items():
            number = held.version[1]
            left = max((rows[row].version[1] for rows in held_elsewhere if row in rows), default=0)
            if left < number:
                alone += 1
                self.forgiven.append(Forgiven(row, NodeId(held.author), left, now_ms))
        self._tell(f"restored {node}: of {len(former)} rows it alone had {alone}")

    def _held_at(self, holder: NodeId) -> dict[Row, HeldRow]:
        """All it holds, whoever wrote it: a new home is the author of who somebody is."""
        while True:
            try:
                with opened(self._place.place, holder) as store:
                    return store.rows()
            except SQLAlchemyError:
                # Its database is under a fault of its own; it is back in a moment.
                threading.Event().wait(_AGAIN_S)


def lost_residents(forgiven: Iterable[Forgiven]) -> frozenset[str]:
    """Residents of whom nothing was left when their home was put back."""
    return frozenset(
        each.row[1] for each in forgiven if each.row[0] == "residents" and not each.left
    )


def fenhe(*words: str) -> str:
    """Run a command of the program to its end."""
    return run_quietly(sys.executable, "-m", "node", *words)
