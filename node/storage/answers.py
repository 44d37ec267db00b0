"""Point reads of residents, many in one transaction, with a cache of answers before the tables.

A kept answer changes nothing but the cost. The transaction that decides whether it still holds also
asks the tables whether the caller sees the resident and writes the audit entry, and no answer is
returned before it is durable. Reads that come together share it: on a disk that takes milliseconds
to synchronise, that is most of what a read costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from node.cache import Cache, CachedAnswer, ChangedResidents, Held
from node.merging.fold import Group
from node.merging.links import groups
from node.security.caller import Caller
from node.storage.audit import Deed
from node.storage.context import StoreContext
from node.storage.logged import read_log
from node.storage.model import StoredResident
from node.storage.reads import Reader, named_id, resident_read
from node.storage.scope import seen_residents
from node.storage.specs import IDENTIFIERS, RESIDENTS
from replication.core.codec import decode_changes
from replication.core.model import Form, LogEntry

__all__ = ["AnswerCounts", "Encode", "Joined", "ResidentAnswers", "ResidentQuestion"]

Encode = Callable[[StoredResident], bytes]
"""A resident as the bytes that go on the wire; pure."""

Joined = Callable[[str, Group], bytes]
"""What the group of a resident adds to his bytes: his id, the group; pure. Never kept."""

Seen = Callable[[Connection, Caller, Mapping[str, Any], Collection[str]], frozenset[str]]
"""Of node/storage/scope.py: connection, caller, parameters of his scope, ids of residents."""

_LANE: Final = RESIDENTS.lane
_NOT_STARTED: Final = -1
_ENTRIES_MAX: Final = 500
_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ResidentQuestion:
    """Who asks for whom."""

    caller: Caller
    resident_id: str


@dataclass(frozen=True, slots=True)
class _Batch:
    """Questions with their ids (None: not one of ours) and scopes, and what the cache holds."""

    parts: Sequence[tuple[ResidentQuestion, str | None, Mapping[str, Any]]]
    held: Held
    encode: Encode
    joined: Joined


@dataclass(slots=True)
class AnswerCounts:
    """Answers that came from the cache, and from the tables, since the start."""

    kept: int = 0
    read: int = 0


@dataclass(slots=True)
class _Work:
    """What one attempt of the transaction found."""

    answers: list[bytes | None] = field(default_factory=list)
    fresh: dict[str, CachedAnswer] = field(default_factory=dict)
    head: int = 0
    kept: int = 0


class ResidentAnswers:
    """Reads for callers, as bytes; and the cache's view of the log."""

    def __init__(
        self, store: StoreContext, reader: Reader, cache: Cache, seen: Seen = seen_residents
    ) -> None:
        """`seen`: whom of those whose answers are kept a caller sees."""
        self._seen = seen
        self._store = store
        self._reader = reader
        self._cache = cache
        self.counts = AnswerCounts()

    def answers(
        self, asked: Sequence[ResidentQuestion], encode: Encode, joined: Joined
    ) -> list[bytes | None]:
        """See Storage.resident_answers."""
        named = [named_id(question.resident_id) for question in asked]
        # Before the transaction: a Redis must not be waited for with the database's lock in hand.
        held = self._cache.get(sorted({each for each in named if each is not None}))
        scopes: dict[Caller, Mapping[str, Any]] = {}
        for question in asked:
            if question.caller not in scopes:
                scopes[question.caller] = self._store.scopes.parameters(question.caller)
        parts = [
            (question, each, scopes[question.caller])
            for question, each in zip(asked, named, strict=True)
        ]
        batch = _Batch(parts, held, encode, joined)
        done = self._store.transactions.write(lambda connection: self._answer(connection, batch))
        # After the commit: what is kept must not outlive a commit that a power cut took back.
        if done.fresh and held.position is not None:
            self._cache.put(done.fresh, done.head)
        self.counts.kept += done.kept
        self.counts.read += len(asked) - done.kept
        return done.answers

    def changed_residents(self, after: int, *, up_to: int) -> ChangedResidents:
        """See node.cache.ChangeSource: residents and identifiers travel in one lane."""
        kept = self._store.changelog.tail.read(
            after=after, lane=_LANE, bytes_max=_BYTES_MAX, up_to=up_to
        )
        if kept is not None:
            return ChangedResidents(kept.scanned_to, _changed(kept.entries))

        def work(connection: Connection) -> ChangedResidents:
            part = read_log(
                self._store,
                connection,
                after=after,
                lane=_LANE,
                bytes_max=_BYTES_MAX,
                entries_max=_ENTRIES_MAX,
                up_to=up_to,
            )
            return ChangedResidents(part.scanned_to, _changed(part.entries))

        return self._store.transactions.read(work)

    def _answer(self, connection: Connection, batch: _Batch) -> _Work:
        held = batch.held
        # First of all: what commits after this statement is in the log beyond the head it gives.
        after = _NOT_STARTED if held.position is None else held.position
        end = self._store.changelog.end(connection, _LANE, after)
        usable = {} if end.moved or held.position is None else held.answers
        work = _Work(head=end.head)
        deeds: dict[Caller, list[Deed]] = defaultdict(list)
        seen = self._seen_by_caller(connection, batch, usable)
        for question, resident_id, scope in batch.parts:
            answer = None
            kept = None if resident_id is None else usable.get(resident_id)
            if kept is not None:
                answer = kept.wire if resident_id in seen[question.caller] else None
                work.kept += 1
            elif resident_id is not None:
                wanted = {**scope, "id": resident_id}
                found = self._reader.held(connection, question.caller, wanted)
                if found is not None:
                    answer = batch.encode(found)
                    work.fresh[resident_id] = CachedAnswer(
                        found.home_node, found.author_node, answer
                    )
            work.answers.append(answer)
            deeds[question.caller].append(resident_read(resident_id, answer is not None))
        self._join(connection, batch, work.answers)
        for caller, done in deeds.items():
            self._store.auditor.write(connection, caller, *done)
        return work

    def _join(self, connection: Connection, batch: _Batch, answers: list[bytes | None]) -> None:
        """Say in each answer under which other ids the resident is known.

        Merges travel in another lane than residents, and are of this transaction: none is kept.
        """
        shown = [
            (place, resident_id)
            for place, (answer, (_, resident_id, _)) in enumerate(
                zip(answers, batch.parts, strict=True)
            )
            if answer is not None and resident_id is not None
        ]
        found = groups(self._store, connection, {resident_id for _, resident_id in shown})
        for place, resident_id in shown if found else ():
            answer, group = answers[place], found.get(resident_id)
            if answer is not None and group is not None:
                question, _, scope = batch.parts[place]
                seen = self._seen(connection, question.caller, scope, group.members)
                answers[place] = answer + batch.joined(resident_id, group.shown_to(seen))

    def _seen_by_caller(
        self, connection: Connection, batch: _Batch, usable: Mapping[str, CachedAnswer]
    ) -> dict[Caller, frozenset[str]]:
        """Whom of those whose answers are kept each caller sees: asked as a read would.

        Consents, relations and grants are rows of this transaction, so none is obeyed late.
        """
        wanted: dict[Caller, set[str]] = defaultdict(set)
        scopes: dict[Caller, Mapping[str, Any]] = {}
        for question, resident_id, scope in batch.parts:
            if resident_id is not None and resident_id in usable:
                wanted[question.caller].add(resident_id)
                scopes[question.caller] = scope
        return {
            caller: self._seen(connection, caller, scopes[caller], ids)
            for caller, ids in wanted.items()
        }


def _changed(entries: Iterable[LogEntry]) -> frozenset[str]:
    return frozenset(
        change.resident_id
        for entry in entries
        if entry.form is not Form.SEALED
        for change in decode_changes(entry.codec, entry.rows)
        if change.table in {RESIDENTS.name, IDENTIFIERS.name}
    )
