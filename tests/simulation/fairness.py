"""FAIR: a backlog of one lane delays an entry of a higher one by no more than a batch.

Watches one sender: from the moment it knows of an entry for care or control until that lane's next
batch leaves, at most one batch of each lower lane may be put on the stream and wait for its
receipt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from replication.core.link import LinkEnd
from replication.core.model import Batch, Lane

__all__ = ["Watch"]

_URGENT: Final = (Lane.CONTROL, Lane.CARE)


class Watch:
    """What has overtaken the urgent lanes of one link end."""

    __slots__ = ("_before", "_overtakers", "_wanted")

    def __init__(self) -> None:
        self._wanted: dict[Lane, int] = {}
        self._before: dict[Lane, int] = {}
        self._overtakers: dict[Lane, Counter[Lane]] = {}

    def news(self, end: LinkEnd, lane_heads: Mapping[Lane, int]) -> None:
        """The sender knows the log up to these sequences."""
        for lane in _URGENT:
            if lane in self._wanted or lane_heads[lane] <= self._before.get(lane, 0):
                continue
            self._before[lane] = lane_heads[lane]
            view = end.lane_views.get(lane)
            if view is not None and lane_heads[lane] > view.sent_to:
                self._wanted[lane] = lane_heads[lane]
                self._overtakers[lane] = Counter()

    def sent(self, end: LinkEnd, batch: Batch) -> str:
        """A batch leaves; returns what is unfair, or nothing."""
        if not self._wanted:
            return ""
        for lane, wanted in tuple(self._wanted.items()):
            view = end.lane_views[lane]
            if batch.lane is lane or view.sent_to >= wanted or view.refusals:
                del self._wanted[lane]
                continue
            if batch.lane > lane:
                self._overtakers[lane][batch.lane] += 1
                ahead = end.lane_views[batch.lane].in_flight
                count = min(self._overtakers[lane][batch.lane], ahead)
                if count > 1:
                    return f"{count} batches of {batch.lane.name} leave before {lane.name}"
        return ""
