"""Escrow: a node's data keys, sealed to the node above, for the day its own key is lost.

Only as far as policy copies in full: there the parent holds the same rows anyway. What is deposited
is a letter of node/transit, signed by the child and sealed to the key in the parent's certificate.
It is kept as it came, and opened in a recovery (recovery.py).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, select

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CopyForm, NodeId
from node.clock import Clock, Ids, format_ms
from node.keys.errors import EscrowInvalidError
from node.security.caller import Caller, CallerKind
from node.security.sealing import WrappedKey
from node.security.suites import KEY_BYTES
from node.storage.audit import Action, Auditor, Deed, Outcome
from node.storage.specs import TABLES
from node.storage.tables import CHANGELOG, KEYS
from node.storage.transactions import Transactions
from node.transit.envelope import Envelope, Header, opened, prove, read_envelope, write_sealed
from node.transit.keys import KeyRing, NodeVerifier, key_name
from node.transit.model import CODEC_SEALED
from replication.changelog import StoreState
from replication.changelog.dialects import upsert
from replication.core.model import Lane

__all__ = [
    "Deposit",
    "Deposits",
    "EscrowMark",
    "HeldEscrow",
    "body_of",
    "goes_to_parent",
    "key_set_of",
    "node_caller",
    "parse_body",
    "parse_keys",
]

RENEWED_MS: Final = 30 * 86_400_000
"""A deposit is made again after so long, whatever it holds: the parent may have lost it."""
_KIND: Final = "keys.escrow"
_MARK: Final = "key_escrow"
_LETTER_MAX: Final = 1 << 20
_T = KEYS.escrow


def goes_to_parent(hierarchy: Hierarchy, node_id: NodeId) -> bool:
    """Whether a node's keys are deposited above: it sends everything there in full."""
    if hierarchy.parent(node_id) is None:
        return False
    return all(hierarchy.copy_forms(node_id, table) == (CopyForm.FULL,) for table in TABLES)


def key_set_of(key_ids: Iterable[str]) -> str:
    """A name for a set of keys, 64 hexadecimal digits; the ids are no secret."""
    return hashlib.sha256("|".join(sorted(key_ids)).encode()).hexdigest()


def parse_keys(raw: bytes, node_id: str) -> dict[str, bytes]:
    """Clear data keys by id, of what a deposit or a recovery file holds.

    Raises:
        EscrowInvalidError: It is not whole, or another node's.
    """
    try:
        said = json.loads(raw)
        owner = said["node_id"]
        keys = {str(each["key_id"]): base64.b64decode(each["key"]) for each in said["keys"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EscrowInvalidError("the keys in escrow cannot be read") from None
    if owner != node_id or any(len(key) != KEY_BYTES for key in keys.values()):
        raise EscrowInvalidError("the keys in escrow are another node's, or no keys")
    return keys


@dataclass(frozen=True, slots=True)
class EscrowMark:
    """What this node last deposited, and where. Kept in store_state."""

    parent: str
    sealed_to: str
    key_set: str
    at_ms: int

    @classmethod
    def load(cls, connection: Connection) -> EscrowMark | None:
        """None: nothing was deposited yet."""
        text = StoreState(CHANGELOG).load(connection).get(_MARK)
        if text is None:
            return None
        parent, sealed_to, key_set, at_ms = text.split("|")
        return cls(parent, sealed_to, key_set, int(at_ms))

    def save(self, connection: Connection) -> None:
        """Remember it, once the parent has said that it holds it."""
        text = f"{self.parent}|{self.sealed_to}|{self.key_set}|{self.at_ms}"
        StoreState(CHANGELOG).save(connection, _MARK, text)

    def is_fresh(self, wanted: EscrowMark) -> bool:
        """Whether nothing is to be deposited. A clock that went back makes nothing stale."""
        same = (self.parent, self.sealed_to, self.key_set)
        return same == (wanted.parent, wanted.sealed_to, wanted.key_set) and (
            wanted.at_ms - self.at_ms < RENEWED_MS
        )


@dataclass(frozen=True, slots=True)
class Deposit:
    """The child's end: makes the letter."""

    node_id: NodeId
    own: KeyRing
    verifier: NodeVerifier
    clock: Clock
    ids: Ids

    def recipient(self, chain: bytes, parent: NodeId) -> str:
        """The name of the key in the parent's chain.

        Raises:
            SignatureInvalidError, PeerIdentityError: It is not the parent's.
        """
        return key_name(self.verifier.verify(chain, parent).public_key)

    def letter(
        self,
        chain: bytes,
        parent: NodeId,
        held: Sequence[WrappedKey],
        clear_of: Callable[[WrappedKey], bytes],
    ) -> bytes:
        """All data keys, sealed to the parent whose chain this is."""
        to = self.verifier.verify(chain, parent).public_key
        keys = [
            {
                "key_id": each.key_id,
                "purpose": each.purpose,
                "suite": each.suite,
                "key": base64.b64encode(clear_of(each)).decode(),
            }
            for each in held
        ]
        at = format_ms(self.clock.now_ms())
        clear = json.dumps({"node_id": self.node_id, "at": at, "keys": keys}).encode()
        header = Header(self.ids.mint(), self.node_id, parent, _KIND, Lane.CONTROL.value, at, 0)
        return write_sealed(header, clear, self.own.own(), to)


@dataclass(frozen=True, slots=True)
class HeldEscrow:
    """What this node holds for a child. `letter` is sealed."""

    node_id: NodeId
    letter: bytes
    key_set: str
    sealed_to: str
    received_ms: int


@dataclass(frozen=True, slots=True)
class Deposits:
    """The parent's end: keeps letters, one a child. Blocks."""

    node_id: NodeId
    hierarchy: Hierarchy
    own: KeyRing
    verifier: NodeVerifier
    transactions: Transactions
    auditor: Auditor
    clock: Clock

    def take(self, child: NodeId, letter: bytes, key_set: str) -> None:
        """Keep a child's newest deposit, durably and audited.

        Raises:
            EscrowInvalidError: It is not from this child, not for this node, or not for its key.
        """
        if not self.admits(child):
            raise EscrowInvalidError(f"{child} does not copy everything in full to this node")
        envelope = self._proven(child, letter)
        row = {
            "node_id": child,
            "letter": letter,
            "key_set": key_set[:64],
            "sealed_to": envelope.header.key,
            "received_at": self.clock.now_ms(),
        }
        caller = node_caller(self.hierarchy, child)
        deed = Deed(Action.DEPOSIT, "key_escrow", Outcome.DONE, 1, object_id=child)

        def write(connection: Connection) -> None:
            upsert(connection, _T, [row], ["letter", "key_set", "sealed_to", "received_at"])
            self.auditor.write(connection, caller, deed)

        self.transactions.write(write)

    def admits(self, child: NodeId) -> bool:
        """Whether a node's keys may lie here."""
        is_child = child in self.hierarchy and self.hierarchy.parent(child) == self.node_id
        return is_child and goes_to_parent(self.hierarchy, child)

    def opened(self, held: HeldEscrow) -> bytes:
        """The keys, as JSON. Only a recovery that two operators approved asks for them.

        Raises:
            EscrowInvalidError: It is sealed to a key that this node no longer has, or damaged.
        """
        try:
            letter = opened(self._proven(held.node_id, held.letter), self.own.own())
        except FenheError as error:
            raise EscrowInvalidError(f"the keys of {held.node_id}: {error.message}") from None
        body = letter.body or b""
        parse_keys(body, held.node_id)
        return body

    def get(self, connection: Connection, child: str) -> HeldEscrow | None:
        """What is held for a child."""
        row = connection.execute(select(_T).where(_T.c.node_id == child)).first()
        return None if row is None else _held(row)

    def all(self) -> list[HeldEscrow]:
        """Everything that is held, by node."""
        query = select(_T).order_by(_T.c.node_id)
        return self.transactions.read(lambda c: [_held(row) for row in c.execute(query)])

    def drop_strangers(self) -> int:
        """Delete what may not lie here any more: of nodes that moved, or send less now."""
        strangers = [each.node_id for each in self.all() if not self.admits(each.node_id)]
        if strangers:
            gone = delete(_T).where(_T.c.node_id.in_(strangers))
            self.transactions.write(lambda connection: connection.execute(gone))
        return len(strangers)

    def _proven(self, child: NodeId, letter: bytes) -> Envelope:
        if len(letter) > _LETTER_MAX:
            raise EscrowInvalidError("a deposit is larger than keys can be")
        try:
            envelope = read_envelope(CODEC_SEALED, letter)
            prove(envelope, self.verifier)
        except FenheError as error:
            raise EscrowInvalidError(f"a deposit is not proven: {error.message}") from None
        said = envelope.header
        if (said.sender, said.to, said.kind) != (child, self.node_id, _KIND):
            raise EscrowInvalidError("a deposit is not this child's, or not for this node")
        return envelope


def node_caller(hierarchy: Hierarchy, node_id: NodeId) -> Caller:
    """A neighbour, as the audit names it."""
    return Caller(CallerKind.NODE, hierarchy.spiffe_id(node_id), node_id, _KIND, frozenset())


def _held(row: Row[Any]) -> HeldEscrow:
    return HeldEscrow(
        NodeId(row.node_id), bytes(row.letter), row.key_set, row.sealed_to, row.received_at
    )


def body_of(said: Mapping[str, str]) -> bytes:
    """JSON, as questions of this room carry it over a link."""
    return json.dumps(said, separators=(",", ":")).encode()


def parse_body(raw: bytes) -> Mapping[str, str]:
    """What `body_of` made. Raises EscrowInvalidError."""
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not all(isinstance(each, str) for each in said.values()):
        raise EscrowInvalidError("a question about keys in escrow cannot be read")
    return said
