"""The room: whether a node matches, what it says while it does not, and work beside its calls."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node.clock import SystemClock
from node.errors import InvalidRequestError
from node.matching import room as rooms
from node.matching.errors import MatchingNotReadyError, MatchingOffError
from node.matching.model import MatchMode, MatchOutcome, MatchSettings, PairState
from node.matching.room import MatchingRoom
from node.security.caller import Caller
from replication.changelog import write_transaction
from tests.contracts.matching.place import OTHER_MODEL, Matching, twice, values
from tests.contracts.storage.region import person
from tests.services import waiting


@dataclass
class House:
    """A room on a village's store; `alive` runs it."""

    matching: Matching
    folder: Path
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    disk_is_full: bool = False
    disk_looks: int = 0

    def room(self, mode: MatchMode = MatchMode.AUTO, residents_max: int = 100) -> MatchingRoom:
        return MatchingRoom(
            self.matching.node.storage,
            MatchSettings(mode, residents_max, 100),
            self.folder / "match_model.json",
            thread=self.thread,
            clock=SystemClock(),
            disk_is_full=self._look_at_disk,
        )

    def _look_at_disk(self) -> bool:
        self.disk_looks += 1
        return self.disk_is_full

    @asynccontextmanager
    async def alive(self, room: MatchingRoom) -> AsyncIterator[MatchingRoom]:
        """The room at work, told of the log as a node tells it."""
        self.tell(room)
        work = asyncio.create_task(room.run())
        try:
            yield room
        finally:
            work.cancel()
            await asyncio.wait([work])

    def tell(self, room: MatchingRoom) -> None:
        room.log_advanced(self.matching.node.durable_head())

    @property
    def caller(self) -> Caller:
        return self.matching.node.caller()


@pytest.fixture
def house(matching: Matching, tmp_path: Path) -> House:
    """On each database."""
    return House(matching, tmp_path)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does, and let the loop go on."""
    await asyncio.to_thread(waiting.until, "what the room's thread does", holds, 30)


async def test_finds_pairs_and_answers_while_the_node_runs(house: House) -> None:
    """From the first start to a new registration."""
    old = twice(house.matching, 1)
    async with house.alive(house.room()) as room:
        await until(lambda: house.matching.pairs() == {old})
        assert room.ready
        fresh = twice(house.matching, 2)
        house.tell(room)
        await until(lambda: house.matching.pairs() == {old, fresh})

        page = await room.pairs(house.caller)
        assert {(each.first_id, each.second_id) for each in page.pairs} == {old, fresh}
        asked = await room.candidates(house.caller, values(1))
        assert {each.resident_id for each in asked.found} == set(old)
        assert (asked.outcome, asked.is_partial) == (MatchOutcome.REVIEW, False)
        with write_transaction(house.matching.node.engine) as connection:
            said, model = room.evidence(connection, *reversed(old))
            room.decided(connection, *old)
        assert (set(json.loads(said)) >= {"name", "birth_date"}, len(model)) == (True, 64)
        page = await room.pairs(house.caller, PairState.DECIDED)
        assert [(each.first_id, each.second_id) for each in page.pairs] == [old]
        assert house.matching.pairs() == {fresh}
        with write_transaction(house.matching.node.engine) as connection:
            assert room.evidence(connection, old[0], fresh[0]) == ("", "")
        assert (room.progress().indexed, room.progress().residents) == (4, 4)


async def test_says_how_far_it_is(house: House) -> None:
    """Before the index holds anybody it is not ready; then its answers are partial."""
    house.matching.register(*(person("", **values(n)) for n in range(5)))
    room = house.room()
    with pytest.raises(MatchingNotReadyError):
        await room.candidates(house.caller, values(1))
    assert not room.ready
    finder = house.matching.finder
    room._finder = finder  # noqa: SLF001 - as its work makes it
    with pytest.raises(MatchingNotReadyError):
        await room.candidates(house.caller, values(1))

    finder.step(0)
    assert (room.progress().indexed, room.progress().is_ready) == (5, True)
    finder._loaded_to = "0"  # noqa: SLF001 - as between two pages
    finder._residents = 9  # noqa: SLF001
    asked = await room.candidates(house.caller, values(8))
    assert (asked.outcome, asked.is_partial) == (MatchOutcome.REVIEW, True)
    assert (asked.standing.indexed, asked.standing.residents) == (5, 9)


@pytest.mark.parametrize("why", ["setting", "extra", "processor", "model", "strange model", "many"])
async def test_a_node_that_does_not_match_says_why(
    house: House, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Its work neither ends nor fails; pairs of an earlier life are shown still."""
    pair = twice(house.matching, 1)
    house.matching.settle()
    mode, residents_max, words = MatchMode.AUTO, 100, ""
    match why:
        case "setting":
            mode, words = MatchMode.OFF, "matching: off"
        case "extra":
            monkeypatch.setattr(rooms, "import_module", _raises(ModuleNotFoundError(name="numpy")))
            words = "numpy is not installed"
        case "processor":
            monkeypatch.setattr(rooms, "import_module", _raises(RuntimeError("X86_V2")))
            words = "cannot be loaded"
        case "model":
            (house.folder / "match_model.json").write_bytes(b"\xff")
            words = "match_model.json cannot be read"
        case "strange model":
            text = OTHER_MODEL.to_json().replace('"name": "phone"', '"name": "shoe_size"')
            (house.folder / "match_model.json").write_text(text, encoding="utf-8")
            words = "shoe_size"
        case _:
            residents_max, words = 1, "2 residents are held"
    room = house.room(mode, residents_max)
    async with house.alive(room):
        await until(lambda: room.progress().off_because != "")
        assert words in room.progress().off_because
        with pytest.raises(MatchingOffError, match=words) as caught:
            await room.candidates(house.caller, values(1))
        assert (caught.value.code, bool(caught.value.hint)) == ("MATCHING_OFF", True)
        page = await room.pairs(house.caller)
        assert [(each.first_id, each.second_id) for each in page.pairs] == [pair]


def _raises(error: Exception) -> Callable[[str], object]:
    def work(_name: str) -> object:
        raise error

    return work


async def test_on_takes_as_many_as_are_held(house: House) -> None:
    """The bound is that of auto."""
    pair = twice(house.matching, 1)
    async with house.alive(house.room(MatchMode.ON, 1)):
        await until(lambda: house.matching.pairs() == {pair})


async def test_a_model_of_its_own_is_used(house: House) -> None:
    """It lies in the data folder."""
    text = OTHER_MODEL.to_json()
    (house.folder / "match_model.json").write_text(text, encoding="utf-8")
    pair = twice(house.matching, 1)
    async with house.alive(house.room()):
        await until(lambda: house.matching.pairs() == {pair})
    house.matching.model = OTHER_MODEL
    house.matching.open()
    assert house.matching.progress().model_digest == house.matching.finder.digest


async def test_nothing_is_written_while_the_disk_is_full(house: House) -> None:
    """The index is filled and asked; pairs wait for room."""
    house.disk_is_full = True
    pair = twice(house.matching, 1)
    async with house.alive(house.room()) as room:
        await until(lambda: room.ready)
        asked = await room.candidates(house.caller, values(1))
        assert len(asked.found) == 2
        # The second look comes after whatever followed from the first.
        for look in (1, 2):
            await until(lambda look=look: house.disk_looks >= look)  # type: ignore[misc]
            house.tell(room)
        assert house.matching.rows() == {}
        house.disk_is_full = False
        house.tell(room)
        await until(lambda: house.matching.pairs() == {pair})


@pytest.mark.parametrize("asked", [{}, {"name": ""}, {"shoe_size": "43"}, {"name": "张" * 501}])
async def test_refuses_what_nobody_can_be_asked_by(house: House, asked: dict[str, str]) -> None:
    """Before anything is looked at, and without repeating it."""
    with pytest.raises(InvalidRequestError) as caught:
        await house.room().candidates(house.caller, asked)
    assert "43" not in str(caught.value)


def test_a_node_without_the_extra_imports() -> None:
    """NumPy is loaded when matching begins, and nowhere before."""
    code = (
        "import sys\n"
        "import node.app, node.matching.room as room\n"
        "assert not {'numpy', 'rapidfuzz', 'pypinyin'} & sys.modules.keys()\n"
        "sys.modules.update(dict.fromkeys(('numpy', 'rapidfuzz', 'pypinyin')))\n"
        "try:\n    room._finder_module()\n"
        "except room.MatchingOffError as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "not installed" in done.stdout
