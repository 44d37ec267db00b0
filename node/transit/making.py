"""Makes the Post of a data folder."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock, Ids
from node.security.folders import NodeFolder
from node.security.identity import KeyJudge
from node.storage.tables import TRANSIT
from node.transit.keys import FolderKeys, NodeVerifier
from node.transit.outbox import BodySealer
from node.transit.post import Post
from replication.changelog import ChangeLog

__all__ = ["post_of"]


def post_of(
    folder: NodeFolder,
    node_id: NodeId,
    hierarchy: Hierarchy,
    *,
    changelog: ChangeLog,
    sealer: BodySealer,
    clock: Clock,
    revoked: KeyJudge | None = None,
) -> Post:
    """A Post with the node's own key and root; both are read when they are first needed."""

    def now() -> datetime:
        return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)

    return Post(
        TRANSIT,
        node_id=node_id,
        hierarchy=hierarchy,
        changelog=changelog,
        sealer=sealer,
        clock=clock,
        ids=Ids(clock, os.urandom),
        keys=FolderKeys(folder.tls),
        verifier=NodeVerifier(folder.tls.root.read_bytes, hierarchy, now, revoked),
    )
