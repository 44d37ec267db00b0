"""What a link does with snapshots, by hand: asks part by part, applies, remembers the position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from node.storage.outgoing import PeerAbility
from node.storage.sealing import CellSealer
from node.storage.stored import stored_change
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import StoreState, read_transaction, write_transaction
from replication.core.config import PeerRole
from replication.core.effects import SEED, LogPart
from replication.core.model import Lane, RowChange
from tests.contracts.storage.region import NodeStore, batch_of

__all__ = ["drain", "held", "parts", "prune_all", "recover", "take"]

LANES = (Lane.IDENTITY, Lane.BULK)


def roles(sender: NodeStore, receiver: NodeStore) -> tuple[PeerRole, PeerRole]:
    """What the receiver is to the sender, and the sender to the receiver."""
    up = sender.tree.parent(sender.node_id) == receiver.node_id
    return (PeerRole.PARENT, PeerRole.CHILD) if up else (PeerRole.CHILD, PeerRole.PARENT)


def parts(
    sender: NodeStore,
    receiver: NodeStore,
    lane: Lane,
    *,
    seed: bool = False,
    bytes_max: int = 1 << 20,
    protocol: int = 2,
) -> Iterator[LogPart]:
    """What the sender's link would send from the receiver's cursor on, one part after the other.

    `seed`: the receiver's Hello wants a snapshot. Each part is to be taken before the next.
    """
    to, _ = roles(sender, receiver)
    cursor = receiver.cursor(sender.node_id, lane)
    under_way, scanned = cursor.position, cursor.covers_to
    asked = under_way or (SEED if seed else "")
    while asked or scanned < sender.durable_head():
        part = sender.storage.outgoing_part(
            receiver.node_id,
            to,
            lane,
            scanned,
            bytes_max,
            position=asked,
            ability=PeerAbility(protocol),
        )
        told = bool(part.entries) or (under_way == "") != (part.position == "")
        asked = under_way = part.position
        scanned = part.scanned_to
        if told:
            yield part


def take(sender: NodeStore, receiver: NodeStore, lane: Lane, part: LogPart) -> None:
    """Apply a part as the next batch of the stream."""
    _, frm = roles(sender, receiver)
    cursor = receiver.cursor(sender.node_id, lane)
    batch, after = batch_of(cursor, part.entries, part.scanned_to)
    receiver.storage.apply_batch(
        sender.node_id,
        frm,
        replace(batch, position=part.position, coalesced=part.coalesced),
        replace(after, position=part.position),
    )


def drain(
    sender: NodeStore,
    receiver: NodeStore,
    *,
    lanes: tuple[Lane, ...] = LANES,
    seed: bool = False,
    bytes_max: int = 1 << 20,
) -> list[LogPart]:
    """Send and take everything; the parts that went."""
    gone: list[LogPart] = []
    for lane in lanes:
        for part in parts(sender, receiver, lane, seed=seed, bytes_max=bytes_max):
            take(sender, receiver, lane, part)
            gone.append(part)
    return gone


def held(node: NodeStore) -> dict[tuple[str, str], RowChange]:
    """Every row of the tables, tombstones included, as the change that made it."""
    found: dict[tuple[str, str], RowChange] = {}
    cells = CellSealer(node.node_id, node.keys)
    with read_transaction(node.engine) as connection:
        for name, table in REPLICATED.items():
            for row in connection.execute(table.select()).mappings():
                found[name, row["row_id"]] = stored_change(cells, name, row)
    return found


def prune_all(node: NodeStore) -> int:
    """Delete the whole log; its last number."""
    head = node.durable_head()
    with write_transaction(node.engine) as connection:
        node.log.prune(connection, head)
    return head


def recover(node: NodeStore) -> None:
    """Let the node be one that has lost its store."""
    with write_transaction(node.engine) as connection:
        StoreState(CHANGELOG).save(connection, "recovering", "1")
        node.storage.recovery.load(connection)
