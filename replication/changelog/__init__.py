"""The change log and what the links remember, on SQLite and MySQL through SQLAlchemy Core.

Owns the tables that define_tables declares and every statement on them. Promises: an entry is
atomic with the rows it stands for, numbers are contiguous and given only to what has committed, a
cursor never goes back within a stream epoch, nothing clear lies in a payload. Opens no engine,
starts no thread, begins no transaction except to number; knows nothing of health care.
"""

from replication.changelog.dialects import (
    ConnectionFactory,
    after_commit,
    prepare_engine,
    read_transaction,
    upsert,
    write_transaction,
)
from replication.changelog.errors import (
    CursorWentBackError,
    DuplicateEntryError,
    LogNotReadyError,
    LogPrunedError,
    SequencerFencedError,
)
from replication.changelog.letters import LetterEntries, WaitingLetter
from replication.changelog.links import LinkState, LogReaders, Marks, PeerEpoch, StoreState
from replication.changelog.log import (
    ChangeLog,
    LogEnd,
    NewEntry,
    OriginKey,
    PayloadSealer,
)
from replication.changelog.quarantine import (
    Quarantine,
    QuarantinedItem,
    QuarantineExit,
    retry_after_ms,
)
from replication.changelog.sequencer import (
    CounterSequencer,
    NumberBlock,
    ensure_log,
)
from replication.changelog.slices import LogSlice
from replication.changelog.tables import ChangelogTables, ascii_text, blob, define_tables
from replication.changelog.tail import LogTail
from replication.changelog.together import Together

__all__ = [
    "ChangeLog",
    "ChangelogTables",
    "ConnectionFactory",
    "CounterSequencer",
    "CursorWentBackError",
    "DuplicateEntryError",
    "LetterEntries",
    "LinkState",
    "LogEnd",
    "LogNotReadyError",
    "LogPrunedError",
    "LogReaders",
    "LogSlice",
    "LogTail",
    "Marks",
    "NewEntry",
    "NumberBlock",
    "OriginKey",
    "PayloadSealer",
    "PeerEpoch",
    "Quarantine",
    "QuarantineExit",
    "QuarantinedItem",
    "SequencerFencedError",
    "StoreState",
    "Together",
    "WaitingLetter",
    "after_commit",
    "ascii_text",
    "blob",
    "define_tables",
    "ensure_log",
    "prepare_engine",
    "read_transaction",
    "retry_after_ms",
    "upsert",
    "write_transaction",
]
