"""The minimal lower layer protocol of HL7 (MLLP): messages in, acknowledgements out, in order.

Bytes in, bytes out: what becomes of a message is the business of whoever is handed it. A message
is VT, text, FS, CR. What stands outside of a block is passed over; a block that never ends is cut
off with its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

__all__ = ["BLOCK_BYTES_MAX", "Converse", "MllpServer", "blocks"]

BLOCK_BYTES_MAX: Final = 1 << 20
_START: Final = b"\x0b"
_END: Final = b"\x1c\r"
_READ: Final = 64 << 10
_IDLE_S: Final = 3600.0
_END_S: Final = 5.0

Converse = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
"""Takes the messages of one connection, gives the acknowledgements in their order."""


class MllpServer:
    """Listens on one address; at most so many connections at once."""

    def __init__(self, converse: Converse, *, connections_max: int = 64) -> None:
        self._converse = converse
        self._places = asyncio.Semaphore(connections_max)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.address = ""

    async def start(self, host: str, port: int) -> None:
        """Listen; `address` says where."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_READ)
        bound = self._server.sockets[0].getsockname()
        self.address = f"{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        """Listen no more; connections end with what is under way."""
        if self._server is not None:
            self._server.close()
        for writer in self._open.values():
            writer.close()
        if self._open:
            await asyncio.wait(tuple(self._open), timeout=_END_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._places.locked():
            writer.close()
            return
        task = asyncio.current_task()
        if task is not None:
            self._open[task] = writer
            task.add_done_callback(self._open.pop)
        async with self._places:
            try:
                async for answer in self._converse(blocks(reader)):
                    writer.write(_START + answer + _END)
                    await writer.drain()
            except (ConnectionError, TimeoutError):
                pass
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()


async def blocks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The messages of a connection, until it ends or one is too large."""
    held = bytearray()
    while True:
        async with asyncio.timeout(_IDLE_S):
            data = await reader.read(_READ)
        if not data:
            return
        held += data
        while True:
            start = held.find(_START)
            if start < 0:
                held.clear()
                break
            end = held.find(_END, start)
            if end < 0:
                del held[:start]
                break
            yield bytes(held[start + 1 : end])
            del held[: end + len(_END)]
        if len(held) > BLOCK_BYTES_MAX:
            return
