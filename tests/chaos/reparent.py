"""A township goes to the other county while everything else breaks: `fenhe hierarchy apply`."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from typing import Final

import grpc

import protos.fenhe.node.v1.region_pb2 as pb
from hierarchy_config import CareLevel, NodeId, region_text
from protos.fenhe.node.v1 import region_pb2_grpc
from tests.chaos.place import ChaosPlace, Teller
from tests.services.waiting import CLOCK

__all__ = ["Reparenting"]

_WAIT_S: Final = 15
_CALL_S: Final = 30.0
_LOOK_S: Final = 5.0
_AGAIN_S: Final = 1.0
_TRY_S: Final = 240.0


class Reparenting:
    """The one change of a run. Restored nodes and what lies above them stay where they are."""

    def __init__(
        self,
        place: ChaosPlace,
        chance: random.Random,
        tell: Teller,
        *,
        spared: tuple[NodeId, ...],
    ) -> None:
        self._place = place
        self._tell = tell
        tree = place.tree
        stay = {above for node in spared for above in tree.path_to_root(node)}
        townships = [
            node
            for node in place.nodes
            if tree.entry(node).level is CareLevel.TOWNSHIP and node not in stay
        ]
        self.township = chance.choice(townships)
        self._to = next(
            node for node in tree.children(place.city) if node != tree.parent(self.township)
        )
        self.moving = tree.subtree(self.township)
        """Their certificates are made anew by the change, and by nobody else from then on."""
        self.name = f"{self.township} to {self._to}"
        self.begun = False
        self.rest_is_healed = threading.Event()
        """Every node has to hold the change: how long one is away is not the change's doing."""
        self._said = ""

    def apply(self) -> None:
        """Have it decided, however often that must be asked for.

        Raises:
            TimeoutError: It was not decided in time once everything else was healed.
        """
        self.begun = True
        text = self._text()
        until: float | None = None
        pause = threading.Event()
        while not self._is_decided(text):
            if until is None and self.rest_is_healed.is_set():
                until = CLOCK.monotonic_ms() + _TRY_S * 1000
            if until is not None and CLOCK.monotonic_ms() > until:
                raise TimeoutError(f"{self.township} was not moved to {self._to}")
            pause.wait(_AGAIN_S)
        self._tell(f"decided: {self.township} goes to {self._to}")

    def is_settled(self) -> bool:
        """Whether everything has followed from it, says the root, and every node has the epoch."""
        if not self.begun:
            return True
        if any(self._place.tree_of(node).epoch == self._before for node in self._place.nodes):
            return False
        said = self._history()
        newest = said.epochs[0] if said is not None and said.epochs else None
        return newest is not None and list(newest.progress) == ["settled"]

    def _text(self) -> str:
        """The file in force but for the one parent, and the way through the township's proxy."""
        tree = self._place.tree
        self._before = tree.epoch
        address = self._place.new_line(self.township, self._to)
        nodes = dict(tree.nodes)
        nodes[self.township] = replace(tree.entry(self.township), parent=self._to)
        nodes[self._to] = replace(tree.entry(self._to), endpoint=address)
        return region_text(replace(tree, nodes=nodes))

    def _is_decided(self, text: str) -> bool:
        request = pb.ApplyRequest(request_id="", region_text=text, wait_s=_WAIT_S)
        try:
            with self._place.channel(self._place.city) as channel:
                stub = region_pb2_grpc.RegionServiceStub(channel)
                steps = [each.step for each in stub.Apply(request, timeout=_CALL_S)]
        except grpc.RpcError as error:
            self._say(f"the change waits: {error.code().name} {str(error.details())[:120]}")
            return self._is_under_way()
        return steps[-1:] == ["decided"]

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._tell(line)

    def _is_under_way(self) -> bool:
        """Whether the root has decided, though its answer did not come."""
        said = self._history()
        return said is not None and any(
            each.epoch > self._before and each.state == "active" for each in said.epochs
        )

    def _history(self) -> pb.HistoryResponse | None:
        try:
            with self._place.channel(self._place.city) as channel:
                stub = region_pb2_grpc.RegionServiceStub(channel)
                said: pb.HistoryResponse = stub.History(pb.HistoryRequest(), timeout=_LOOK_S)
        except grpc.RpcError:
            return None
        return said
