"""Who is above whom, what is copied up, and the thresholds of answers.

Owns the model of the hierarchy, the region file that describes it, the shipped division tables and
the directory in which nodes are found. Promises that a Hierarchy in hand is one sound tree of one
configuration epoch. Never dials a node and knows nothing of records.
"""

from __future__ import annotations

from hierarchy_config.changes import Closing, HierarchyChange, Move, Resending, shape_digest
from hierarchy_config.config_file import ConfigFault
from hierarchy_config.directory import (
    ConsulMissingError,
    DirectoryConflictError,
    DirectoryError,
    DirectoryState,
    DirectoryUnreachableError,
    NodeDirectory,
    RegionMissingError,
)
from hierarchy_config.divisions import load_divisions, shipped_divisions
from hierarchy_config.errors import Fault, FenheError, HierarchyError
from hierarchy_config.file_directory import FileDirectory
from hierarchy_config.hierarchy import (
    Hierarchy,
    HierarchyShapeError,
    NodeNotBelowError,
    NodeUnknownError,
    slice_hierarchy,
    with_endpoints,
)
from hierarchy_config.model import (
    PEOPLE_TABLES,
    REPLICATED_TABLES,
    CareLevel,
    CopyForm,
    CopyRule,
    Division,
    NodeEntry,
    NodeId,
    Thresholds,
)
from hierarchy_config.region_file import (
    RegionFileError,
    dump_region,
    load_region,
    parse_region,
    region_text,
    shipped_region,
)

__all__ = [
    "PEOPLE_TABLES",
    "REPLICATED_TABLES",
    "CareLevel",
    "Closing",
    "ConfigFault",
    "ConsulMissingError",
    "CopyForm",
    "CopyRule",
    "DirectoryConflictError",
    "DirectoryError",
    "DirectoryState",
    "DirectoryUnreachableError",
    "Division",
    "Fault",
    "FenheError",
    "FileDirectory",
    "Hierarchy",
    "HierarchyChange",
    "HierarchyError",
    "HierarchyShapeError",
    "Move",
    "NodeDirectory",
    "NodeEntry",
    "NodeId",
    "NodeNotBelowError",
    "NodeUnknownError",
    "RegionFileError",
    "RegionMissingError",
    "Resending",
    "Thresholds",
    "dump_region",
    "load_divisions",
    "load_region",
    "parse_region",
    "region_text",
    "shape_digest",
    "shipped_divisions",
    "shipped_region",
    "slice_hierarchy",
    "with_endpoints",
]
