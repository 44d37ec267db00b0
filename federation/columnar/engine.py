"""DuckDB opened for one folder: bounded, and confined to that folder.

No extension is installed or loaded, no file outside the folder is read or written, no Python object
is looked up by name, and the configuration is locked. Statements come from this room's own planner;
the confinement is what holds if that planner is ever wrong.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from federation.availability import ExtraMissingError
from federation.columnar.schema import literal

if TYPE_CHECKING:
    import duckdb

__all__ = ["ColumnarLimits", "open_engine"]


@dataclass(frozen=True, slots=True)
class ColumnarLimits:
    """What the replica may use; from the hardware profile.

    `segment_rows`: rows of the delta at which it becomes a segment. `segments_max`: segments of one
    dataset at which they are merged. `dead_share_max`: share of superseded rows at which a segment
    is written anew.
    """

    threads: int = 2
    memory_mb: int = 512
    segment_rows: int = 200_000
    segments_max: int = 12
    dead_share_max: float = 0.2


def open_engine(
    folder: Path, *, threads: int, memory_mb: int, readable: Sequence[Path] = ()
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that can read and write below `folder`, read `readable`, nothing else.

    Raises:
        ExtraMissingError: duckdb or pyarrow is not installed.
    """
    # Rows go in as Arrow: better to know now than at the first of them. But it takes 25 MB, and
    # a village that is idle since its start needs none of it.
    for package in ("duckdb", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            raise ExtraMissingError("analytics", package)
    import duckdb

    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": str(temporary),
            "max_temp_directory_size": f"{max(4 * memory_mb, 1024)}MB",
            "preserve_insertion_order": "false",
            # Local segments are in the system's page cache: reading ahead in eight more threads
            # and keeping blocks twice cost a small scan ten times its work, and gain a large
            # one nothing (both measured).
            "async_threads": 0,
            "enable_external_file_cache": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
        },
    )
    allowed = ", ".join(literal(f"{path.resolve()}/") for path in (folder, *readable))
    # Segments never change once written, so their footers may be remembered.
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection
