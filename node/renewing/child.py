"""The child's side of `Renew`: asks once at the parent's door. Blocks.

Believes only what the parent's own key has signed for this conversation. The parent's chain is
judged at the parent's time, since this machine's clock may be the wrong one. Whatever it says, this
machine's clock decides over what is installed here: a certificate that does not hold by it is not
taken, and both times are said.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock, RandomBytes, format_ms
from node.foundations import utc_now
from node.joining.model import Begun
from node.region.renewal import install_renewed
from node.renewing.errors import ClockWrongError, RenewalAnswerError
from node.renewing.proof import (
    RenewAnswer,
    RenewAsked,
    Renewed,
    child_words,
    parent_words,
    read_renewal,
    transcript,
)
from node.security.caller import CallerKind
from node.security.certificates import (
    certificate_request,
    certificates_from_pem,
    private_key_from_pem,
)
from node.security.credentials import outside_validity
from node.security.errors import (
    CertificateUnusableError,
    PeerIdentityError,
    SignatureInvalidError,
)
from node.security.folders import NodeFolder
from node.security.identity import KeyJudge, NameJudge
from node.security.key_files import read_secret
from node.security.signatures import verify_chain

__all__ = ["Asker", "RenewCalls"]

_NONCE_BYTES: Final = 32
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)


class RenewCalls(Protocol):
    """An open line to a door."""

    @property
    def certificate(self) -> bytes:
        """What the door showed, DER."""

    def begin(self, node_id: str, nonce: bytes) -> Begun: ...

    def renew(self, asked: RenewAsked) -> Renewed: ...


@dataclass(frozen=True, slots=True)
class Asker:
    """One node's way of asking. `former`, `revoked`: judges of the parent's chain."""

    data: Path
    node_id: NodeId
    parent: NodeId
    hierarchy: Hierarchy
    clock: Clock
    random_bytes: RandomBytes
    open_door: Callable[[str], AbstractContextManager[RenewCalls]]
    former: NameJudge | None = None
    revoked: KeyJudge | None = None

    def ask(self, door: str) -> bool:
        """Ask once; whether new certificates are in the data folder.

        False: the old ones hold by both clocks.

        Raises:
            DoorUnreachableError: Nobody opens.
            ClockWrongError: By one of the two clocks the certificates do not hold.
            RenewalAnswerError: Who answers is not the parent, or the answer cannot be used.
            grpc.RpcError: What the door says, as a refusal.
        """
        asked, nonce = self._asked(), self.random_bytes(_NONCE_BYTES)
        with self.open_door(door) as calls:
            begun = calls.begin(self.node_id, nonce)
            asked = replace(asked, parent_nonce=begun.nonce)
            said = transcript(asked, nonce, calls.certificate)
            renewed = calls.renew(self._signed(asked, said))
        answer = self._believed(renewed, said)
        if answer.tls_chain:
            self._install(answer)
            return True
        return self._compared(answer, asked.tls_chain)

    def _asked(self) -> RenewAsked:
        folder = NodeFolder(self.data)
        tls, authority = (
            certificate_request(private_key_from_pem(read_secret(path)))
            for path in (folder.tls.private_key, folder.authority_key)
        )
        chain, authority_chain = folder.tls.chain.read_bytes(), folder.authority_chain.read_bytes()
        return RenewAsked(self.node_id, b"", tls, authority, chain, authority_chain)

    def _signed(self, asked: RenewAsked, said: bytes) -> RenewAsked:
        key = private_key_from_pem(read_secret(NodeFolder(self.data).tls.private_key))
        return replace(asked, signature=key.sign(child_words(said), _ALGORITHM))

    def _believed(self, renewed: Renewed, said: bytes) -> RenewAnswer:
        """The answer, proven to be the parent's, to this question."""
        answer = read_renewal(renewed.answer)
        root_pem = NodeFolder(self.data).tls.root.read_bytes()
        try:
            peer = verify_chain(
                renewed.chain,
                root_pem,
                self.hierarchy,
                _moment(answer.at_ms),
                self.former,
                self.revoked,
            )
            peer.verify(parent_words(said, renewed.answer), renewed.signature)
        except (SignatureInvalidError, PeerIdentityError) as error:
            raise RenewalAnswerError(f"who answers is not the parent: {error.message}") from None
        identity = peer.identity
        if identity.kind is not CallerKind.NODE or identity.node_id != self.parent:
            raise RenewalAnswerError(f"who answers is {identity.principal}, not the parent")
        if (answer.node_id, answer.parent_id) != (self.node_id, self.parent):
            raise RenewalAnswerError("the answer is for another node")
        return answer

    def _install(self, answer: RenewAnswer) -> None:
        chain, authority = answer.tls_chain.encode(), answer.authority_chain.encode()
        try:
            outside = outside_validity(certificates_from_pem(chain), utc_now(self.clock))
            if outside is not None:
                raise ClockWrongError(self._both_times(answer))
            now = utc_now(self.clock)
            install_renewed(self.data, self.node_id, self.hierarchy, chain, authority, now=now)
        except ClockWrongError:
            raise
        except (FenheError, CertificateUnusableError) as error:
            raise RenewalAnswerError(f"certificates that cannot be used: {error.message}") from None

    def _compared(self, answer: RenewAnswer, chain: bytes) -> bool:
        """By the parent's clock the chain has not ended: is it good by both?"""
        certificates = certificates_from_pem(chain)
        there = outside_validity(certificates, _moment(answer.at_ms))
        here = outside_validity(certificates, utc_now(self.clock))
        if there is not None or here is not None:
            raise ClockWrongError(self._both_times(answer))
        return False

    def _both_times(self, answer: RenewAnswer) -> str:
        return (
            f"this machine's clock says {format_ms(self.clock.now_ms())}, that of the parent "
            f"{self.parent} says {format_ms(answer.at_ms)}"
        )


def _moment(at_ms: int) -> datetime:
    """A time that somebody else said."""
    at_s = min(max(at_ms, 0) / 1000, _LAST.timestamp())
    return datetime.fromtimestamp(at_s, UTC)
