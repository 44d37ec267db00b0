"""What every part of the storage works with, put together once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.aside import AsideBook
from node.clock import Clock, Ids
from node.residence.homes import Homes
from node.storage.audit import Auditor
from node.storage.recovering import Recovery
from node.storage.scope import Scopes
from node.storage.sealing import CellSealer
from node.storage.transactions import Transactions
from node.transit import Post
from replication.changelog import ChangeLog, LinkState, Quarantine

__all__ = ["KeyedIndex", "Pseudonyms", "StoreContext"]


class KeyedIndex(Protocol):
    """A keyed one-way value of an identifier: node/security's BlindIndex, RegionalIndex."""

    def index(self, system: str, value: str) -> str:
        """64 hexadecimal digits."""


class Pseudonyms(Protocol):
    """Keyed stand-ins of ids: node/security's Pseudonymizer."""

    def pseudonym(self, table: str, row_id: str) -> str:
        """A UUID that stands for a row of that table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreContext:
    """`regional_index` and `pseudonyms` are None where the node does not hold those keys."""

    node_id: NodeId
    hierarchy: Hierarchy
    transactions: Transactions
    scopes: Scopes
    auditor: Auditor
    cells: CellSealer
    blind_index: KeyedIndex
    changelog: ChangeLog
    quarantine: Quarantine
    links: LinkState
    clock: Clock
    ids: Ids
    regional_index: KeyedIndex | None
    pseudonyms: Pseudonyms | None
    post: Post
    recovery: Recovery
    homes: Homes
    aside: AsideBook = field(default_factory=AsideBook)
