"""What is proven at the door, and over what. Pure: no clock, no network, no store.

    K  = Argon2id(secret, salt, associated data: node id)                       RFC 9106
    T  = SHA-256 of: tag, node id, child's nonce, parent's nonce, salt and parameters,
                     the door's certificate as the child saw it, both certificate requests
    child's proof   = HMAC-SHA-256(K, "fenhe.join.child.1"  | T)
    possession      = signature by the key of the first request over "fenhe.join.possession.1" | T
    parent's proof  = HMAC-SHA-256(K, "fenhe.join.parent.1" | T | SHA-256(answer))

Each part of T has its length before it. A relay in between shows another certificate, so its T is
not the parent's; to alter anything it needs K. It may try to get K from the child's proof at its
leisure: that is why the child refuses parameters that would make a guess cheap. The possession
keeps somebody who learns the code later from asking for the answer again with copied requests.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from node.joining.code import JoinCode
from node.joining.errors import JoinStretchError
from node.security.certificates import PrivateKey, PublicKey

__all__ = [
    "NONCE_BYTES",
    "PROOF_BYTES",
    "SALT_BYTES",
    "STRETCH",
    "Conversation",
    "StretchCost",
    "child_proof",
    "holds",
    "is_possessed",
    "parent_proof",
    "prove_possession",
    "stretch",
]

NONCE_BYTES: Final = 32
SALT_BYTES: Final = 16
PROOF_BYTES: Final = 32
_KEY_BYTES: Final = 32
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_TAG: Final = b"fenhe.join.transcript.1"
_CHILD: Final = b"fenhe.join.child.1"
_PARENT: Final = b"fenhe.join.parent.1"
_POSSESSION: Final = b"fenhe.join.possession.1"


@dataclass(frozen=True, slots=True)
class StretchCost:
    """The work that one guess costs: memory in KiB, passes over it, lanes."""

    memory_kib: int
    passes: int
    lanes: int

    def refuse_unsafe(self) -> None:
        """Refuse what is less work than a door of ours asks for, or more than four times as much.

        Raises:
            JoinStretchError: It is.
        """
        floor = STRETCH
        sound = (
            floor.memory_kib <= self.memory_kib <= 4 * floor.memory_kib
            and floor.passes <= self.passes <= 4 * floor.passes
            and self.lanes == floor.lanes
        )
        if not sound:
            raise JoinStretchError(
                f"the door asks for {self.memory_kib} KiB, {self.passes} passes and {self.lanes} "
                f"lanes; safe are {floor.memory_kib} KiB, {floor.passes} and {floor.lanes}, or up "
                "to four times the first two"
            )


STRETCH: Final = StretchCost(memory_kib=65_536, passes=3, lanes=1)
"""About half a second on the small machines that villages have."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything that was said before the proofs, as one end saw it."""

    node_id: str
    child_nonce: bytes
    parent_nonce: bytes
    salt: bytes
    cost: StretchCost
    certificate: bytes
    tls_request: bytes
    authority_request: bytes

    @property
    def digest(self) -> bytes:
        """T."""
        cost = self.cost
        parts = (
            _TAG,
            self.node_id.encode(),
            self.child_nonce,
            self.parent_nonce,
            self.salt,
            b"%d %d %d" % (cost.memory_kib, cost.passes, cost.lanes),
            self.certificate,
            self.tls_request,
            self.authority_request,
        )
        sized = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hashlib.sha256(sized).digest()


def stretch(code: JoinCode, salt: bytes, cost: StretchCost) -> bytes:
    """K, 32 bytes. Takes the time and the memory that the cost says."""
    derive = Argon2id(
        salt=salt,
        length=_KEY_BYTES,
        iterations=cost.passes,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
        ad=code.node_id.encode(),
    )
    return derive.derive(code.secret.encode("ascii"))


def child_proof(key: bytes, said: bytes) -> bytes:
    """That who says T knows the code."""
    return hmac.digest(key, _CHILD + said, hashlib.sha256)


def parent_proof(key: bytes, said: bytes, answer: bytes) -> bytes:
    """That who answers T with these bytes knows the code."""
    return hmac.digest(key, _PARENT + said + hashlib.sha256(answer).digest(), hashlib.sha256)


def holds(proof: bytes, expected: bytes) -> bool:
    """Whether a proof is the expected one; takes the same time either way."""
    return hmac.compare_digest(proof, expected)


def prove_possession(key: PrivateKey, said: bytes) -> bytes:
    """That the key of the first request is held by who says T."""
    return key.sign(_POSSESSION + said, _ALGORITHM)


def is_possessed(key: PublicKey, said: bytes, signature: bytes) -> bool:
    """Whether the holder of the key said T."""
    try:
        key.verify(signature, _POSSESSION + said, _ALGORITHM)
    except InvalidSignature:
        return False
    return True
