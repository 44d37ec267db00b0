"""The Hello of a node, and whether a peer's Hello fits.

Owns who may talk to whom over a link: protocol and schema versions, identity, store epochs.
Identity by certificate is checked before a LinkEnd exists; here only what both sides claim in
words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from replication.core.config import LinkConfig
from replication.core.model import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    SCHEMA_MIN,
    SCHEMA_VERSION,
    Cursor,
    Hello,
    Lane,
    Refusal,
)

__all__ = [
    "OWN_VERSIONS",
    "RECOVERING",
    "Versions",
    "hello_of",
    "refusal_of",
    "seed_feature",
    "versions_of",
]

RECOVERING: Final = "recovering"
"""Feature of a node that gets back what it lost: it takes rows it wrote itself from neighbours."""

_RESTORE_HINT = (
    "Start that node from its newest store. Only a backup under a new store epoch may take its"
    " place: stop it, run `fenhe node new-epoch --above EPOCH` with the epoch named, start it."
    " A node that was lost is made anew with `fenhe node init --rebuild`."
)


@dataclass(frozen=True, slots=True)
class Versions:
    """The link protocols that a node speaks and the table schemas it can link with."""

    protocol_min: int
    protocol_max: int
    schema_min: int
    schema_max: int


OWN_VERSIONS: Final = Versions(PROTOCOL_MIN, PROTOCOL_MAX, SCHEMA_MIN, SCHEMA_VERSION)
"""This release's."""


def versions_of(hello: Hello) -> Versions:
    """What a Hello says of its node's release."""
    return Versions(hello.protocol_min, hello.protocol_max, hello.schema_min, hello.schema)


def seed_feature(lane: Lane) -> str:
    """Feature of a recovering node that has not had this peer's snapshot of a lane yet."""
    return f"seed:{lane.value}"


def hello_of(config: LinkConfig, cursors: tuple[Cursor, ...]) -> Hello:
    """The first frame of this end."""
    return Hello(
        node_id=config.node_id,
        protocol_min=PROTOCOL_MIN,
        protocol_max=config.protocol_max,
        schema=config.schema,
        store_epoch=config.store_epoch,
        store_incarnation=config.store_incarnation,
        peer_store_epoch_seen=config.peer_store_epoch_seen,
        config_epoch=config.config_epoch,
        cursors=cursors,
        features=config.features,
        clock_ms=config.clock_ms,
        signing_certificate=config.signing_certificate,
        schema_min=config.schema_min,
    )


def refusal_of(config: LinkConfig, hello: Hello) -> Refusal | None:
    """Why this peer cannot be talked to; None if it can."""
    if hello.node_id != config.peer_id:
        return Refusal(
            "WRONG_PEER",
            f"expected node {config.peer_id}, the peer says it is {hello.node_id}",
            "Compare parent and endpoint in the region file with the node that answers there.",
        )
    return _too_far_apart(config, hello) or _reused_epoch(config, hello)


def _too_far_apart(config: LinkConfig, hello: Hello) -> Refusal | None:
    """Releases without a protocol or a schema in common."""
    here, peer = config.node_id, hello.node_id
    if hello.protocol_max < PROTOCOL_MIN:
        has = f"link protocol up to {hello.protocol_max}"
        return _refuse("PROTOCOL_TOO_OLD", peer, has, here, PROTOCOL_MIN)
    if hello.protocol_min > config.protocol_max:
        has = f"link protocol up to {config.protocol_max}"
        return _refuse("PROTOCOL_TOO_NEW", here, has, peer, hello.protocol_min)
    if hello.schema < config.schema_min:
        has = f"table schema {hello.schema}"
        return _refuse("SCHEMA_TOO_OLD", peer, has, here, config.schema_min)
    if hello.schema_min > config.schema:
        has = f"table schema {config.schema}"
        return _refuse("SCHEMA_TOO_NEW", here, has, peer, hello.schema_min)
    return None


def _refuse(code: str, older: str, has: str, newer: str, needs: int) -> Refusal:
    """The same words at both ends: they name the nodes, and which of them is behind."""
    reason = f"node {older} has {has}, node {newer} needs at least {needs}"
    return Refusal(code, reason, f"Upgrade node {older}.")


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
