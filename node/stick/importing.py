"""Applies a neighbour's bundle by the rules of the live link, or takes its receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.link_store import LinkMemory, NodeLinkStore
from node.stick.errors import StickFileError
from node.stick.exporting import Greeting
from replication.changelog import CursorWentBackError
from replication.core.inbound import InboundLane, Offer
from replication.core.model import (
    Batch,
    Cursor,
    Frame,
    Hello,
    Lane,
    Mark,
    Receipt,
    Refusal,
    StreamEpoch,
)
from replication.errors import ReplicationError

__all__ = ["Imported", "ImportedLane", "Importer", "LinkRefusedError", "ProofMaker"]

_NEXT_STEPS: Final = {
    "GAP": (
        "A bundle between this one and what is here is missing: import that one first, or carry "
        "the receipts of the last one back and write a new bundle."
    ),
    "STREAM_EPOCH": (
        "One of the two stores was put back or made anew since: write a bundle here, import it at "
        "the neighbour, and let it write a new one."
    ),
    "DIGEST": "The bundle's rows are not what its writer counted: let it write a new one.",
    "BATCH_OUT_OF_ORDER": "A live link went on meanwhile: import the bundle again.",
}


class LinkRefusedError(ReplicationError):
    """The writer of a bundle cannot be talked to; the reason is the link's."""

    code = "STICK_REFUSED"
    default_hint = "Do what the link's own refusal says; nothing was applied."

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code}: {refusal.reason}", hint=refusal.hint)


class ProofMaker(Protocol):
    """Signs this node's receipts for a neighbour and verifies the neighbour's."""

    def meet(self, hello: Hello) -> None:
        """Take the neighbour's certificate."""

    def sign(self, cursor: Cursor) -> tuple[bytes, str]:
        """Signature and key id."""

    def verify(self, receipt: Receipt) -> bool:
        """Whether it is the neighbour's."""


@dataclass(slots=True)
class ImportedLane:
    """What became of one lane's batches, or receipts."""

    lane: Lane
    applied: int = 0
    repeated: int = 0
    refused: str = ""
    next_step: str = ""
    covers_to: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file; `answer`: the frames of the receipts file, empty if it was one."""

    peer: NodeId
    lanes: tuple[ImportedLane, ...]
    answer: tuple[Frame, ...] = ()


@dataclass(slots=True)
class _Work:
    """One import under way."""

    peer: NodeId
    hello: Hello
    memory: LinkMemory
    lanes: dict[Lane, ImportedLane] = field(default_factory=dict)
    inbound: dict[Lane, InboundLane] = field(default_factory=dict)

    def lane(self, lane: Lane) -> ImportedLane:
        return self.lanes.setdefault(lane, ImportedLane(lane))


class Importer:
    """Takes the frames of a bundle. Blocks on the database."""

    def __init__(
        self,
        links: NodeLinkStore,
        greet: Greeting,
        *,
        refuse: Callable[[NodeId, LinkMemory, Hello], Refusal | None],
        proof: Callable[[NodeId], ProofMaker],
    ) -> None:
        """`refuse`: why a neighbour's Hello does not fit, as on a live link."""
        self._links = links
        self._greet = greet
        self._refuse = refuse
        self._proof = proof

    def batches(self, peer: NodeId, frames: Iterator[Frame]) -> Imported:
        """Apply what continues this node's cursors.

        Raises:
            LinkRefusedError: The writer's store is not one that a link would take.
            StickFileError: The file is damaged; what was applied before stays applied.
        """
        work = self._begin(peer, frames)
        marks: list[Mark] = []
        for frame in frames:
            match frame:
                case Batch():
                    self._batch(work, frame)
                case Mark():
                    marks.append(frame)
                case _:
                    raise StickFileError("a bundle of batches holds something else")
        if not any(lane.refused for lane in work.lanes.values()):
            for mark in marks:
                self._links.save_mark(peer, mark)
        return Imported(peer, _in_order(work), tuple(self._answer(work)))

    def receipts(self, peer: NodeId, frames: Iterator[Frame]) -> Imported:
        """Take what the neighbour confirms.

        Raises:
            LinkRefusedError, StickFileError: As for `batches`.
        """
        work = self._begin(peer, frames)
        proof = self._proof(peer)
        proof.meet(work.hello)
        expected = StreamEpoch(self._links.store_epoch, work.hello.store_epoch)
        for frame in frames:
            if not isinstance(frame, Receipt) or frame.refused or not proof.verify(frame):
                raise StickFileError("a receipt in the bundle is not its writer's")
            said = work.lane(frame.cursor.lane)
            if frame.cursor.stream_epoch != expected:
                said.refused, said.next_step = "STREAM_EPOCH", _NEXT_STEPS["STREAM_EPOCH"]
                continue
            try:
                self._links.save_delivered(peer, frame.cursor, frame)
                said.applied += 1
                said.covers_to = frame.cursor.covers_to
            except CursorWentBackError:
                # A live link, or a later file, has brought more.
                said.repeated += 1
        return Imported(peer, _in_order(work))

    def _begin(self, peer: NodeId, frames: Iterator[Frame]) -> _Work:
        hello = next(frames, None)
        if not isinstance(hello, Hello):
            raise StickFileError("a bundle begins with its writer's Hello")
        memory = self._links.load(peer)
        refusal = self._refuse(peer, memory, hello)
        if refusal is not None:
            raise LinkRefusedError(refusal)
        self._links.save_peer(peer, hello)
        return _Work(peer, hello, memory)

    def _batch(self, work: _Work, batch: Batch) -> None:
        said = work.lane(batch.lane)
        if said.refused:
            return
        inbound = work.inbound.get(batch.lane)
        if inbound is None:
            inbound = work.inbound[batch.lane] = InboundLane(self._start(work, batch.lane))
        offer = inbound.offer(batch)
        match offer:
            case Offer.QUEUED:
                self._apply(work, inbound, said)
            case Offer.REPEATED:
                said.repeated += 1
            case _:
                said.refused = offer.value
                said.next_step = _NEXT_STEPS.get(offer.value, "")

    def _apply(self, work: _Work, inbound: InboundLane, said: ImportedLane) -> None:
        asked = inbound.next_apply()
        if asked is None:
            return
        try:
            self._links.apply(work.peer, asked.batch, asked.cursor_after)
        except FenheError as error:
            inbound.failed()
            said.refused = error.code
            said.next_step = _NEXT_STEPS.get(error.code, error.hint)
            return
        inbound.applied(asked.cursor_after)
        said.applied += 1

    def _start(self, work: _Work, lane: Lane) -> Cursor:
        epoch = StreamEpoch(work.hello.store_epoch, self._links.store_epoch)
        saved = work.memory.inbound.get(lane)
        if saved is not None and saved.stream_epoch == epoch:
            return saved
        return Cursor(lane, epoch, 0, 0)

    def _answer(self, work: _Work) -> Iterable[Frame]:
        """Hello with the cursors as they are now, and a receipt for each lane of the file."""
        memory = self._links.load(work.peer)
        yield self._greet(work.peer, memory)
        proof = self._proof(work.peer)
        for lane in sorted(work.lanes):
            cursor = memory.inbound.get(lane)
            if cursor is None:
                continue
            work.lanes[lane].covers_to = cursor.covers_to
            signature, key_id = proof.sign(cursor)
            yield Receipt(cursor, "", signature, key_id)


def _in_order(work: _Work) -> tuple[ImportedLane, ...]:
    return tuple(work.lanes[lane] for lane in sorted(work.lanes))
