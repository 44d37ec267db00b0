"""Writes what the link to a neighbour would send, as a bundle for a stick.

The stream goes on after the last receipt of the link: the same epochs and the next numbers. Nothing
counts as delivered before the receipts come back, by stick or over a link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from hierarchy_config.model import NodeId
from node.link_store import LinkMemory, NodeLinkStore
from replication.core.model import Batch, Cursor, Frame, Hello, Lane, StreamEpoch
from replication.core.outbound import OutboundLane
from replication.core.resume import resume_point

__all__ = ["Exporter", "Greeting"]

_FIRST_EPOCH: Final = 1
"""Of a neighbour that was never met: a new store's."""


class Greeting(Protocol):
    """Makes this node's Hello to a neighbour."""

    def __call__(self, peer: NodeId, memory: LinkMemory) -> Hello: ...


class Exporter:
    """Makes the frames of a bundle. Blocks on the database."""

    def __init__(
        self,
        links: NodeLinkStore,
        greet: Greeting,
        durable_head: Callable[[], int],
        *,
        batch_bytes: int,
    ) -> None:
        """`durable_head`: of the log; `batch_bytes`: about so much in a batch."""
        self._links = links
        self._greet = greet
        self._durable_head = durable_head
        self._batch_bytes = batch_bytes

    def frames(self, peer: NodeId, bytes_max: int = 0) -> Iterator[Frame]:
        """Hello, then the batches of every lane; about `bytes_max` bytes of rows (0: everything).

        At the end, unless it was cut, how fresh the copies are that the neighbour then has.
        """
        memory = self._links.load(peer)
        mark = self._links.mark_for(peer)
        head = self._durable_head()
        yield self._greet(peer, memory)
        left = bytes_max if bytes_max > 0 else 1 << 62
        for lane in Lane:
            for batch in self._batches(peer, lane, memory, head):
                yield batch
                left -= batch.body_bytes
                if left <= 0:
                    return
        if mark.homes:
            yield mark

    def _batches(self, peer: NodeId, lane: Lane, memory: LinkMemory, head: int) -> Iterator[Batch]:
        epoch = StreamEpoch(self._links.store_epoch, memory.peer_store_epoch or _FIRST_EPOCH)
        saved = memory.outbound.get(lane)
        # What it has confirmed is what it would claim; what was passed over since, it knows not.
        claimed = memory.confirmed.get(lane)
        if claimed is not None and claimed.stream_epoch != epoch:
            claimed = None
        out = OutboundLane(lane, resume_point(Cursor(lane, epoch, 0, 0), claimed, saved))
        met = self._links.met(peer)
        out.take_wishes(met.features if met is not None else ())
        while out.read_position or out.scanned < head:
            part = self._links.read(peer, lane, out.scanned, self._batch_bytes, out.read_position)
            if out.is_news(part.entries, part.position):
                yield out.add(
                    part.entries,
                    part.scanned_to,
                    position=part.position,
                    coalesced=part.coalesced,
                    in_flight=0,
                    now=0,
                )
            elif part.scanned_to <= out.scanned and part.position == out.position:
                return
            else:
                out.scanned, out.position = part.scanned_to, part.position
