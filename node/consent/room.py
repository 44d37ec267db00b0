"""The room put together for one life of the node."""

from __future__ import annotations

from collections.abc import Callable

from node.consent.access import AccessDesk
from node.consent.consents import ConsentDesk
from node.consent.reviews import ReviewDesk
from node.errors import DiskFullError
from node.opening import OpenStore

__all__ = ["ConsentRoom"]


class ConsentRoom:
    """`consents`, `access` and `reviews` for callers.

    `disk_is_full`: nothing may be written. `notify`: something was.
    """

    def __init__(
        self, store: OpenStore, *, disk_is_full: Callable[[], bool], notify: Callable[[], None]
    ) -> None:
        context = store.storage.context
        self._disk_is_full = disk_is_full
        self.notify = notify
        self.consents = ConsentDesk(context, self._refuse_writes)
        self.access = AccessDesk(context, self._refuse_writes)
        self.reviews = ReviewDesk(context, self._refuse_writes)

    def _refuse_writes(self) -> None:
        if self._disk_is_full():
            raise DiskFullError("free space is below this node's watermark; nothing was stored")
