"""The bytes of a letter: header, sender's chain, signature, body.

Four parts, each with its length as 4 bytes big-endian before it. The header is JSON. A sealed body
is the ephemeral public key (65 bytes, uncompressed point) and the ciphertext: ECDH P-256, HKDF with
SHA-256 over the shared secret (salt: both public points), AES-256-GCM under a key that is used
once, with the header as additional data. The signature is the sender's, ECDSA P-256 with SHA-256,
over tag, codec, header and body, so that neither part serves in another letter.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hierarchy_config.model import NodeId
from node.clock import parse_ms
from node.security.certificates import PrivateKey, PublicKey
from node.security.errors import PeerIdentityError, SignatureInvalidError
from node.transit.errors import (
    LetterInvalidError,
    LetterKeyOldError,
    LetterSealError,
    LetterSignatureError,
)
from node.transit.keys import NodeVerifier, OwnKey, key_name
from node.transit.model import CODEC_OPEN, CODEC_SEALED, Letter
from replication.core.model import Lane

__all__ = [
    "Envelope",
    "Examined",
    "Header",
    "opened",
    "prove",
    "read_envelope",
    "write_open",
    "write_sealed",
]

_TAG: Final = b"fenhe-letter-1"
_INFO: Final = b"fenhe-letter-seal-1"
_POINT_BYTES: Final = 65
_KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)
"""Every letter has a key of its own, so one nonce serves."""
_LENGTH_BYTES: Final = 4
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NODE: Final = re.compile(r"[0-9]{1,16}")
_KIND: Final = re.compile(r"[a-z][a-z0-9.-]{0,31}")
_STAMP: Final = re.compile(r"[0-9TZ:.+-]{10,24}")
_KEY: Final = re.compile(r"[0-9a-f]{64}|")
_ATTEMPT_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Header:
    """What everybody on the way may read. `key`: what it is sealed to; "" in an open letter."""

    letter_id: str
    sender: str
    to: str
    kind: str
    lane: int
    written_at: str
    attempt: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A letter as it came, nothing proven yet."""

    codec: int
    header: Header
    header_bytes: bytes
    chain_pem: bytes
    signature: bytes
    body: bytes

    def letter(self, body: bytes) -> Letter:
        """The letter with its body clear."""
        head = self.header
        return Letter(
            head.letter_id,
            NodeId(head.sender),
            NodeId(head.to),
            head.kind,
            Lane(head.lane),
            head.written_at,
            body,
            head.attempt,
        )


@dataclass(frozen=True, slots=True)
class Examined:
    """A letter that came, as far as it can be looked at before the transaction.

    `cause` "": nothing is wrong with it. `letter`: it was opened, its sender proven.
    """

    envelope: Envelope | None
    letter: Letter | None = None
    cause: str = ""


def write_sealed(header: Header, clear: bytes, own: OwnKey, to: PublicKey) -> bytes:
    """A letter that only the holder of the addressee's key can read. Sets the header's key."""
    head = _header_bytes(header, key_name(to))
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    point = _point(ephemeral.public_key())
    body = point + AESGCM(_shared(ephemeral, to, point, _point(to))).encrypt(_NONCE, clear, head)
    return _joined(CODEC_SEALED, head, body, own)


def write_open(header: Header, clear: bytes, own: OwnKey) -> bytes:
    """A letter that everybody on its way may read and nobody can alter."""
    return _joined(CODEC_OPEN, _header_bytes(header, ""), clear, own)


def read_envelope(codec: int, data: bytes) -> Envelope:
    """The parts of a letter.

    Raises:
        LetterInvalidError: It is none.
    """
    head, chain, signature, body = _parts(data)
    if codec not in (CODEC_SEALED, CODEC_OPEN):
        raise LetterInvalidError(f"letter codec {codec} is not known here")
    header = _header(head)
    if bool(header.key) is not (codec == CODEC_SEALED):
        raise LetterInvalidError("a letter's header does not fit its codec")
    return Envelope(codec, header, head, chain, signature, body)


def prove(envelope: Envelope, verifier: NodeVerifier) -> None:
    """Raise LetterSignatureError unless the node named as sender signed exactly this letter."""
    sender = NodeId(envelope.header.sender)
    signed = _signed(envelope.codec, envelope.header_bytes, envelope.body)
    written_ms = _ms(envelope.header.written_at)
    try:
        peer = verifier.verify(envelope.chain_pem, sender, written_ms)
        peer.verify(signed, envelope.signature)
    except (SignatureInvalidError, PeerIdentityError) as error:
        raise LetterSignatureError(f"a letter is not proven {sender}'s: {error.message}") from None


def _ms(stamp: str) -> int | None:
    """When it was written; None if that cannot be read, so that it counts as written now."""
    try:
        return parse_ms(stamp)
    except (ValueError, OverflowError, OSError):
        return None


def opened(envelope: Envelope, own: OwnKey | None) -> Letter:
    """The letter with its body clear; its sender is for `prove` to prove.

    Raises:
        LetterKeyOldError: It is sealed to another key.
        LetterSealError: It does not open.
    """
    if envelope.codec == CODEC_OPEN:
        return envelope.letter(envelope.body)
    if own is None or envelope.header.key != own.key_id:
        raise LetterKeyOldError("a letter is sealed to a key that this node does not have")
    point, sealed = envelope.body[:_POINT_BYTES], envelope.body[_POINT_BYTES:]
    try:
        ephemeral = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        mine = _point(own.private_key.public_key())
        key = _shared(own.private_key, ephemeral, point, mine)
        clear = AESGCM(key).decrypt(_NONCE, sealed, envelope.header_bytes)
    except (ValueError, InvalidTag):
        raise LetterSealError("a letter that is sealed to this node does not open") from None
    return envelope.letter(clear)


def _shared(private: PrivateKey, public: PublicKey, ephemeral: bytes, addressee: bytes) -> bytes:
    derive = HKDF(hashes.SHA256(), _KEY_BYTES, salt=ephemeral + addressee, info=_INFO)
    return derive.derive(private.exchange(ec.ECDH(), public))


def _point(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _signed(codec: int, head: bytes, body: bytes) -> bytes:
    return b"".join((_sized(_TAG), codec.to_bytes(2, "big"), _sized(head), _sized(body)))


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH_BYTES, "big") + part


def _joined(codec: int, head: bytes, body: bytes, own: OwnKey) -> bytes:
    signature = own.private_key.sign(_signed(codec, head, body), _ALGORITHM)
    return b"".join(map(_sized, (head, own.chain_pem, signature, body)))


def _parts(data: bytes) -> list[bytes]:
    parts: list[bytes] = []
    at = 0
    while at < len(data) and len(parts) < 4:
        end = at + _LENGTH_BYTES
        size = int.from_bytes(data[at:end], "big")
        parts.append(data[end : end + size])
        if len(parts[-1]) != size:
            break
        at = end + size
    if len(parts) != 4 or at != len(data):
        raise LetterInvalidError("a letter is cut short or has more than its parts")
    return parts


def _header_bytes(header: Header, key: str) -> bytes:
    said = asdict(header) | {"key": key}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _header(head: bytes) -> Header:
    try:
        said = json.loads(head)
        header = Header(**said)
    except (ValueError, TypeError, RecursionError):
        raise LetterInvalidError("a letter's header cannot be read") from None
    if not _is_sound(header):
        raise LetterInvalidError("a letter's header does not say what it must")
    return header


def _is_sound(header: Header) -> bool:
    texts: tuple[tuple[re.Pattern[str], Any], ...] = (
        (_ID, header.letter_id),
        (_NODE, header.sender),
        (_NODE, header.to),
        (_KIND, header.kind),
        (_STAMP, header.written_at),
        (_KEY, header.key),
    )
    if not all(isinstance(text, str) and shape.fullmatch(text) for shape, text in texts):
        return False
    counts = (header.lane, header.attempt)
    if not all(type(count) is int and 0 <= count <= _ATTEMPT_MAX for count in counts):
        return False
    return header.lane in set(Lane)
