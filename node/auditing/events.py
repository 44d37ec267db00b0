"""What the node itself does, in its audit: starts, stops, a new life, another region, certificate.

What was the case at the start before is kept in the database, so that each change is written once,
whenever the process notices it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from node.auditing.ground import AuditGround
from node.storage.audit import Action, Deed, Outcome
from node.storage.tables import CHANGELOG
from replication.changelog import StoreState

__all__ = ["RESTORED_FACT", "NodeEvents"]

RESTORED_FACT: Final = "audit_restored"
"""Set by a restore: the number of the backup; emptied when it stands in the audit."""
_REGION_FACT: Final = "audit_region_epoch"
_KEY_FACT: Final = "audit_certificate"
_NODE: Final = "node"
_PURPOSE: Final = "node event"


@dataclass(frozen=True, slots=True)
class NodeEvents:
    """Writes them; every method blocks on the database."""

    ground: AuditGround

    def started(self) -> None:
        """The process is about to serve: whatever has changed since the last start is noted."""
        g = self.ground
        # What the store held unlinked belongs to the life in which it was written.
        while g.link():
            pass
        facts = StoreState(CHANGELOG)

        def work(connection: Connection) -> None:
            said = facts.load(connection)
            deeds = [_event(Action.START, "")]
            if g.anchors.begin_life(connection, g.store_epoch, g.clock.now_ms()):
                deeds.append(_event(Action.EPOCH, str(g.store_epoch)))
            if said.get(RESTORED_FACT):
                deeds.append(_event(Action.RESTORE, said[RESTORED_FACT]))
                facts.save(connection, RESTORED_FACT, "")
            region = str(g.hierarchy.epoch)
            for name, value, action in (
                (_REGION_FACT, region, Action.REGION),
                (_KEY_FACT, g.proof.key_id, Action.RENEW),
            ):
                if said.get(name) != value:
                    if name in said:
                        deeds.append(_event(action, value))
                    facts.save(connection, name, value)
            g.anchors.learn_signer(connection, g.proof.key_id, g.node_id, g.proof.chain_pem)
            g.auditor.write(connection, g.itself(_PURPOSE), *deeds)

        g.transactions.write(work)

    def stopped(self) -> None:
        """The process ends in order."""
        g = self.ground
        g.transactions.write(
            lambda connection: g.auditor.write(
                connection, g.itself(_PURPOSE), _event(Action.STOP, "")
            )
        )


def _event(action: Action, value: str) -> Deed:
    """`value`: an epoch, a backup's number, a certificate's digest; never a name."""
    return Deed(action, _NODE, Outcome.DONE, 0, object_id=value or None)
