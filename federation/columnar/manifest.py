"""The manifest: which segment files make up the replica, and the log sequence they stand at.

It is replaced as a whole by an atomic rename after everything it names is on disk, so a crash
leaves either the old replica or the new one; files that no manifest names are left-overs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from federation.columnar.schema import SCHEMA_DIGEST
from federation.errors import ColumnarError

__all__ = ["MANIFEST_NAME", "Manifest", "Segment", "load_manifest", "save_manifest", "sync_path"]

MANIFEST_NAME = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """One immutable Parquet file of one dataset, sorted by (home, date).

    `number` is unique and never used again. `homes` and `authors` are all that occur in the file,
    for pruning; `first_id` and `last_id` bound its row ids (canonical text); `resident_rows` is the
    most rows of one resident.
    """

    dataset: str
    number: int
    file: str
    rows: int
    bytes: int
    homes: frozenset[str]
    authors: frozenset[str]
    first_id: str
    last_id: str
    resident_rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One state of the replica.

    `source` names the store whose log it was fed from: another store (after a restore) has another
    log. `dead_file` holds (dataset, segment, position) of superseded rows, `dead_rows` their count
    by segment number.
    """

    source: str
    sequence: int = 0
    next_number: int = 1
    segments: tuple[Segment, ...] = ()
    dead_file: str = ""
    dead_rows: Mapping[int, int] = field(default_factory=dict)

    @property
    def files(self) -> frozenset[str]:
        """Names of every file it needs."""
        named = {segment.file for segment in self.segments}
        return frozenset(named | ({self.dead_file} if self.dead_file else set()))

    def of_dataset(self, dataset: str) -> tuple[Segment, ...]:
        """Segments of one dataset, oldest first."""
        return tuple(segment for segment in self.segments if segment.dataset == dataset)


def sync_path(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest durably. The files it names must be synced before."""
    document = {
        "format": _FORMAT,
        "schema": SCHEMA_DIGEST,
        "source": manifest.source,
        "sequence": manifest.sequence,
        "next_number": manifest.next_number,
        "segments": [_segment_out(segment) for segment in manifest.segments],
        "dead_file": manifest.dead_file,
        "dead_rows": {str(number): rows for number, rows in manifest.dead_rows.items()},
    }
    fresh = folder / f"{MANIFEST_NAME}.new"
    fresh.write_text(json.dumps(document, indent=1), encoding="utf-8")
    sync_path(fresh)
    fresh.replace(folder / MANIFEST_NAME)
    sync_path(folder)


def load_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if there is none yet.

    Raises:
        ColumnarError: It cannot be read, is of another format or schema, or names a file that is
            not there in full.
    """
    path = folder / MANIFEST_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ColumnarError(
            f"the manifest of the columnar replica is unreadable: {error}"
        ) from error
    try:
        if document["format"] != _FORMAT or document["schema"] != SCHEMA_DIGEST:
            raise ColumnarError("the columnar replica is of another release")
        manifest = Manifest(
            source=str(document["source"]),
            sequence=int(document["sequence"]),
            next_number=int(document["next_number"]),
            segments=tuple(_segment_in(entry) for entry in document["segments"]),
            dead_file=str(document["dead_file"]),
            dead_rows={int(number): int(rows) for number, rows in document["dead_rows"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ColumnarError(
            f"the manifest of the columnar replica is damaged: {error!r}"
        ) from error
    _check_files(folder, manifest)
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    for segment in manifest.segments:
        path = folder / segment.file
        if not path.is_file() or path.stat().st_size != segment.bytes:
            raise ColumnarError(f"segment {segment.file} of the columnar replica is not whole")
    if manifest.dead_file and not (folder / manifest.dead_file).is_file():
        raise ColumnarError(f"{manifest.dead_file} of the columnar replica is missing")


def _segment_out(segment: Segment) -> dict[str, Any]:
    return {
        "dataset": segment.dataset,
        "number": segment.number,
        "file": segment.file,
        "rows": segment.rows,
        "bytes": segment.bytes,
        "homes": sorted(segment.homes),
        "authors": sorted(segment.authors),
        "first_id": segment.first_id,
        "last_id": segment.last_id,
        "resident_rows": segment.resident_rows,
    }


def _segment_in(entry: Mapping[str, Any]) -> Segment:
    file = str(entry["file"])
    if Path(file).name != file:
        raise ValueError("a segment's file lies outside its folder")
    return Segment(
        dataset=str(entry["dataset"]),
        number=int(entry["number"]),
        file=file,
        rows=int(entry["rows"]),
        bytes=int(entry["bytes"]),
        homes=frozenset(map(str, entry["homes"])),
        authors=frozenset(map(str, entry["authors"])),
        first_id=str(entry["first_id"]),
        last_id=str(entry["last_id"]),
        resident_rows=int(entry["resident_rows"]),
    )
