"""Homes that moved, as far as the storage must know: admission, planning and reads.

The grants lie in node/residence; here is what they mean for a row or a caller.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection, bindparam, select

from hierarchy_config.model import NodeId
from node.residence.errors import ResidentInTransferError, ResidentMovedError
from node.security.caller import Caller
from node.storage.context import StoreContext
from node.storage.rows import HeldRow
from node.storage.specs import ACCESS_REVIEWS, CONSENTS, IDENTIFIERS, RESIDENT_INDEX, RESIDENTS
from node.storage.tables import REPLICATED
from replication.core.model import Form, RowChange
from replication.core.residence import Grant, KnownHome, pseudonym_home

__all__ = [
    "MovedHomes",
    "WhatIsKnown",
    "may_know",
    "refuse_if_away",
    "refuse_moved",
    "taken_by_home",
]

_R = REPLICATED[RESIDENTS.name]
_HELD: Final = select(_R.c.home_node).where(
    _R.c.row_id == bindparam("id"), _R.c.form == Form.FULL.value
)
_IDENTITY: Final = frozenset(
    {RESIDENTS.name, IDENTIFIERS.name, RESIDENT_INDEX.name, CONSENTS.name, ACCESS_REVIEWS.name}
)


@dataclass(frozen=True, slots=True)
class WhatIsKnown:
    """What the admission of a row is told of its resident's home."""

    home_node: str
    home_epoch: int
    granted_home: str = ""
    granted_epoch: int = 0


class MovedHomes:
    """The grants that concern the residents of one batch."""

    def __init__(
        self,
        store: StoreContext,
        connection: Connection,
        resident_ids: Collection[str],
        below: AbstractSet[str],
    ) -> None:
        self._store = store
        self._connection = connection
        self._below = below
        self._grants = store.homes.newest(connection, resident_ids)
        self._unnamed: dict[tuple[KnownHome, KnownHome], bool] = {}

    def known(self, change: RowChange, home: tuple[str, int]) -> WhatIsKnown:
        """`home`: by the rows held here, ("", 0) if he is not."""
        # A code that was closed is its successor's from then on.
        node, epoch = self._store.hierarchy.successor(NodeId(home[0])) or home[0], home[1]
        grant = self._grants.get(change.resident_id)
        if grant is not None:
            if grant.home_epoch >= epoch:
                node, epoch = grant.home_node, grant.home_epoch
            return WhatIsKnown(node, epoch, grant.home_node, grant.home_epoch)
        if self._moved_unnamed(change, node, epoch):
            return WhatIsKnown(node, epoch, change.home_node, change.home_epoch)
        return WhatIsKnown(node, epoch)

    def redirected(self, change: RowChange) -> bool:
        """Send a row that came under a former home after him; False if that cannot be done."""
        grant, redirect = self._grants.get(change.resident_id), self._store.homes.redirect
        if grant is None or redirect is None or change.form is not Form.FULL:
            return False
        redirect(self._connection, change, grant)
        return True

    def _moved_unnamed(self, change: RowChange, node: str, epoch: int) -> bool:
        """Whether somebody moved as this row without a name claims to have."""
        if change.form is not Form.DEIDENTIFIED or not node or change.home_epoch <= epoch:
            return False
        held, claimed = KnownHome(node, epoch), KnownHome(change.home_node, change.home_epoch)
        if (held, claimed) not in self._unnamed:
            self._unnamed[held, claimed] = pseudonym_home(
                held,
                claimed,
                self._below,
                moves_from=partial(self._store.homes.moves_from, self._connection),
                branch=self._branch,
            )
        return self._unnamed[held, claimed]

    def _branch(self, home: str) -> frozenset[str]:
        tree, here = self._store.hierarchy, self._store.node_id
        if home == here or not tree.is_in_subtree(NodeId(home), here):
            return frozenset({home})
        return frozenset(tree.subtree(tree.next_hop(here, NodeId(home))))


def taken_by_home(change: RowChange, held: HeldRow) -> bool:
    """Whether a new home takes an identity row over from the one before."""
    return (
        change.table in _IDENTITY
        and change.author_node == change.home_node
        and change.home_epoch > 1
        and change.home_epoch >= held.home_epoch
        and change.version.author_epoch > held.version.author_epoch
    )


def refuse_moved(
    store: StoreContext,
    connection: Connection,
    residents: Collection[tuple[str, str, HeldRow | None]],
) -> None:
    """Refuse to write who somebody is where he is not at home (any more, or yet).

    Args:
        store: The node's.
        connection: The transaction, in which the rows held are locked already.
        residents: Resident id, position in the bundle, the row held.

    Raises:
        ResidentMovedError: His home is elsewhere.
        ResidentInTransferError: His history is on its way here.
    """
    here = store.node_id
    grants = store.homes.newest(connection, [resident_id for resident_id, _, _ in residents])
    for resident_id, position, held in residents:
        grant = grants.get(resident_id)
        if grant is None or (held is not None and held.home_epoch > grant.home_epoch):
            continue
        if grant.home_node != here:
            raise ResidentMovedError(grant.home_node, grant.home_epoch, [position])
        if held is None or held.home_epoch < grant.home_epoch:
            raise ResidentInTransferError(f"the resident's history is on its way here: {position}")


def refuse_if_away(
    store: StoreContext, connection: Connection, caller: Caller, resident_id: str
) -> None:
    """Say where a resident is whom the caller cannot read here, if he may know.

    Raises:
        ResidentMovedError: His home is elsewhere.
        ResidentInTransferError: It is here, and his history has not come yet.
    """
    grant = store.homes.newest(connection, [resident_id]).get(resident_id)
    if grant is None or not may_know(caller, grant):
        return
    held = connection.execute(_HELD, {"id": resident_id}).scalar()
    if held is not None and held in caller.scope:
        return
    if grant.home_node != store.node_id:
        raise ResidentMovedError(grant.home_node, grant.home_epoch)
    raise ResidentInTransferError("the resident's history is on its way here")


def may_know(caller: Caller, grant: Grant) -> bool:
    """Whether a caller may learn where somebody lives now: who lived or lives in his scope."""
    return grant.from_node in caller.scope or grant.home_node in caller.scope
