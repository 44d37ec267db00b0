"""Errors of ingestion: what stops a run or a request as a whole.

What is wrong with one unit is a trouble, which quarantines it (rules.py).

IngestionError
├── IntakeExtraMissingError    the library of a format is not installed
├── MappingInvalidError        a mapping file has faults; all of them are shown
├── MappingColumnsError        the mapping names columns that the file does not have
├── ContentUnreadableError     no known encoding, no header, not what its format says
├── ContentDangerousError      a ZIP bomb, or larger than this node takes
├── ContentIncompleteError     pieces have not arrived, or are others than were announced
├── RunStateError              the run is not in a state for that
├── QuarantinedUnitError       the unit is not there, or not in a state for that
└── SourceUnreachableError     a table or folder to poll cannot be read
"""

from __future__ import annotations

from collections.abc import Sequence

from hierarchy_config.config_file import ConfigFault
from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "ContentDangerousError",
    "ContentIncompleteError",
    "ContentUnreadableError",
    "IngestionError",
    "IntakeExtraMissingError",
    "MappingColumnsError",
    "MappingInvalidError",
    "QuarantinedUnitError",
    "RunStateError",
    "SourceUnreachableError",
]


class IngestionError(NodeError):
    """Base of this room's errors."""

    code = "INGESTION_ERROR"


class IntakeExtraMissingError(IngestionError):
    """The library that reads a format is not installed."""

    code = "INTAKE_EXTRA_MISSING"
    fault = Fault.OPERATOR
    default_hint = "Install the extra: pip install 'fenhe[intake]'."


class MappingInvalidError(IngestionError):
    """A mapping has faults; nothing was read."""

    code = "MAPPING_INVALID"
    fault = Fault.CALLER
    default_hint = "Correct the named keys; docs/ingestion.md describes the file."

    def __init__(self, faults: Sequence[ConfigFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults[:10])))


class MappingColumnsError(IngestionError):
    """The mapping names columns that the file does not have; nothing was read."""

    code = "MAPPING_COLUMNS"
    fault = Fault.CALLER
    default_hint = (
        "Compare the header with the mapping, mark a column that may be missing as optional, or "
        "propose a mapping with `fenhe intake map`."
    )


class ContentUnreadableError(IngestionError):
    """The content is not what its format says."""

    code = "CONTENT_UNREADABLE"
    fault = Fault.CALLER
    default_hint = "Export the file again as UTF-8 or GB18030, or name its format in the mapping."


class ContentDangerousError(IngestionError):
    """The content would take more than a node gives; it was not opened."""

    code = "CONTENT_DANGEROUS"
    fault = Fault.CALLER
    default_hint = "Have the file exported again by the system it comes from, in smaller parts."


class ContentIncompleteError(IngestionError):
    """A piece is missing, or differs from what was announced."""

    code = "CONTENT_INCOMPLETE"
    fault = Fault.CALLER
    retryable = True
    default_hint = "Load the file again; it goes on at the first piece that is missing."


class RunStateError(IngestionError):
    """The run is not there, or not in a state for that."""

    code = "RUN_STATE"
    fault = Fault.CALLER
    default_hint = "Look at its state with `fenhe intake status`."


class QuarantinedUnitError(IngestionError):
    """The unit is not in the quarantine, or was settled before."""

    code = "QUARANTINED_UNIT"
    fault = Fault.CALLER
    default_hint = "List what waits with `fenhe intake quarantine list`."


class SourceUnreachableError(IngestionError):
    """What is to be polled cannot be read."""

    code = "SOURCE_UNREACHABLE"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = "See that the database or folder is there and may be read."
