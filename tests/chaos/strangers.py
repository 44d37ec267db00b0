"""People who live elsewhere: a writer learns of them from what other writers were told."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hierarchy_config import NodeId
from tests.chaos.acknowledged import lines_of

__all__ = ["Strangers"]

_LOOK_MS: Final = 1_000
_KNOWN_MAX: Final = 300


class Strangers:
    """Residents in the logs of other writers, shared by the threads of one."""

    def __init__(self, own_log: Path, now_ms: Callable[[], int]) -> None:
        """Read nothing yet. `own_log`: whose folder holds the others' logs."""
        self._own = own_log
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._read: dict[Path, int] = {}
        self._looked_ms = -_LOOK_MS
        self._met: list[tuple[str, NodeId]] = []

    def one(self, chance: random.Random) -> tuple[str, NodeId] | None:
        """A resident of another writer's homes, and the home he was registered at."""
        with self._lock:
            if self._now_ms() - self._looked_ms >= _LOOK_MS:
                self._looked_ms = self._now_ms()
                self._look()
            return chance.choice(self._met) if self._met else None

    def _look(self) -> None:
        for path in sorted(self._own.parent.glob("*.log")):
            if path == self._own:
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            self._met += [
                (ack.row_id, NodeId(ack.home))
                for ack in lines_of(whole.decode("utf-8"))
                if ack.table == "residents"
            ]
        del self._met[:-_KNOWN_MAX]
