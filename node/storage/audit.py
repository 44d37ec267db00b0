"""The audit: who did what to whose data, written in the transaction of the deed, chained after it.

Linking an entry to the one before needs one order of all entries; taking it inside every
transaction would make reads queue for each other. So entries are written unlinked and `link` chains
what has committed, one linker at a time, before the chain's end is signed and anchored elsewhere.
The chain shows a change or a gap in the middle; only an anchor shows that its end was cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any, Final, Protocol

from sqlalchemy import (
    Connection,
    RowMapping,
    TextClause,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)

from node.clock import Clock, format_ms
from node.security.caller import Caller, CallerKind
from node.storage.model import AuditEntry
from node.storage.tables import AUDIT, AUDIT_CHAIN
from node.storage.transactions import ChangedMeanwhileError
from replication.changelog import Together

__all__ = [
    "READING",
    "Action",
    "AuditBreak",
    "Auditor",
    "Deed",
    "Gate",
    "GlassOf",
    "Outcome",
    "entry_hash",
]

_CHAIN: Final = 1
_LINKS_A_PASS: Final = 1000
_LINKS_A_STATEMENT: Final = 50
"""On MySQL, where one for each entry costs its way; the CASE is compared n² / 2 times."""
_PURPOSE_MAX: Final = 64
_GRANT: Final = "grant_id"
_LINK_ONE: Final = (
    update(AUDIT)
    .where(AUDIT.c.audit_id == bindparam("b_id"), AUDIT.c.chain_position.is_(None))
    .values(chain_position=bindparam("p"), prev_hash=bindparam("prev"), hash=bindparam("h"))
)
_END: Final = select(AUDIT_CHAIN.c.position, AUDIT_CHAIN.c.hash).where(
    AUDIT_CHAIN.c.chain_id == _CHAIN
)


class Action(StrEnum):
    """What was done."""

    PUT = "put"
    READ = "read"
    FIND = "find"
    TIMELINE = "timeline"
    COUNT = "count"
    QUESTION = "question"
    RETRY = "retry"
    SKIP = "skip"
    ASK = "ask"
    PURGE = "purge"
    MOVE = "move"
    GRANT = "grant"
    LEARN = "learn"
    SHIP = "ship"
    TAKE_OVER = "take_over"
    MERGE = "merge"
    LINK = "link"
    """Two residents were found to be one person."""
    UNLINK = "unlink"
    TELL_APART = "tell_apart"
    WHERE = "where"
    ACCEPT = "accept"
    REJECT = "reject"
    REPAIR = "repair"
    INVITE = "invite"
    WITHDRAW = "withdraw"
    JOIN = "join"
    LEND = "lend"
    REVOKE = "revoke"
    ROTATE = "rotate"
    DESTROY = "destroy"
    DEPOSIT = "deposit"
    APPROVE = "approve"
    RECOVER = "recover"
    # What auditors do, and what leaves the node.
    SEARCH = "search"
    ABOUT = "about"
    VERIFY = "verify"
    EXPORT = "export"
    IMPORT = "import"
    BACKUP = "backup"
    RECOGNISE = "recognise"
    """A contradicted audit of a neighbour is anchored anew."""
    CONTRADICTED = "contradicted"
    """A neighbour's audit does not follow from what it had anchored."""
    # Changes of the region and of what is waited for.
    APPLY = "apply"
    ROLLBACK = "rollback"
    GIVE_UP = "give_up"
    # Events of the node itself.
    START = "start"
    STOP = "stop"
    EPOCH = "epoch"
    RESTORE = "restore"
    REGION = "region"
    RENEW = "renew"
    BREAK_GLASS = "break_glass"
    DENY = "deny"
    CONSENT = "consent"
    RELATE = "relate"
    REVIEW = "review"
    ADD = "add"
    END = "end"
    GIVE = "give"
    TAKE = "take"
    DISABLE = "disable"
    ENABLE = "enable"
    UNLOCK = "unlock"
    PASSWORD = "password"  # noqa: S105 - the deed, not the word  # nosec B105
    TOTP = "totp"
    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"


READING: Final = frozenset(
    {
        Action.READ,
        Action.FIND,
        Action.TIMELINE,
        Action.COUNT,
        Action.QUESTION,
        Action.WHERE,
    }
)
"""Deeds by which somebody learns what a record holds. Looking at the audit is none of them: it is
what an auditor needs when something is wrong with it."""


class Outcome(StrEnum):
    """How it ended. Not found and not allowed are one outcome to the caller, and so here."""

    DONE = "done"
    NOT_FOUND = "not_found"
    REPEATED = "repeated"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Deed:
    """One audited deed. Ids are ours or none: what a caller typed may be anything.

    `grant_id`: of the broken glass that it was done through; the Auditor finds that of a read.
    """

    action: Action
    object_table: str
    outcome: Outcome
    row_count: int
    object_id: str | None = None
    resident_id: str | None = None
    grant_id: str | None = None


GlassOf = Callable[[Connection, Caller, str], str | None]
"""The grant of the glass that a caller has broken over a resident and that is not over."""


@dataclass(frozen=True, slots=True)
class AuditBreak:
    """Where the chain does not hold: its first wrong position, and why."""

    position: int
    reason: str


class Gate(Protocol):
    """Whether the state of the audit lets somebody read: node/auditing/gate.py."""

    def admit(self, caller: Caller, deeds: Sequence[Deed]) -> None:
        """Raise if these deeds may not be done now."""

    def refuse_bulk(self) -> None:
        """Raise if nothing may be read in bulk now."""


class _Open:
    """No gate: a storage without a node around it."""

    def admit(self, caller: Caller, deeds: Sequence[Deed]) -> None:
        """Lets everything pass."""

    def refuse_bulk(self) -> None:
        """Lets everything pass."""


class Auditor:
    """Writes, links and verifies. `gate` is asked before anything is written.

    Every read of a resident by a member of staff is marked with the glass that he has broken over
    him, whatever else would let him read: what is done in that half hour is what is reviewed.
    """

    def __init__(self, clock: Clock, glass: GlassOf = lambda _c, _caller, _id: None) -> None:
        self._clock = clock
        self._glass = glass
        self._insert = insert(AUDIT)
        self.gate: Gate = _Open()

    def write(self, connection: Connection, caller: Caller, *deeds: Deed) -> None:
        """Add entries to the caller's transaction: without them it must not commit."""
        together = Together(connection)
        self.write_all(together, [(caller, deeds)])
        together.send()

    def write_all(self, together: Together, done: Sequence[tuple[Caller, Sequence[Deed]]]) -> None:
        """Add the deeds of several callers to what their one transaction sends.

        Raises:
            AuditReadsStoppedError, AuditNoRoomError: They read, and nothing may be read now.
        """
        done = [
            (caller, self._marked(together.connection, caller, deeds)) for caller, deeds in done
        ]
        for caller, deeds in done:
            self.gate.admit(caller, deeds)
        at = format_ms(self._clock.now_ms())
        together.add(
            self._insert,
            [
                {
                    "at": at,
                    "principal": caller.principal,
                    "kind": caller.kind.value,
                    "node_id": caller.node_id,
                    "purpose": caller.purpose[:_PURPOSE_MAX],
                    "action": deed.action,
                    "object_table": deed.object_table,
                    "outcome": deed.outcome,
                    "row_count": deed.row_count,
                    "object_id": deed.object_id,
                    "resident_id": deed.resident_id,
                    "grant_id": deed.grant_id,
                }
                for caller, deeds in done
                for deed in deeds
            ],
        )

    def _marked(
        self, connection: Connection, caller: Caller, deeds: Sequence[Deed]
    ) -> Sequence[Deed]:
        if caller.kind is not CallerKind.STAFF:
            return deeds
        return [
            replace(deed, grant_id=self._glass(connection, caller, deed.resident_id))
            if deed.action in READING and deed.resident_id
            else deed
            for deed in deeds
        ]

    def link(self, connection: Connection) -> int:
        """Chain committed entries that are not linked yet; how many. Call again until 0."""
        position, last = connection.execute(
            select(AUDIT_CHAIN.c.position, AUDIT_CHAIN.c.hash)
            .where(AUDIT_CHAIN.c.chain_id == _CHAIN)
            .with_for_update()
        ).one()
        unlinked = (
            connection.execute(
                select(AUDIT)
                .where(AUDIT.c.chain_position.is_(None))
                .order_by(AUDIT.c.audit_id)
                .limit(_LINKS_A_PASS)
            )
            .mappings()
            .all()
        )
        links = []
        for place, entry in enumerate(unlinked, start=position + 1):
            digest = entry_hash(last, place, entry)
            links.append({"b_id": entry["audit_id"], "p": place, "prev": last, "h": digest})
            last = digest
        if links:
            _save_links(connection, links, position)
        return len(links)

    def verify(
        self, connection: Connection, seen: Callable[[int, str], None] = lambda _place, _hash: None
    ) -> AuditBreak | None:
        """Walk the whole chain; None if it holds. `seen` is told each position with its hash."""
        position, last = connection.execute(_END).one()
        expected, previous = 0, ""
        for entry in _chained(connection, position):
            expected += 1
            if entry["chain_position"] != expected:
                return AuditBreak(expected, "an entry is missing")
            if entry["prev_hash"] != previous or entry["hash"] != entry_hash(
                previous, expected, entry
            ):
                return AuditBreak(expected, "an entry was changed")
            previous = entry["hash"]
            seen(expected, previous)
        if (expected, previous) != (position, last):
            return AuditBreak(expected + 1, "the end of the chain is missing")
        # Entries are linked while this walks, together with the end: it is read after them.
        linked = connection.execute(select(func.max(AUDIT.c.chain_position))).scalar() or 0
        if linked > connection.execute(_END).one().position:
            return AuditBreak(position + 1, "an entry stands beyond the end of the chain")
        return None

    def entries(self, connection: Connection, *, after: int, limit: int) -> list[AuditEntry]:
        """Entries in the order they were written, after the first `after` of them."""
        names = list(AuditEntry.__dataclass_fields__)
        rows = connection.execute(
            select(*(AUDIT.c[name] for name in names))
            .order_by(AUDIT.c.audit_id)
            .offset(after)
            .limit(limit)
        )
        return [AuditEntry(*row) for row in rows]


def _save_links(connection: Connection, links: list[dict[str, Any]], position: int) -> None:
    if connection.dialect.name == "sqlite":
        linked = connection.execute(_LINK_ONE, links).rowcount
    else:
        linked = sum(
            connection.execute(_link_several(len(some)), _several(some)).rowcount
            for some in _chunks(links)
        )
    moved = connection.execute(
        update(AUDIT_CHAIN)
        .where(AUDIT_CHAIN.c.chain_id == _CHAIN, AUDIT_CHAIN.c.position == position)
        .values(position=position + len(links), hash=links[-1]["h"])
    )
    if linked != len(links) or moved.rowcount != 1:
        raise ChangedMeanwhileError


@cache
def _link_several(count: int) -> TextClause:
    """One statement for so many entries; text, since composing it costs more than running it."""
    places = range(count)
    cases = ", ".join(
        f"{name} = CASE audit_id {' '.join(f'WHEN :b_id{n} THEN :{key}{n}' for n in places)} END"
        for name, key in (("chain_position", "p"), ("prev_hash", "prev"), ("hash", "h"))
    )
    ids = ", ".join(f":b_id{n}" for n in places)
    return text(
        f"UPDATE audit SET {cases} WHERE audit_id IN ({ids}) AND chain_position IS NULL"  # noqa: S608 - names of ours
    )


def _chunks(links: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(links), _LINKS_A_STATEMENT):
        yield links[start : start + _LINKS_A_STATEMENT]


def _several(links: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{key}{n}": value for n, link in enumerate(links) for key, value in link.items()}


def _chained(connection: Connection, up_to: int) -> Iterator[RowMapping]:
    done = 0
    while True:
        rows = (
            connection.execute(
                select(AUDIT)
                .where(AUDIT.c.chain_position > done, AUDIT.c.chain_position <= up_to)
                .order_by(AUDIT.c.chain_position)
                .limit(_LINKS_A_PASS)
            )
            .mappings()
            .all()
        )
        if not rows:
            return
        yield from rows
        done = rows[-1]["chain_position"]


def entry_hash(previous: str, position: int, entry: RowMapping) -> str:
    """SHA-256 over the hash before, the position and every field of the entry.

    A grant stands last and only where there is one: entries of former releases have no such field.
    """
    names = [name for name in AuditEntry.__dataclass_fields__ if name != _GRANT]
    fields = [entry["audit_id"], *(entry[name] for name in names)]
    if entry[_GRANT] is not None:
        fields.append(entry[_GRANT])
    return hashlib.sha256(json.dumps([previous, position, *fields]).encode()).hexdigest()
