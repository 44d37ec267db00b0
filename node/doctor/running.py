"""Looks at a running node: its links and neighbours, door, alarms, quarantine and audit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from node.doctor.findings import Checkup, Finding, Severity
from node.joining.room import JoiningRoom
from node.links import LinkHub, LinkState
from node.opening import OpenStore
from node.storage.tables import AUDIT
from node.watch import WatchRoom
from replication.core.greeting import Versions
from replication.core.model import PROTOCOL_MAX, SCHEMA_VERSION

__all__ = ["RunningLooks"]

SKEW_MS_MAX: Final = 5 * 60_000
SKEW_MS_WARN: Final = 30_000
UNLINKED_MAX: Final = 10_000
_DOOR_S: Final = 2.0
ANY_ADDRESS: Final = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - compared, not bound  # nosec B104
"""Listened on, and no address to connect to."""


@dataclass(frozen=True, slots=True)
class RunningLooks:
    """What only the running node knows."""

    hub: LinkHub
    watch: WatchRoom
    joining: JoiningRoom
    store: OpenStore

    def add_to(self, checkup: Checkup) -> None:
        """Have all of it looked at."""
        checkup.add("LINK", self.links)
        checkup.add("DOOR", self.door)
        checkup.add("ALARM", self.alarms)
        checkup.add("QUARANTINE", self.quarantine)
        checkup.add("AUDIT", self.audit)

    def links(self) -> Iterator[Finding]:
        """Each neighbour: reached, its clock, its release, its region file."""
        for state in self.hub.states.values():
            yield from self._link(state)

    def _link(self, state: LinkState) -> Iterator[Finding]:
        peer = state.peer
        if not state.connected:
            # A child that is off is its own clinic's affair; a parent that is, is ours.
            severity = Severity.BAD if state.role == "parent" else Severity.WARNING
            why = f" ({state.last_error[:200]})" if state.last_error else ""
            step = state.last_hint or f"See that {peer} runs and that the line to it is up."
            yield Finding("LINK", severity, f"the {state.role} is not linked{why}", step, peer)
            return
        yield Finding("LINK", Severity.GOOD, f"the {state.role} is linked", about=peer)
        skew = abs(state.clock_skew_ms)
        if skew > SKEW_MS_WARN:
            severity = Severity.BAD if skew > SKEW_MS_MAX else Severity.WARNING
            said = f"its clock and this node's are {skew // 1000} s apart"
            yield Finding("CLOCK", severity, said, "Set both clocks (NTP).", peer)
        if state.last_error.startswith("CONFIG_EPOCH_MISMATCH"):
            step = "Give both nodes the same region file (`fenhe hierarchy history` at the root)."
            yield Finding("REGION", Severity.WARNING, state.last_error[:300], step, peer)
        spoken = state.versions
        if spoken is not None and _is_older(spoken):
            said = (
                f"it speaks protocol {spoken.protocol_max} and schema {spoken.schema_max}, this "
                f"node {PROTOCOL_MAX} and {SCHEMA_VERSION}"
            )
            yield Finding("RELEASE", Severity.WARNING, said, "Upgrade the older node.", peer)

    def door(self) -> Iterator[Finding]:
        """Whether the side door of a node with children answers."""
        address = self.joining.door_address
        if not address:
            if self.hub.hierarchy.children(self.hub.node_id):
                said = f"the door is closed: {self.joining.closed_because}"
                step = "Set door_listen in node.yaml if machines are to join here."
                yield Finding("DOOR", Severity.WARNING, said, step)
            return
        host, _, port = address.rpartition(":")
        reached = "localhost" if host in ANY_ADDRESS else host.strip("[]")
        try:
            socket.create_connection((reached, int(port)), _DOOR_S).close()
        except OSError as error:
            said = f"the door at {address} does not answer ({error.strerror or 'no answer'})"
            step = "Start the node again; its log says why."
            yield Finding("DOOR", Severity.BAD, said, step)
            return
        yield Finding("DOOR", Severity.GOOD, f"the door at {address} answers")

    def alarms(self) -> Iterator[Finding]:
        """Every alarm that stands: backlogs, refusals, letters, items set aside."""
        self.watch.look()
        standing = self.watch.book.standing
        for alarm in standing:
            yield Finding(
                alarm.kind.value, Severity.BAD, alarm.message, alarm.next_step, alarm.peer
            )
        if not standing:
            yield Finding("ALARM", Severity.GOOD, "no alarm stands")

    def quarantine(self) -> Iterator[Finding]:
        """Changes that were not admitted."""
        waiting = sum(self.watch.desk.by_cause().values())
        if waiting:
            said = f"{waiting} changes were not admitted and wait"
            yield Finding(
                "QUARANTINE", Severity.WARNING, said, "See `fenhe quarantine list` for causes."
            )
        else:
            yield Finding("QUARANTINE", Severity.GOOD, "nothing waits in the quarantine")

    def audit(self) -> Iterator[Finding]:
        """Whether entries are chained soon after they are written."""
        with self.store.engine.connect() as connection:
            unlinked = connection.execute(
                select(func.count()).where(AUDIT.c.chain_position.is_(None))
            ).scalar_one()
        said = f"{unlinked} entries of the audit wait to be chained"
        if unlinked > UNLINKED_MAX:
            step = "See the node's log for the audit chain; restart the node if it stands still."
            yield Finding("AUDIT", Severity.BAD, said, step)
        else:
            yield Finding("AUDIT", Severity.GOOD, said)

    def whole_audit(self) -> Iterator[Finding]:
        """Walk the whole chain."""
        broken = self.store.storage.verify_audit()
        if broken is None:
            yield Finding("AUDIT", Severity.GOOD, "the audit's chain holds from end to end")
            return
        said = f"the audit does not hold at entry {broken.position}: {broken.reason}"
        step = "Keep the database as it is and tell the node above; a backup has it whole."
        yield Finding("AUDIT", Severity.BAD, said, step)


def _is_older(spoken: Versions) -> bool:
    return spoken.protocol_max < PROTOCOL_MAX or spoken.schema_max < SCHEMA_VERSION
