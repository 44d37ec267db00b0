"""Residents who move house while everything breaks, and their old homes' late edits."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
import protos.fenhe.empi.v1.residence_pb2 as pb
from hierarchy_config import CareLevel, NodeId
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.empi.v1 import residence_pb2_grpc
from tests.chaos.acknowledged import read_all
from tests.chaos.place import ChaosPlace
from tests.services.waiting import CLOCK

__all__ = ["EDIT", "MOVE", "Asked", "Edited", "Mover", "moving"]

MOVE: Final = "move"
EDIT: Final = "edit_by_old_home"
_PAUSE_S: Final = 3.0
"""Between two moves."""
_SETTLED_MS: Final = 2_000
_CALL_S: Final = 15.0
_EDIT_S: Final = 4.0
_AGAIN_S: Final = 0.5
_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
    }
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A move that a node took. `home_epoch` 0: noted there, and asked for again until granted."""

    resident_id: str
    at: NodeId
    to: NodeId
    home_epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Edited:
    """A telephone number that a home acknowledged for a resident who was being moved."""

    resident_id: str
    at: NodeId
    phone: str
    at_ms: int


class Mover(threading.Thread):
    """Asks for one move after the other: at the old home, at the new one, or above both."""

    def __init__(self, place: ChaosPlace, seed: int, spared: frozenset[NodeId]) -> None:
        """Ask for nothing yet. `spared`: homes that nobody leaves."""
        super().__init__(daemon=True)
        self._place = place
        self._chance = random.Random(seed)
        self._spared = spared
        self._homes: dict[str, NodeId] = {}
        self._edited: set[str] = set()
        tree = place.tree
        self._targets = [
            node
            for node in place.nodes
            if tree.entry(node).level in {CareLevel.VILLAGE, CareLevel.TOWNSHIP}
        ]
        self._over = threading.Event()
        self.asked: list[Asked] = []
        self.edits: list[Edited] = []
        self.refused: Counter[str] = Counter()
        self.failed: list[Exception] = []

    def run(self) -> None:
        try:
            while not self._over.wait(_PAUSE_S):
                self._step()
        except Exception as error:  # noqa: BLE001 -- raised again where the run ends
            self.failed.append(error)

    def finish(self) -> None:
        """Let what is under way be answered, then end."""
        self._over.set()
        self.join()
        if self.failed:
            raise self.failed[0]

    def _step(self) -> None:
        whom = self._somebody()
        if whom is None:
            return
        resident_id, home = whom
        to = self._chance.choice([node for node in self._targets if node != home])
        asked_at = self._chance.choice([home, to, self._above(home, to)])
        # The old home's clinic may write before it hears of the move, also when it is cut off.
        edit = threading.Thread(target=self._edit, args=(resident_id, home))
        first = self._chance.random() < 0.3
        if first:
            edit.start()
        self._move(resident_id, asked_at, to)
        if not first:
            edit.start()
        edit.join()

    def _somebody(self) -> tuple[str, NodeId] | None:
        """Mostly one who has not moved yet, whose registration is a few seconds old."""
        again = [each for each, home in self._homes.items() if home not in self._spared]
        if again and self._chance.random() < 0.25:
            resident_id = self._chance.choice(again)
            return resident_id, self._homes[resident_id]
        until_ms = CLOCK.now_ms() - _SETTLED_MS
        fresh = [
            (ack.row_id, NodeId(ack.home))
            for ack in read_all(self._place.root / "acknowledged")
            if ack.table == "residents" and ack.at_ms < until_ms and ack.row_id not in self._homes
        ]
        fresh = [each for each in fresh if each[1] not in self._spared]
        return self._chance.choice(fresh) if fresh else None

    def _above(self, one: NodeId, other: NodeId) -> NodeId:
        path = self._place.tree.path_to_root
        return next(node for node in path(one) if node in path(other))

    def _move(self, resident_id: str, asked_at: NodeId, to: NodeId) -> None:
        request = pb.MoveRequest(
            resident_id=resident_id,
            to_node=to,
            reason="moved house",
            request_id=f"move-{len(self.asked):06d}-{self.refused.total():06d}",
        )

        def call(channel: grpc.Channel) -> Any:
            stub = residence_pb2_grpc.ResidenceServiceStub(channel)
            return stub.Move(request, timeout=_CALL_S)

        answer = self._send(asked_at, call)
        if answer is None:
            return
        self._homes[resident_id] = to
        granted = answer.home_node == to
        epoch = answer.home_epoch if granted else 0
        self.asked.append(Asked(resident_id, asked_at, to, epoch, CLOCK.now_ms()))

    def _edit(self, resident_id: str, home: NodeId) -> None:
        """Once for each resident, at his first home, which may be his home no more."""
        if resident_id in self._edited:
            return
        self._edited.add(resident_id)
        phone = f"139{len(self._edited):08d}"
        resident = empi.Resident(
            resident_id=resident_id,
            name="蔺暮雪",
            sex=empi.SEX_FEMALE,
            birth_date="1950-01-01",
            phone=phone,
            home_node=home,
        )
        request = care.PutBundleRequest(request_id=f"edit-{resident_id}", residents=[resident])

        def call(channel: grpc.Channel) -> Any:
            stub = care_pb2_grpc.RecordServiceStub(channel)
            return stub.PutBundle(request, timeout=_EDIT_S)

        if self._send(home, call) is not None:
            self.edits.append(Edited(resident_id, home, phone, CLOCK.now_ms()))

    def _send(self, node: NodeId, call: Callable[[grpc.Channel], Any]) -> Any:
        """The answer; None if it was refused for good, or the run is over."""
        while not self._over.is_set():
            try:
                with self._place.channel(node) as channel:
                    return call(channel)
            except grpc.RpcError as error:
                if error.code() not in _AGAIN:
                    self.refused[error.code().name] += 1
                    return None
            self._over.wait(_AGAIN_S)
        return None


@contextmanager
def moving(place: ChaosPlace, seed: int, spared: frozenset[NodeId]) -> Iterator[Mover]:
    """People move until it is over."""
    mover = Mover(place, seed, spared)
    mover.start()
    try:
        yield mover
    finally:
        mover.finish()
