"""The bytes of a file on a stick: a signed header, then frames, each sealed to the addressee.

    tag | header | chain | signature | chunk … | last chunk

All parts but the tag have their length as 4 bytes big-endian before them. The header is JSON: kind,
sender, addressee, the addressee's key, the ephemeral public key, when it was written. The sender
signs it (ECDSA P-256, SHA-256), and with it the key of the chunks: ECDH P-256 with the ephemeral
key, HKDF-SHA256 with the hash of all that stands before the chunks as salt, so that no byte of it,
the chain's line ends included, can be altered unnoticed. A chunk is AES-256-GCM; its nonce counts
chunks and says which is the last, so that none can be left out, doubled, moved or cut off.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hierarchy_config.model import NodeId
from node.security.certificates import PrivateKey, PublicKey
from node.security.errors import PeerIdentityError, SignatureInvalidError
from node.security.signatures import VerifiedPeer
from node.stick.errors import StickAddresseeError, StickFileError
from node.transit.keys import OwnKey, key_name
from replication.core.model import Frame
from replication.wire import frame_of, packed_frame

__all__ = ["BATCHES", "RECEIPTS", "Header", "ReadFile", "read_file", "write_file"]

BATCHES: Final = "batches"
RECEIPTS: Final = "receipts"

_TAG: Final = b"fenhe-bundle-1\n"
_SIGNED: Final = b"fenhe-bundle-header-1\0"
_INFO: Final = b"fenhe-bundle-seal-1"
_LENGTH_BYTES: Final = 4
_PART_MAX: Final = 64 << 10
_CHUNK_MAX: Final = 12 << 20
_KEY_BYTES: Final = 32
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_KINDS: Final = frozenset({BATCHES, RECEIPTS})

Verify = Callable[[bytes, NodeId], VerifiedPeer]
"""The signer of a chain, who must be that node; raises what node/security raises."""


@dataclass(frozen=True, slots=True)
class Header:
    """Who wrote the file for whom. `key`: names the addressee's; `point`: the ephemeral one."""

    kind: str
    sender: str
    to: str
    written_at: str
    key: str = ""
    point: str = ""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file whose header is proven; `frames` proves each frame as it is read."""

    header: Header
    chain_pem: bytes
    frames: Iterator[Frame]


def write_file(
    header: Header, frames: Iterable[Frame], own: OwnKey, to: PublicKey
) -> Iterator[bytes]:
    """The file piece by piece; every piece is at most a frame and what seals it."""
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    point = base64.b64encode(_point(ephemeral.public_key())).decode()
    head = _bytes_of(replace(header, key=key_name(to), point=point))
    signature = own.private_key.sign(_SIGNED + head, _ALGORITHM)
    before = _before((head, own.chain_pem, signature))
    yield before
    cipher = AESGCM(_key(ephemeral, to, before))
    number = 0
    for number, frame in enumerate(frames, start=1):
        yield _sized(cipher.encrypt(_nonce(number, last=False), packed_frame(frame), None))
    yield _sized(cipher.encrypt(_nonce(number + 1, last=True), b"", None))


def read_file(file: BinaryIO, here: NodeId, own: OwnKey, verify: Verify) -> ReadFile:
    """Read and prove the header.

    Raises:
        StickFileError: It is no such file, or its signature does not fit.
        StickAddresseeError: It is sealed to another node or to a former key of this one.
    """
    if file.read(len(_TAG)) != _TAG:
        raise StickFileError("this is no bundle of this program")
    head, chain, signature = (_part(file, _PART_MAX) for _ in range(3))
    header = _header(head)
    if header.to != here:
        raise StickAddresseeError(f"the bundle is for {header.to}, this is {here}")
    try:
        verify(chain, NodeId(header.sender)).verify(_SIGNED + head, signature)
    except (SignatureInvalidError, PeerIdentityError) as error:
        raise StickFileError(
            f"the bundle is not proven {header.sender}'s: {error.message}"
        ) from None
    if header.key != own.key_id:
        raise StickAddresseeError(
            "the bundle is sealed to a key that this node does not have any more",
            hint="Write a bundle here, import it at the neighbour, and let it write a new one.",
        )
    try:
        raw = base64.b64decode(header.point, validate=True)
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    except ValueError:
        raise StickFileError("the bundle's header holds no key") from None
    cipher = AESGCM(_key(own.private_key, point, _before((head, chain, signature))))
    return ReadFile(header, chain, _frames(file, cipher))


def _frames(file: BinaryIO, cipher: AESGCM) -> Iterator[Frame]:
    number = 1
    sealed = _part(file, _CHUNK_MAX)
    while True:
        following = _part(file, _CHUNK_MAX, may_end=True)
        try:
            clear = cipher.decrypt(_nonce(number, last=not following), sealed, None)
        except InvalidTag:
            raise StickFileError(f"part {number} of the bundle was altered or is cut off") from None
        if not following:
            return
        yield frame_of(clear)
        number += 1
        sealed = following


def _part(file: BinaryIO, most: int, *, may_end: bool = False) -> bytes:
    said = file.read(_LENGTH_BYTES)
    if may_end and not said:
        return b""
    size = int.from_bytes(said, "big")
    if len(said) != _LENGTH_BYTES or not 0 < size <= most:
        raise StickFileError("the bundle is cut off or damaged")
    data = file.read(size)
    if len(data) != size:
        raise StickFileError("the bundle is cut off")
    return data


def _header(head: bytes) -> Header:
    try:
        said = json.loads(head)
        header = Header(**said)
    except (ValueError, TypeError, RecursionError):
        raise StickFileError("the bundle's header cannot be read") from None
    if header.kind not in _KINDS or not all(isinstance(v, str) for v in asdict(header).values()):
        raise StickFileError("the bundle is of a kind that is not known here")
    return header


def _bytes_of(header: Header) -> bytes:
    return json.dumps(asdict(header), sort_keys=True, separators=(",", ":")).encode()


def _before(parts: Iterable[bytes]) -> bytes:
    """What stands before the chunks."""
    return _TAG + b"".join(map(_sized, parts))


def _key(private: PrivateKey, public: PublicKey, before: bytes) -> bytes:
    derive = HKDF(hashes.SHA256(), _KEY_BYTES, salt=hashlib.sha256(before).digest(), info=_INFO)
    return derive.derive(private.exchange(ec.ECDH(), public))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _point(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH_BYTES, "big") + part
