"""The private folder of a Ray session, and the environment that its processes live in.

A session's socket paths must stay under 107 bytes, so the folder has a short name below the
machine's temporary folder. It is removed at the stop; what a killed node left behind is removed at
the next start, known by a lock that nobody holds any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from federation.ray_runner.messages import RaySettings

__all__ = ["RaySession", "environment", "open_session"]

_PREFIX = "fenhe-ray-"
_LOCK = "lock"
_TOKEN = "token"  # noqa: S105 - a file's name  # nosec B105
# What Ray puts below the folder, at its longest.
_SOCKET_PATH_MAX = 107
_SESSION_PATH_LENGTH = len("/r/session_2026-11-23_20-58-14_506620_4194304/sockets/plasma_store")


@dataclass(frozen=True, slots=True)
class RaySession:
    """A session's private folder, held by a lock.

    Ray opens its own folder to everybody on the machine, so that it gets one inside.
    """

    folder: Path
    lock: IO[str]

    @property
    def ray(self) -> Path:
        """Ray's own folder."""
        return self.folder / "r"

    @property
    def log(self) -> Path:
        """What Ray's processes print."""
        return self.folder / "host.log"

    def remove(self) -> None:
        """Remove the folder. Ray's processes must be gone."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()


def open_session(token: str, *, below: Path | None = None) -> RaySession:
    """Make a private folder with the session's token in it; removes what dead nodes left.

    Raises:
        OSError: The temporary folder cannot be written, or its path is too long for sockets.
    """
    root = below or Path(tempfile.gettempdir())
    if len(str(root)) + 1 + len(_PREFIX) + 8 + _SESSION_PATH_LENGTH > _SOCKET_PATH_MAX:
        root = Path("/tmp")  # noqa: S108 - short, and the folder below it is private  # nosec B108
    _remove_abandoned(root)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    lock = (folder / _LOCK).open("w", encoding="ascii")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path = folder / _TOKEN
    path.touch(mode=0o600)
    path.write_text(token, encoding="ascii")
    return RaySession(folder, lock)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r+", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # In use, just being made, or another's: not ours to remove.
            continue


def environment(session: Path, settings: RaySettings) -> Mapping[str, str]:
    """All that Ray's processes see: nothing of the node's environment is passed on."""
    rooms = Path(__file__).resolve().parents[2]
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(rooms),
        "LANG": "C.UTF-8",
        # Ray keeps files below the home of whoever runs it.
        "HOME": str(session),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(session / _TOKEN),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Named for other systems, it makes Ray take 127.0.0.1 for its address and bind to it, and
        # not ask the routing table for an address to be reached at.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # No more processes than the pool: prestarted workers cost 70 MB each.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_num_workers_soft_limit": str(settings.workers),
        "RAY_worker_niceness": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_task_events_report_interval_ms": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # A dead head is noticed within seconds, not a minute.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    }
