"""A file on a stick: opens at its addressee alone, whole and unaltered or not at all."""

from __future__ import annotations

import io
from typing import Final

import pytest

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.stick.errors import StickAddresseeError, StickFileError
from node.stick.sealed_file import BATCHES, Header, ReadFile, read_file, write_file
from node.transit.keys import NodeVerifier, OwnKey
from replication.core.model import Frame, Mark
from tests.unit.security.region import COUNTY, HIERARCHY, NOW, OTHER_COUNTY, VILLAGE, Held, create

REGION = create(HIERARCHY)
VERIFIER = NodeVerifier(lambda: REGION.root_pem, HIERARCHY, lambda: NOW)
FRAMES: Final[tuple[Frame, ...]] = tuple(Mark({COUNTY: n}, n) for n in range(1, 6))


def own(held: Held) -> OwnKey:
    """The key of a node's certificate."""
    return OwnKey(held.private_key, held.chain_pem)


SENDER, ADDRESSEE, ANOTHER = (own(REGION.node(n)) for n in (VILLAGE, COUNTY, OTHER_COUNTY))


def pieces(sender: str = VILLAGE, to: str = COUNTY, signer: OwnKey = SENDER) -> list[bytes]:
    """A file of five frames, as it is written."""
    header = Header(BATCHES, sender, to, "2026-11-23T20:00:00.000Z")
    return list(write_file(header, FRAMES, signer, ADDRESSEE.private_key.public_key()))


def read(data: bytes, here: str = COUNTY, key: OwnKey = ADDRESSEE) -> ReadFile:
    """The file as the addressee reads it."""
    return read_file(io.BytesIO(data), NodeId(here), key, VERIFIER.verify)


def test_the_addressee_reads_every_frame_in_its_order() -> None:
    """And nobody reads them on the way."""
    data = b"".join(pieces())

    found = read(data)

    assert (found.header.sender, found.header.kind) == (VILLAGE, BATCHES)
    assert tuple(found.frames) == FRAMES
    assert COUNTY.encode() not in b"".join(pieces()[1:])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("bit", range(8))
def test_an_altered_byte_is_found(bit: int) -> None:
    """Wherever it is: in the header, the chain with its line ends, the signature or a chunk."""
    data = bytearray(b"".join(pieces()))
    for at in range(bit, len(data), 11):
        data[at] ^= 1 << bit
        with pytest.raises(FenheError):
            tuple(read(bytes(data)).frames)
        data[at] ^= 1 << bit


def test_chunks_cannot_be_left_out_doubled_or_exchanged() -> None:
    """Each is sealed to its place, and the last one says that it is."""
    head, *chunks = pieces()
    for some in (chunks[1:], [*chunks[:2], *chunks[1:]], [chunks[1], chunks[0], *chunks[2:]]):
        with pytest.raises(StickFileError, match="altered"):
            tuple(read(b"".join((head, *some))).frames)
    with pytest.raises(StickFileError, match="altered or is cut off"):
        tuple(read(b"".join((head, *chunks[:-1]))).frames)
    with pytest.raises(StickFileError, match="cut off"):
        tuple(read(b"".join((head, *chunks))[:-3]).frames)


def test_what_came_before_the_damage_is_good() -> None:
    """A file that is cut short gives its frames up to there."""
    head, *chunks = pieces()
    frames = read(b"".join((head, *chunks[:3]))).frames

    assert [next(frames), next(frames)] == list(FRAMES[:2])
    with pytest.raises(StickFileError):
        next(frames)


def test_it_is_for_one_node_alone() -> None:
    """Neither another node nor a former key opens it."""
    data = b"".join(pieces())
    with pytest.raises(StickAddresseeError, match="is for"):
        read(data, OTHER_COUNTY, ANOTHER)
    with pytest.raises(StickAddresseeError, match="key"):
        read(data, COUNTY, ANOTHER)


def test_nobody_writes_in_anothers_name() -> None:
    """The header is signed by the node that it names."""
    with pytest.raises(StickFileError, match="not proven"):
        read(b"".join(pieces(signer=ANOTHER)))


@pytest.mark.parametrize("data", [b"", b"something else", b"fenhe-bundle-1\n"])
def test_anything_else_is_no_bundle(data: bytes) -> None:
    """It is said, not guessed at."""
    with pytest.raises(StickFileError):
        read(data)
