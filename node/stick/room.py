"""Puts files on a stick together for one node: keys, Hello, export, import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hierarchy_config import NodeId
from node.clock import Clock, format_ms
from node.errors import NotANeighbourError, said_node
from node.foundations import Foundations
from node.link_store import LinkMemory, NodeLinkStore
from node.links.proof import ReceiptProof
from node.opening import OpenStore
from node.security.certificates import PublicKey
from node.stick.errors import StickFileError, StickKeyMissingError
from node.stick.exporting import Exporter
from node.stick.importing import Imported, Importer
from node.stick.sealed_file import BATCHES, RECEIPTS, Header, ReadFile, read_file, write_file
from node.transit.keys import FolderKeys, NodeVerifier
from replication.changelog import read_transaction
from replication.core.config import LinkConfig
from replication.core.greeting import hello_of, refusal_of
from replication.core.model import Frame, Hello, Refusal

__all__ = ["StickRoom", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a file; `receipts`: the file to carry back, empty if it was one itself."""

    kind: str
    imported: Imported
    receipts: bytes


class StickRoom:
    """Every method blocks on the database and on files."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        links: NodeLinkStore,
        *,
        clock: Clock,
        utc: Callable[[], datetime],
    ) -> None:
        self._base = base
        self._store = store
        self._links = links
        self._clock = clock
        self._utc = utc
        self._keys = FolderKeys(base.credentials.tls)
        self._verifier = NodeVerifier(
            lambda: base.credentials.root_pem, base.hierarchy, utc, store.revoked
        )
        self._exporter = Exporter(
            links, self._greet, store.durable_head, batch_bytes=base.profile.batch_bytes_max
        )
        self._importer = Importer(links, self._greet, refuse=self._refuse, proof=self._proof)

    @property
    def folder(self) -> Path:
        """Where a file that is being imported may lie."""
        return self._base.paths.data

    @property
    def neighbours(self) -> frozenset[NodeId]:
        """The parent and the children."""
        hierarchy, here = self._base.hierarchy, self._base.node_id
        parent = hierarchy.parent(here)
        return frozenset((*hierarchy.children(here), *((parent,) if parent else ())))

    def export(self, peer: NodeId, bytes_max: int = 0) -> Iterator[bytes]:
        """The bundle for a neighbour, piece by piece.

        Raises:
            NotANeighbourError: Nothing goes there from here.
            StickKeyMissingError: Its certificate is not known here.
        """
        to = self._key_of(self._neighbour(peer))
        return self._file(BATCHES, peer, self._exporter.frames(peer, bytes_max), to)

    def take(self, path: Path) -> Taken:
        """Apply a bundle, or take its receipts.

        Raises:
            StickFileError, StickAddresseeError: It is none for this node; nothing was changed, or
                what came before the damage was applied.
            NotANeighbourError: Its writer is not linked to this node.
            LinkRefusedError: Its writer's store is not one that a link would take.
        """
        with path.open("rb") as file:
            read = read_file(file, self._base.node_id, self._keys.own(), self._verifier.verify)
            peer = self._neighbour(NodeId(read.header.sender))
            if read.header.kind == RECEIPTS:
                return Taken(RECEIPTS, self._importer.receipts(peer, read.frames), b"")
            imported = self._importer.batches(peer, read.frames)
        return Taken(BATCHES, imported, self._receipts(read, imported))

    def _receipts(self, read: ReadFile, imported: Imported) -> bytes:
        to = self._verifier.verify(read.chain_pem, imported.peer).public_key
        return b"".join(self._file(RECEIPTS, imported.peer, iter(imported.answer), to))

    def _file(
        self, kind: str, peer: NodeId, frames: Iterator[Frame], to: PublicKey
    ) -> Iterator[bytes]:
        header = Header(kind, self._base.node_id, peer, format_ms(self._clock.now_ms()))
        return write_file(header, frames, self._keys.own(), to)

    def _neighbour(self, peer: NodeId) -> NodeId:
        hierarchy, here = self._base.hierarchy, self._base.node_id
        if peer != hierarchy.parent(here) and peer not in hierarchy.children(here):
            raise NotANeighbourError(f"{said_node(peer)} is not the parent nor a child of {here}")
        return peer

    def _key_of(self, peer: NodeId) -> PublicKey:
        with read_transaction(self._store.engine) as connection:
            known = self._store.post.chains.get(connection, peer)
        if known is None:
            raise StickKeyMissingError(f"the certificate of {peer} is not known here")
        return self._verifier.verify(known.chain_pem, peer).public_key

    def _config(self, peer: NodeId, memory: LinkMemory) -> LinkConfig:
        base = self._base
        return LinkConfig(
            node_id=base.node_id,
            peer_id=peer,
            peer_role=self._links.role(peer),
            store_epoch=self._store.epoch,
            store_incarnation=self._store.incarnation,
            peer_store_epoch_seen=memory.peer_store_epoch,
            peer_incarnation_seen=memory.peer_incarnation,
            config_epoch=base.hierarchy.epoch,
            features=memory.features,
            signing_certificate=base.credentials.signer.chain_pem,
            clock_ms=self._clock.now_ms(),
        )

    def _greet(self, peer: NodeId, memory: LinkMemory) -> Hello:
        return hello_of(self._config(peer, memory), tuple(memory.inbound.values()))

    def _refuse(self, peer: NodeId, memory: LinkMemory, hello: Hello) -> Refusal | None:
        refusal = refusal_of(self._config(peer, memory), hello)
        if refusal is None:
            self._learn(peer, hello)
        return refusal

    def _learn(self, peer: NodeId, hello: Hello) -> None:
        """The writer's certificate, so that a bundle can be written for it."""
        if not hello.signing_certificate:
            raise StickFileError("the bundle's Hello brings no certificate")
        self._store.storage.transactions.write(
            lambda connection: self._store.post.chains.learn(
                connection, peer, hello.signing_certificate
            )
        )

    def _proof(self, peer: NodeId) -> ReceiptProof:
        return ReceiptProof(self._base.credentials, peer, self._base.hierarchy, self._utc)
