"""The federated question without I/O: SQL to plan, plan to node SQL, partials to answer.

Owns the dictionary of datasets, the allow-list of SQL, the named partials, their merge, the
threshold and the coverage. Promises that every row is counted once, that merging is order-free and
that a released group has at least the asked number of residents. Never opens a file, a socket or a
database, never reads a clock; sqlglot is its only third party.
"""

from federation.core.coverage import Coverage, SiteCoverage, SiteState, merge_coverage
from federation.core.datasets import DATASETS, ColumnClass, Dataset, DatasetColumn
from federation.core.model import (
    Answer,
    Basis,
    Cell,
    Column,
    ColumnType,
    ExecutorKind,
    Explanation,
    Freshness,
    Manifest,
    PartialAnswer,
    PartialRequest,
    QueryRequest,
    SiteProgress,
    SiteProgressState,
    Table,
)

__all__ = [
    "DATASETS",
    "Answer",
    "Basis",
    "Cell",
    "Column",
    "ColumnClass",
    "ColumnType",
    "Coverage",
    "Dataset",
    "DatasetColumn",
    "ExecutorKind",
    "Explanation",
    "Freshness",
    "Manifest",
    "PartialAnswer",
    "PartialRequest",
    "QueryRequest",
    "SiteCoverage",
    "SiteProgress",
    "SiteProgressState",
    "SiteState",
    "Table",
    "merge_coverage",
]
