"""Messages that come one by one: whatever happens, each is answered, and AA means durable."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.ingestion.feed import MessageFeed
from node.ingestion.mapping import read_mapping
from node.ingestion.writing import WindowWriter
from tests.contracts.ingestion.place import Intake

MAPPING = "name: feed\nsource: his\nformat: hl7\n"
MESSAGE = (
    "MSH|^~\\&|L|H|F|N|20260301||ORU^R01|{i}|P|2.5\rPID|1||P{i}^^^H^MR||张^三||19900307|M\r"
    "OBR|1|O{i}|F{i}|P|||20260301\rOBX|1|NM|8480-6^SBP^LN||{value}|mmHg|||||F\r"
)


def answers(intake: Intake, *messages: str) -> list[tuple[str, str]]:
    """State of each acknowledgement, and its reason."""

    async def talk() -> list[tuple[str, str]]:
        with ThreadPoolExecutor(1) as thread:
            feed = MessageFeed(
                intake.workshop,
                read_mapping(MAPPING),
                MAPPING,
                intake.caller,
                thread=thread,
                notify=lambda: None,
                disk_is_full=lambda: False,
            )
            async with asyncio.timeout(60):
                said = await asyncio.gather(*(feed.put(each.encode()) for each in messages))
        return [(each.state, each.text.strip("\r").rpartition("|")[2]) for each in said]

    return asyncio.run(talk())


def test_each_message_has_its_answer(intake: Intake) -> None:
    """In one transaction, with one at fault among them."""
    texts = [MESSAGE.format(i=i, value="abc" if i == 1 else 120 + i) for i in range(3)]

    said = answers(intake, *texts, "no message")

    assert [state for state, _ in said] == ["AA", "AE", "AA", "AR"]
    assert said[1][1] == "NUMBER_INVALID"
    assert intake.rows("observations") == 2
    (run,) = intake.workshop.runs.newest()
    assert (run.counts.read, run.counts.accepted, run.counts.quarantined) == (4, 2, 2)


@pytest.mark.parametrize(
    ("fault", "reason"), [(OSError("full"), "STORAGE_BUSY"), (RuntimeError("bug"), "INTERNAL")]
)
def test_a_fault_is_answered_and_the_message_may_be_sent_again(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, fault: Exception, reason: str
) -> None:
    """Whoever sends waits for an answer, also if nobody foresaw what went wrong."""

    def broken(*_: object, **__: object) -> None:
        raise fault

    with monkeypatch.context() as now:
        now.setattr(WindowWriter, "write", broken)
        assert answers(intake, MESSAGE.format(i=1, value=120)) == [("AE", reason)]
    assert intake.rows("observations") == 0

    assert answers(intake, MESSAGE.format(i=1, value=120))[0][0] == "AA"
    assert intake.rows("observations") == 1
