"""What stops while the audit cannot be relied on. Asked before every entry that is written.

Order of what stops: what reads in bulk (questions, exports of the audit, the further pages of a
timeline) once the audit stands unanchored for four hours; reading altogether once it stands so for
as long as the profile says, or once the disk has no room for another entry. Writing goes on: a
visit that happened is a fact, and its entry is written with it or neither is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from node.auditing.errors import (
    AuditNoRoomError,
    AuditReadsStoppedError,
    AuditUnanchoredError,
)
from node.security.caller import Caller
from node.storage.audit import READING, Deed

__all__ = ["BULK_MS", "AuditGate", "under_glass"]

_HOUR_MS: Final = 3_600_000
BULK_MS: Final = 4 * _HOUR_MS


class AuditGate:
    """Implements node.storage.audit.Gate; safe from several threads."""

    def __init__(
        self,
        unanchored_ms: Callable[[], int],
        limit_hours: int,
        *,
        has_room: Callable[[], bool],
        exempt: Callable[[Caller, Deed], bool],
    ) -> None:
        """`limit_hours`: the profile's. `exempt`: a deed that is let through when they are over."""
        self._unanchored_ms = unanchored_ms
        self._limit_ms = limit_hours * _HOUR_MS
        self._has_room = has_room
        self.exempt = exempt

    def admit(self, caller: Caller, deeds: Sequence[Deed]) -> None:
        """See Gate.

        Raises:
            AuditNoRoomError: They read, and an entry may not fit on the disk.
            AuditReadsStoppedError: They read, and the audit is unanchored for too long.
        """
        reading = [each for each in deeds if each.action in READING]
        if not reading:
            return
        if not self._has_room():
            raise AuditNoRoomError("the room kept for the audit on the disk is used up")
        hours = self._unanchored_ms() // _HOUR_MS
        if hours * _HOUR_MS >= self._limit_ms and not all(
            self.exempt(caller, each) for each in reading
        ):
            raise AuditReadsStoppedError(
                f"no other node holds the end of this node's audit, for {hours} hours"
            )

    def refuse_bulk(self) -> None:
        """See Gate.

        Raises:
            AuditUnanchoredError: The audit is unanchored for four hours.
        """
        unanchored_ms = self._unanchored_ms()
        if unanchored_ms >= BULK_MS:
            raise AuditUnanchoredError(
                "no other node holds the end of this node's audit, for "
                f"{unanchored_ms // _HOUR_MS} hours"
            )


def under_glass(_caller: Caller, deed: Deed) -> bool:
    """Whether a read goes through a broken glass: an emergency waits for no line.

    One resident for half an hour, each read marked, the grant reviewed at his home. Without room
    for the entry not even that is read.
    """
    return deed.grant_id is not None
