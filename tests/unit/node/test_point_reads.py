"""Reads that come together share a transaction; none suffers for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from hierarchy_config import NodeId
from node.security.caller import Caller, CallerKind
from node.services.point_reads import READS_A_TRANSACTION, PointReads
from node.storage import ResidentQuestion

CALLER = Caller(CallerKind.CLIENT, "spiffe://linfen/1", NodeId("1410"), "treatment", frozenset())


class Reader:
    """Answers with the id asked for, once the gate is open; notes what came together."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def read(self, asked: Sequence[ResidentQuestion]) -> list[bytes | None]:
        ids = [question.resident_id for question in asked]
        self.batches.append(ids)
        self.entered.release()
        assert self.gate.wait(10)
        if "bad" in ids:
            raise ValueError("bad")
        return [None if each == "nobody" else each.encode() for each in ids]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """A node's database threads."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def _held(reads: PointReads, reader: Reader, *ids: str) -> list[asyncio.Task[bytes | None]]:
    """A first read that is under way, and others that came meanwhile."""
    first = asyncio.create_task(reads.resident(CALLER, "first"))
    await asyncio.to_thread(reader.entered.acquire)
    others = [asyncio.create_task(reads.resident(CALLER, each)) for each in ids]
    await asyncio.sleep(0)
    return [first, *others]


async def test_what_comes_meanwhile_shares_the_next_transaction(
    threads: ThreadPoolExecutor,
) -> None:
    """A read alone goes at once; answers go to those who asked."""
    reader = Reader()
    tasks = await _held(PointReads(reader.read, threads), reader, "a", "nobody", "b")
    reader.gate.set()
    assert await asyncio.gather(*tasks) == [b"first", b"a", None, b"b"]
    assert reader.batches == [["first"], ["a", "nobody", "b"]]


async def test_a_transaction_has_a_bound(threads: ThreadPoolExecutor) -> None:
    """More than fit wait for the one after."""
    reader = Reader()
    many = [str(n) for n in range(READS_A_TRANSACTION + 1)]
    tasks = await _held(PointReads(reader.read, threads), reader, *many)
    reader.gate.set()
    assert await asyncio.gather(*tasks) == [b"first", *(each.encode() for each in many)]
    assert [len(batch) for batch in reader.batches] == [1, READS_A_TRANSACTION, 1]


async def test_a_read_at_fault_fails_alone(threads: ThreadPoolExecutor) -> None:
    """The others of its transaction are read again, each for itself."""
    reader = Reader()
    tasks = await _held(PointReads(reader.read, threads), reader, "a", "bad", "b")
    reader.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in answers if isinstance(each, bytes)] == [b"first", b"a", b"b"]
    assert isinstance(answers[2], ValueError)
    assert reader.batches[2:] == [["a"], ["bad"], ["b"]]


async def test_a_caller_who_left_stops_nobody(threads: ThreadPoolExecutor) -> None:
    """His answer has no taker; the next read works as ever."""
    reader = Reader()
    reads = PointReads(reader.read, threads)
    tasks = await _held(reads, reader, "a", "b")
    tasks[1].cancel()
    reader.gate.set()
    assert list(await asyncio.gather(tasks[0], tasks[2])) == [b"first", b"b"]
    assert tasks[1].cancelled()
    assert await reads.resident(CALLER, "c") == b"c"
