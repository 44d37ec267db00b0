"""Plants this node's canary, and looks for those that are where they must not be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import select

from hierarchy_config import NodeId
from node.cache import Cache
from node.clock import RandomBytes
from node.doctor import marks
from node.records.canaries import (
    BEYOND,
    MARK,
    START,
    are_canaries,
    canary_home,
    is_canary,
    mint_canary,
)
from node.records.model import Bundle, NewIdentifier, NewRecord, NewResident
from node.security.caller import Caller
from node.storage import Storage
from node.storage.logged import read_log
from node.storage.specs import RESIDENTS
from node.storage.tables import REPLICATED
from replication.changelog import LogPrunedError
from replication.core.codec import decode_changes
from replication.core.model import Form

__all__ = ["Canaries", "Sighting", "Stray", "marks_in"]

_LOG_BYTES: Final = 4 << 20
_DAY: Final = "1900-01-01"

ColumnarIds = Callable[[str, str], Mapping[str, tuple[str, ...]]]
"""Ids of residents in [low, high) that the columnar replica holds, by dataset."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A canary where it must not be. `home` "": a mark in clear, of whosoever's canary.

    `place`: rows, log, columnar, cache, clear. `detail`: the table, dataset or file.
    """

    place: str
    home: str
    detail: str


@dataclass(slots=True)
class Sighting:
    """What one look saw: strays, canaries where they may be, how much was looked at."""

    strays: list[Stray] = field(default_factory=list)
    at_home: int = 0
    looked_at: int = 0


class Canaries:
    """Every method blocks on the database, and may be called from any thread."""

    def __init__(
        self,
        storage: Storage,
        cache: Cache,
        columnar: ColumnarIds,
        allowed: frozenset[NodeId],
        random_bytes: RandomBytes,
    ) -> None:
        """`allowed`: homes whose residents this node may hold.

        Its subtree, also the former one of a change of the region until what has moved is purged.
        """
        self._storage = storage
        self._context = storage.context
        self._cache = cache
        self._columnar = columnar
        self._allowed = allowed
        self._random_bytes = random_bytes

    def own(self) -> str | None:
        """The id of this node's canary, if it has one."""
        t = REPLICATED[RESIDENTS.name]
        query = select(t.c.row_id).where(
            are_canaries(t), t.c.home_node == self._context.node_id, t.c.deleted.is_(False)
        )
        found = self._context.transactions.read(lambda c: c.execute(query.limit(1)).scalar())
        return None if found is None else str(found)

    def plant(self, caller: Caller) -> tuple[str, bool]:
        """This node's canary, and whether it was made now. It goes up as any resident does.

        Raises:
            RecoveringError: The node gets back what it lost, maybe its canary too.
        """
        held = self.own()
        if held is not None:
            return held, False
        home = self._context.node_id
        resident_id = mint_canary(home, self._random_bytes(3))
        resident = NewResident(
            resident_id=resident_id,
            # Whoever should ever read it on a screen knows what it is.
            name=f"非真人 {MARK} {home}",
            sex="unknown",
            birth_date=_DAY,
            # Not of the one system that is unique and indexed for the region.
            identifiers=(NewIdentifier("local", f"{MARK} {resident_id[-6:]}"),),
            phone=MARK,
            address=MARK,
            home_node=home,
            deceased_on=_DAY,
        )
        values = {"class": "virtual", "started_on": _DAY, "department": MARK}
        record = NewRecord(None, "encounters", resident_id, values)
        bundle = Bundle(f"canary-{resident_id}", (resident,), (record,))
        self._storage.put_bundle(caller, bundle)
        return resident_id, True

    def look(self, folders: Mapping[str, Path]) -> Sighting:
        """Look at rows, log, columnar replica, cache and the files of some folders, by a name."""
        seen = Sighting()
        self._rows(seen)
        self._log(seen)
        for dataset, ids in self._columnar(START, BEYOND).items():
            # No canary is ever fed to it, not even one of this node's.
            seen.strays += [Stray("columnar", canary_home(each) or "", dataset) for each in ids]
        for each in sorted(self._cache.ids(START)):
            seen.strays.append(Stray("cache", canary_home(each) or "", "an answer kept"))
        for name, folder in folders.items():
            count, found = marks_in(folder)
            seen.looked_at += count
            seen.strays += [Stray("clear", "", f"{name}: {path}") for path in found]
        return seen

    def _rows(self, seen: Sighting) -> None:
        for name, t in REPLICATED.items():
            query = select(t.c.resident_id, t.c.home_node).where(are_canaries(t)).distinct()
            rows = self._context.transactions.read(lambda c, q=query: list(c.execute(q)))  # type: ignore[misc]
            for row in rows:
                self._judge(seen, "rows", name, row.resident_id, row.home_node)

    def _log(self, seen: Sighting) -> None:
        """Every entry that is left; a letter under way opens for its addressee alone."""
        store = self._context
        after = store.transactions.read(store.changelog.pruned_to)
        found: set[tuple[str, str, str]] = set()
        while True:
            try:
                part = store.transactions.read(
                    lambda c, after=after: read_log(  # type: ignore[misc]
                        store, c, after=after, lane=None, bytes_max=_LOG_BYTES
                    )
                )
            except LogPrunedError:
                # Pruned meanwhile; what does not open is looked at by its own check.
                break
            for entry in part.entries:
                if entry.form is not Form.SEALED:
                    found |= {
                        (change.table, change.resident_id, change.home_node)
                        for change in decode_changes(entry.codec, entry.rows)
                        if is_canary(change.resident_id)
                    }
            seen.looked_at += len(part.entries)
            if part.scanned_to >= part.head:
                break
            after = part.scanned_to
        for table, resident_id, home in sorted(found):
            self._judge(seen, "log", table, resident_id, home)

    def _judge(
        self, seen: Sighting, place: str, table: str, resident_id: str, home_node: str
    ) -> None:
        seen.looked_at += 1
        named = canary_home(resident_id)
        homes = {NodeId(home_node), NodeId(named or "")}
        if homes <= self._allowed:
            seen.at_home += place == "rows" and table == RESIDENTS.name
        else:
            seen.strays.append(Stray(place, named or home_node, table))


def marks_in(folder: Path) -> tuple[int, list[str]]:
    """How many files below a folder were looked at, and those with a canary's mark in clear.

    By another process: see marks.py.

    Raises:
        OSError: It could not be started, or ended badly.
    """
    done = subprocess.run(
        [sys.executable, "-I", marks.__file__, MARK, str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(f"looking through files ended with {done.returncode}")
    count, *found = done.stdout.decode("utf-8", "replace").split("\n")
    return int(count), [name.strip("'\"") for name in found]
