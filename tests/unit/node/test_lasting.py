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
from node.lasting import PAUSE_S, lasting
from replication.changelog import SequencerFencedError


async def test_a_stores_fault_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database restarts, the replica's disk is full: the work begins again each time."""
    faults = [OperationalError("SELECT 1", {}, Exception("gone")), ColumnarError("disk full")]
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def work() -> None:
        if faults:
            raise faults.pop()

    monkeypatch.setattr(asyncio, "sleep", pause)
    await lasting("test", work)
    assert pauses == [PAUSE_S, PAUSE_S]


async def test_a_fenced_sequencer_is_no_passing_fault() -> None:
    """Another process owns the store: this one must stop."""

    async def work() -> None:
        raise SequencerFencedError("another life")

    with pytest.raises(SequencerFencedError):
        await lasting("test", work)


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"\x00" * 64])
def test_a_demo_that_is_not_whole_is_said_to_be(said: bytes, tmp_path: Path) -> None:
    """A power cut may leave any part of demo.json."""
    (tmp_path / "demo.json").write_bytes(said)
    with pytest.raises(SettingsError, match="not whole"):
        DemoPlace.open(tmp_path, "sqlite", SystemClock())
