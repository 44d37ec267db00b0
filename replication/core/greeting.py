"""The Hello of a node, and whether a peer's Hello fits.

Owns who may talk to whom over a link: protocol versions, identity, store epochs. Identity by
certificate is checked before a LinkEnd exists; here only what both sides claim in words.
"""

from __future__ import annotations

from typing import Final

from replication.core.config import LinkConfig
from replication.core.model import (
    PROTOCOL_MIN,
    SCHEMA_VERSION,
    Cursor,
    Hello,
    Lane,
    Refusal,
)

__all__ = ["RECOVERING", "hello_of", "refusal_of", "seed_feature"]

RECOVERING: Final = "recovering"
"""Feature of a node that gets back what it lost: it takes rows it wrote itself from neighbours."""

_RESTORE_HINT = (
    "Start that node from its newest store. Only a backup under a new store epoch may take its"
    " place: stop it, run `fenhe node new-epoch --above EPOCH` with the epoch named, start it."
    " A node that was lost is made anew with `fenhe node init --rebuild`."
)


def seed_feature(lane: Lane) -> str:
    """Feature of a recovering node that has not had this peer's snapshot of a lane yet."""
    return f"seed:{lane.value}"


def hello_of(config: LinkConfig, cursors: tuple[Cursor, ...]) -> Hello:
    """The first frame of this end."""
    return Hello(
        node_id=config.node_id,
        protocol_min=PROTOCOL_MIN,
        protocol_max=config.protocol_max,
        schema=SCHEMA_VERSION,
        store_epoch=config.store_epoch,
        store_incarnation=config.store_incarnation,
        peer_store_epoch_seen=config.peer_store_epoch_seen,
        config_epoch=config.config_epoch,
        cursors=cursors,
        features=config.features,
        clock_ms=config.clock_ms,
        signing_certificate=config.signing_certificate,
    )


def refusal_of(config: LinkConfig, hello: Hello) -> Refusal | None:
    """Why this peer cannot be talked to; None if it can."""
    if hello.node_id != config.peer_id:
        return Refusal(
            "WRONG_PEER",
            f"expected node {config.peer_id}, the peer says it is {hello.node_id}",
            "Compare parent and endpoint in the region file with the node that answers there.",
        )
    if hello.protocol_max < PROTOCOL_MIN:
        return Refusal(
            "PROTOCOL_TOO_OLD",
            f"the peer speaks link protocol up to {hello.protocol_max}, needed is {PROTOCOL_MIN}",
            f"Upgrade node {hello.node_id}.",
        )
    if hello.protocol_min > config.protocol_max:
        return Refusal(
            "PROTOCOL_TOO_NEW",
            f"the peer needs link protocol {hello.protocol_min},"
            f" known here is {config.protocol_max}",
            f"Upgrade node {config.node_id}.",
        )
    return _reused_epoch(config, hello)


def _reused_epoch(config: LinkConfig, hello: Hello) -> Refusal | None:
    seen = config.peer_store_epoch_seen
    if hello.store_epoch < max(seen, 1):
        reason = f"node {hello.node_id} is at store epoch {hello.store_epoch}, was at {seen}"
    elif hello.store_epoch == seen and hello.store_incarnation != config.peer_incarnation_seen:
        reason = f"two lives of node {hello.node_id}'s store claim store epoch {seen}"
    elif hello.peer_store_epoch_seen > config.store_epoch:
        reason = (
            f"node {hello.node_id} has seen store epoch {hello.peer_store_epoch_seen} of"
            f" {config.node_id}, which is at {config.store_epoch}"
        )
    else:
        return None
    return Refusal("STORE_EPOCH_REUSED", reason, _RESTORE_HINT)
