"""The operator's side: revoking a node below or a caller of this node, and the lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.errors import InvalidRequestError
from node.links.hub import LinkHub, RequestHandler
from node.logs import get_logger
from node.revocation.book import RevokedBook
from node.revocation.entries import KEYS_MAX, Entry, Target, Word, sign_entry
from node.revocation.errors import RevokeNotBelowError
from node.revocation.flooding import parse_body, to_body
from node.revocation.store import KeyRole, RevocationStore, SeenKey
from node.security.caller import Caller, CallerKind
from node.security.errors import PeerIdentityError
from node.security.principal import Principal
from node.security.signatures import Signer
from replication.channel import AskRefusedError
from replication.core.model import Request

__all__ = ["KEYS", "RevokeDesk", "Revoked", "Wish"]

KEYS: Final = "revocation.keys"
_ASK_MS: Final = 5_000
_REPEAT_MS: Final = 3_600_000
"""Who asks again within it repeats himself; later, a place may have had another machine."""
_REASON_MAX: Final = 200
_CALLER_KINDS: Final = (
    CallerKind.CLIENT,
    CallerKind.STAFF,
    CallerKind.ANALYST,
    CallerKind.OPERATOR,
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for: one of a node, a caller's name, a caller's key."""

    reason: str
    node_id: str = ""
    caller: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What came of it. `repeated`: it was revoked already, and nothing new was signed."""

    entry: Entry
    repeated: bool


class RevokeDesk:
    """Lives on the event loop; what blocks runs beside it."""

    def __init__(
        self,
        node_id: NodeId,
        hierarchy: Hierarchy,
        signer: Signer,
        *,
        book: RevokedBook,
        store: RevocationStore,
        hub: LinkHub,
        clock: Clock,
        learnt: Callable[[Sequence[Entry]], None],
    ) -> None:
        """`learnt`: told of what was signed here, once it is durable."""
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._signer = signer
        self._book = book
        self._store = store
        self._hub = hub
        self._clock = clock
        self._learnt = learnt
        self._one_at_a_time = asyncio.Lock()
        self._log = get_logger("revocation")

    @property
    def handlers(self) -> dict[str, RequestHandler]:
        """Questions of the parent."""
        return {KEYS: self._on_keys}

    async def revoke(self, caller: Caller, wish: Wish) -> Revoked:
        """Revoke; durable and in effect here on return. The same again soon signs nothing.

        Raises:
            RevokeNotBelowError: The node does not lie below this one.
            InvalidRequestError: It is not said, or said twice, what is to be revoked, or why.
            RevocationFullError: As RevocationStore.sign.
        """
        said = [bool(wish.node_id), bool(wish.caller), bool(wish.key)].count(True)
        if said != 1 or not 0 < len(wish.reason) <= _REASON_MAX:
            raise InvalidRequestError(
                "one of node, caller and key is revoked, with a reason of 1 to 200 characters"
            )
        async with self._one_at_a_time:
            if wish.node_id:
                made = await self._node(caller, NodeId(wish.node_id), wish.reason)
            else:
                made = await self._caller(caller, wish)
        if not made.repeated:
            self._learnt((made.entry,))
        return made

    def page(self, after: str, limit: int) -> list[Entry]:
        """Entries, by signer and number, after one (its digest; empty: from the first)."""
        entries = sorted(self._book.entries, key=lambda e: (e.word.signer, e.word.number, e.digest))
        if after:
            places = [place for place, each in enumerate(entries, 1) if each.digest == after]
            entries = entries[places[0] :] if places else []
        return entries[:limit]

    def counts(self, entry: Entry) -> bool:
        """Whether an entry has effect."""
        return self._book.counts(entry)

    async def _node(self, caller: Caller, node_id: NodeId, reason: str) -> Revoked:
        hierarchy, here = self._hierarchy, self._node_id
        known = node_id in hierarchy and node_id != here
        if not known or not hierarchy.is_in_subtree(node_id, here):
            raise RevokeNotBelowError(f"{node_id[:16]} does not lie below {here}")
        keys, is_whole = await self._keys_of(node_id)
        fresh = [each for each in keys if not self._book.is_revoked(each.digest, node_id)]
        now_ms = self._clock.now_ms()
        repeated = self._said_just_now(node_id, now_ms)
        if repeated is not None and is_whole and not fresh:
            return Revoked(repeated, repeated=True)
        # What its authority has signed is as stolen as its own key; if nobody knows the key of the
        # authority that it has now, everything that was issued to the node until now is.
        has_authority = any(each.role is KeyRole.AUTHORITY for each in fresh)
        is_known = is_whole and has_authority and len(fresh) <= KEYS_MAX
        word = self._word(caller, Target.NODE, node_id, reason, now_ms)
        return await self._signed(
            caller,
            word,
            keys=tuple(each.digest for each in fresh[:KEYS_MAX]),
            issued_before_ms=0 if is_known else now_ms,
        )

    def _said_just_now(self, node_id: NodeId, now_ms: int) -> Entry | None:
        """The last entry about a node's keys, if it is of this hour.

        Later its place may have joined again, with keys that this store has never seen.
        """
        last = max(self._book.about(node_id), key=lambda each: each.word.at_ms, default=None)
        return last if last and abs(now_ms - last.word.at_ms) < _REPEAT_MS else None

    async def _caller(self, caller: Caller, wish: Wish) -> Revoked:
        now_ms = self._clock.now_ms()
        word = self._word(caller, Target.CALLER, self._node_id, wish.reason, now_ms)
        principals = self._principals(wish.caller) if wish.caller else ()
        keys = (wish.key,) if wish.key else ()
        for entry in self._book.entries:
            held = entry.word
            is_here = held.target is Target.CALLER and held.node_id == self._node_id
            says_it = set(principals) <= set(held.principals) and set(keys) <= set(held.keys)
            if is_here and says_it:
                return Revoked(entry, repeated=True)
        return await self._signed(caller, word, principals=principals, keys=keys)

    def _principals(self, name: str) -> tuple[str, ...]:
        """The SPIFFE ids of KIND/NAME, or of a name in every kind."""
        kind, slash, rest = name.partition("/")
        kinds = [each for each in _CALLER_KINDS if not slash or each.value == kind]
        region = self._hierarchy.region
        try:
            found = [Principal(region, self._node_id, k, rest if slash else name) for k in kinds]
        except PeerIdentityError as error:
            raise InvalidRequestError(error.message, hint=error.hint) from None
        if not found:
            raise InvalidRequestError(f"{kind[:16]} is no kind of caller")
        return tuple(each.spiffe_id for each in found)

    def _word(
        self, caller: Caller, target: Target, node_id: NodeId, reason: str, now_ms: int
    ) -> dict[str, Any]:
        return {
            "signer": self._node_id,
            "target": target,
            "node_id": node_id,
            "keys": (),
            "principals": (),
            "issued_before_ms": 0,
            "reason": reason,
            "by": caller.principal[:200],
            "at_ms": now_ms,
        }

    async def _signed(self, caller: Caller, word: dict[str, Any], **more: Any) -> Revoked:
        def make(number: int) -> Entry:
            return sign_entry(self._signer, Word(number=number, **(word | more)))

        entry = await asyncio.to_thread(self._store.sign, caller, make)
        self._book.add([entry])
        self._log.warning(
            "revoked", node=entry.word.node_id, target=entry.word.target, number=entry.word.number
        )
        return Revoked(entry, repeated=False)

    async def _keys_of(self, node_id: NodeId) -> tuple[list[SeenKey], bool]:
        """The keys that this node has seen, and those of its parent; whether that one was heard."""
        known = {k.digest: k for k in await asyncio.to_thread(self._store.keys_of, node_id)}
        parent = self._hierarchy.parent(node_id)
        if parent is not None and parent != self._node_id:
            try:
                asked = to_body({"node": node_id})
                said = parse_body(await self._hub.ask(parent, KEYS, asked, remaining_ms=_ASK_MS))
                for key in _keys_in(node_id, said.get("keys")):
                    known.setdefault(key.digest, key)
            except FenheError as error:
                # Then what was issued until now is revoked, whatever its keys are.
                self._log.info("its parent does not say its keys", peer=parent, code=error.code)
                return list(known.values()), False
        return list(known.values()), True

    async def _on_keys(self, _peer: NodeId, request: Request) -> bytes:
        asked = parse_body(request.body).get("node")
        if not isinstance(asked, str) or self._hierarchy.parent(NodeId(asked)) != self._node_id:
            raise AskRefusedError("INVALID_REQUEST", "a question for keys is not of a child")
        keys = await asyncio.to_thread(self._store.keys_of, NodeId(asked))
        return to_body({"keys": [[each.digest, each.role.value] for each in keys]})


def _keys_in(node_id: NodeId, said: Any) -> list[SeenKey]:
    """What a peer said in the place of keys; what is none is left out."""
    roles = {role.value: role for role in KeyRole}
    return [
        SeenKey(node_id, pair[0], roles[pair[1]])
        for pair in (said if isinstance(said, list) else [])
        if isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and len(pair[0]) == 64
        and pair[1] in roles
    ]
