"""The mark of a restore that has begun and not ended: a folder with it is not a whole node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from node.backup.errors import RestoreUnfinishedError
from node.security.key_files import write_public

__all__ = ["is_unfinished", "mark_path", "read_mark", "refuse_unfinished", "write_mark"]

_NAME: Final = "restore.json"


def mark_path(data_dir: Path) -> Path:
    """Where the mark stands."""
    return data_dir / _NAME


def is_unfinished(data_dir: Path) -> bool:
    """Whether a restore into this folder has not ended."""
    return mark_path(data_dir).exists()


def write_mark(data_dir: Path, said: Mapping[str, Any]) -> None:
    """Set the mark, durably."""
    write_public(mark_path(data_dir), json.dumps(dict(said)).encode() + b"\n")


def read_mark(data_dir: Path) -> dict[str, Any]:
    """What the mark says; empty if it cannot be read."""
    try:
        said = json.loads(mark_path(data_dir).read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def refuse_unfinished(data_dir: Path) -> None:
    """Raise RestoreUnfinishedError if a restore into this folder has not ended."""
    if is_unfinished(data_dir):
        raise RestoreUnfinishedError(f"a restore into {data_dir} has not ended")
