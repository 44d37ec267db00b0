"""The way of a bundle into the store: what is looked at where, and what a refusal carries."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId
from node.clock import SystemClock
from node.errors import DiskFullError
from node.records.faults import Fault
from node.records.model import Bundle
from node.security.tls import GrpcLimits
from node.services import care
from node.services.bundle_writes import BundleWrites
from node.services.care import BundleRefusedError, CareDesk
from node.services.wire import faults_out
from node.storage.model import BundleRequest, BundleResult

HERE, VILLAGE = NodeId("141002001201"), CareLevel.VILLAGE


class Shelf:
    """Stands for the storage: keeps the threads that put bundles."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def put_bundles(self, asked: Sequence[BundleRequest]) -> list[BundleResult | Exception]:
        """Store nothing."""
        self.threads.append(threading.get_ident())
        return [BundleResult((), (), 0) for _ in asked]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """One thread for blocking work."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def desk(shelf: Shelf, threads: ThreadPoolExecutor, *, full: bool = False) -> CareDesk:
    """A desk before that storage."""
    return CareDesk(
        HERE,
        Hierarchy(
            "linfen", 1, {HERE: NodeEntry(HERE, VILLAGE, "村", "cun", None, None, "village")}
        ),
        cast(Any, shelf),
        threads,
        SystemClock(),
        lambda: full,
        cast(Any, None),
        BundleWrites(shelf.put_bundles, threads, lambda: None),
    )


@pytest.fixture(autouse=True)
def _calling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care, "current_call", lambda: SimpleNamespace(caller=None))


async def test_a_bundle_is_read_and_checked_in_a_thread(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand rows never hold up the event loop."""
    shelf = Shelf()
    at_work: list[int] = []

    def read() -> Bundle:
        at_work.append(threading.get_ident())
        return Bundle("request-1")

    def check(_bundle: Bundle, **_about: object) -> list[Fault]:
        at_work.append(threading.get_ident())
        return []

    monkeypatch.setattr(care, "check_bundle", check)
    await desk(shelf, threads).put(read, 10)
    assert len(at_work) == 2
    assert {*at_work, *shelf.threads} == {shelf.threads[0]}
    assert threading.get_ident() != shelf.threads[0]


async def test_faults_are_found_in_the_thread_and_refuse_the_bundle(
    threads: ThreadPoolExecutor,
) -> None:
    """Nothing is stored."""
    shelf = Shelf()
    with pytest.raises(BundleRefusedError) as refused:
        await desk(shelf, threads).put(lambda: Bundle("short"), 10)
    codes = [fault.code for fault in refused.value.wire_details.faults]
    assert codes == ["REQUEST_ID_INVALID", "BUNDLE_EMPTY"]
    assert shelf.threads == []


async def test_a_full_disk_refuses_before_anything_is_read(threads: ThreadPoolExecutor) -> None:
    """The bundle may come again."""
    with pytest.raises(DiskFullError):
        await desk(Shelf(), threads, full=True).put(lambda: pytest.fail("it was read"), 10)


def test_very_many_faults_fit_the_trailer() -> None:
    """The first ones, in order; base64 and the sentence about them need room too."""
    place = "records[{}].observation.encounter_id"
    faults = [Fault(place.format(i), "ENCOUNTER_WRONG", "an encounter of it") for i in range(3000)]
    shown = faults_out(faults)
    assert 50 < len(shown.faults) < 3000
    assert [fault.field for fault in shown.faults] == [
        place.format(i) for i in range(len(shown.faults))
    ]
    assert shown.ByteSize() * 4 / 3 < GrpcLimits().metadata_bytes_max * 3 / 5
    assert len(faults_out([Fault("x" * 9000, "CODE_INVALID", "less")]).faults) == 1
