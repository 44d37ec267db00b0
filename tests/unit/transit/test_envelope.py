"""The bytes of a letter: who can open it, and what shows that it was touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from hierarchy_config.model import NodeId
from node.transit.envelope import (
    Header,
    opened,
    prove,
    read_envelope,
    write_open,
    write_sealed,
)
from node.transit.errors import (
    LetterInvalidError,
    LetterKeyOldError,
    LetterSealError,
    LetterSignatureError,
)
from node.transit.keys import NodeVerifier, OwnKey, key_name
from node.transit.model import CODEC_OPEN, CODEC_SEALED
from replication.core.model import Lane
from tests.unit.security.region import (
    COUNTY,
    EXPIRED,
    HIERARCHY,
    NOW,
    OTHER_COUNTY,
    SIBLING,
    VILLAGE,
    Held,
    create,
)

REGION = create(HIERARCHY)
BODY = b"what the addressee alone reads"


def own(held: Held) -> OwnKey:
    """The key of a node's certificate."""
    return OwnKey(held.private_key, held.chain_pem)


SENDER, ADDRESSEE, ANOTHER = (own(REGION.node(n)) for n in (VILLAGE, OTHER_COUNTY, COUNTY))
VERIFIER = NodeVerifier(lambda: REGION.root_pem, HIERARCHY, lambda: NOW)
HEADER = Header(
    "0196a1c2-0000-7000-8000-000000000001",
    VILLAGE,
    OTHER_COUNTY,
    "rows",
    Lane.CARE.value,
    "2026-01-01T00:00:00.000Z",
    1,
)


def sealed(header: Header = HEADER, body: bytes = BODY, by: OwnKey = SENDER) -> bytes:
    """A letter to the addressee."""
    return write_sealed(header, body, by, ADDRESSEE.private_key.public_key())


def test_the_addressee_opens_what_the_sender_sealed() -> None:
    """Header and body come out as they went in."""
    envelope = read_envelope(CODEC_SEALED, sealed())
    prove(envelope, VERIFIER)
    letter = opened(envelope, ADDRESSEE)
    assert letter.body == BODY
    assert (letter.sender, letter.to, letter.kind) == (VILLAGE, OTHER_COUNTY, "rows")
    assert (letter.lane, letter.attempt) == (Lane.CARE, 1)


@given(body=st.binary(max_size=3000))
def test_any_body_survives(body: bytes) -> None:
    """Sealed and open."""
    assert opened(read_envelope(CODEC_SEALED, sealed(body=body)), ADDRESSEE).body == body
    clear = read_envelope(CODEC_OPEN, write_open(HEADER, body, SENDER))
    assert opened(clear, None).body == body


def test_nothing_of_the_body_is_readable_on_the_way() -> None:
    """And two sealings of one letter share no ciphertext."""
    first, second = sealed(), sealed()
    assert BODY not in first
    assert first[-len(BODY) :] != second[-len(BODY) :]


def test_nobody_else_opens_it() -> None:
    """Not even who passes it on, nor its sender."""
    envelope = read_envelope(CODEC_SEALED, sealed())
    for key in (ANOTHER, SENDER, None):
        with pytest.raises(LetterKeyOldError):
            opened(envelope, key)


def test_a_letter_that_claims_the_right_key_does_not_open_for_another() -> None:
    """A relay that swaps the name of the key gains nothing."""
    mine = key_name(ANOTHER.private_key.public_key())
    theirs = key_name(ADDRESSEE.private_key.public_key())
    forged = sealed().replace(theirs.encode(), mine.encode())
    envelope = read_envelope(CODEC_SEALED, forged)
    with pytest.raises(LetterSignatureError):
        prove(envelope, VERIFIER)
    with pytest.raises(LetterSealError):
        opened(envelope, ANOTHER)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"to":"141024"', b'"to":"141002"'),
        (b"000000000001", b"000000000002"),
        (b'"kind":"rows"', b'"kind":"note"'),
        (b'"lane":2', b'"lane":4'),
        (b'"attempt":1', b'"attempt":2'),
        (b'"written_at":"2026', b'"written_at":"2027'),
    ],
)
def test_a_replaced_header_shows(before: bytes, after: bytes) -> None:
    """Address, id, kind: none serves another letter's body."""
    data = sealed()
    assert data.count(before) == 1
    envelope = read_envelope(CODEC_SEALED, data.replace(before, after))
    with pytest.raises(LetterSignatureError):
        prove(envelope, VERIFIER)
    with pytest.raises(LetterSealError):
        opened(envelope, ADDRESSEE)


@given(place=st.integers(min_value=0, max_value=len(BODY) + 16 + 64), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_body_shows(place: int, bit: int) -> None:
    """The signature no longer fits, and the seal does not open."""
    data = bytearray(sealed())
    data[-1 - place] ^= 1 << bit
    try:
        envelope = read_envelope(CODEC_SEALED, bytes(data))
    except LetterInvalidError:
        return
    with pytest.raises(LetterSignatureError):
        prove(envelope, VERIFIER)
    with pytest.raises(LetterSealError):
        opened(envelope, ADDRESSEE)


def test_an_open_body_does_not_pass_for_a_sealed_one() -> None:
    """The codec is signed with the letter."""
    with pytest.raises(LetterInvalidError):
        read_envelope(CODEC_SEALED, write_open(HEADER, BODY, SENDER))
    with pytest.raises(LetterInvalidError):
        read_envelope(CODEC_OPEN, sealed())
    with pytest.raises(LetterInvalidError):
        read_envelope(1, sealed())


@pytest.mark.parametrize(
    ("signer", "named"),
    [(COUNTY, VILLAGE), (SIBLING, VILLAGE), (VILLAGE, COUNTY), (VILLAGE, OTHER_COUNTY)],
)
def test_a_node_cannot_sign_as_another(signer: NodeId, named: NodeId) -> None:
    """Not as its child, its parent or its sibling."""
    data = sealed(replace(HEADER, sender=named), by=own(REGION.node(signer)))
    with pytest.raises(LetterSignatureError):
        prove(read_envelope(CODEC_SEALED, data), VERIFIER)


def test_a_sender_with_an_expired_certificate_is_not_believed() -> None:
    """His letter comes again under a new one."""
    data = sealed(by=own(REGION.node(VILLAGE, EXPIRED)))
    with pytest.raises(LetterSignatureError):
        prove(read_envelope(CODEC_SEALED, data), VERIFIER)


def test_a_chain_of_another_region_proves_nothing() -> None:
    """Every letter leads to this region's root."""
    stranger = own(create(HIERARCHY).node(VILLAGE))
    with pytest.raises(LetterSignatureError):
        prove(read_envelope(CODEC_SEALED, sealed(by=stranger)), VERIFIER)


def test_a_root_that_is_missing_proves_nothing() -> None:
    """The error says so and is not an accident."""

    def missing() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    verifier = NodeVerifier(missing, HIERARCHY, lambda: NOW)
    with pytest.raises(LetterSignatureError):
        prove(read_envelope(CODEC_SEALED, sealed()), verifier)


def rebuilt(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """An open letter whose header was changed and which was framed anew, not signed."""
    data = write_open(HEADER, BODY, SENDER)
    length = int.from_bytes(data[:4], "big")
    said = json.loads(data[4 : 4 + length])
    head = json.dumps(change(said)).encode()
    return len(head).to_bytes(4, "big") + head + data[4 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said | {"more": 1},
        lambda said: {name: said[name] for name in said if name != "to"},
        lambda said: said | {"letter_id": "x"},
        lambda said: said | {"sender": "141002; DROP"},
        lambda said: said | {"to": 141024},
        lambda said: said | {"kind": "x" * 33},
        lambda said: said | {"kind": "Rows"},
        lambda said: said | {"lane": 9},
        lambda said: said | {"lane": True},
        lambda said: said | {"attempt": -1},
        lambda said: said | {"attempt": 2**40},
        lambda said: said | {"written_at": "yesterday"},
        lambda said: said | {"key": "abc"},
        lambda said: [said],
    ],
)
def test_a_header_that_does_not_say_what_it_must_is_refused(
    change: Callable[[dict[str, Any]], Any],
) -> None:
    """Before anything of it is used."""
    with pytest.raises(LetterInvalidError):
        read_envelope(CODEC_OPEN, rebuilt(change))


@given(st.binary(max_size=200))
def test_no_bytes_at_all_end_in_another_error(data: bytes) -> None:
    """What a peer may send is a letter or is refused as none."""
    for codec in (CODEC_SEALED, CODEC_OPEN):
        with pytest.raises(LetterInvalidError):
            read_envelope(codec, data)


@given(share=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_letter_that_is_cut_short_is_refused(share: float) -> None:
    """Wherever it ends; a share, because the length varies by that of the signature."""
    whole = sealed()
    with pytest.raises(LetterInvalidError):
        read_envelope(CODEC_SEALED, whole[: int(len(whole) * share)])


def test_verified_chains_are_remembered_for_minutes_only() -> None:
    """Within them no certificate is checked twice; after them each is again."""
    asked: list[int] = []

    def root() -> bytes:
        asked.append(1)
        return REGION.root_pem

    moments = iter([NOW, NOW, NOW.replace(hour=1)])
    verifier = NodeVerifier(root, HIERARCHY, lambda: next(moments))
    chain = REGION.node(VILLAGE).chain_pem
    for _ in range(3):
        verifier.verify(chain, VILLAGE)
    assert len(asked) == 2
    assert isinstance(x509.load_pem_x509_certificates(chain)[0], x509.Certificate)
