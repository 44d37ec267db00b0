"""Waits until everything has followed from what was written, and has the nodes compare."""

from __future__ import annotations

import threading
from typing import Final

import grpc
from sqlalchemy import RowMapping

import protos.fenhe.node.v1.maintenance_pb2 as maintenance
import protos.fenhe.node.v1.operations_pb2 as pb
from hierarchy_config import NodeId
from node.demo.processes import NodeStartError
from protos.fenhe.node.v1 import maintenance_pb2_grpc, operations_pb2_grpc
from replication.core.admission import Cause
from tests.chaos.faults import Faults
from tests.chaos.place import ChaosPlace, Teller
from tests.services.stores import opened
from tests.services.waiting import CLOCK

__all__ = ["compared", "drain"]

DRAIN_S_MAX: Final = 420.0
"""A letter that was lost is sent again after one minute, then two, then four."""
_CALL_S: Final = 10.0
_COMPARE_S: Final = 120.0
_LOOK_S: Final = 1.0


def drain(place: ChaosPlace, faults: Faults, tell: Teller) -> float | None:
    """Wait until every node runs, is linked and owes nothing; seconds, None: not in time."""
    started = CLOCK.monotonic_ms()
    pause = threading.Event()
    calm = 0
    why = ""
    while (elapsed := (CLOCK.monotonic_ms() - started) / 1000) < DRAIN_S_MAX:
        faults.end_due(float("inf"))
        waiting = _waiting(place, faults)
        calm = 0 if waiting else calm + 1
        # Twice: what one node has just passed on may lie before the next.
        if calm > 1:
            return elapsed
        if waiting and waiting != why:
            why = waiting
            tell(f"draining, {elapsed:.0f} s: {why}")
        pause.wait(_LOOK_S)
    return None


def compared(place: ChaosPlace) -> list[str]:
    """What the comparison of each node with its parent finds, by digests of clear content."""
    unequal = []
    for node in place.nodes:
        parent = place.parent(node)
        if parent is None:
            continue
        report = None
        with place.channel(node) as channel:
            stub = maintenance_pb2_grpc.MaintenanceServiceStub(channel)
            for event in stub.Verify(maintenance.VerifyRequest(peer=parent), timeout=_COMPARE_S):
                report = event.report if event.HasField("report") else None
        if report is None or not report.equal:
            found = [] if report is None else [dict(link.causes) for link in report.links]
            unequal.append(f"{node} and {parent}: {found}")
    return unequal


def _waiting(place: ChaosPlace, faults: Faults) -> str:
    """What is waited for, one thing of it; "" if all is done."""
    if not faults.change.is_settled():
        return "the change of the hierarchy is not settled"
    for look in (_not_drained, _owes, _not_granted):
        for node in place.nodes:
            if said := look(place, node, faults):
                return said
    return ""


def _not_drained(place: ChaosPlace, node: NodeId, _faults: Faults) -> str:
    """Why a node's links are not done; "" if they are."""
    try:
        place.fleet.wait_ready((node,))
        with place.channel(node) as channel:
            stub = operations_pb2_grpc.ReplicationServiceStub(channel)
            said = stub.Status(pb.ReplicationStatusRequest(), timeout=_CALL_S)
    except (grpc.RpcError, NodeStartError) as error:
        return f"{node}: {type(error).__name__}"
    for link in said.links:
        if not link.connected:
            return f"{node} is not linked to {link.peer}: {link.last_error[:80]}"
        lag = sum(lane.lag_entries for lane in link.lanes)
        if lag or any(lane.owes_snapshot for lane in link.lanes):
            return f"{node} has {lag} entries, or a snapshot, for {link.peer}"
    return ""


def _owes(place: ChaosPlace, node: NodeId, faults: Faults) -> str:
    """Letters without their receipt, moves that are not done; "" if there are none.

    What concerns a resident whom his restored home alone knew waits for ever, and is not counted.
    """
    lost = faults.restores.lost_residents
    with opened(place.place, node) as store:
        letters = [
            each
            for each in store.letters_open()
            if each["resident_id"] not in lost and not _is_for_nobody(each, faults)
        ]
        moves = [each for each in store.moves_open() if each["resident_id"] not in lost]
    for letter in letters:
        return (
            f"{node} has no receipt for {len(letters)} letters, one of kind {letter['kind']}"
            f" to {letter['to_node']}: {letter['state']} {letter['code']}"
        )
    for move in moves:
        return (
            f"{node} has {len(moves)} moves that are not done, one of {move['resident_id']} from "
            f"{move['from_node']} to {move['home_node']} is {move['state']}"
        )
    return ""


def _not_granted(place: ChaosPlace, node: NodeId, _faults: Faults) -> str:
    """Rows that wait for a grant: a node that lacks it asks the child that sent them."""
    with opened(place.place, node) as store:
        waiting = store.quarantine_causes()[Cause.HOME_NOT_GRANTED]
    return f"{node} has {waiting} rows that wait for a grant" if waiting else ""


def _is_for_nobody(letter: RowMapping, faults: Faults) -> bool:
    """A new home's word to an old one that was put back from before the move."""
    put_back = letter["to_node"] in faults.restores.times
    return put_back and letter["code"] == "NOT_THE_HOME"
