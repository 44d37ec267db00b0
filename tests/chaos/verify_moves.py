"""What must hold of residents who moved: one owner, the newest epoch, no edit lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import grpc

import protos.fenhe.empi.v1.empi_pb2 as empi
import protos.fenhe.empi.v1.residence_pb2 as pb
from hierarchy_config import NodeId
from protos.fenhe.empi.v1 import empi_pb2_grpc, residence_pb2_grpc
from tests.chaos.expected import Whereabouts
from tests.chaos.moves import Asked, Edited
from tests.chaos.place import ChaosPlace
from tests.chaos.restores import Restores
from tests.services.stores import HeldRow, opened

__all__ = ["Granted", "edits_lost", "granted_at", "owner_faults"]

_CALL_S = 20.0


@dataclass(frozen=True)
class Granted:
    """Every grant that any node knows, and where they disagree."""

    by_epoch: Mapping[tuple[str, int], NodeId]
    contradictions: tuple[str, ...]

    @property
    def homes(self) -> dict[str, NodeId]:
        """The last home of everybody who moved."""
        return {
            resident_id: self.by_epoch[resident_id, epoch]
            for resident_id, epoch in self.epochs.items()
        }

    @property
    def epochs(self) -> dict[str, int]:
        """The newest home epoch of everybody who moved."""
        newest: dict[str, int] = {}
        for resident_id, epoch in self.by_epoch:
            newest[resident_id] = max(epoch, newest.get(resident_id, 0))
        return newest


def granted_at(place: ChaosPlace) -> Granted:
    """Read the grants of all nodes, running or stopped."""
    found: dict[tuple[str, int], NodeId] = {}
    contradictions = []
    for node in place.nodes:
        with opened(place.place, node) as store:
            for (resident_id, epoch), home in store.grants().items():
                said = found.setdefault((resident_id, epoch), NodeId(home))
                if said != home:
                    contradictions.append(f"epoch {epoch} was given to {said} and to {home}")
    return Granted(found, tuple(contradictions))


def owner_faults(
    granted: Granted,
    asked: list[Asked],
    stores: Mapping[NodeId, Mapping[tuple[str, str], HeldRow]],
    where: Whereabouts,
) -> list[str]:
    """Residents with no owner, several, or an old epoch; grants that were told and are gone."""
    faults = list(granted.contradictions)
    for resident_id, home in granted.homes.items():
        if resident_id in where.lost:
            continue
        held = {
            node: row
            for node, rows in stores.items()
            if (row := rows.get(("residents", resident_id))) is not None and row.form == "full"
        }
        owners = [node for node, row in held.items() if row.home == node]
        if owners != [home]:
            faults.append(f"a resident who moved to {home} is at home at {owners}")
        elif held[home].home_epoch != granted.epochs[resident_id]:
            faults.append(f"a resident at {home} lives there under epoch {held[home].home_epoch}")
    for each in asked:
        is_known = granted.by_epoch.get((each.resident_id, each.home_epoch)) == each.to
        forgotten = each.at_ms <= where.restored_ms.get(each.at, 0)
        if each.home_epoch and not is_known and not forgotten:
            faults.append(
                f"{each.at} said that a move to {each.to} was granted; nobody knows of it"
            )
    return faults


def edits_lost(
    place: ChaosPlace, edits: list[Edited], homes: Mapping[str, NodeId], restores: Restores
) -> tuple[list[str], int]:
    """Edits of former homes that neither stand nor are proposed; how many are proposed.

    The nodes run. What a home acknowledged and lost when it was put back is forgiven.
    """
    lost = []
    proposed = 0
    for edit in edits:
        forgotten = edit.at_ms <= restores.last_ms.get(edit.at, 0)
        if forgotten or edit.resident_id in restores.lost_residents:
            continue
        home = homes.get(edit.resident_id, edit.at)
        if _phone(place, home, edit.resident_id) == edit.phone:
            continue
        if edit.phone in _proposed(place, home, edit.resident_id):
            proposed += 1
        else:
            lost.append(f"an edit of {edit.at} at {home}")
    return lost, proposed


def _phone(place: ChaosPlace, home: NodeId, resident_id: str) -> str:
    request = empi.GetResidentRequest(resident_id=resident_id)
    with place.channel(home) as channel:
        try:
            found = empi_pb2_grpc.ResidentServiceStub(channel).Get(request, timeout=_CALL_S)
        except grpc.RpcError as error:
            return f"{error.code().name}"
    return str(found.phone)


def _proposed(place: ChaosPlace, home: NodeId, resident_id: str) -> set[str]:
    request = pb.ListProposalsRequest(resident_id=resident_id)
    with place.channel(home) as channel:
        stub = residence_pb2_grpc.ResidenceServiceStub(channel)
        listed = stub.ListProposals(request, timeout=_CALL_S)
    return {change.proposed for each in listed.proposals for change in each.changes}
