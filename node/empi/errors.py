"""Errors of the main index.

EmpiError
├── EmpiExtraMissingError    the packages that matching needs are not installed
├── LinkInputError           the tables or the fields cannot be linked as they are
├── MatchModelError          a saved model is none, or of another version
└── IndexRowError            a row of the index is unknown, or there already

No message repeats a value of a record: tables are named by side, columns by name.
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "EmpiError",
    "EmpiExtraMissingError",
    "IndexRowError",
    "LinkInputError",
    "MatchModelError",
]


class EmpiError(NodeError):
    """Base of this room's errors."""

    code = "EMPI_ERROR"


class EmpiExtraMissingError(EmpiError):
    """Matching was asked for, and NumPy, RapidFuzz or pypinyin is not installed."""

    code = "EMPI_EXTRA_MISSING"
    fault = Fault.OPERATOR
    default_hint = "Install them: pip install 'fenhe[empi]'."


class LinkInputError(EmpiError):
    """Tables or columns that were handed in cannot be linked; the sentence names the first."""

    code = "LINK_INPUT_INVALID"
    fault = Fault.CALLER
    default_hint = (
        "Hand in two pandas frames or two Arrow tables with one row a record, a record id that"
        " stands once, and columns of the same names."
    )


class MatchModelError(EmpiError):
    """A saved model of matching cannot be read."""

    code = "MATCH_MODEL_INVALID"
    fault = Fault.OPERATOR
    default_hint = "Learn the model again with this release, or use the shipped one."


class IndexRowError(EmpiError):
    """A resident was added to the index twice, or one was amended or removed that is not in it."""

    code = "INDEX_ROW_INVALID"
    fault = Fault.HERE
    default_hint = "Build the index again from the residents that the node holds."
