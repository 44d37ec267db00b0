"""How a county that joins gets the pseudonym key that all counties share and the city must not see.

The city asks a county that has it, over its link, with the new county's certificate. That county
verifies the certificate up to the region's root, and answers with the key sealed to it and signed:
a letter of node/transit, which the city carries without being able to open it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId
from node.clock import Clock, Ids, format_ms
from node.errors import NodeError
from node.joining.errors import JoinAnswerError
from node.security.caller import Caller, CallerKind
from node.security.folders import NodeFolder
from node.security.key_files import load_key
from node.security.suites import KEY_BYTES
from node.storage.audit import Action, Auditor, Deed, Outcome
from node.storage.transactions import Transactions
from node.transit.envelope import Header, opened, prove, read_envelope, write_sealed
from node.transit.keys import FolderKeys, NodeVerifier, OwnKey
from node.transit.model import CODEC_SEALED
from replication.channel import AskRefusedError
from replication.core.model import Lane, Request

__all__ = ["LEND", "Lender", "open_lent_key", "question"]

LEND: Final = "joining.pseudonym"
_KIND: Final = "joining.pseudonym"
_BODY_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Lender:
    """A county's end of the question. Blocks."""

    data: Path
    node_id: NodeId
    hierarchy: Hierarchy
    transactions: Transactions
    auditor: Auditor
    clock: Clock
    utc: Callable[[], datetime]
    ids: Ids

    def lend(self, asker: NodeId, request: Request) -> bytes:
        """The key, sealed to the county that the parent names.

        Raises:
            AskRefusedError: There is no key here, or it is not for whom it is asked.
        """
        folder = NodeFolder(self.data)
        if not folder.pseudonym_key.exists():
            raise AskRefusedError("JOIN_PSEUDONYM", f"{self.node_id} has no pseudonym key")
        child, chain = _asked(request.body)
        entry = self.hierarchy.nodes.get(child)
        if entry is None or entry.level is not CareLevel.COUNTY or entry.parent != asker:
            raise AskRefusedError("JOIN_PSEUDONYM", "only a county of this city gets the key")
        verifier = NodeVerifier(folder.tls.root.read_bytes, self.hierarchy, self.utc)
        try:
            to = verifier.verify(chain, child).public_key
        except NodeError as error:
            raise AskRefusedError("JOIN_PSEUDONYM", error.message) from None
        # Audited before it leaves: without the entry the key stays.
        caller = Caller(CallerKind.NODE, self.hierarchy.spiffe_id(asker), asker, LEND, frozenset())
        deed = Deed(Action.LEND, "keys", Outcome.DONE, 1, object_id=child)
        self.transactions.write(lambda connection: self.auditor.write(connection, caller, deed))
        header = Header(
            self.ids.mint(),
            self.node_id,
            child,
            _KIND,
            Lane.CONTROL.value,
            format_ms(self.clock.now_ms()),
            0,
        )
        return write_sealed(
            header, load_key(folder.pseudonym_key), FolderKeys(folder.tls).own(), to
        )


def open_lent_key(
    letter: bytes, own: OwnKey, node_id: NodeId, verifier: NodeVerifier, hierarchy: Hierarchy
) -> bytes:
    """The pseudonym key that another county has sealed to this one, 32 bytes.

    Raises:
        JoinAnswerError: It is not from a county, not for this node, or not a key.
    """
    try:
        envelope = read_envelope(CODEC_SEALED, letter)
        prove(envelope, verifier)
        key = opened(envelope, own).body
    except NodeError as error:
        raise JoinAnswerError(f"the pseudonym key cannot be used: {error.message}") from None
    header = envelope.header
    sender = hierarchy.nodes.get(NodeId(header.sender))
    is_county = sender is not None and sender.level is CareLevel.COUNTY
    if not is_county or header.to != node_id or header.kind != _KIND or len(key) != KEY_BYTES:
        raise JoinAnswerError("the pseudonym key is not from a county, or not for this node")
    return key


def question(child: NodeId, chain: str) -> bytes:
    """What the city asks a county."""
    return json.dumps({"node_id": child, "chain": chain}, separators=(",", ":")).encode()


def _asked(body: bytes) -> tuple[NodeId, bytes]:
    try:
        said = json.loads(body[:_BODY_MAX])
        return NodeId(str(said["node_id"])), str(said["chain"]).encode("ascii")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AskRefusedError("INVALID_REQUEST", "a question for the key is not whole") from None
