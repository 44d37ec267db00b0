"""Guards of a running node: one process a data folder, one program a port, room on the disk."""

from __future__ import annotations

import errno
import fcntl
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from node.clock import Clock
from node.errors import DataFolderInUseError, PortInUseError, SettingsError

__all__ = ["DiskGuard", "bound_port_is_free", "folder_locked", "server_folder"]


@contextmanager
def folder_locked(path: Path) -> Iterator[None]:
    """Hold the data folder's lock; the kernel frees it if the process dies.

    Raises:
        DataFolderInUseError: Another process holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderInUseError(f"another process runs a node on {path.parent}") from None
        yield


def bound_port_is_free(address: str) -> None:
    """Check that nobody listens on host:port before gRPC binds it: its own message says less.

    Raises:
        PortInUseError: Somebody does.
        SettingsError: The host is not one of this machine's.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port)), reuse_port=False):
            return
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(f"{address} is in use by another program") from None
        raise SettingsError(f"listen: {address}: {error.strerror}") from error


class DiskGuard:
    """Says whether free space is below the profile's watermark; looks at most once a second.

    Below it bundles and neighbours' rows are refused while reads and audit go on: a full disk
    would stop those too, and make MariaDB hang.
    """

    def __init__(
        self, folders: Sequence[Path], free_min_mb: int, free_min_percent: int, clock: Clock
    ) -> None:
        """`folders`: each on a disk that must have room, such as the database server's too."""
        self._folders = tuple(folders)
        self._free_min = free_min_mb * 1024 * 1024
        self._percent_min = free_min_percent
        self._clock = clock
        self._looked_ms = -1_000_000
        self._full = False

    def is_full(self) -> bool:
        """True while writes must wait."""
        now = self._clock.monotonic_ms()
        if now - self._looked_ms >= 1000:
            self._looked_ms = now
            self._full = any(map(self._lacks_room, self._folders))
        return self._full

    def room(self) -> float:
        """Free space of the fullest disk over its watermark; below 1 writes wait."""
        return min(map(self._room, self._folders))

    def free_bytes(self) -> int:
        """Free space of the fullest disk, bytes."""
        return min(shutil.disk_usage(folder).free for folder in self._folders)

    def _lacks_room(self, folder: Path) -> bool:
        return self._room(folder) < 1

    def _room(self, folder: Path) -> float:
        usage = shutil.disk_usage(folder)
        watermark = min(self._free_min, usage.total * self._percent_min // 100)
        return usage.free / max(watermark, 1)


def server_folder(engine: Engine) -> Path | None:
    """Where a MariaDB or MySQL server on this machine keeps its files; None: nowhere to be seen.

    Blocks on the database. A server elsewhere, or in a container, has to watch its own disk.
    """
    is_here = engine.url.host in {None, "", "localhost", "127.0.0.1", "::1"}
    if engine.dialect.name == "sqlite" or not is_here:
        return None
    with engine.connect() as connection:
        folder = Path(connection.execute(text("SELECT @@datadir")).scalar_one())
    try:
        return folder if folder.is_dir() else None
    except PermissionError:
        return None
