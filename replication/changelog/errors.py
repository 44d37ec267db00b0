"""Errors of the change log.

ReplicationError
├── SequencerFencedError   another sequencer, or a newer life of the store, has taken over
├── CursorWentBackError    a cursor or a peer's epoch would go back (I7)
├── DuplicateEntryError    an origin's entry is in the log already (I3)
├── LogPrunedError         a reader asks for entries that are no longer kept
└── LogNotReadyError       the sequencer's row is missing: nothing was migrated here
"""

from __future__ import annotations

from replication.errors import ReplicationError

__all__ = [
    "CursorWentBackError",
    "DuplicateEntryError",
    "LogNotReadyError",
    "LogPrunedError",
    "SequencerFencedError",
]


class SequencerFencedError(ReplicationError):
    """This sequencer no longer owns the log; it must stop, never try again."""

    code = "SEQUENCER_FENCED"
    default_hint = (
        "Another process of this node numbers the log, or the store was restored meanwhile; "
        "stop this process and see which one runs on the data folder."
    )


class CursorWentBackError(ReplicationError):
    """A cursor would go back although the stream's epoch did not rise."""

    code = "CURSOR_WENT_BACK"
    default_hint = "Close the link and dial again; if it comes back, report both nodes' logs."


class DuplicateEntryError(ReplicationError):
    """An entry of the same origin, epoch, sequence and form is in the log already."""

    code = "DUPLICATE_ENTRY"
    default_hint = "This is a defect of this node's program; keep its log and report it."


class LogPrunedError(ReplicationError):
    """The entries after a reader's cursor were deleted: it has to be seeded anew."""

    code = "LOG_PRUNED"
    default_hint = (
        "A neighbour of an older release cannot be seeded from the tables: upgrade it. Other "
        "readers begin anew by themselves."
    )


class LogNotReadyError(ReplicationError):
    """The log's own row is missing."""

    code = "LOG_NOT_READY"
    default_hint = "Bring the database's schema up to date and start the node again."
