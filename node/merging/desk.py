"""Merges, and what takes them apart, for callers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.consent.rows import AccessRows, HomeOf
from node.errors import InvalidRequestError, NotFoundError
from node.merging.errors import (
    MergeApartError,
    MergeNotHereError,
    MergeStandsError,
    MergeTooLargeError,
    MergeUnknownError,
)
from node.merging.fold import GROUP_MAX, Decision, Group, Part, apart, standing
from node.merging.links import group, halves_around, halves_between, lock_residents
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.errors import RequestIdReusedError
from node.storage.scope import seen_residents
from node.storage.specs import IDENTITY_LINKS
from replication.core.model import RowChange

__all__ = ["REASON_MAX", "Event", "MergeDesk", "Proposals", "Wanted"]

REASON_MAX: Final = 200
_REASON_MIN: Final = 4
_ENDS_MAX: Final = 10
"""As many ids as the column holds; nobody decides over a pair so often."""
_EVENTS_MAX: Final = 500
_ELSEWHERE: Final = (
    "Compare the id. Residents of two villages are decided over at the township or county above"
    " both."
)
_DECISIONS: Final = frozenset(Decision)
_REQUEST_ID_MIN: Final = 8
_REQUEST_ID_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """A decision that a caller wants written down.

    Attributes:
        request_id: New for each intended decision; the same again gives the first answer.
        survivor_id: Who is shown after a merge; of two who are told apart, one.
        merged_id: The other.
        reason: 4 to 200 characters; sealed, and kept with the event.
        despite: Merge although the two were told apart before.
    """

    request_id: str
    survivor_id: str
    merged_id: str
    reason: str
    despite: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A decision as it is held here.

    `in_force`: no later one over the pair ends it, and if it is a merge, it joins the two.
    """

    event_id: str
    decision: Decision
    survivor_id: str
    merged_id: str
    decided_at: str
    decided_by: str
    author_node: str
    reason: str
    evidence: str
    model: str
    ends: frozenset[str]
    in_force: bool


class Proposals(Protocol):
    """What matching found, asked and told in the transaction of a decision."""

    def evidence(self, connection: Connection, one: str, other: str) -> tuple[str, str]:
        """What matching said of a pair, as JSON, and the digest of its model; "": nothing."""

    def decided(self, connection: Connection, one: str, other: str) -> None:
        """The pair waits for nobody any more."""


class MergeDesk:
    """Every method blocks on the database; what it changed is durable when it returns."""

    def __init__(
        self,
        store: StoreContext,
        refuse_writes: Callable[[], None],
        proposals: Proposals | None = None,
    ) -> None:
        """`refuse_writes`: raises while nothing may be written. `proposals`: None has none."""
        self._store = store
        self._rows = AccessRows(store)
        self._refuse_writes = refuse_writes
        self._proposals = proposals

    def merge(self, caller: Caller, wanted: Wanted) -> Event:
        """Say that two residents are one person.

        Raises:
            InvalidRequestError: The reason is none, or the two are one.
            NotFoundError: One of them is not here, or not for this caller.
            MergeNotHereError: This node does not stand over both homes.
            MergeStandsError: One of the two is merged already, or both are one person already.
            MergeApartError: Somebody told them apart, and `despite` is not set.
            MergeTooLargeError: They would be more than `GROUP_MAX`.
            RequestIdReusedError: The request wrote something else before.
        """
        return self._decide(caller, wanted, Action.LINK, self._may_merge)

    def unmerge(self, caller: Caller, wanted: Wanted) -> Event:
        """Undo whatever merges are in force over two residents; they are never matched again.

        Raises:
            MergeUnknownError: Nothing is in force over the two.
            Others: As `merge`.
        """
        return self._decide(caller, wanted, Action.UNLINK, self._may_unmerge)

    def tell_apart(self, caller: Caller, wanted: Wanted) -> Event:
        """Say that two residents whom nobody merged are two people.

        Raises:
            MergeStandsError: They are merged: that is undone with `unmerge`.
            Others: As `merge`.
        """
        return self._decide(caller, wanted, Action.TELL_APART, self._may_tell_apart)

    def look(self, caller: Caller, resident_id: str) -> tuple[Group, list[Event]]:
        """Under which ids somebody is known here, and what was decided over him, oldest first.

        Audited. Of very many events not all are given.

        Raises:
            InvalidRequestError: It is no id.
            NotFoundError: He is not here, or not for this caller.
        """
        scope = self._store.scopes.parameters(caller)

        def work(connection: Connection) -> tuple[Group, list[Event]]:
            self._seen(connection, caller, scope, resident_id)
            rows = self._rows.of_resident(
                connection, IDENTITY_LINKS, resident_id, after="", limit=_EVENTS_MAX
            )
            in_force = self._in_force(connection, resident_id)
            deed = Deed(
                Action.READ, IDENTITY_LINKS.name, Outcome.DONE, len(rows), resident_id=resident_id
            )
            self._store.auditor.write(connection, caller, deed)
            found = [
                _event(row, in_force) for row in rows if row.values.get("decision") in _DECISIONS
            ]
            found.sort(key=lambda event: (event.decided_at, event.event_id))
            return group(self._store, connection, resident_id), found

        return self._store.transactions.write(work)

    # -- common to them -------------------------------------------------------------------------

    def _decide(
        self,
        caller: Caller,
        wanted: Wanted,
        action: Action,
        ends_of: Callable[[Connection, Wanted], list[str]],
    ) -> Event:
        """`ends_of`: the events that it ends, or why it is refused."""
        self._refuse_writes()
        decision = Decision.SAME if action is Action.LINK else Decision.DIFFERENT
        if not _REQUEST_ID_MIN <= len(wanted.request_id) <= _REQUEST_ID_MAX:
            raise InvalidRequestError(
                f"request_id has {_REQUEST_ID_MIN} to {_REQUEST_ID_MAX} characters"
            )
        said = _said(caller, wanted, decision)
        ids = [
            self._rows.request_row_id(
                caller, IDENTITY_LINKS, f"{action}|{half}|{wanted.request_id}"
            )
            for half in ("survivor", "merged")
        ]
        if wanted.survivor_id == wanted.merged_id:
            raise InvalidRequestError("the two residents named are one")
        scope = self._store.scopes.parameters(caller)

        def work(connection: Connection) -> Event:
            homes = self._homes(connection, caller, scope, wanted, action)
            held = self._rows.repeated(
                connection, IDENTITY_LINKS, ids[0], {**said[0], "other_id": wanted.merged_id}
            )
            if held is not None:
                if held.resident_id != wanted.survivor_id:
                    raise RequestIdReusedError("used before with another body", ["request_id"])
                return _event(held, self._in_force(connection, wanted.survivor_id))
            self._refuse_unless_over(homes)
            ends = " ".join(ends_of(connection, wanted)[:_ENDS_MAX])
            return self._written(connection, caller, action, wanted, (ids, homes, said, ends))

        return self._store.transactions.write(work)

    def _written(
        self,
        connection: Connection,
        caller: Caller,
        action: Action,
        wanted: Wanted,
        event: tuple[Sequence[str], Sequence[HomeOf | None], Sequence[Mapping[str, str]], str],
    ) -> Event:
        """Write an event: row ids, homes (None: he is not here) and words of its halves; its ends.

        What speaks for a pair goes along with a merge alone: of two people neither home is told
        how like the other they are.
        """
        (ids, homes, said, ends), pair = event, (wanted.survivor_id, wanted.merged_id)
        common = {"event_id": ids[0], "ends": ends}
        if self._proposals is not None:
            if action is Action.LINK:
                evidence, model = self._proposals.evidence(connection, *pair)
                common |= {"evidence": evidence, "model": model}
            self._proposals.decided(connection, *pair)
        rows = []
        for home, row_id, half, other in zip(homes, ids, said, pair[::-1], strict=True):
            if home is None:
                continue
            values = {**half, **common, "other_id": other}
            rows.append(self._rows.put(connection, IDENTITY_LINKS, home, row_id, values))
            deed = Deed(action, IDENTITY_LINKS.name, Outcome.DONE, 1, ids[0], home.resident_id)
            self._store.auditor.write(connection, caller, deed)
        return _event(rows[0], frozenset({ids[0]}))

    def _homes(
        self,
        connection: Connection,
        caller: Caller,
        scope: Mapping[str, Any],
        wanted: Wanted,
        action: Action,
    ) -> list[HomeOf | None]:
        """Homes of the two, who stay as they are to the commit.

        Of a merge to be undone one may be gone: one side's end is enough.
        """
        pair = (wanted.survivor_id, wanted.merged_id)
        lock_residents(connection, pair)
        homes: list[HomeOf | None] = []
        for each, other in (pair, pair[::-1]):
            try:
                homes.append(self._seen(connection, caller, scope, each))
            except NotFoundError:
                beside = {half.other_id for half in halves_around(connection, other)}
                if action is not Action.UNLINK or each not in beside:
                    raise
                homes.append(None)
        if not any(homes):
            raise NotFoundError("no such resident here", hint=_ELSEWHERE)
        return homes

    def _seen(
        self, connection: Connection, caller: Caller, scope: Mapping[str, Any], resident_id: str
    ) -> HomeOf:
        try:
            home = self._rows.home(connection, caller, resident_id)
        except NotFoundError as error:
            raise NotFoundError(error.message, hint=_ELSEWHERE) from None
        if not seen_residents(connection, caller, scope, [resident_id]):
            raise NotFoundError("no such resident here", hint=_ELSEWHERE)
        return home

    def _refuse_unless_over(self, homes: Sequence[HomeOf | None]) -> None:
        hierarchy, here = self._store.hierarchy, self._store.node_id
        nodes = [NodeId(home.node) for home in homes if home is not None]
        if all(hierarchy.is_in_subtree(node, here) for node in nodes):
            return
        one, other = nodes[0], nodes[-1]
        above = hierarchy.common_ancestor(one, other)
        said = f"their homes are {one} and {other}, and node {above} is above both"
        if hierarchy.parent(above) is None:
            raise MergeNotHereError(
                said, hint="No node there holds both in full: let one of them move first."
            )
        raise MergeNotHereError(said)

    def _may_merge(self, connection: Connection, wanted: Wanted) -> list[str]:
        survivor, merged = (
            group(self._store, connection, each) for each in (wanted.survivor_id, wanted.merged_id)
        )
        if survivor.is_cut or merged.is_cut:
            raise MergeTooLargeError("one of the two has more ids already than a person has")
        if wanted.merged_id in survivor.members:
            raise MergeStandsError("the two are one person already")
        for each, whose in ((wanted.survivor_id, survivor), (wanted.merged_id, merged)):
            if whose.survivor != each:
                raise MergeStandsError(
                    f"{each} is merged into {whose.survivor}",
                    hint="Merge with that one, or undo that merge first.",
                )
        if len(survivor.members) + len(merged.members) > GROUP_MAX:
            raise MergeTooLargeError(f"they would be more than {GROUP_MAX} ids of one person")
        told = self._told_apart(connection, wanted)
        if told and not wanted.despite:
            raise MergeApartError(f"they were told apart by event {told[0]}")
        return told

    def _may_unmerge(self, connection: Connection, wanted: Wanted) -> list[str]:
        ends = self._merges_of(connection, wanted)
        if not ends:
            raise MergeUnknownError("no merge of these two is in force")
        return ends

    def _may_tell_apart(self, connection: Connection, wanted: Wanted) -> list[str]:
        joined = group(self._store, connection, wanted.survivor_id)
        if wanted.merged_id not in joined.members:
            # The newest word stands for those before it.
            return self._told_apart(connection, wanted)
        if joined.events.isdisjoint(self._merges_of(connection, wanted)):
            raise MergeStandsError(
                f"the two are one person by way of others, shown as {joined.survivor}",
                hint="Run `fenhe resident links` for each of his ids, and undo what is wrong.",
            )
        raise MergeStandsError(
            "the two are merged", hint="Use `fenhe resident unmerge`: it tells them apart too."
        )

    def _in_force(self, connection: Connection, resident_id: str) -> frozenset[str]:
        """Events over a resident that nobody ended; merges only if they join him with somebody."""
        stands = standing(halves_around(connection, resident_id))
        parts = {half.event_id for half in stands if half.decision is Decision.DIFFERENT}
        return group(self._store, connection, resident_id).events | parts

    def _merges_of(self, connection: Connection, wanted: Wanted) -> list[str]:
        """Merges of the two that stand; first those that join them, then halves that do not."""
        pair = frozenset({wanted.survivor_id, wanted.merged_id})
        stands = {
            half.event_id
            for half in standing(halves_between(connection, pair, pair))
            if half.pair == pair and half.decision is Decision.SAME
        }
        joins = {
            event_id for each in pair for event_id in group(self._store, connection, each).events
        }
        return sorted(stands, key=lambda event_id: (event_id not in joins, event_id))

    @staticmethod
    def _told_apart(connection: Connection, wanted: Wanted) -> list[str]:
        pair = (wanted.survivor_id, wanted.merged_id)
        halves = halves_between(connection, pair, pair)
        return apart(halves, wanted.survivor_id, wanted.merged_id)


def _said(caller: Caller, wanted: Wanted, decision: Decision) -> tuple[dict[str, str], ...]:
    """What the halves say, the survivor's first."""
    reason = wanted.reason.strip()
    if not _REASON_MIN <= len(reason) <= REASON_MAX:
        raise InvalidRequestError(f"a reason has {_REASON_MIN} to {REASON_MAX} characters")
    parts = (Part.SURVIVOR, Part.MERGED)
    if decision is Decision.DIFFERENT:
        parts = (Part.NEITHER, Part.NEITHER)
    common = {
        "decision": decision.value,
        "decided_by": caller.principal,
        "reason": reason,
    }
    return tuple({**common, "part": part.value} for part in parts)


def _event(row: RowChange, in_force: AbstractSet[str]) -> Event:
    def text(name: str) -> str:
        return str(row.values.get(name) or "")

    ids = (row.resident_id, text("other_id"))
    survivor, merged = ids[::-1] if text("part") == Part.MERGED else ids
    return Event(
        event_id=text("event_id"),
        decision=Decision(text("decision")),
        survivor_id=survivor,
        merged_id=merged,
        decided_at=row.recorded_at,
        decided_by=text("decided_by"),
        author_node=row.author_node,
        reason=text("reason"),
        evidence=text("evidence"),
        model=text("model"),
        ends=frozenset(text("ends").split()),
        in_force=text("event_id") in in_force,
    )
