"""The room put together for one life of the node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor

from cryptography import x509

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.doctor.findings import Finding
from node.foundations import Foundations
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.opening import OpenStore
from node.revocation.desk import RevokeDesk
from node.revocation.entries import Entry
from node.revocation.errors import RevocationFullError
from node.revocation.flooding import Flooding, Ground
from node.revocation.looks import neighbours_findings, own_findings
from node.revocation.store import KeyRole, RevocationStore, SeenKey
from node.security.authority import JoinRequest
from node.security.authority_chain import certified_authority
from node.security.certificates import (
    PublicKey,
    authority_name,
    certificates_from_pem,
    requested_key,
)
from node.security.errors import CertificateUnusableError, PeerRevokedError
from node.security.folders import NodeFolder
from node.security.former import is_signed_by, key_digest
from replication.channel import AskRefusedError
from replication.core.model import Hello

__all__ = ["RevocationRoom"]


class RevocationRoom:
    """`desk` for operators, `handlers` for neighbours, `admit` for whoever signs certificates."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        authority: PublicKey | None,
        *,
        threads: Executor,
        clock: Clock,
    ) -> None:
        """`authority`: this node's own, whose word needs nobody else's."""
        self._base = base
        self._hub = hub
        self._clock = clock
        self._authority = authority
        self._log = get_logger("revocation")
        self.book = book = store.revoked
        if authority is not None:
            book.trust(authority)
        context = store.storage.context
        self._store = RevocationStore(
            context.transactions, context.auditor, base.node_id, base.hierarchy, clock.now_ms
        )
        self._listeners: list[Callable[[], None]] = []
        self._threads = threads
        ground = Ground(
            base.node_id,
            base.hierarchy,
            base.credentials.root_pem,
            book,
            self._store,
            hub,
            threads,
            clock,
            self._own_authority,
            self._learnt,
            self._hear_authority,
        )
        self._flooding = Flooding(ground)
        self.desk = RevokeDesk(
            base.node_id,
            base.hierarchy,
            base.credentials.signer,
            book=book,
            store=self._store,
            hub=hub,
            clock=clock,
            learnt=self._signed_here,
        )
        self.run = self._flooding.run

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the parent."""
        return {**self._flooding.handlers, **self.desk.handlers}

    @property
    def child_handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the children."""
        return self._flooding.handlers

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call on the event loop whenever entries are new."""
        self._listeners.append(listener)

    def met(self, peer: NodeId, hello: Hello) -> None:
        """A link is up: note the child's key, compare the lists."""
        if self._base.hierarchy.parent(peer) == self._base.node_id:
            self._threads.submit(self._note_hello, peer, hello.signing_certificate)
        self._flooding.greet(peer)

    def admit(self, request: JoinRequest) -> None:
        """Before this node signs certificates: refuse revoked keys, note the others. Blocks.

        Raises:
            PeerRevokedError: One of the keys is revoked.
            RevocationFullError: The node asks for more and more keys.
        """
        now_ms = self._clock.now_ms()
        seen = _requested(request)
        for key in seen:
            # A certificate that is revoked from the start by a clock ahead of ours helps nobody.
            if self.book.is_revoked(key.digest, request.node_id, now_ms):
                raise PeerRevokedError(f"a key of {request.node_id} is revoked")
        if not self._store.note_keys(seen, self.book.is_revoked):
            # What is signed and not noted could not be revoked by its key.
            raise RevocationFullError(
                f"{request.node_id} has had more keys than any node needs",
                hint="Find out who asks for certificates in its name; then revoke it.",
            )

    def readmit(self, request: JoinRequest, authority_chain: bytes, pin: str) -> None:
        """As `admit`, of a node that is renewed over its link: for the keys it has. Blocks.

        Args:
            request: What it asks for.
            authority_chain: That of the authority it has, as it says; a former release says none.
            pin: Digest of the key that the root's decision names for its connections, if any.

        Raises:
            AskRefusedError: A key is neither proven nor among those that it is known to have.
        """
        proven = {pin, self._certified(request.node_id, authority_chain)}
        held = self._store.keys_of(request.node_id)
        for key in _requested(request):
            known = {
                each.digest
                for each in held
                if each.role is key.role and not self.book.is_revoked(each.digest, each.node_id)
            }
            # Of a node that an older release made, or that has just moved here, none may be known.
            if known and key.digest not in known and key.digest not in proven:
                raise AskRefusedError("KEY_NEW", "a certificate is renewed for the key it has")
        self.admit(request)

    def _certified(self, node_id: NodeId, chain: bytes) -> str:
        """The digest of an authority's key that was certified for a node; empty if none was."""
        try:
            root_pem = self._base.credentials.root_pem
            return key_digest(certified_authority(chain, root_pem, node_id, self.book))
        except CertificateUnusableError:
            return ""

    def checked(self) -> Iterator[Finding]:
        """For `fenhe doctor`: revoked keys that are still used, here or by neighbours."""
        folder = NodeFolder(self._base.paths.data)
        chains = {
            "certificate": self._base.credentials.tls.chain,
            "authority": folder.authority_chain,
        }
        yield from own_findings(self.book, chains)
        yield from neighbours_findings(dict(self._hub.states))

    def _signed_here(self, entries: Sequence[Entry]) -> None:
        self._learnt(entries)
        self._flooding.spread()

    def _learnt(self, entries: Sequence[Entry]) -> None:
        """End what those who are revoked have open. A neighbour in good order dials again."""
        concerned = {each.word.node_id for each in entries}
        for state in self._hub.states.values():
            path = set(self._base.hierarchy.path_to_root(state.peer))
            if state.runner is not None and path & concerned:
                state.runner.end("PEER_REVOKED", "keys on this branch are revoked; greet again")
        for listener in self._listeners:
            listener()

    def _own_authority(self) -> str:
        """The certificate of this node's own authority, PEM; empty if it cannot be read."""
        try:
            path = NodeFolder(self._base.paths.data).authority_chain
            return path.read_text(encoding="ascii").partition("-----END CERTIFICATE-----")[0] + (
                "-----END CERTIFICATE-----\n"
            )
        except (OSError, ValueError):
            return ""

    def _note_hello(self, peer: NodeId, chain: bytes) -> None:
        self._note(peer, chain, KeyRole.TLS)

    def _hear_authority(self, peer: NodeId, pem: str) -> None:
        """A child says which authority it has: believed if this node's own signed it."""
        if self._authority is None or self._base.hierarchy.parent(peer) != self._base.node_id:
            return
        try:
            own = certificates_from_pem(pem.encode("ascii"))[0]
            if authority_name(own).node_id != peer or not is_signed_by(own, self._authority):
                return
        except (FenheError, ValueError):
            return
        self._note(peer, pem.encode("ascii"), KeyRole.AUTHORITY)

    def _note(self, peer: NodeId, pem: bytes, role: KeyRole) -> None:
        try:
            key = _key_of(certificates_from_pem(pem)[0])
            if key is not None:
                seen = [SeenKey(peer, key_digest(key), role)]
                self._store.note_keys(seen, self.book.is_revoked)
        except FenheError as error:
            self._log.info("a key is not noted", peer=peer, code=error.code)


def _requested(request: JoinRequest) -> list[SeenKey]:
    """The keys for which certificates are asked."""
    asked = (
        (KeyRole.TLS, request.tls_request),
        (KeyRole.AUTHORITY, request.authority_request),
    )
    return [SeenKey(request.node_id, key_digest(requested_key(pem)), role) for role, pem in asked]


def _key_of(certificate: x509.Certificate) -> PublicKey | None:
    key = certificate.public_key()
    return key if isinstance(key, PublicKey) else None
