"""The folder of a node that is joining: made under another name, renamed when it is whole.

    DATA.joining/joining.json    for whom it is, and how far it is; written first, removed last
    DATA.joining/keys, certs …   as in any data folder

Keys are made once and kept over every failure: the invitation is bound to them, so that the machine
asks again with the same after a power cut between any two lines. A folder that is not ours is never
touched. Blocks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hierarchy_config.model import NodeId
from node.clock import RandomBytes
from node.errors import SettingsError
from node.guards import folder_locked
from node.joining.errors import JoinFolderError
from node.security.authority import JoinRequest, prepare_node
from node.security.certificates import (
    PrivateKey,
    certificate_request,
    private_key_from_pem,
)
from node.security.folders import NodeFolder
from node.security.key_files import read_secret, write_public
from node.settings import SETTINGS_FILE, load_settings

__all__ = ["Draft", "open_draft"]

_MARK: Final = "joining.json"
_LOCK: Final = "joining.lock"


@dataclass(frozen=True, slots=True)
class _Standing:
    """How far a folder is: whether its keys are whole, whether its store may have been begun."""

    node_id: str
    prepared: bool = False
    store_begun: bool = False


class Draft:
    """A folder in the making. Used inside `open_draft`."""

    def __init__(self, data: Path, path: Path, standing: _Standing) -> None:
        self.path = path
        self._data = data
        self._standing = standing

    @property
    def store_begun(self) -> bool:
        """Whether an earlier try may have begun the store: then what is in it is ours."""
        return self._standing.store_begun

    def requests(self, random_bytes: RandomBytes) -> JoinRequest:
        """Certificate requests of this machine's keys, which are made if they are not whole."""
        node_id = NodeId(self._standing.node_id)
        folder = NodeFolder(self.path)
        if not self._standing.prepared:
            # Whatever is there was cut off before anybody was told of it.
            for rest in (folder.keys, folder.certs):
                if rest.exists():
                    shutil.rmtree(rest)
            prepare_node(self.path, node_id, random_bytes)
            self._note(replace(self._standing, prepared=True))
        return JoinRequest(
            node_id,
            certificate_request(self.tls_key()),
            certificate_request(private_key_from_pem(read_secret(folder.authority_key))),
        )

    def tls_key(self) -> PrivateKey:
        """The key of the node's connections."""
        return private_key_from_pem(read_secret(NodeFolder(self.path).tls.private_key))

    def note_store(self) -> None:
        """Note, before it is begun, that a store may be there."""
        self._note(replace(self._standing, store_begun=True))

    def finish(self) -> None:
        """Make everything durable and give the folder its name. It is whole, or not there."""
        _sync_below(self.path)
        for name in (_LOCK, _MARK):
            (self.path / name).unlink(missing_ok=True)
        _sync(self.path)
        self.path.rename(self._data)
        _sync(self._data.parent)

    def _note(self, standing: _Standing) -> None:
        self._standing = standing
        _write(self.path, standing)


@contextmanager
def open_draft(data: Path, node_id: NodeId) -> Iterator[Draft]:
    """Begin, or go on with, the folder of a node that joins.

    Raises:
        JoinFolderError: `data` is not free, what lies beside it is not ours or another node's, or
            the disk does not take it. Nothing that was there before is changed.
        DataFolderInUseError: Another process is joining into it.
    """
    data = data.absolute()
    try:
        _refuse_taken(data)
        path = data.with_name(f"{data.name}.joining")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(path)
        with folder_locked(path / _LOCK):
            standing = _read(path, node_id)
            _write(path, standing)
            yield Draft(data, path, standing)
    except OSError as error:
        raise JoinFolderError(
            f"{error.filename or data}: {error.strerror}",
            hint="Make room, or name another folder with --data, and run the same command again; "
            "what is made by then is kept.",
        ) from error


def _refuse_taken(data: Path) -> None:
    if not data.exists():
        return
    if not data.is_dir():
        raise JoinFolderError(f"{data} is no folder")
    if (data / SETTINGS_FILE).exists():
        raise JoinFolderError(
            f"{data} holds node {_holder(data)} already",
            hint="If it joined just now it is whole: start it with `fenhe node run`. If not, name "
            "another folder with --data.",
        )
    if any(data.iterdir()):
        raise JoinFolderError(f"{data} is not empty")


def _holder(data: Path) -> str:
    try:
        return load_settings(data).node_id
    except SettingsError:
        return "(its node.yaml cannot be read)"


def _refuse_foreign(path: Path) -> None:
    ours = {_MARK, _LOCK, f".{_MARK}.new"}
    if not (path / _MARK).exists() and any(each.name not in ours for each in path.iterdir()):
        raise JoinFolderError(
            f"{path} is in the way: it is not from a join",
            hint="Move it away, or name another folder with --data.",
        )


def _read(path: Path, node_id: NodeId) -> _Standing:
    mark = path / _MARK
    if not mark.exists():
        return _Standing(node_id)
    try:
        said: Any = json.loads(mark.read_text(encoding="utf-8"))
        standing = _Standing(str(said["node_id"]), said["prepared"] is True, said["store_begun"])
    except (ValueError, KeyError, TypeError):
        raise JoinFolderError(
            f"{mark} cannot be read",
            hint=f"Delete {path} and run the same command again with a new code.",
        ) from None
    if standing.node_id != node_id:
        raise JoinFolderError(
            f"{path} is of a join as {standing.node_id}, and the code is for {node_id}",
            hint="Compare the code, or name another folder with --data.",
        )
    return standing


def _write(path: Path, standing: _Standing) -> None:
    said = {
        "node_id": standing.node_id,
        "prepared": standing.prepared,
        "store_begun": standing.store_begun,
    }
    write_public(path / _MARK, json.dumps(said).encode() + b"\n")


def _sync_below(path: Path) -> None:
    """Make every file and folder below durable; a name that was renamed in must not be empty."""
    for each in (*path.rglob("*"), path):
        _sync(each)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
