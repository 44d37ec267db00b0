"""Parts that do nothing in the place of trust's: what the same work costs without.

Each takes the place of one part of a node when it is put together. All else is the node's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import grpc
from sqlalchemy import Connection, bindparam, select

from hierarchy_config import Hierarchy, NodeId
from node.cache import Cache
from node.security.caller import Caller, CallerKind, caller_for
from node.security.identity import PeerIdentity
from node.security.sealing import DataKeys, Sealed
from node.services.interceptor import CallContext, GuardInterceptor, Shown
from node.storage.answers import ResidentAnswers
from node.storage.audit import Auditor, Deed
from node.storage.context import StoreContext
from node.storage.reads import Reader
from node.storage.scope import SCOPE_FORMS, Scopes
from node.storage.sealing import CellSealer
from node.storage.specs import RESIDENTS
from node.storage.tables import REPLICATED
from node.storage.transactions import Transactions
from replication.changelog import ChangeLog, Together
from replication.core.model import Form, Value

__all__ = ["AnybodyGuard", "ReadsOnly", "clear_context", "clear_keys", "open_answers"]

T = TypeVar("T")
_R = REPLICATED[RESIDENTS.name]


class ClearKeys(DataKeys):
    """Seals nothing."""

    def of(self, purpose: str) -> Self:  # type: ignore[override]
        """For any table the same."""
        return self

    def seal(self, clear: bytes, aad: bytes) -> bytes:
        """The bytes themselves."""
        return clear

    def seal_named(self, clear: bytes, aad: bytes) -> Sealed:
        """The bytes themselves, under the name of a key."""
        return Sealed(self.suite, self.key_id, clear)

    def open(self, sealed: bytes, aad: bytes, key_id: str | None = None) -> bytes:
        """The bytes themselves."""
        return bytes(sealed)


class ClearCells(CellSealer):
    """Text as it is, in the same columns: every column that is sealed holds text."""

    def seal_cell(self, table: str, column: str, row_id: str, value: Value) -> bytes | None:
        """The text's bytes."""
        return None if value is None else str(value).encode()

    def open_cell(self, table: str, column: str, row_id: str, sealed: bytes | None) -> Value:
        """The text."""
        return None if sealed is None else sealed.decode()


class NoIndex:
    """In the place of the keyed index of identifiers: the value, cut to the column's length."""

    def index(self, system: str, value: str) -> str:
        """No hash."""
        return value[:64]


class NoAudit(Auditor):
    """Writes nothing, asks no gate."""

    def write(self, connection: Connection, caller: Caller, *deeds: Deed) -> None:
        """Nothing."""

    def write_all(self, together: Together, done: Sequence[tuple[Caller, Sequence[Deed]]]) -> None:
        """Nothing."""


class NoScopes(Scopes):
    """Everybody sees everybody."""

    def parameters(self, caller: Caller) -> dict[str, Any]:
        """None."""
        return {}


class ReadsOnly(Transactions):
    """A read that leaves no entry in an audit needs no transaction that writes."""

    def write(self, work: Callable[[Connection], T], *, attempts: int | None = None) -> T:
        """As `read`."""
        return self.read(work)


class OpenReader(Reader):
    """Reads a resident by his id, whoever asks."""

    def __init__(self, store: StoreContext) -> None:
        super().__init__(store)
        plain = select(_R).where(_R.c.row_id == bindparam("id"), _R.c.form == Form.FULL.value)
        self._residents = dict.fromkeys(SCOPE_FORMS, plain)


class AnybodyGuard(GuardInterceptor):
    """Every call is one caller's, made once: no identity, session, method table, purpose, limit."""

    def __init__(
        self, node_id: NodeId, hierarchy: Hierarchy, incident: Callable[[], str], **count: Any
    ) -> None:
        """As the guard, without the parts that judge."""
        super().__init__(node_id, hierarchy, incident, count["count"])
        principal = f"{hierarchy.spiffe_id(node_id)}/{CallerKind.CLIENT}/anybody"
        caller = caller_for(CallerKind.CLIENT, principal, node_id, hierarchy, "treatment")
        nobody: Any = None
        identity = PeerIdentity(
            CallerKind.CLIENT, node_id, "anybody", principal, "", not_after=nobody
        )
        self._anybody = CallContext(caller, identity, caller)

    def _shown(self, context: grpc.aio.ServicerContext[Any, Any]) -> Shown:
        return {}

    async def _admit(
        self, method: str, context: grpc.aio.ServicerContext[Any, Any], shown: Shown
    ) -> CallContext:
        return self._anybody


def clear_context(context: StoreContext, changelog: ChangeLog | None = None) -> StoreContext:
    """What a storage's parts work with, without sealing, keyed index and audit."""
    return replace(
        context,
        cells=ClearCells(context.node_id, clear_keys(context.node_id)),
        blind_index=NoIndex(),
        auditor=NoAudit(context.clock),
        changelog=changelog or context.changelog,
    )


def clear_keys(node_id: NodeId) -> DataKeys:
    """Keys that seal nothing."""
    return ClearKeys.fresh(node_id, os.urandom)


def open_answers(
    context: StoreContext, transactions: Transactions, cache: Cache
) -> ResidentAnswers:
    """Point reads without audit and scopes, in transactions that only read."""
    scopes = NoScopes(
        transactions, node_id=context.node_id, hierarchy=context.hierarchy, clock=context.clock
    )
    reading = replace(context, scopes=scopes, transactions=transactions)
    return ResidentAnswers(reading, OpenReader(reading), cache, _everybody)


def _everybody(
    _connection: Connection, _caller: Caller, _scope: Mapping[str, Any], ids: Collection[str]
) -> frozenset[str]:
    return frozenset(ids)
