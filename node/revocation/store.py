"""The tables of revocation: entries are added and never removed; keys of nodes below are noted.

One transaction a method, with its audit entry in it. Whoever gives this node's store another life
finds its entries again at the neighbours, so the number of a new entry is the greatest known plus
one, and two entries with one number both count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Engine, func, insert, select

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.revocation.entries import Entry, read_kept
from node.revocation.errors import RevocationFullError
from node.security.caller import Caller
from node.storage.audit import Action, Auditor, Deed, Outcome
from node.storage.tables import REVOCATION
from node.storage.transactions import Transactions
from replication.changelog import read_transaction

__all__ = ["KeyRole", "RevocationStore", "SeenKey", "load_entries"]

_R: Final = REVOCATION.revocations
_K: Final = REVOCATION.node_keys
_ENTRIES_MIN: Final = 256
_ENTRIES_A_NODE: Final = 32
_KEYS_A_NODE: Final = 64


class KeyRole(StrEnum):
    """What a key is for."""

    TLS = "tls"
    AUTHORITY = "authority"


@dataclass(frozen=True, slots=True)
class SeenKey:
    """A key of a node below, by its digest."""

    node_id: NodeId
    digest: str
    role: KeyRole


def _never(_digest: str, _node_id: NodeId, _seen_ms: int) -> bool:
    return False


def load_entries(engine: Engine) -> tuple[Entry, ...]:
    """Every entry that this node holds; they were verified when they were taken."""
    with read_transaction(engine) as connection:
        rows = connection.execute(select(_R.c.entry).order_by(_R.c.digest))
        return tuple(read_kept(bytes(row.entry)) for row in rows)


class RevocationStore:
    """Blocks on the database; safe from several threads."""

    def __init__(
        self,
        transactions: Transactions,
        auditor: Auditor,
        node_id: NodeId,
        hierarchy: Hierarchy,
        now_ms: Callable[[], int],
    ) -> None:
        self._transactions = transactions
        self._auditor = auditor
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._now_ms = now_ms

    def keep(self, entries: Iterable[Entry], caller: Caller, source: NodeId) -> tuple[Entry, ...]:
        """Keep verified entries; returns those that are held now. Durable on return.

        A signer has room for what its subtree can need; what is over it is left out, whoever hands
        it over, so that a village cannot fill the region's disks.
        """

        def work(connection: Connection) -> tuple[Entry, ...]:
            kept: list[Entry] = []
            for entry in entries:
                if self._has(connection, entry.digest):
                    kept.append(entry)
                elif self._has_room(connection, entry.word.signer):
                    self._insert(connection, entry, caller, source)
                    kept.append(entry)
            return tuple(kept)

        return self._transactions.write(work)

    def sign(self, caller: Caller, make: Callable[[int], Entry]) -> Entry:
        """Keep an entry of this node's own, made for the next number. Durable on return.

        Raises:
            RevocationFullError: There is no room for it anywhere.
        """

        def work(connection: Connection) -> Entry:
            last = select(func.max(_R.c.number)).where(_R.c.signer == self._node_id)
            entry = make(int(connection.execute(last).scalar() or 0) + 1)
            if not self._has_room(connection, self._node_id):
                raise RevocationFullError(f"{self._node_id} has signed too many revocations")
            self._insert(connection, entry, caller, self._node_id)
            return entry

        return self._transactions.write(work)

    def note_keys(
        self, keys: Sequence[SeenKey], is_over: Callable[[str, NodeId, int], bool] = _never
    ) -> bool:
        """Remember keys of nodes below; False: a node has more than any needs.

        `is_over(digest, node, first seen)`: what is revoked takes no room, so that who once held
        a machine of the place cannot keep it from joining anew.
        """

        def work(connection: Connection) -> bool:
            for key in keys:
                held = connection.execute(
                    select(_K.c.digest, _K.c.first_seen_at).where(_K.c.node_id == key.node_id)
                )
                known = {row.digest: int(row.first_seen_at) for row in held}
                if key.digest in known:
                    continue
                usable = [d for d, seen_ms in known.items() if not is_over(d, key.node_id, seen_ms)]
                if len(usable) >= _KEYS_A_NODE:
                    return False
                connection.execute(
                    insert(_K).values(
                        node_id=key.node_id,
                        digest=key.digest,
                        role=key.role.value,
                        first_seen_at=self._now_ms(),
                    )
                )
            return True

        return self._transactions.write(work)

    def keys_of(self, node_id: NodeId) -> tuple[SeenKey, ...]:
        """The keys that a node has had, as far as this node has seen them."""
        query = select(_K).where(_K.c.node_id == node_id).order_by(_K.c.digest)
        return self._transactions.read(
            lambda connection: tuple(
                SeenKey(NodeId(row.node_id), row.digest, KeyRole(row.role))
                for row in connection.execute(query)
            )
        )

    def _has(self, connection: Connection, digest: str) -> bool:
        found = connection.execute(select(_R.c.digest).where(_R.c.digest == digest))
        return found.first() is not None

    def _has_room(self, connection: Connection, signer: NodeId) -> bool:
        if signer not in self._hierarchy:
            return False
        most = _ENTRIES_MIN + _ENTRIES_A_NODE * len(self._hierarchy.subtree(signer))
        query = select(func.count()).select_from(_R).where(_R.c.signer == signer)
        return int(connection.execute(query).scalar_one()) < most

    def _insert(self, connection: Connection, entry: Entry, caller: Caller, source: NodeId) -> None:
        word = entry.word
        connection.execute(
            insert(_R).values(
                digest=entry.digest,
                signer=word.signer,
                number=word.number,
                entry=entry.raw,
                received_at=self._now_ms(),
                source=source,
            )
        )
        deed = Deed(Action.REVOKE, _R.name, Outcome.DONE, 1, object_id=word.node_id)
        self._auditor.write(connection, caller, deed)
