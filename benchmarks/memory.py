"""Memory of a process as Linux counts it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "memory_of"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes: pages in memory, and the same with shared pages divided among their users."""

    resident_mb: float
    proportional_mb: float


def memory_of(pid: int) -> Memory:
    """What a process uses now."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    sizes = re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)
    figures = {name: int(kb) / 1024 for name, kb in sizes}
    return Memory(figures["Rss"], figures["Pss"])
