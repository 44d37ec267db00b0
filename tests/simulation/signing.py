"""Receipts signed and verified as the driver does it; a node's name stands for its key."""

from __future__ import annotations

import hashlib

from replication.core.hashing import receipt_bytes
from replication.core.model import Cursor, Receipt

__all__ = ["is_signed", "signed"]


def signed(node: str, peer: str, cursor: Cursor) -> tuple[bytes, str]:
    """A receipt's signature; the node's name stands for its key."""
    said = receipt_bytes(cursor, peer, node)
    return hashlib.blake2b(said, key=node.encode(), digest_size=8).digest(), node


def is_signed(node: str, peer: str, receipt: Receipt) -> bool:
    """Whether the peer signed that it holds what this node sent."""
    said = receipt_bytes(receipt.cursor, node, peer)
    want = hashlib.blake2b(said, key=peer.encode(), digest_size=8).digest()
    return receipt.signature == want
