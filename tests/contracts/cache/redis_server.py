"""A private Redis server that keeps nothing on disk, on a socket of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from tests.services.waiting import until

__all__ = ["RedisServer"]


class RedisServer:
    """Started and stopped by a test; `client` looks into it past the program."""

    def __init__(self) -> None:
        # Not pytest's folder: a socket's path may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="fenhe-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._folder / 'socket'}"
        self.client: Any = redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it, empty; returns when it answers."""
        options: Mapping[str, str] = {
            "--port": "0",
            "--unixsocket": str(self._folder / "socket"),
            "--save": "",
            "--dir": str(self._folder),
            "--logfile": str(self._folder / "log"),
        }
        words = [word for option in options.items() for word in option]
        self._process = subprocess.Popen(["redis-server", *words])
        until("redis answers", self._answers)

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self.client.close()
        shutil.rmtree(self._folder)

    def contents(self) -> dict[bytes, bytes]:
        """Every key with its value."""
        return {key: self.client.get(key) for key in self.client.scan_iter()}

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False
