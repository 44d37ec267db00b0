"""Errors of the storage.

    StorageError
    ├── DurabilityError          the database could lose what it has acknowledged
    ├── SchemaNewerError         the database was migrated by a newer program
    ├── StorageBusyError         the same transaction lost to others several times
    ├── BatchOrderError          a batch does not follow the cursor that is stored
    └── BundleError              a bundle was refused whole; `positions` says which rows
        ├── RequestIdReusedError
        ├── UnknownResidentError
        ├── UnknownRecordError
        ├── NotAuthorError
        ├── HomeElsewhereError
        ├── HomeUnknownError
        ├── DuplicateIdentifierError
        ├── RepeatedRowError
        ├── RowIdError
        ├── RecordMismatchError
        ├── RecoveringError
        └── UnknownColumnError
    QuarantineItemError          no such item waits in the quarantine
    NothingToResendError         what a neighbour asks for again is not here, or not for him
    PageTokenError               a page token that this node did not give for this list

No message holds a value of a row: a position in the caller's own bundle says enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "BatchOrderError",
    "BundleError",
    "DuplicateIdentifierError",
    "DurabilityError",
    "HomeElsewhereError",
    "HomeUnknownError",
    "NotAuthorError",
    "NothingToResendError",
    "PageTokenError",
    "QuarantineItemError",
    "RecordMismatchError",
    "RecoveringError",
    "RepeatedRowError",
    "RequestIdReusedError",
    "RowIdError",
    "SchemaNewerError",
    "StorageBusyError",
    "StorageError",
    "UnknownColumnError",
    "UnknownRecordError",
    "UnknownResidentError",
]

_POSITIONS_SHOWN: Final = 20


class StorageError(NodeError):
    """Base of the storage's errors."""

    code = "STORAGE_ERROR"


class DurabilityError(StorageError):
    """A setting of the database would let acknowledged commits be lost in a power cut."""

    code = "DURABILITY_UNSAFE"
    fault = Fault.OPERATOR
    default_hint = "Change the named settings and start the node again."


class SchemaNewerError(StorageError):
    """The database holds a schema this program does not know."""

    code = "SCHEMA_NEWER"
    fault = Fault.OPERATOR
    default_hint = "Install the release that migrated this database, or a later one."


class StorageBusyError(StorageError):
    """A transaction lost against others on every attempt; nothing of it was stored."""

    code = "STORAGE_BUSY"
    fault = Fault.HERE
    retryable = True
    default_hint = "Try again; if it lasts, look for a long transaction in the database."


class BatchOrderError(StorageError):
    """A batch names another predecessor than the cursor stored for its stream."""

    code = "BATCH_OUT_OF_ORDER"
    fault = Fault.PEER
    retryable = True
    default_hint = "The link is dialled again and resumes from the stored cursor."


class PageTokenError(StorageError):
    """A page token is not one that this list gave."""

    code = "PAGE_TOKEN_INVALID"
    fault = Fault.CALLER
    default_hint = "Ask for the first page again."

    def __init__(self) -> None:
        super().__init__("the page token is not one that this list gave")


class QuarantineItemError(StorageError):
    """No item of that number waits in the quarantine."""

    code = "QUARANTINE_ITEM_UNKNOWN"
    fault = Fault.CALLER
    default_hint = "See `fenhe quarantine list` for what waits."


class NothingToResendError(StorageError):
    """A neighbour asked for a row again that is not here, or not for him."""

    code = "NOTHING_TO_RESEND"
    fault = Fault.PEER
    default_hint = "Compare the two nodes' region files; if they agree, skip the item."


class BundleError(StorageError):
    """A bundle was refused whole.

    Attributes:
        positions: Where in the bundle, such as "records[3].resident_id"; empty: all of it.
    """

    code = "BUNDLE_CONFLICT"
    fault = Fault.CALLER

    def __init__(self, message: str, positions: Iterable[str] = ()) -> None:
        self.positions = tuple(positions)
        shown = ", ".join(self.positions[:_POSITIONS_SHOWN])
        more = len(self.positions) - _POSITIONS_SHOWN
        where = f": {shown}" if shown else ""
        super().__init__(f"{message}{where}" + (f" and {more} more" if more > 0 else ""))


class RequestIdReusedError(BundleError):
    """A request id came again with another body."""

    code = "REQUEST_ID_REUSED"
    default_hint = "Give each intended change a request id of its own."


class UnknownResidentError(BundleError):
    """Records name residents that this node does not know, or not for this caller."""

    code = "UNKNOWN_RESIDENT"
    default_hint = "Register the residents first, or put them into the same bundle."


class UnknownRecordError(BundleError):
    """Records are to be retracted that this node does not hold."""

    code = "UNKNOWN_RECORD"
    default_hint = "Read the resident's timeline and retract a record by the id it has there."


class NotAuthorError(BundleError):
    """Rows can be amended only by the node that wrote them."""

    code = "NOT_AUTHOR"
    default_hint = "Send the amendment to the node that wrote the row."


class HomeElsewhereError(BundleError):
    """Residents are registered at their home node only."""

    code = "HOME_ELSEWHERE"
    default_hint = "Register the resident at the node of his home place."


class HomeUnknownError(BundleError):
    """A record names as its resident's home what is no node of the region."""

    code = "HOME_NODE_UNKNOWN"
    default_hint = "Give the division code of the node where the resident is registered."


class DuplicateIdentifierError(BundleError):
    """An identity number is already registered at this node, or stands twice in the bundle."""

    code = "DUPLICATE_IDENTIFIER"
    default_hint = "Find the resident by the number and use his resident_id."


class RepeatedRowError(BundleError):
    """The same row id stands twice in one bundle."""

    code = "ROW_REPEATED"
    default_hint = "Send each row once, or the later amendment in a bundle of its own."


class RowIdError(BundleError):
    """A given row id is not a UUID in canonical text."""

    code = "ROW_ID_INVALID"
    default_hint = "Leave the id empty, or give a lower-case UUID."


class RecordMismatchError(BundleError):
    """An amendment names another record type or another resident than the row it amends."""

    code = "RECORD_MISMATCH"
    default_hint = "Retract the wrong record and write a new one."


class UnknownColumnError(BundleError):
    """A row carries a table or a column that this node's schema does not have."""

    code = "UNKNOWN_COLUMN"
    default_hint = "Use the tables and columns of the installed release."


class RecoveringError(BundleError):
    """The node gets back what its store lost; until then it amends, retracts and moves nothing."""

    code = "RECOVERING"
    fault = Fault.HERE
    retryable = True
    default_hint = (
        "New rows are taken. For the rest wait until `fenhe node recover --status` says that it is "
        "over, or give up neighbours that will not come: `fenhe node recover --without CODE`."
    )
