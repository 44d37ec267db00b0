"""What works in the background goes on after a store's fault, and a damaged demo is no riddle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from federation.errors import ColumnarError
from node.clock import SystemClock
from node.demo.place import DemoPlace
from node.errors import SettingsError
from node.lasting import PAUSE_S, PAUSE_S_MAX, lasting
from node.security.errors import SealBrokenError
from node.storage.errors import StorageBusyError
from replication.changelog import SequencerFencedError


async def test_a_stores_fault_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database restarts, the replica's disk is full: the work begins again each time."""
    faults: list[Exception] = [
        OperationalError("SELECT 1", {}, Exception("gone")),
        ColumnarError("disk full"),
        StorageBusyError("lost on every attempt"),
        SealBrokenError("a cell does not open"),
        OSError(28, "no space left"),
    ]
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def work() -> None:
        if faults:
            raise faults.pop()

    monkeypatch.setattr(asyncio, "sleep", pause)
    await lasting("test", work)
    assert pauses == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S, 8 * PAUSE_S, 16 * PAUSE_S]


async def test_pauses_have_an_end_and_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed again and again is tried every minute; after it held, soon."""
    pauses: list[float] = []
    now, runs = [0.0], [0]

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def work() -> None:
        runs[0] += 1
        if runs[0] == 9:
            now[0] += 2 * PAUSE_S_MAX
        if runs[0] < 10:
            raise StorageBusyError("lost on every attempt")

    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    await lasting("test", work)
    assert pauses[4:] == [32.0, PAUSE_S_MAX, PAUSE_S_MAX, PAUSE_S_MAX, PAUSE_S]


async def test_a_fenced_sequencer_is_no_passing_fault() -> None:
    """Another process owns the store: this one must stop."""

    async def work() -> None:
        raise SequencerFencedError("another life")

    with pytest.raises(SequencerFencedError):
        await lasting("test", work)


async def test_a_defect_of_the_program_ends_it() -> None:
    """What is in memory is not to be trusted any more."""

    async def work() -> None:
        raise IndexError

    with pytest.raises(IndexError):
        await lasting("test", work)


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"\x00" * 64])
def test_a_demo_that_is_not_whole_is_said_to_be(said: bytes, tmp_path: Path) -> None:
    """A power cut may leave any part of demo.json."""
    (tmp_path / "demo.json").write_bytes(said)
    with pytest.raises(SettingsError, match="not whole"):
        DemoPlace.open(tmp_path, "sqlite", SystemClock())
