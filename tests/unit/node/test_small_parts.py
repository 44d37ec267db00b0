"""Clock and ids, settings, the log's pulse, guards of the folder, the disk and the port."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.clock import Ids, format_ms, parse_ms, today
from node.errors import DataFolderInUseError, PortInUseError, SettingsError
from node.guards import DiskGuard, bound_port_is_free, folder_locked
from node.pump import LogPump
from node.settings import NodeSettings, load_settings, save_settings


class FixedClock:
    """A clock that stands where it is put."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now

    def monotonic_ms(self) -> int:
        return self.now


@given(st.integers(0, 4_000_000_000_000))
def test_times_come_back_as_they_went(ms: int) -> None:
    """ISO text keeps the millisecond."""
    assert parse_ms(format_ms(ms)) == ms


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(-1, "1970-01-01T00:00:00.000Z"), (2**62, "9999-12-31T23:59:59.999Z")],
)
def test_a_time_no_calendar_has_is_shown_as_its_end(ms: int, shown: str) -> None:
    """A peer's clock may say anything; the answer it stands in is shown all the same."""
    assert format_ms(ms) == shown


def test_today_is_the_day_in_china() -> None:
    """At 17:00 UTC it is already the next day in Linfen."""
    assert today(FixedClock(parse_ms("2026-11-23T15:59:59.000Z"))).isoformat() == "2026-11-23"
    assert today(FixedClock(parse_ms("2026-11-23T16:00:00.000Z"))).isoformat() == "2026-11-24"


@given(st.binary(min_size=10, max_size=10), st.integers(0, 2**48 - 1))
def test_ids_are_uuids_of_version_7(noise: bytes, ms: int) -> None:
    """Canonical text; the time stands in front, the noise behind."""
    text = Ids(FixedClock(ms), lambda count: noise[:count]).mint()
    value = uuid.UUID(text)
    assert str(value) == text
    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert value.int >> 80 == ms


def test_ids_keep_every_random_bit() -> None:
    """74 random bits: any two noises that differ there give two ids."""
    clock = FixedClock()
    ids = {
        Ids(clock, lambda _, bit=bit: (1 << bit).to_bytes(10, "big")).mint()  # type: ignore[misc]
        for bit in range(74)
    }
    assert len(ids) == 74


@given(st.binary(min_size=16, max_size=16))
def test_a_resident_id_says_nothing_of_when(noise: bytes) -> None:
    """UUID version 4: the clock takes no part."""
    early, late = (
        Ids(FixedClock(ms), lambda count: noise[:count]).mint_timeless() for ms in (1, 2**47)
    )
    assert early == late == str(uuid.UUID(early))
    assert uuid.UUID(early).version == 4
    assert uuid.UUID(early).variant == uuid.RFC_4122


def test_settings_come_back_and_faults_are_named_together(tmp_path: Path) -> None:
    """What is saved is read; a wrong file names every wrong key."""
    settings = NodeSettings(node_id="1410", listen="127.0.0.1:0")
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings
    (tmp_path / "node.yaml").write_text("node_id: x\nlisten: nowhere\ncolour: red\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)
    for key in ("node_id", "listen", "colour"):
        assert key in caught.value.message


def test_missing_settings_say_what_to_do(tmp_path: Path) -> None:
    """The next step is in the hint."""
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)
    assert "fenhe node init" in caught.value.hint


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    """The lock is held until the block is left."""
    lock = tmp_path / "lock"
    with folder_locked(lock), pytest.raises(DataFolderInUseError), folder_locked(lock):
        pytest.fail("two processes on one folder")
    with folder_locked(lock):
        assert lock.exists()


def test_a_port_in_use_is_named() -> None:
    """Before gRPC says it in its own words."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(PortInUseError, match=address):
            bound_port_is_free(address)


def test_a_full_disk_is_noticed_within_a_second(tmp_path: Path) -> None:
    """Below the watermark writes must wait; the disk is looked at once a second."""
    clock = FixedClock()
    assert not DiskGuard([tmp_path], 0, 1, clock).is_full()
    assert DiskGuard([tmp_path], 1 << 40, 100, clock).is_full()


def test_every_disk_must_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database server's disk may be full while the data folder's is not."""
    free = {tmp_path: 50, tmp_path / "server": 4}
    monkeypatch.setattr(
        "node.guards.shutil.disk_usage", lambda path: SimpleNamespace(total=100, free=free[path])
    )
    assert not DiskGuard([tmp_path], 1, 10, FixedClock()).is_full()
    assert DiskGuard(list(free), 1, 10, FixedClock()).is_full()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """One thread for blocking work."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_the_pulse_tells_readers_of_every_move(threads: ThreadPoolExecutor) -> None:
    """A notification numbers once and tells the new head; no move, no call."""
    heads = iter([3, 3, 7])
    pump = LogPump(lambda: next(heads), threads)
    told: list[int] = []
    pump.subscribe(told.append)
    assert [await pump.step() for _ in range(3)] == [3, 3, 7]
    assert told == [3, 7]


async def test_the_pulse_beats_when_notified_from_a_thread(threads: ThreadPoolExecutor) -> None:
    """A write in a worker thread wakes the readers on the loop."""
    committed = [0]
    pump = LogPump(lambda: committed[0], threads, poll_s=60)
    reached = asyncio.Event()
    pump.subscribe(lambda head: reached.set())
    running = asyncio.create_task(pump.run())

    def write() -> None:
        committed[0] = 5
        pump.notify()

    await asyncio.to_thread(write)
    await asyncio.wait_for(reached.wait(), 5)
    running.cancel()
    assert pump.head == 5
