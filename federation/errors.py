"""Errors of federated questions.

    FederationError
    ├── QueryRefusedError        the question itself is not allowed (caller's fault, never retry)
    ├── PartialInvalidError      a site's answer is not what the plan asks for (peer's fault)
    ├── DuplicateSiteError       two answers count the same site (a fault here)
    ├── PlanMismatchError        a node's own plan differs from the asker's digest
    ├── ColumnarError            the columnar replica cannot be read or written
    └── ExecutorUnavailableError the executor asked for cannot run on this node

Messages never hold patient data: a refusal names columns and functions, never a literal.
"""

from __future__ import annotations

from enum import StrEnum

from hierarchy_config.errors import Fault, FenheError

__all__ = [
    "ColumnarError",
    "DuplicateSiteError",
    "ExecutorUnavailableError",
    "FederationError",
    "PartialInvalidError",
    "PlanMismatchError",
    "QueryRefusedError",
    "Refusal",
]


class Refusal(StrEnum):
    """Why a question is refused. Stable: clients may branch on it (see refusals.REFUSALS)."""

    SYNTAX = "SQL_SYNTAX"
    TOO_LONG = "SQL_TOO_LONG"
    TOO_DEEP = "SQL_TOO_DEEP"
    TOO_MANY_LITERALS = "SQL_TOO_MANY_LITERALS"
    MULTIPLE_STATEMENTS = "SQL_MULTIPLE_STATEMENTS"
    NOT_SELECT = "SQL_NOT_SELECT"
    SET_OPERATION = "SQL_SET_OPERATION"
    CTE = "SQL_CTE"
    SUBQUERY = "SQL_SUBQUERY"
    JOIN = "SQL_JOIN"
    NO_DATASET = "SQL_NO_DATASET"
    UNKNOWN_TABLE = "SQL_UNKNOWN_TABLE"
    UNKNOWN_COLUMN = "SQL_UNKNOWN_COLUMN"
    STAR = "SQL_STAR"
    IDENTIFIER_SELECTED = "SQL_IDENTIFIER_SELECTED"
    DISTINCT = "SQL_DISTINCT"
    DISTINCT_BY_PROVIDER = "SQL_DISTINCT_BY_PROVIDER"
    NO_AGGREGATE = "SQL_NO_AGGREGATE"
    NOT_GROUPED = "SQL_NOT_GROUPED"
    NESTED_AGGREGATE = "SQL_NESTED_AGGREGATE"
    AGGREGATE_MISPLACED = "SQL_AGGREGATE_MISPLACED"
    AGGREGATE_ARGUMENT = "SQL_AGGREGATE_ARGUMENT"
    AGGREGATE_FILTER = "SQL_AGGREGATE_FILTER"
    MIN_MAX = "SQL_MIN_MAX"
    MEASURE_GROUPED = "SQL_MEASURE_GROUPED"
    GROUPING_SETS = "SQL_GROUPING_SETS"
    WINDOW_FUNCTION = "SQL_WINDOW_FUNCTION"
    FUNCTION_NOT_ALLOWED = "SQL_FUNCTION_NOT_ALLOWED"
    CLAUSE_NOT_ALLOWED = "SQL_CLAUSE_NOT_ALLOWED"
    PARAMETER = "SQL_PARAMETER"
    TYPE_MISMATCH = "SQL_TYPE_MISMATCH"
    LITERAL = "SQL_LITERAL"
    NUMBER_TOO_LARGE = "SQL_NUMBER_TOO_LARGE"
    ZERO_DIVISOR = "SQL_ZERO_DIVISOR"
    AFTER_AGGREGATION = "SQL_AFTER_AGGREGATION"
    DUPLICATE_NAME = "SQL_DUPLICATE_NAME"


class FederationError(FenheError):
    """Base of this room's errors."""

    code = "FEDERATION_ERROR"


class QueryRefusedError(FederationError):
    """The question is not one that may be asked; the hint names the nearest allowed form."""

    code = "QUERY_REFUSED"
    fault = Fault.CALLER
    default_hint = "See docs/questions.md for what may be asked."

    def __init__(self, refusal: Refusal, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.refusal = refusal


class PartialInvalidError(FederationError):
    """A partial answer has other columns, types or figures than the plan asks for."""

    code = "PARTIAL_INVALID"
    fault = Fault.PEER
    default_hint = "Compare the versions of the two nodes; the site counts as missing meanwhile."


class DuplicateSiteError(FederationError):
    """Two partial answers cover the same site: its rows would be counted twice."""

    code = "SITE_DUPLICATE"
    default_hint = "Report it: every site of a scope must be given to exactly one answerer."


class PlanMismatchError(FederationError):
    """This node plans the question differently from the node that asks."""

    code = "PLAN_MISMATCH"
    fault = Fault.PEER
    default_hint = "Bring both nodes to the same release, then ask again."


class ColumnarError(FederationError):
    """The columnar replica cannot be read or written."""

    code = "COLUMNAR_ERROR"
    default_hint = "The replica is derived data: rebuild it from the node's database."


class ExecutorUnavailableError(FederationError):
    """The executor asked for cannot run here."""

    code = "EXECUTOR_UNAVAILABLE"
    fault = Fault.OPERATOR
    default_hint = "Ask with the direct executor, or install the extra that the executor needs."
