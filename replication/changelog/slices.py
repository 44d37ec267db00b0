"""A piece of the log as a reader gets it, from the database or from memory."""

from __future__ import annotations

from dataclasses import dataclass

from replication.core.model import LogEntry

__all__ = ["LogSlice"]


@dataclass(frozen=True, slots=True)
class LogSlice:
    """Entries in order of their sequence.

    The lane has nothing else in (after, scanned_to]; `head` is the end of the log when it was read.
    """

    entries: tuple[LogEntry, ...]
    scanned_to: int
    head: int
