"""The parent's side of `Renew`: judges who asks, signs what it would sign over the link. Blocks.

The asker's chain has ended, so it is judged at the end of its validity; its key is asked to sign
now. What is signed are the keys that were certified before, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.foundations import utc_now
from node.logs import get_logger
from node.renewing.errors import RenewalRefusedError, RenewalTooLateError
from node.renewing.proof import (
    RenewAnswer,
    RenewAsked,
    Renewed,
    child_words,
    parent_words,
    write_renewal,
)
from node.security.authority import JoinRequest, SignedNode, load_authority, sign_node
from node.security.authority_chain import certified_authority
from node.security.caller import CallerKind
from node.security.certificates import (
    PublicKey,
    authority_name,
    certificates_from_pem,
    requested_key,
)
from node.security.credentials import NodeCredentials, outside_validity
from node.security.errors import (
    CertificateUnusableError,
    PeerIdentityError,
    PeerRevokedError,
    SignatureInvalidError,
)
from node.security.identity import KeyJudge, NameJudge
from node.security.signatures import chain_end, verify_chain

__all__ = ["RenewalGround", "Renewer"]

_PEM_MAX: Final = 16_384


@dataclass(frozen=True, slots=True)
class RenewalGround:
    """What the parent's side stands on. `admit`: raises PeerRevokedError for a revoked key."""

    data: Path
    node_id: NodeId
    hierarchy: Hierarchy
    credentials: NodeCredentials
    grace_days: int
    revoked: KeyJudge
    former: NameJudge | None
    admit: Callable[[JoinRequest], None]
    clock: Clock


class Renewer:
    """Answers `Renew`; safe from several threads."""

    def __init__(self, ground: RenewalGround) -> None:
        self._g = ground
        self._log = get_logger("door")

    def renew(self, asked: RenewAsked, said: bytes) -> Renewed:
        """Judge, sign and answer. `said`: the conversation's digest as this end saw it.

        Raises:
            RenewalRefusedError: The chain, a key or the signature is not what it must be.
            RenewalTooLateError: The chain ended longer ago than the grace.
            PeerRevokedError: A key of it is revoked.
        """
        g = self._g
        now = utc_now(g.clock)
        own = certificates_from_pem(g.credentials.signer.chain_pem)
        if outside_validity(own, now) is not None:
            raise RenewalRefusedError(
                f"{g.node_id} waits for a certificate of its own", hint="It is asked again later."
            )
        chain = self._proven(asked, said)
        outside = outside_validity(chain, now)
        answer = RenewAnswer(asked.node_id, g.node_id, g.clock.now_ms())
        if outside is not None and outside.has_ended:
            self._refuse_late(asked.node_id, now - outside.ends)
            signed = self._sign(asked)
            answer = RenewAnswer(
                answer.node_id,
                answer.parent_id,
                answer.at_ms,
                signed.tls_chain.decode(),
                signed.authority_chain.decode(),
            )
            self._log.info("a certificate is renewed at the door", peer=asked.node_id)
        raw, signer = write_renewal(answer), g.credentials.signer
        return Renewed(raw, signer.chain_pem, signer.sign(parent_words(said, raw)))

    def _proven(self, asked: RenewAsked, said: bytes) -> tuple[x509.Certificate, ...]:
        """The asker's chain, which its key has signed for now."""
        g = self._g
        parts = (
            asked.tls_request,
            asked.authority_request,
            asked.tls_chain,
            asked.authority_chain,
        )
        if not all(0 < len(each) <= _PEM_MAX for each in parts):
            raise RenewalRefusedError("a part of the question is not one")
        try:
            chain = certificates_from_pem(asked.tls_chain)
            peer = verify_chain(
                asked.tls_chain,
                g.credentials.root_pem,
                g.hierarchy,
                chain_end(chain),
                g.former,
                g.revoked,
            )
            peer.verify(child_words(said), asked.signature)
            tls_key = requested_key(asked.tls_request)
            authority = self._authority(asked)
        except PeerRevokedError:
            raise
        except (SignatureInvalidError, PeerIdentityError, CertificateUnusableError) as error:
            raise RenewalRefusedError(f"who asks is not proven: {error.message}") from None
        identity = peer.identity
        if identity.kind is not CallerKind.NODE or identity.node_id != asked.node_id:
            raise RenewalRefusedError(f"{identity.principal} asks in the name of another")
        if g.hierarchy.parent(identity.node_id) != g.node_id:
            raise RenewalRefusedError(f"{g.node_id} is not the parent of {identity.node_id}")
        if tls_key != peer.public_key or authority != requested_key(asked.authority_request):
            raise RenewalRefusedError("a certificate is renewed for the key it has, no other")
        return chain

    def _authority(self, asked: RenewAsked) -> PublicKey:
        """The key of the asker's authority, which was certified as its."""
        g = self._g
        node_id = NodeId(asked.node_id)
        return certified_authority(
            asked.authority_chain, g.credentials.root_pem, node_id, g.revoked
        )

    def _refuse_late(self, node_id: str, age: timedelta) -> None:
        grace = timedelta(days=self._g.grace_days)
        if age > grace:
            raise RenewalTooLateError(
                f"the certificate of {node_id} ended {age.days} days ago, by this clock; it is "
                f"renewed for {grace.days}"
            )

    def _sign(self, asked: RenewAsked) -> SignedNode:
        g = self._g
        join = JoinRequest(NodeId(asked.node_id), asked.tls_request, asked.authority_request)
        g.admit(join)
        try:
            authority = load_authority(g.data)
            if authority_name(authority.certificate).dns_name != g.hierarchy.dns_name(g.node_id):
                raise RenewalRefusedError(f"{g.node_id} waits for an authority of its new name")
            now: datetime = utc_now(g.clock)
            return sign_node(authority, g.credentials.root_pem, join, g.hierarchy, now)
        except RenewalRefusedError:
            raise
        except FenheError as error:
            raise RenewalRefusedError(f"nothing can be signed now: {error.message}") from None
