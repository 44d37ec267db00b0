"""Sealing: what comes out is what went in, in the same place, under the same keys, or nothing."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.security.errors import DataKeyUnknownError, SealBrokenError, SuiteUnknownError
from node.security.sealing import DataKeys, Sealer, WrappedKey, cell_aad, new_data_key
from node.security.suites import Suite, aead, mac, suite_named

NODE_KEY = bytes(range(32))
AAD = cell_aad("1410", "residents", "name", "row-1")


def keys(
    suite: Suite = Suite.INTL, count: int = 1, node_key: bytes = NODE_KEY
) -> tuple[DataKeys, list[WrappedKey]]:
    """Data keys of node 1410; the last is the current one."""
    source = random.Random(7).randbytes
    wrapped = [new_data_key("1410", node_key, source, suite) for _ in range(count)]
    current = wrapped[-1].key_id
    return DataKeys("1410", node_key, wrapped, current=current, random_bytes=os.urandom), wrapped


@pytest.mark.parametrize("suite", Suite)
@given(clear=st.binary(max_size=300), aad=st.binary(max_size=80))
def test_opens_what_it_sealed(suite: Suite, clear: bytes, aad: bytes) -> None:
    """Any bytes come back, in both suites, with and without the key's id beside them."""
    sealer, _ = keys(suite)
    sealed = sealer.seal(clear, aad)
    assert sealer.open(sealed, aad) == clear
    assert sealer.open(sealed, aad, sealer.key_id) == clear
    assert len(sealed) == len(clear) + 37


@pytest.mark.parametrize("suite", Suite)
def test_refuses_a_change_of_any_byte(suite: Suite) -> None:
    """Every single flipped bit, every cut and every addition is noticed."""
    sealer, _ = keys(suite)
    sealed = sealer.seal("张伟".encode(), AAD)
    altered = [
        sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
        for at in range(len(sealed))
        for bit in range(8)
    ]
    altered += [sealed[:length] for length in range(len(sealed))]
    altered.append(sealed + b"\0")
    for candidate in altered:
        with pytest.raises((SealBrokenError, DataKeyUnknownError)):
            sealer.open(candidate, AAD)


@pytest.mark.parametrize(
    "moved",
    [
        cell_aad("141002", "residents", "name", "row-1"),
        cell_aad("1410", "identifiers", "name", "row-1"),
        cell_aad("1410", "residents", "phone", "row-1"),
        cell_aad("1410", "residents", "name", "row-2"),
        b"",
    ],
)
def test_refuses_a_cell_that_was_moved(moved: bytes) -> None:
    """A value sealed for one node, table, column and row opens in no other."""
    sealer, _ = keys()
    with pytest.raises(SealBrokenError):
        sealer.open(sealer.seal(b"secret", AAD), moved)


@given(
    one=st.tuples(*[st.text(max_size=6)] * 4),
    other=st.tuples(*[st.text(max_size=6)] * 4),
)
def test_names_a_place_unambiguously(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    """Two places have the same additional data only if they are the same place."""
    assert (cell_aad(*one) == cell_aad(*other)) == (one == other)


def test_does_not_run_parts_of_a_place_together() -> None:
    """Moving a letter from one part to the next gives another place."""
    assert cell_aad("1", "ab", "c", "d") != cell_aad("1", "a", "bc", "d")


def test_never_seals_the_same_bytes_twice_alike() -> None:
    """Equal cells cannot be recognised as equal: each has a nonce of its own."""
    sealer, _ = keys()
    assert len({sealer.seal(b"same", AAD) for _ in range(1000)}) == 1000


def test_takes_nonces_from_the_source_it_was_given() -> None:
    """Randomness is injected: the nonce stands after the nine bytes of the header."""
    _, wrapped = keys()
    sealer = DataKeys(
        "1410", NODE_KEY, wrapped, current=wrapped[0].key_id, random_bytes=lambda n: b"\x05" * n
    )
    assert sealer.seal(b"x", AAD)[9:21] == b"\x05" * 12


def test_opens_under_an_older_key_after_a_rotation() -> None:
    """What was sealed under the first key still opens; what is sealed now names the new one."""
    old, wrapped = keys()
    sealed = old.seal(b"before", AAD)
    newer = new_data_key("1410", NODE_KEY, os.urandom, Suite.GM)
    rotated = DataKeys(
        "1410", NODE_KEY, [*wrapped, newer], current=newer.key_id, random_bytes=os.urandom
    )
    assert rotated.open(sealed, AAD) == b"before"
    assert rotated.suite == "gm"
    assert rotated.open(rotated.seal(b"after", AAD), AAD, newer.key_id) == b"after"
    with pytest.raises(DataKeyUnknownError):
        old.open(rotated.seal(b"after", AAD), AAD)


def test_refuses_an_envelope_under_another_key_than_stored_beside_it() -> None:
    """The id in the column and the id in the envelope must agree."""
    sealer, wrapped = keys(count=2)
    with pytest.raises(SealBrokenError):
        sealer.open(sealer.seal(b"x", AAD), AAD, wrapped[0].key_id)


def test_refuses_two_keys_exchanged_in_the_table_of_keys() -> None:
    """A wrapped key is bound to its id: a row that carries another's does not unwrap."""
    _, wrapped = keys(count=2)
    swapped = [WrappedKey(wrapped[0].key_id, wrapped[0].suite, wrapped[1].wrapped)]
    with pytest.raises(SealBrokenError):
        DataKeys("1410", NODE_KEY, swapped, current=wrapped[0].key_id, random_bytes=os.urandom)


@pytest.mark.parametrize(
    ("node_id", "node_key"), [("141002", NODE_KEY), ("1410", bytes(32))], ids=["node", "key"]
)
def test_refuses_the_keys_of_another_node(node_id: str, node_key: bytes) -> None:
    """Data keys unwrap only for their node and under its key, and the error says what to do."""
    _, wrapped = keys()
    with pytest.raises(SealBrokenError, match="does not unwrap") as raised:
        DataKeys(node_id, node_key, wrapped, current=wrapped[0].key_id, random_bytes=os.urandom)
    assert "keys/node.key" in raised.value.hint


def test_refuses_a_current_key_it_does_not_have() -> None:
    """Sealing never falls back to some other key."""
    _, wrapped = keys()
    with pytest.raises(DataKeyUnknownError):
        DataKeys("1410", NODE_KEY, wrapped, current="00" * 8, random_bytes=os.urandom)


def test_refuses_a_suite_it_does_not_know() -> None:
    """A name that is no suite is an operator's error with the names there are."""
    with pytest.raises(SuiteUnknownError) as raised:
        suite_named("md5")
    assert "intl" in raised.value.hint


def test_a_key_serves_one_suite_only() -> None:
    """The suites share no key material: SM4's key is derived, the hashes differ."""
    assert mac(Suite.INTL, NODE_KEY, b"x") != mac(Suite.GM, NODE_KEY, b"x")
    nonce = bytes(12)
    sealed = aead(Suite.INTL, NODE_KEY).encrypt(nonce, b"x", b"")
    with pytest.raises(SealBrokenError):
        aead(Suite.GM, NODE_KEY).decrypt(nonce, sealed, b"")


def test_hmac_of_the_international_suite_is_the_standard_one() -> None:
    """RFC 4231, test case 2."""
    digest = mac(Suite.INTL, b"Jefe", b"what do ya want for nothing?").hex()
    assert digest == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_a_key_has_thirty_two_bytes() -> None:
    """A shorter key is a defect, not a weaker cipher."""
    with pytest.raises(ValueError, match="32 bytes"):
        aead(Suite.INTL, bytes(16))


def test_serves_as_the_sealer_of_cells() -> None:
    """DataKeys has what the storage asks for."""
    sealer: Sealer = DataKeys.fresh("1410", os.urandom)
    assert sealer.open(sealer.seal(b"x", AAD), AAD) == b"x"
    assert sealer.suite == "intl"
    assert len(sealer.key_id) == 16
