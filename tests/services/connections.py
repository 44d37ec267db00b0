"""The TCP connections of a process, as the kernel lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["connections_of"]

_ALIVE: Final = {"01", "02", "03"}
"""Established, or on the way there (include/net/tcp_states.h)."""


def connections_of(pid: int) -> set[tuple[int, int]]:
    """(local port, remote port) of every live TCP connection of a process."""
    sockets = {
        target.removeprefix("socket:[").removesuffix("]")
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if (target := _target(entry)).startswith("socket:[")
    }
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            words = line.split()
            local, remote, state, inode = words[1], words[2], words[3], words[9]
            if inode in sockets and state in _ALIVE:
                found.add((_port(local), _port(remote)))
    return found


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:  # closed since
        return ""


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
