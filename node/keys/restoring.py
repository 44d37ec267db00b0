"""Opens a store whose node key is lost, with the keys that came out of escrow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from node.clock import Clock
from node.guards import folder_locked
from node.keys.errors import EscrowInvalidError, KeyServiceError, RecoveryFileError
from node.keys.escrow import parse_keys
from node.keys.node_key import exchange, find_node_key, wrapped_anew
from node.keys.service import KeyService, service_of
from node.opening import database_url
from node.security.errors import KeyFileError, SealBrokenError
from node.security.folders import NodeFolder
from node.security.key_files import read_secret
from node.security.sealing import WrappedKey
from node.settings import NodePaths, load_settings
from node.storage import EngineLimits, migrate, open_engine
from node.storage.data_keys import StoredKeys, wrapped_of
from node.storage.transactions import Transactions

__all__ = ["restore_keys"]

_CONNECTIONS: Final = 2


def restore_keys(data_dir: Path, file: Path, clock: Clock) -> int:
    """Wrap the recovered data keys under a new node key; how many. The node must not run.

    A death at any line leaves the same to be done again.

    Raises:
        RecoveryFileError: The file is not for this store, or lacks one of its keys; or the store
            opens as it is.
        KeyServiceError: node.yaml names a key service that does not answer.
        DataFolderInUseError: The node runs.
    """
    settings = load_settings(data_dir)
    folder, node_id = NodeFolder(data_dir), settings.node_id
    service = service_of(settings.key_command)
    with folder_locked(NodePaths(data_dir).lock):
        engine = open_engine(
            database_url(settings.database, data_dir), EngineLimits(connections=_CONNECTIONS)
        )
        try:
            migrate(engine)
            stored = StoredKeys(engine, clock)
            return _restored(folder, node_id, stored, Transactions(engine), service, file)
        finally:
            engine.dispose()


def _restored(
    folder: NodeFolder,
    node_id: str,
    stored: StoredKeys,
    transactions: Transactions,
    service: KeyService | None,
    file: Path,
) -> int:
    held = wrapped_of(stored.load())
    try:
        clear = parse_keys(read_secret(file), node_id)
    except EscrowInvalidError as error:
        raise RecoveryFileError(f"{file}: {error.message}") from None
    missing = [key.key_id for key in held if key.key_id not in clear]
    if missing or not held:
        raise RecoveryFileError(
            f"{file} lacks {len(missing)} of the {len(held)} data keys of this store"
        )
    _refuse_open(folder, node_id, held, service)

    def store(new: bytes) -> None:
        made = wrapped_anew(node_id, held, lambda key: clear[key.key_id], new, os.urandom)
        transactions.write(lambda connection: stored.rewrap(connection, made))

    try:
        exchange(folder, service, os.urandom, store)
    except OSError as error:
        raise KeyFileError(
            f"keys/ cannot be written: {error.strerror}",
            hint="Free space on its disk and run the same command again.",
        ) from error
    return len(held)


def _refuse_open(
    folder: NodeFolder, node_id: str, held: Sequence[WrappedKey], service: KeyService | None
) -> None:
    try:
        find_node_key(folder, node_id, held, service)
    except (KeyFileError, SealBrokenError):
        return
    except KeyServiceError:
        # Its file would be written over. Without a service named, it is gone for good.
        if service is not None:
            raise
        return
    raise RecoveryFileError(
        "the store opens with the node key that is here; nothing was changed",
        hint="Start the node. To wrap anew, run `fenhe keys rotate --node` then.",
    )
