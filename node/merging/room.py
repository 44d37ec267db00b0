"""The room put together for one life of the node."""

from __future__ import annotations

from collections.abc import Callable

from node.errors import DiskFullError
from node.merging.desk import MergeDesk, Proposals
from node.opening import OpenStore

__all__ = ["MergingRoom"]


class MergingRoom:
    """`desk` for callers.

    `disk_is_full`: nothing may be written. `notify`: something was. `proposals`: what matching
    found.
    """

    def __init__(
        self,
        store: OpenStore,
        *,
        disk_is_full: Callable[[], bool],
        notify: Callable[[], None],
        proposals: Proposals | None = None,
    ) -> None:
        self._disk_is_full = disk_is_full
        self.notify = notify
        self.desk = MergeDesk(store.storage.context, self._refuse_writes, proposals)

    def _refuse_writes(self) -> None:
        if self._disk_is_full():
            raise DiskFullError("free space is below this node's watermark; nothing was stored")
