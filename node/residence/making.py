"""Makes the residence of a data folder."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from hierarchy_config.hierarchy import Hierarchy
from node.clock import Clock, Ids
from node.residence.former import FormerHierarchies
from node.residence.residence import Residence, ResidenceSealers
from node.residence.seal import KeyedSeal
from node.security.folders import NodeFolder
from node.security.identity import KeyJudge
from node.security.sealing import DataKeys
from node.storage import Storage
from node.storage.tables import RESIDENCE
from node.transit import FolderKeys, NodeVerifier

__all__ = ["residence_of"]


def residence_of(
    folder: NodeFolder,
    storage: Storage,
    hierarchy: Hierarchy,
    *,
    keys: DataKeys,
    clock: Clock,
    revoked: KeyJudge | None = None,
) -> Residence:
    """A residence that signs with the node's own key; it is read when it is first needed."""

    def now() -> datetime:
        return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)

    verifier = NodeVerifier(folder.tls.root.read_bytes, hierarchy, now, revoked)
    return Residence(
        storage.context,
        RESIDENCE,
        seal=KeyedSeal(FolderKeys(folder.tls), verifier),
        sealers=ResidenceSealers(keys.of(RESIDENCE.proposals.name), keys.of(RESIDENCE.pieces.name)),
        ids=Ids(clock, os.urandom),
        former=FormerHierarchies(clock.now_ms),
    )
