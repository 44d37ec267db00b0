"""Opens a node's data keys at its start: the first start makes them, a later one may add some."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId
from node.clock import Clock, RandomBytes
from node.errors import SettingsError
from node.keys.errors import KeyMisplacedError
from node.keys.node_key import settled_node_key
from node.keys.places import PURPOSES
from node.keys.service import KeyService
from node.security.folders import NodeFolder
from node.security.sealing import GENERAL, DataKeys, new_data_key
from node.security.suites import Suite
from node.storage.data_keys import KeyState, StoredKeys, wrapped_of
from node.storage.model import DataKey

__all__ = ["keys_of", "open_data_keys", "refuse_misplaced"]


def open_data_keys(
    engine: Engine,
    folder: NodeFolder,
    node_id: NodeId,
    suite: Suite,
    service: KeyService | None,
    *,
    clock: Clock,
    random_bytes: RandomBytes = os.urandom,
) -> DataKeys:
    """The node's data keys, one of its own for each table with something sealed.

    A store of an earlier release has one key for all. It goes on opening what it sealed, and
    sealing what has no key of its own; tables get theirs from now on.

    Raises:
        SettingsError: node.yaml names another suite than the store was made with.
        KeyFileError, KeyServiceError: The node's key cannot be read.
        SealBrokenError: It is not the one the data keys were wrapped with.
    """
    stored = StoredKeys(engine, clock)
    held = stored.load()
    node_key = settled_node_key(folder, node_id, wrapped_of(held), service)
    current = {key.purpose: key for key in held if key.state == KeyState.CURRENT}
    if GENERAL in current and current[GENERAL].suite != suite:
        # Under the other keyed hash no identifier that is stored would be found again.
        made_with = current[GENERAL].suite
        raise SettingsError(
            f"node.yaml names the suite {suite}, the store was made with {made_with}",
            hint=f"Set suite: {made_with} in node.yaml; it holds for the life of a store.",
        )
    missing = [each for each in (GENERAL, *PURPOSES) if each not in current]
    if missing:
        made = [new_data_key(node_id, node_key, random_bytes, suite, each) for each in missing]
        stored.add_current(*made)
        held = stored.load()
    return keys_of(node_id, node_key, held, random_bytes)


def keys_of(
    node_id: str, node_key: bytes, held: Sequence[DataKey], random_bytes: RandomBytes
) -> DataKeys:
    """Stored keys, unwrapped. Raises as DataKeys does."""
    current = {key.purpose: key.key_id for key in held if key.state == KeyState.CURRENT}
    return DataKeys(node_id, node_key, wrapped_of(held), current=current, random_bytes=random_bytes)


def refuse_misplaced(folder: NodeFolder, hierarchy: Hierarchy, node_id: NodeId) -> None:
    """Refuse keys that stand for more than this node: whoever holds one can try every number.

    Raises:
        KeyMisplacedError: A regional index key below a county, or a pseudonym key anywhere but at a
            county: the city would join its index to its de-identified records.
    """
    entry = hierarchy.entry(node_id)
    for path, allowed in _shared_keys(folder, entry.level, is_root=entry.parent is None):
        if path.exists() and not allowed:
            raise KeyMisplacedError(
                f"{path} must not be at a {entry.level.value}: the node does not start with it"
            )


def _shared_keys(
    folder: NodeFolder, level: CareLevel, *, is_root: bool
) -> tuple[tuple[Path, bool], ...]:
    # A root of whatever level makes the regional key, for it may get counties below it.
    has_regional = is_root or level in {CareLevel.CITY, CareLevel.COUNTY}
    return (
        (folder.regional_index_key, has_regional),
        (folder.pseudonym_key, level is CareLevel.COUNTY),
    )
