"""Marks of a second share a transaction, and none is lost to one that failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from node.fresh_marks import FreshMarks


class Book:
    """Keeps what was saved; fails while it is told to."""

    def __init__(self) -> None:
        self.saved: list[dict[str, int]] = []
        self.now_ms = 0
        self.fails = False
        self.meanwhile: Callable[[], None] | None = None

    def save(self, homes: Mapping[str, int]) -> None:
        if self.fails:
            raise OSError("no room")
        if self.meanwhile is not None:
            happening, self.meanwhile = self.meanwhile, None
            happening()
        self.saved.append(dict(homes))


def test_marks_of_a_second_go_together() -> None:
    """The first at once, the others with the first of the next second; the newest word counts."""
    book = Book()
    marks = FreshMarks(book.save, lambda: book.now_ms)
    marks.add({"a": 1})
    marks.add({"b": 1})
    marks.add({"b": 3, "c": 1})
    marks.add({"b": 2})
    assert book.saved == [{"a": 1}]
    book.now_ms = 1000
    marks.add({"a": 2})
    assert book.saved[1:] == [{"b": 2, "c": 1, "a": 2}]


def test_what_could_not_be_saved_waits() -> None:
    """The stream that brought it ends with the error; the next mark brings all of it."""
    book = Book()
    marks = FreshMarks(book.save, lambda: book.now_ms)
    book.fails = True
    with pytest.raises(OSError, match="no room"):
        marks.add({"a": 1})
    book.fails = False
    marks.add({"b": 1})
    assert book.saved == [{"a": 1, "b": 1}]


def test_an_older_word_never_lands_last() -> None:
    """A mark that comes while an older one is being saved waits for the next."""
    book = Book()
    marks = FreshMarks(book.save, lambda: book.now_ms)

    def a_slow_disk() -> None:
        book.now_ms = 5000
        marks.add({"a": 2})

    book.meanwhile = a_slow_disk
    marks.add({"a": 1})
    assert book.saved == [{"a": 1}]
    book.now_ms = 6000
    marks.add({"b": 1})
    assert book.saved[1:] == [{"a": 2, "b": 1}]


def test_a_clock_that_jumps_back_holds_nothing_up() -> None:
    """Then it is saved at once."""
    book = Book()
    book.now_ms = 10_000
    marks = FreshMarks(book.save, lambda: book.now_ms)
    marks.add({"a": 1})
    book.now_ms = 0
    marks.add({"a": 2})
    assert book.saved == [{"a": 1}, {"a": 2}]
