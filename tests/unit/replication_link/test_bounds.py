"""What waits for the line is bounded, whatever the peer's frames call forth."""

from __future__ import annotations

import asyncio

from replication.core.model import Batch, Frame, Goodbye, Lane, StreamEpoch
from replication.runner import LANE_FRAMES_MAX
from tests.unit.replication_link.test_runner import HELLO, Memory, Stream, ended

AGAIN = Batch(Lane.BULK, StreamEpoch(1, 1), 0, 0, 0, 0, False, b"", (), 0, 0)
"""A batch that was applied before the stream began."""


class Stuck(Stream):
    """Takes nothing."""

    async def write(self, frame: Frame) -> None:
        await asyncio.Event().wait()


class Chatty(Stream):
    """Counts what nobody read."""

    @property
    def left(self) -> int:
        return len(self._frames)


async def test_a_peer_that_repeats_and_takes_no_receipts_is_cut_off() -> None:
    """Each repetition is acknowledged again, as long as the line takes it."""
    repeated = [AGAIN] * (LANE_FRAMES_MAX + 9)
    end = await ended(Stuck(HELLO, *repeated, Goodbye("enough")), Memory())
    assert (end.code, end.reason) == ("QUEUE_FULL", "the peer does not take what it is sent")
    end = await ended(Stream(HELLO, *repeated, Goodbye("enough")), Memory())
    assert end.code == "GOODBYE"


async def test_nothing_more_is_read_once_the_stream_is_over() -> None:
    """While the last words leave, a peer that goes on talking fills no memory."""
    stream = Chatty(HELLO, Goodbye("enough"), *[AGAIN] * 99)
    assert (await ended(stream, Memory())).code == "GOODBYE"
    assert stream.left > 90
