"""Memory and processor time of a process as Linux counts them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "cpu_s_of", "memory_of"]


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


def cpu_s_of(pid: int) -> float:
    """Processor seconds that a process has used so far, its kernel time included."""
    # The name may hold spaces; what follows its bracket begins with field 3.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
