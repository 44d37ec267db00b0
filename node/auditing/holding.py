"""Anchors the heads of neighbours: judges each against what was anchored before, and signs it.

A head that contradicts an earlier one is kept as evidence with its signature, and refused until an
operator here accepts it: then a new line of that node's heads begins, and the old one stays.

Whoever has a node's key can sign one head after the other. So within some seconds, and while the
disk is full, a head of the same life takes the place of the newest one: it follows from it, and the
rows do not grow. What would be a new row then (another life, another certificate) is told to come
later, which costs an honest node nothing: its time unanchored is counted in hours.
"""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.auditing.anchors import StoredFinding
from node.auditing.errors import (
    AuditContradictedError,
    AuditFindingUnknownError,
    AuditSignerUnknownError,
    AuditStatementError,
    AuditTryLaterError,
)
from node.auditing.ground import AuditGround
from node.auditing.judging import Ask, Taken, judge
from node.auditing.model import NOWHERE, Anchor, Finding, Head, Held, KeptAnchor, Signed
from node.auditing.statements import (
    ANCHOR_TAG,
    HEAD_TAG,
    anchor_bytes,
    digest_of,
    head_in,
    kept_out,
    read_json,
    signed_in,
    signed_out,
)
from node.logs import get_logger
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome

__all__ = ["AnchorHolder"]

_CHAIN_BYTES_MAX: Final = 32_768
_HOUR_MS: Final = 3_600_000
ROW_MS: Final = 20_000
"""A node's next row of anchors, at the soonest."""
_ANCHORS_TOLD: Final = 60
_OBJECT: Final = "audit_anchors"


class AnchorHolder:
    """This node as one that anchors. Every method blocks on the database."""

    def __init__(self, ground: AuditGround) -> None:
        self._g = ground
        self._log = get_logger("audit")

    def anchor(self, peer: NodeId, body: bytes) -> bytes:
        """Answer a neighbour's question to anchor its head.

        Raises:
            AuditStatementError: It is none of this protocol, or not the neighbour's.
            AuditContradictedError: It contradicts what was anchored before; this is kept.
            AuditTryLaterError: It would take room that it may not have now.
        """
        said = read_json(body)
        signed = signed_in(said.get("head"))
        head = head_in(signed.statement)
        if head.node_id != peer:
            raise AuditStatementError(f"{peer} asks for a head of {head.node_id}")
        chain = said.get("chain")
        pem = self._meet(peer, signed.key_id, chain)
        if pem is None:
            return _body({"need": {"chain": True}})
        self._g.proof.verify(peer, HEAD_TAG, signed)
        verdict = self._g.transactions.write(
            lambda connection: self._take(connection, head, signed, pem)
        )
        match verdict:
            case Ask(position):
                return _body({"need": {"position": position}})
            case Finding():
                self._log.error(
                    "an audit was contradicted",
                    peer=peer,
                    kind=verdict.kind.value,
                    position=verdict.position,
                )
                raise AuditContradictedError(
                    f"the audit of {peer} is {verdict.kind.value} at position "
                    f"{verdict.position}, against what {self._g.node_id} anchored"
                )
            case KeptAnchor():
                return _body(
                    {
                        "anchor": signed_out(verdict.anchor_signed),
                        "chain": self._g.proof.chain_pem.decode(),
                    }
                )

    def told(self, peer: NodeId) -> bytes:
        """Answer a neighbour's question for the anchors of it that are kept here."""
        g = self._g

        def work(connection: Connection) -> dict[str, Any]:
            kept = g.anchors.kept(connection, peer, holder=g.node_id, limit=_ANCHORS_TOLD)
            keys = {each.head_signed.key_id for each in kept}
            keys |= {each.anchor_signed.key_id for each in kept}
            chains = {key: g.anchors.signer(connection, key) for key in sorted(keys)}
            return {
                "line": g.anchors.line(connection, peer),
                "anchors": [kept_out(each) for each in kept],
                "chains": {key: pem.decode() for key, pem in chains.items() if pem is not None},
            }

        return _body(g.transactions.read(work))

    def accept(self, caller: Caller, node_id: NodeId, reason: str) -> int:
        """Let a neighbour's audit begin anew after a contradiction; how many were open.

        Raises:
            AuditFindingUnknownError: None is.
        """
        g = self._g

        def work(connection: Connection) -> int:
            count = g.anchors.accept(
                connection, node_id, caller.principal, reason, g.clock.now_ms()
            )
            if count:
                deed = Deed(Action.RECOGNISE, _OBJECT, Outcome.DONE, count, object_id=node_id)
                g.auditor.write(connection, caller, deed)
            return count

        count = g.transactions.write(work)
        if not count:
            raise AuditFindingUnknownError(f"no contradiction of {node_id[:16]} is open here")
        return count

    def findings(self) -> list[StoredFinding]:
        """All that was found, oldest first."""
        return self._g.transactions.read(self._g.anchors.findings)

    def _meet(self, peer: NodeId, key_id: str, chain: Any) -> bytes | None:
        """Know the neighbour's certificate: its chain, which is proven; None: it has to send it."""
        proof, store = self._g.proof, self._g.anchors
        if isinstance(chain, str) and len(chain) <= _CHAIN_BYTES_MAX and chain.isascii():
            if not proof.knows(peer, key_id):
                proof.meet(peer, key_id, chain.encode())
            return chain.encode()
        kept = self._g.transactions.read(lambda connection: store.signer(connection, key_id))
        if kept is None or proof.knows(peer, key_id):
            return kept
        try:
            proof.meet(peer, key_id, kept)
        except AuditSignerUnknownError:
            return None
        return kept

    def _take(
        self, connection: Connection, head: Head, signed: Signed, chain: bytes
    ) -> Ask | Finding | KeptAnchor:
        g, peer = self._g, head.node_id
        line = g.anchors.line(connection, peer)
        newest = g.anchors.newest(connection, peer, g.node_id, line)
        below = NOWHERE
        if newest is not None and head.store_epoch > newest.store_epoch:
            below = g.anchors.below(connection, peer, g.node_id, line, head.lives)
        verdict = judge(head, newest, below)
        if isinstance(verdict, Ask):
            return verdict
        now_ms = g.clock.now_ms()
        is_met = g.anchors.signer(connection, signed.key_id) is not None
        is_taken = isinstance(verdict, Taken)
        instead_of = self._gives_way(newest, now_ms) if is_taken else None
        if instead_of is not None and (not is_met or head.store_epoch != instead_of.store_epoch):
            raise AuditTryLaterError(f"{g.node_id} keeps no other row of {peer} just now")
        found = verdict.lost if isinstance(verdict, Taken) else verdict
        is_noted = found is not None and g.anchors.note(connection, peer, found, signed, now_ms)
        if found is not None and is_noted:
            self._audit(connection, peer, found, taken=is_taken)
        if not is_met and (is_taken or is_noted):
            g.anchors.learn_signer(connection, signed.key_id, peer, chain)
        if isinstance(verdict, Finding):
            return verdict
        anchor = Anchor(g.node_id, digest_of(signed.statement), line, now_ms)
        kept = KeptAnchor(head, anchor, signed, g.proof.sign(ANCHOR_TAG, anchor_bytes(anchor)))
        g.anchors.put(connection, kept, instead_of)
        return kept

    def _gives_way(self, newest: Held | None, now_ms: int) -> Held | None:
        """The newest row if no other may come beside it now.

        Raises:
            AuditTryLaterError: There is none, and no room for the first.
        """
        if self._g.is_full():
            if newest is None:
                raise AuditTryLaterError(f"the disk of {self._g.node_id} is nearly full")
            return newest
        if newest is None or abs(now_ms - newest.at_ms) >= ROW_MS:
            return None
        # The first row of an hour stays: a head every few seconds must not carry it along.
        return newest if now_ms // _HOUR_MS == newest.at_ms // _HOUR_MS else None

    def _audit(self, connection: Connection, peer: NodeId, found: Finding, *, taken: bool) -> None:
        outcome = Outcome.DONE if taken else Outcome.REFUSED
        deed = Deed(Action.CONTRADICTED, _OBJECT, outcome, found.entries, object_id=peer)
        self._g.auditor.write(connection, self._g.itself(found.kind.value), deed)


def _body(said: dict[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()
