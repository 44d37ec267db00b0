"""Letters to nodes that are not neighbours: sealed, pending at the author until the receipt.

Owns the outbox, what came and was answered, and the bytes of a letter. Promises that a letter is
written exactly if its transaction is, takes effect once at its addressee, and is read by nobody in
between unless it is an open one. Knows no table of records: what a letter does is its kind's
handler's affair.
"""

from node.transit.keys import FolderKeys, KeyRing, NodeVerifier, OwnKey
from node.transit.model import Letter, Proof, SentLetter, Subject
from node.transit.post import Post
from node.transit.tables import TransitTables, define_transit

__all__ = [
    "FolderKeys",
    "KeyRing",
    "Letter",
    "NodeVerifier",
    "OwnKey",
    "Post",
    "Proof",
    "SentLetter",
    "Subject",
    "TransitTables",
    "define_transit",
]
