"""The end of the log in memory: only whole stretches, in order, within its bytes."""

from __future__ import annotations

from replication.changelog import LogTail
from replication.core.model import Form, Lane, LogEntry


def _entry(sequence: int, lane: Lane = Lane.BULK, size: int = 10) -> LogEntry:
    node = "141002001201"
    return LogEntry(sequence, node, 1, sequence, lane, node, Form.FULL, 1, 1, 0, 1, b"x" * size)


def _numbers(tail: LogTail, after: int, up_to: int, lane: Lane | None = None) -> list[int] | None:
    part = tail.read(after=after, lane=lane, bytes_max=1 << 20, up_to=up_to)
    return None if part is None else [entry.sequence for entry in part.entries]


def test_gives_a_stretch_that_is_whole() -> None:
    """In order, whatever order the commits told of themselves in."""
    tail = LogTail()
    tail.committed([_entry(7)])
    tail.committed([_entry(5, Lane.CARE), _entry(6)])
    assert tail.head == 7
    assert _numbers(tail, 4, 7) == [5, 6, 7]
    assert _numbers(tail, 4, 7, Lane.BULK) == [6, 7]
    assert _numbers(tail, 7, 7) == []
    assert tail.lanes_after(4, 7) == {Lane.CARE: 5, Lane.BULK: 7}


def test_a_hole_sends_the_reader_to_the_database() -> None:
    """Another process committed 6, or what came before 5 is not here any more."""
    tail = LogTail()
    tail.committed([_entry(5), _entry(7)])
    assert _numbers(tail, 4, 7) is None
    assert _numbers(tail, 3, 5) is None
    assert tail.lanes_after(4, 7) is None
    assert _numbers(tail, 4, 5) == [5]


def test_reads_no_further_than_the_bytes_asked_for() -> None:
    """The first entry comes even if it is larger; the next read goes on behind it."""
    tail = LogTail()
    tail.committed([_entry(n, size=100) for n in range(1, 6)])
    part = tail.read(after=0, lane=Lane.BULK, bytes_max=150, up_to=5)
    assert part is not None
    assert (len(part.entries), part.scanned_to, part.head) == (2, 2, 5)


def test_keeps_the_newest_within_its_bytes() -> None:
    """One that keeps nothing still knows the head."""
    tail = LogTail(bytes_max=2 * (600 + 100))
    tail.committed([_entry(n, size=100) for n in range(1, 6)])
    assert _numbers(tail, 3, 5) == [4, 5]
    assert _numbers(tail, 2, 5) is None
    none = LogTail(bytes_max=0)
    none.committed([_entry(9)])
    assert none.head == 9
    assert _numbers(none, 8, 9) is None
