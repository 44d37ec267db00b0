"""Walks the whole chain and compares it with every anchor, kept here and held elsewhere.

A chain that holds in itself may still have been written anew or cut; then it contradicts an anchor,
whose signature is another node's. Each life of the store is judged up to where the next begins: an
anchor beyond that names entries that a restore left behind, which is said and is no break.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.auditing.errors import AuditSignerUnknownError, AuditStatementError
from node.auditing.ground import AuditGround
from node.auditing.keeper import AskPeer
from node.auditing.model import KeptAnchor, Life, Point, bound_of
from node.auditing.statements import LIVES_MAX, kept_in, read_json
from node.security.caller import Caller
from node.storage.audit import Action, AuditBreak, Deed, Outcome
from replication.channel import AskRefusedError

__all__ = ["ANCHORS_METHOD", "AnchorBreak", "AnchorFault", "AuditVerifier", "Compared", "Report"]

ANCHORS_METHOD: Final = "audit.anchors"
_ASK_MS: Final = 60_000
_KEPT_LIMIT: Final = 4000
_ANCHORS_MAX: Final = 500
_TELL_EVERY: Final = 20_000
_BREAKS_MAX: Final = 20
_OBJECT: Final = "audit"

Told = Callable[[int], Coroutine[Any, Any, None]]


class AnchorFault(StrEnum):
    """How the chain contradicts an anchor."""

    REWRITTEN = "rewritten"
    CUT = "cut"
    FORGED = "forged"
    """The anchor kept here is not what its holder signed."""


@dataclass(frozen=True, slots=True)
class AnchorBreak:
    """`position`: the first that may be wrong; everything before is covered by an anchor."""

    fault: AnchorFault
    position: int
    anchored: int
    accepted: bool


@dataclass(slots=True)
class Compared:
    """How the chain compares with what one holder anchored.

    `asked`: empty if the holder was asked and answered, else why not. `lost`: anchored entries that
    a restore left behind. `unjudged`: anchors whose signer is not known here.
    """

    holder: NodeId
    asked: str = ""
    anchors: int = 0
    newest: int = 0
    lost: int = 0
    unjudged: int = 0
    breaks: list[AnchorBreak] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """`broken`: where the chain does not hold in itself. `unanchored`: entries no anchor covers."""

    entries: int
    unanchored: int
    broken: AuditBreak | None
    lives: tuple[Life, ...]
    compared: tuple[Compared, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing was changed as far as could be seen."""
        return self.broken is None and not any(
            not each.accepted for one in self.compared for each in one.breaks
        )

    @property
    def is_complete(self) -> bool:
        """Whether at least one holder was asked and every one answered."""
        return bool(self.compared) and not any(each.asked for each in self.compared)


@dataclass(frozen=True, slots=True)
class _Walk:
    """What the walk over the chain saw. `is_whole`: it came to the end, not to a break."""

    hashes: Mapping[int, str]
    end: int
    is_whole: bool
    lives: tuple[Life, ...]


class AuditVerifier:
    """Verifies this node's audit."""

    def __init__(self, ground: AuditGround, ask: AskPeer) -> None:
        self._g = ground
        self._ask = ask

    async def verify(self, caller: Caller, told: Told) -> Report:
        """Walk, ask, compare; audited. `told` is given the position from time to time."""
        g = self._g
        await g.blocking(self._note, caller)
        answers = await asyncio.gather(*(self._asked(holder) for holder in g.holders))
        held = await g.blocking(self._held)
        loop = asyncio.get_running_loop()

        def seen(position: int) -> None:
            if position % _TELL_EVERY == 0:
                asyncio.run_coroutine_threadsafe(told(position), loop)

        return await g.blocking(self.compare, held, answers, seen)

    def compare(
        self,
        held: Sequence[KeptAnchor],
        answers: Sequence[tuple[Compared, Sequence[KeptAnchor]]],
        told: Callable[[int], None] = lambda _place: None,
    ) -> Report:
        """Walk the chain and compare; blocks on the database.

        Args:
            held: Anchors of this node that it keeps itself.
            answers: By holder, what it was told and the anchors it gave.
            told: Given each position.
        """
        by_holder = {compared.holder: (compared, list(given)) for compared, given in answers}
        for kept in held:
            holder = kept.anchor.holder
            if holder not in by_holder:
                by_holder[holder] = (Compared(holder, "NOT_A_NEIGHBOUR"), [])
            by_holder[holder][1].append(kept)
        wanted = {kept.head.end.position for _, given in by_holder.values() for kept in given}
        hashes: dict[int, str] = {0: ""}
        last = Point(0, "")

        def seen(position: int, digest: str) -> None:
            nonlocal last
            last = Point(position, digest)
            if position in wanted:
                hashes[position] = digest
            told(position)

        def work(connection: Connection) -> Report:
            epoch = self._g.store_epoch
            lives = tuple(
                each
                for each in self._g.anchors.lives(connection)
                # A life that has not come yet explains nothing.
                if each.store_epoch <= epoch
            )
            broken = self._g.auditor.verify(connection, seen)
            walk = _Walk(hashes, last.position, broken is None, lives)
            for compared, given in by_holder.values():
                self._judge(connection, compared, given, walk)
            covered = max((c.newest for c, _ in by_holder.values() if not c.breaks), default=0)
            return Report(
                last.position,
                max(last.position - covered, 0),
                broken,
                lives,
                tuple(compared for compared, _ in by_holder.values()),
            )

        return self._g.transactions.read(work)

    def _judge(
        self,
        connection: Connection,
        compared: Compared,
        given: Sequence[KeptAnchor],
        walk: _Walk,
    ) -> None:
        """Compare with one holder's anchors, the earliest first."""
        sure, line = 0, max((kept.anchor.line for kept in given), default=1)
        for kept in sorted(given, key=lambda each: each.head.end.position):
            if len(compared.breaks) >= _BREAKS_MAX:
                return
            position = kept.head.end.position
            accepted = kept.anchor.line < line
            try:
                self._g.proof.verify_kept(connection, self._g.anchors, kept)
            except AuditSignerUnknownError:
                compared.unjudged += 1
                continue
            except AuditStatementError:
                fault = AnchorBreak(AnchorFault.FORGED, sure + 1, position, accepted)
                compared.breaks.append(fault)
                continue
            compared.anchors += 1
            bound = bound_of(walk.lives, kept.head.store_epoch)
            if not _knows_lives(kept, walk.lives):
                fault = AnchorBreak(AnchorFault.REWRITTEN, sure + 1, position, accepted)
                compared.breaks.append(fault)
            elif bound is not None and position > bound:
                compared.lost = max(compared.lost, position - bound)
            elif walk.hashes.get(position) == kept.head.end.hash:
                sure = position
                compared.newest = max(compared.newest, position)
            elif position > walk.end and walk.is_whole:
                fault = AnchorBreak(AnchorFault.CUT, walk.end + 1, position, accepted)
                compared.breaks.append(fault)
            else:
                fault = AnchorBreak(AnchorFault.REWRITTEN, sure + 1, position, accepted)
                compared.breaks.append(fault)

    def _note(self, caller: Caller) -> None:
        deed = Deed(Action.VERIFY, _OBJECT, Outcome.DONE, 0)
        self._g.transactions.write(
            lambda connection: self._g.auditor.write(connection, caller, deed)
        )

    def _held(self) -> list[KeptAnchor]:
        g = self._g
        return g.transactions.read(
            lambda connection: g.anchors.kept(connection, g.node_id, holder=None, limit=_KEPT_LIMIT)
        )

    async def _asked(self, holder: NodeId) -> tuple[Compared, list[KeptAnchor]]:
        """The anchors that a holder gives of this node."""
        compared = Compared(holder)
        try:
            said = read_json(await self._ask(holder, ANCHORS_METHOD, b"{}", _ASK_MS))
            given = [kept_in(each) for each in _list(said.get("anchors"))[:_ANCHORS_MAX]]
            await self._g.blocking(self._learn, holder, said.get("chains"))
        except FenheError as error:
            compared.asked = error.status if isinstance(error, AskRefusedError) else error.code
            return compared, []
        mine = [
            each
            for each in given
            if each.anchor.holder == holder and each.head.node_id == self._g.node_id
        ]
        return compared, mine

    def _learn(self, holder: NodeId, chains: Any) -> None:
        """Keep the holder's certificates that are not known here; each is verified when used."""
        g = self._g
        if not isinstance(chains, dict):
            return

        def work(connection: Connection) -> None:
            for key, pem in list(chains.items())[:_ANCHORS_MAX]:
                fits = isinstance(key, str) and len(key) == 64 and isinstance(pem, str)
                if fits and pem.isascii() and g.anchors.signer(connection, key) is None:
                    g.anchors.learn_signer(connection, key, holder, pem.encode())

        g.transactions.write(work)


def _knows_lives(kept: KeptAnchor, lives: Sequence[Life]) -> bool:
    """Whether the lives that the head named are still those of the store."""
    until = tuple(each for each in lives if each.store_epoch <= kept.head.store_epoch)
    return until[-LIVES_MAX:] == kept.head.lives


def _list(said: Any) -> list[Any]:
    return said if isinstance(said, list) else []
