"""TCP proxies on the links, which delay, hold back and break what passes.

Bytes of a TCP stream cannot get lost: a lost segment is sent again and shows as a stall, or the
connection breaks. So loss is emulated as stalls and resets, and a partition as silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

__all__ = ["CLEAR", "Conditions", "LinkProxy", "ProxyThread"]

_CHUNK: Final = 16 * 1024
_LOOK_S: Final = 0.05
_QUEUE_CHUNKS: Final = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a line is. Times in seconds, rates in bytes a second (0: no limit).

    `up`, `down`: whether bytes pass towards the parent, towards the child. `open`: whether
    connections are made and kept. `stalls`, `resets`: probability for each chunk.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: int = 0
    up: bool = True
    down: bool = True
    open: bool = True
    stalls: float = 0.0
    stall_s: float = 0.0
    resets: float = 0.0


CLEAR: Final = Conditions()


@dataclass
class LinkProxy:
    """One line from a child to its parent. `conditions` may be replaced from any thread."""

    host: str
    port: int
    seed: int
    conditions: Conditions = CLEAR
    listens_at: int = 0
    passed: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    @property
    def address(self) -> str:
        """Where the child dials."""
        return f"{self.host}:{self.listens_at}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.listens_at = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Break everything and listen no more."""
        if self._server is not None:
            self._server.close()
        self.break_all()

    def break_all(self) -> None:
        """Reset every connection; call it in the proxy's own thread."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.conditions.open:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, far_writer)
        self._writers.update(both)
        ways = [
            asyncio.ensure_future(self._carry(reader, far_writer, is_up=True)),
            asyncio.ensure_future(self._carry(far_reader, writer, is_up=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in both:
                self._writers.discard(each)
                each.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool
    ) -> None:
        """Take bytes in as they come and give them out when they are due."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE_CHUNKS)
        giving = asyncio.ensure_future(self._give(queue, writer, is_up=is_up))
        loop = asyncio.get_running_loop()
        try:
            while not giving.done():
                data = await reader.read(_CHUNK)
                line = self.conditions
                due = loop.time() + line.delay_s + self._chance.random() * line.jitter_s
                await queue.put((due, data))
                if not data:
                    await giving
                    return
        except (ConnectionError, OSError):
            return
        finally:
            giving.cancel()

    async def _give(
        self,
        queue: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        *,
        is_up: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError, OSError):
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._wait_open(is_up)
                if not data:
                    return
                line = self.conditions
                if self._chance.random() < line.stalls:
                    await asyncio.sleep(line.stall_s * (0.5 + self._chance.random()))
                if self._chance.random() < line.resets:
                    writer.transport.abort()
                    return
                if line.bytes_per_s:
                    await asyncio.sleep(len(data) / line.bytes_per_s)
                writer.write(data)
                self.passed += len(data)
                await writer.drain()

    async def _wait_open(self, is_up: bool) -> None:
        # Conditions are set from another thread, so they are looked at, not waited for.
        while not (self.conditions.up if is_up else self.conditions.down):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)


class ProxyThread:
    """All proxies of a run, in one event loop of its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._proxies: list[LinkProxy] = []
        self._thread.start()

    def add(self, target: str, seed: int) -> LinkProxy:
        """A proxy in front of host:port, listening."""
        host, _, port = target.rpartition(":")
        proxy = LinkProxy(host, int(port), seed)
        self._run(proxy.start())
        self._proxies.append(proxy)
        return proxy

    def cut(self, proxy: LinkProxy, conditions: Conditions) -> None:
        """Set conditions and reset what is open."""
        proxy.conditions = conditions
        self._loop.call_soon_threadsafe(proxy.break_all)

    def close(self) -> None:
        """Stop all proxies and the thread."""
        for proxy in self._proxies:
            self._run(proxy.stop())
        self._run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _cancel_others() -> None:
    """End what still carries bytes."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
