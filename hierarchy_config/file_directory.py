"""A directory in a folder: the region file, and one small file for each registered node.

    FOLDER/region.yaml            the region in force
    FOLDER/endpoints/141002       where the node was last said to be reached

Enough where one machine, or one shared folder, holds a region. A registration lasts until it is
taken back: a file knows nothing of health.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hierarchy_config.directory import (
    DirectoryConflictError,
    DirectoryState,
    RegionMissingError,
    split_endpoint,
)
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from hierarchy_config.region_file import load_region, parse_region, region_text

__all__ = ["FileDirectory"]

_LOOK_EVERY_S: Final = 1.0


class FileDirectory:
    """The NodeDirectory of a folder.

    Args:
        folder: Holds region.yaml; made when first written to.
        pause: Waits so many seconds between two looks at the file.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pause: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._region = folder / "region.yaml"
        self._endpoints = folder / "endpoints"
        self._pause = pause
        self._monotonic = monotonic

    def read(self) -> DirectoryState:
        """See NodeDirectory."""
        content = self._content()
        if content is None:
            raise RegionMissingError(f"{self._region}: there is no region file")
        try:
            hierarchy = parse_region(content.decode("utf-8"), file=str(self._region))
        except UnicodeDecodeError:
            # Reports the encoding as a fault of the file, like any other.
            hierarchy = load_region(self._region)
        return DirectoryState(hierarchy, _revision(content))

    def publish(self, hierarchy: Hierarchy, *, expected: str | None) -> str:
        """See NodeDirectory."""
        content = region_text(hierarchy).encode("utf-8")
        with self._locked():
            current = self._content()
            if (None if current is None else _revision(current)) != expected:
                raise DirectoryConflictError("the region was changed by someone else meanwhile")
            if current is not None and self.read().hierarchy.epoch >= hierarchy.epoch:
                raise DirectoryConflictError("the epoch is not higher than the one in force")
            _replace(self._region, content)
        return _revision(content)

    def wait_for_change(self, revision: str, timeout_s: float) -> DirectoryState | None:
        """See NodeDirectory. Looks at the file once a second."""
        deadline = self._monotonic() + timeout_s
        while True:
            content = self._content()
            if content is None or _revision(content) != revision:
                return self.read()
            left = deadline - self._monotonic()
            if left <= 0:
                return None
            self._pause(min(left, _LOOK_EVERY_S))

    def register(self, node_id: NodeId, endpoint: str) -> None:
        """See NodeDirectory."""
        split_endpoint(endpoint)
        self.read().hierarchy.entry(node_id)
        self._endpoints.mkdir(parents=True, exist_ok=True)
        _replace(self._endpoints / node_id, endpoint.encode("ascii"))

    def deregister(self, node_id: NodeId) -> None:
        """See NodeDirectory."""
        (self._endpoints / node_id).unlink(missing_ok=True)

    def registration_of(self, node_id: NodeId) -> str | None:
        """See NodeDirectory."""
        self.read().hierarchy.entry(node_id)
        return self._registered(node_id)

    def endpoint_of(self, node_id: NodeId) -> str | None:
        """See NodeDirectory."""
        entry = self.read().hierarchy.entry(node_id)
        return self._registered(node_id) or entry.endpoint

    def _registered(self, node_id: NodeId) -> str | None:
        try:
            return (self._endpoints / node_id).read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def _content(self) -> bytes | None:
        try:
            return self._region.read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder against other processes that publish."""
        self._region.parent.mkdir(parents=True, exist_ok=True)
        with (self._region.parent / "region.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _revision(content: bytes) -> str:
    # The content and not the time of change: two changes may fall into one tick of a disk's clock.
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(content)
    draft.replace(path)
