"""The columnar replica of one node: segments on disk, a manifest, a delta in memory.

Owns the folder and every file in it. Promises: the sequence it stands at never runs ahead of what
it holds; a crash at any point costs only the re-reading of the log since the last segment; a
snapshot sees each row once, in its newest version. It never holds what the database does not:
whatever it cannot read, it throws away and is fed again.
"""

# ruff: noqa: S608 - statements are made of the schema's own names, quoted where they are data.

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from federation.columnar.delta import (
    absorb,
    clear_delta,
    create_tables,
    delta_rows,
    forget_pending,
    resolve_pending,
)
from federation.columnar.engine import ColumnarLimits, open_engine
from federation.columnar.manifest import (
    Manifest,
    Segment,
    load_manifest,
    save_manifest,
    sync_path,
)
from federation.columnar.schema import COLUMN_TYPES, literal
from federation.columnar.segments import (
    dead_counts,
    file_number,
    segments_to_merge,
    write_dead,
    write_segment,
)
from federation.columnar.snapshot import Snapshot
from federation.columnar.source import ReplicaSource
from federation.columnar.views import SegmentPart, SiteColumn, relation
from federation.errors import ColumnarError

if TYPE_CHECKING:
    import duckdb

__all__ = ["ColumnarReplica"]

_log = logging.getLogger(__name__)

FEED_ROWS = 20_000
"""Rows asked of the source at once."""


class ColumnarReplica:
    """Fed by one thread at a time, read by any number; every method is thread-safe. See `open`."""

    def __init__(
        self,
        folder: Path,
        limits: ColumnarLimits,
        *,
        connection: duckdb.DuckDBPyConnection,
        manifest: Manifest,
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._connection = connection
        self._manifest = manifest
        self._sequence = manifest.sequence
        self._caught_up = False
        # Whether somebody fed rows since superseded ones were last looked up.
        self._has_pending = False
        self._fed_rows = 0
        self._feeding = threading.RLock()
        self._view = threading.Lock()
        self._open_files: Counter[str] = Counter()

    @classmethod
    def open(cls, folder: Path, limits: ColumnarLimits, *, source: str = "") -> ColumnarReplica:
        """Open the replica in its own folder; made if it is not there.

        Args:
            folder: Nothing else may use it.
            limits: From the hardware profile.
            source: Name of the store whose log feeds it (the store's epoch). A replica that was
                fed from another store, or cannot be read, is dropped and fed again.

        Raises:
            ExtraMissingError: duckdb or pyarrow is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        # What DuckDB spilled and what was lent to Ray's workers before a crash.
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        connection = open_engine(folder, threads=limits.threads, memory_mb=limits.memory_mb)
        create_tables(connection)
        manifest = _readable_manifest(connection, folder, source)
        for path in (*folder.glob("*.parquet"), *folder.glob("*.new")):
            if path.name not in manifest.files:
                path.unlink()
        save_manifest(folder, manifest)
        return cls(folder, limits, connection=connection, manifest=manifest)

    # -- what it is -----------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    @property
    def sequence(self) -> int:
        """The log sequence up to which everything is in it."""
        return self._sequence

    @property
    def stored_sequence(self) -> int:
        """The log sequence that the files stand at: from there it reads again after a crash."""
        return self._manifest.sequence

    @property
    def is_caught_up(self) -> bool:
        """Whether it has reached the end of the log since it was opened or rebuilt."""
        return self._caught_up

    @property
    def segment_files(self) -> tuple[str, ...]:
        """Names of the current segment files."""
        return tuple(segment.file for segment in self._manifest.segments)

    # -- feeding --------------------------------------------------------------------------------

    def feed_once(self, source: ReplicaSource, *, limit: int = FEED_ROWS) -> int:
        """Take the next changes of the log; returns the sequence it stands at then.

        Unchanged means that the end of the log is reached. Durable only up to the last segment;
        what is newer is read again after a crash.

        Raises:
            ColumnarError: The changes do not fit the schema. Nothing of them is taken.
        """
        with self._feeding:
            changes = source.columnar_changes(self._sequence, limit)
            if changes.up_to < self._sequence:
                raise ColumnarError("the log that feeds the replica went back")
            if changes.up_to == self._sequence:
                self._caught_up = True
                return self._sequence
            with self._view:
                absorb(self._connection, changes)
                self._sequence = changes.up_to
                self._has_pending = True
            self._fed_rows += sum(map(len, changes.rows.values()))
            if self._fed_rows >= self._limits.segment_rows:
                # Rows that came again are one row: counted only when it may matter.
                self._fed_rows = sum(delta_rows(self._connection).values())
                if self._fed_rows >= self._limits.segment_rows:
                    self.flush()
            return self._sequence

    def flush(self) -> None:
        """Make the delta a segment and the sequence durable; merges segments that became many.

        Raises:
            ColumnarError: The segment could not be written. Nothing changes.
        """
        import duckdb

        with self._feeding:
            if self._sequence == self._manifest.sequence:
                return
            try:
                self._store_delta()
                for dataset in COLUMN_TYPES:
                    self._merge(dataset)
            except (duckdb.Error, OSError) as error:
                raise ColumnarError(
                    f"a segment could not be written: {type(error).__name__}",
                    hint="Look at the space left on the disk of the data folder.",
                ) from error

    def rebuild(self) -> None:
        """Drop everything; the next feeding starts at the beginning of the log."""
        with self._feeding:
            with self._view:
                self._connection.execute("DELETE FROM dead")
                clear_delta(self._connection)
                self._has_pending = False
                self._sequence = 0
                self._caught_up = False
                self._manifest = Manifest(
                    source=self._manifest.source, next_number=self._manifest.next_number
                )
                save_manifest(self._folder, self._manifest)
            self._remove_superseded()

    def verify(self) -> bool:
        """Whether every segment can be read in full; if not, the replica is rebuilt.

        For use after a statement failed: derived data is thrown away, not repaired.
        """
        import duckdb

        with self._feeding:
            try:
                for segment in self._manifest.segments:
                    columns = ", ".join(
                        f'hash("{name}")' for name, _ in COLUMN_TYPES[segment.dataset]
                    )
                    self._connection.execute(
                        f"SELECT bit_xor(hash({columns})) "
                        f"FROM read_parquet({literal(str(self._folder / segment.file))})"
                    ).fetchall()
            except duckdb.Error as error:
                _log.warning(
                    "columnar segment %s is unreadable (%s): the replica is fed again",
                    segment.file,
                    type(error).__name__,
                )
                self.rebuild()
                return False
            return True

    def close(self) -> None:
        """Store the delta and close. Open snapshots end with an error."""
        with self._feeding:
            self.flush()
            self._connection.close()

    # -- reading --------------------------------------------------------------------------------

    def set_places(self, places: Mapping[str, tuple[str | None, str | None]]) -> None:
        """Replace the relation `places`: home → (township, county)."""
        with self._feeding, self._view:
            self._connection.execute("BEGIN")
            self._connection.execute("DELETE FROM places")
            if places:
                townships, counties = zip(*places.values(), strict=True)
                self._connection.execute(
                    "INSERT INTO places SELECT unnest(?), unnest(?), unnest(?)",
                    [list(places), list(townships), list(counties)],
                )
            self._connection.execute("COMMIT")

    def snapshot(self) -> Snapshot:
        """A view of everything fed so far. Close it: it holds files and memory.

        Raises:
            ColumnarError: A segment cannot be read.
        """
        import duckdb

        # Looking up superseded rows is done once for all readers, unless a feeder is at work:
        # then this reader does it for itself in a transaction that is never committed.
        if self._has_pending and self._feeding.acquire(blocking=False):
            try:
                with self._view:
                    self._resolve()
            finally:
                self._feeding.release()
        with self._view:
            manifest, sequence = self._manifest, self._sequence
            cursor = self._connection.cursor()
            cursor.execute("BEGIN")
            # The transaction's view begins with its first read.
            dead = dead_counts(cursor)
            has_pending = self._has_pending
            self._open_files.update(manifest.files)
        if has_pending:
            try:
                resolve_pending(cursor, self._folder, manifest.segments)
                dead = dead_counts(cursor)
            except duckdb.Error as error:
                cursor.close()
                self._release(manifest)
                raise _unreadable(error) from error
        return Snapshot(
            cursor,
            sequence=sequence,
            segments=self._parts(manifest, dead),
            on_close=lambda: self._release(manifest),
        )

    # -- inside ---------------------------------------------------------------------------------

    def _resolve(self) -> None:
        import duckdb

        self._connection.execute("BEGIN")
        try:
            found = resolve_pending(self._connection, self._folder, self._manifest.segments)
            forget_pending(self._connection, found)
            self._connection.execute("COMMIT")
        except duckdb.Error as error:
            self._connection.execute("ROLLBACK")
            raise _unreadable(error) from error
        self._has_pending = False

    def _store_delta(self) -> None:
        with self._view:
            self._resolve()
        number = self._manifest.next_number
        fresh = []
        for dataset in delta_rows(self._connection):
            select = f"FROM delta_{dataset}"
            written = write_segment(self._connection, self._folder, dataset, number, select)
            number += 1
            if written is not None:
                fresh.append(written)
        manifest = replace(
            self._manifest,
            sequence=self._sequence,
            segments=(*self._manifest.segments, *fresh),
            next_number=number,
        )
        self._commit(manifest, stored_delta=True)

    def _merge(self, dataset: str) -> None:
        merged = segments_to_merge(self._manifest, dataset, self._limits)
        if not merged:
            return
        numbers = frozenset(segment.number for segment in merged)
        parts = self._parts(self._manifest, self._manifest.dead_rows)[dataset]
        select = relation(
            dataset,
            [part for part in parts if part.number in numbers],
            dead="dead",
            delta=None,
            column=SiteColumn.HOME,
            sites=None,
        )
        number = self._manifest.next_number
        written = write_segment(self._connection, self._folder, dataset, number, select)
        kept = [segment for segment in self._manifest.segments if segment.number not in numbers]
        manifest = replace(
            self._manifest,
            segments=(*kept, written) if written else tuple(kept),
            next_number=number + 1,
        )
        self._commit(manifest, merged=numbers)

    def _commit(
        self,
        manifest: Manifest,
        *,
        stored_delta: bool = False,
        merged: frozenset[int] = frozenset(),
    ) -> None:
        """Make a manifest the current one: on disk first, then for readers, all at once."""
        number = manifest.next_number
        counts = dead_counts(self._connection)
        manifest = replace(
            manifest,
            dead_file=write_dead(self._connection, self._folder, number, without=merged),
            dead_rows={segment: rows for segment, rows in counts.items() if segment not in merged},
            next_number=number + 1,
        )
        sync_path(self._folder)
        save_manifest(self._folder, manifest)
        with self._view:
            self._connection.execute("BEGIN")
            if stored_delta:
                clear_delta(self._connection)
                self._fed_rows = 0
            for gone in merged:
                self._connection.execute(f"DELETE FROM dead WHERE segment = {gone}")
            self._connection.execute("COMMIT")
            self._manifest = manifest
        self._remove_superseded()

    def _parts(
        self, manifest: Manifest, dead: Mapping[int, int]
    ) -> dict[str, tuple[SegmentPart, ...]]:
        return {
            dataset: tuple(
                SegmentPart(
                    path=str(self._folder / segment.file),
                    number=segment.number,
                    rows=segment.rows,
                    homes=segment.homes,
                    authors=segment.authors,
                    resident_rows=segment.resident_rows,
                    has_dead=dead.get(segment.number, 0) > 0,
                )
                for segment in manifest.of_dataset(dataset)
            )
            for dataset in COLUMN_TYPES
        }

    def _release(self, manifest: Manifest) -> None:
        with self._view:
            self._open_files.subtract(manifest.files)
            is_current = self._manifest is manifest
        if not is_current:
            self._remove_superseded()

    def _remove_superseded(self) -> None:
        """Remove files that neither the manifest nor an open snapshot names.

        Files numbered from `next_number` on are just being written.
        """
        with self._view:
            open_files = {name for name, users in self._open_files.items() if users > 0}
            needed = self._manifest.files | open_files
            for path in self._folder.glob("*.parquet"):
                if path.name not in needed and file_number(path) < self._manifest.next_number:
                    path.unlink()


def _unreadable(error: Exception) -> ColumnarError:
    return ColumnarError(f"a segment cannot be read: {type(error).__name__}")


def _readable_manifest(
    connection: duckdb.DuckDBPyConnection, folder: Path, source: str
) -> Manifest:
    """The manifest whose files can be read, with its dead rows loaded, or a fresh one."""
    import duckdb

    try:
        manifest = load_manifest(folder)
        if manifest is None:
            return Manifest(source=source)
        if manifest.source != source:
            raise ColumnarError("the columnar replica was fed from another store")
        for segment in manifest.segments:
            _check_footer(connection, folder, segment)
        if manifest.dead_file:
            path = literal(str(folder / manifest.dead_file))
            connection.execute(f"INSERT INTO dead SELECT * FROM read_parquet({path})")
        return manifest
    except (ColumnarError, duckdb.Error) as error:
        _log.warning("the columnar replica is fed again from the beginning: %s", error)
        connection.execute("DELETE FROM dead")
        # A number is never used twice: an old process may still read a file of that name.
        highest = max(map(file_number, folder.glob("*.parquet*")), default=0)
        return Manifest(source=source, next_number=highest + 1)


def _check_footer(connection: duckdb.DuckDBPyConnection, folder: Path, segment: Segment) -> None:
    path = literal(str(folder / segment.file))
    row = connection.execute(f"SELECT num_rows FROM parquet_file_metadata({path})").fetchone()
    if row is None or row[0] != segment.rows:
        raise ColumnarError(f"segment {segment.file} has another number of rows")
