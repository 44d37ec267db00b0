"""Where backups lie: a folder, or an object store that fsspec knows.

On a folder what was written is durable when a call returns. An object store answers for its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from node.backup.errors import BackupMissingError, BackupPlaceError

__all__ = ["Place", "open_place"]

_FOLDER_MODE: Final = 0o700


class Place:
    """Files by relative name under one root. Every method blocks on the store."""

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self._is_local = isinstance(files, LocalFileSystem)

    @property
    def name(self) -> str:
        """As people write it."""
        return str(self._files.unstrip_protocol(self._root)) if not self._is_local else self._root

    def folders(self, under: str) -> list[str]:
        """Names of the folders below `under`; empty if it is not there."""
        return [name for name, kind in self._listed(under) if kind == "directory"]

    def files(self, under: str) -> list[str]:
        """Names of the files directly below `under`; empty if it is not there."""
        return [name for name, kind in self._listed(under) if kind != "directory"]

    def read(self, name: str) -> bytes:
        """A file. Raises BackupMissingError, BackupPlaceError."""
        with _faults(self.name):
            try:
                data: bytes = self._files.cat_file(self._path(name))
            except FileNotFoundError:
                raise BackupMissingError(f"{name} is not at {self.name}") from None
            return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all under its name.

        An object store does so by itself; another file system may leave a part, which is why
        whatever is read is verified.
        """
        with _faults(self.name):
            if self._is_local:
                _write_durably(Path(self._path(name)), data)
                return
            self._files.makedirs(self._path(name.rpartition("/")[0]), exist_ok=True)
            self._files.pipe_file(self._path(name), data)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; one that is not there is removed."""
        with _faults(self.name):
            try:
                self._files.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

    def _listed(self, under: str) -> list[tuple[str, str]]:
        with _faults(self.name):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path(under), detail=True)
            except FileNotFoundError:
                return []
        return sorted(
            (str(each["name"]).rstrip("/").rpartition("/")[2], str(each["type"])) for each in found
        )

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def open_place(address: str) -> Place:
    """The place at a folder's path or a URL such as s3://bucket/folder. Nothing is made yet.

    Raises:
        BackupPlaceError: fsspec does not know the kind, or its package is not installed.
    """
    with _faults(address):
        files, root = fsspec.core.url_to_fs(address)
    return Place(files, str(root))


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """Turn what a file system raises into one error. Their texts hold paths, no data."""
    try:
        yield
    except (BackupMissingError, BackupPlaceError):
        raise
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise BackupPlaceError(f"{name}: {type(error).__name__}: {error}") from error


def _write_durably(path: Path, data: bytes) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        _sync_folder(path.parent.parent)
    waiting = path.with_name(f".{path.name}.new")
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
