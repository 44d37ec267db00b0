"""Bundles that come together share a transaction; none suffers for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from hierarchy_config import NodeId
from node.records.model import Bundle
from node.security.caller import Caller, CallerKind
from node.services.bundle_writes import (
    BUNDLES_A_TRANSACTION,
    BYTES_A_TRANSACTION,
    BundleWrites,
    Gathered,
)
from node.storage.model import BundleRequest, BundleResult

CALLER = Caller(CallerKind.CLIENT, "spiffe://linfen/1", NodeId("1410"), "treatment", frozenset())


class Shelf:
    """Stores the names of bundles once the gate is open; notes what came together."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.pulses = 0

    def put(self, asked: Sequence[BundleRequest]) -> list[BundleResult | Exception]:
        names = [each.bundle.request_id for each in asked]
        self.batches.append(names)
        self.entered.release()
        assert self.gate.wait(10)
        if "broken" in names:
            raise OSError("broken")
        return [
            ValueError(name) if name == "refused" else BundleResult((), (name,), 1)
            for name in names
        ]

    def pulse(self) -> None:
        self.pulses += 1


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """A node's database threads."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def _put(writes: BundleWrites, name: str, size: int = 100) -> asyncio.Task[BundleResult]:
    def prepare() -> Bundle:
        if name == "unreadable":
            raise KeyError(name)
        return Bundle(name)

    return asyncio.create_task(writes.put(Gathered(CALLER, prepare, size)))


async def _held(
    writes: BundleWrites, shelf: Shelf, *names: str
) -> list[asyncio.Task[BundleResult]]:
    """A first bundle that is under way, and others that came meanwhile."""
    first = _put(writes, "first")
    await asyncio.to_thread(shelf.entered.acquire)
    others = [_put(writes, name) for name in names]
    await asyncio.sleep(0)
    return [first, *others]


def _outcome(each: BundleResult | BaseException) -> str:
    return each.record_ids[0] if isinstance(each, BundleResult) else type(each).__name__


async def test_what_comes_meanwhile_shares_the_next_transaction(
    threads: ThreadPoolExecutor,
) -> None:
    """A bundle alone goes at once; answers go to those who asked; one pulse a transaction."""
    shelf = Shelf()
    tasks = await _held(BundleWrites(shelf.put, threads, shelf.pulse), shelf, "a", "b", "c")
    shelf.gate.set()
    assert [_outcome(await task) for task in tasks] == ["first", "a", "b", "c"]
    assert shelf.batches == [["first"], ["a", "b", "c"]]
    assert shelf.pulses == 2


async def test_one_at_fault_fails_alone(threads: ThreadPoolExecutor) -> None:
    """One that cannot be read is not stored; one that is refused has its own error."""
    shelf = Shelf()
    writes = BundleWrites(shelf.put, threads, shelf.pulse)
    tasks = await _held(writes, shelf, "a", "unreadable", "refused", "b")
    shelf.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [_outcome(each) for each in outcomes] == ["first", "a", "KeyError", "ValueError", "b"]
    assert shelf.batches[1] == ["a", "refused", "b"]


async def test_a_store_that_fails_tells_all_and_goes_on(threads: ThreadPoolExecutor) -> None:
    """Whoever comes after is served."""
    shelf = Shelf()
    writes = BundleWrites(shelf.put, threads, shelf.pulse)
    tasks = await _held(writes, shelf, "a", "broken")
    shelf.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [_outcome(each) for each in outcomes] == ["first", "OSError", "OSError"]
    assert _outcome(await _put(writes, "later")) == "later"
    assert shelf.pulses == 2


async def test_a_transaction_has_bounds(threads: ThreadPoolExecutor) -> None:
    """By number and by bytes; what does not fit waits for the one after."""
    shelf = Shelf()
    writes = BundleWrites(shelf.put, threads, shelf.pulse)
    tasks = await _held(writes, shelf, *(str(n) for n in range(BUNDLES_A_TRANSACTION + 1)))
    large = [_put(writes, name, BYTES_A_TRANSACTION) for name in ("large", "larger")]
    await asyncio.sleep(0)
    shelf.gate.set()
    await asyncio.gather(*tasks, *large)
    assert [len(each) for each in shelf.batches] == [1, BUNDLES_A_TRANSACTION, 1, 1, 1]


async def test_a_caller_who_left_stops_nobody(threads: ThreadPoolExecutor) -> None:
    """His bundle is stored all the same; he may ask again and gets its answer."""
    shelf = Shelf()
    writes = BundleWrites(shelf.put, threads, shelf.pulse)
    tasks = await _held(writes, shelf, "a", "b")
    tasks[1].cancel()
    shelf.gate.set()
    assert [_outcome(await tasks[0]), _outcome(await tasks[2])] == ["first", "b"]
    assert shelf.batches[1] == ["a", "b"]
