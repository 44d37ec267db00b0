"""Blind indexes and pseudonyms: equal for equal, unrelated otherwise, apart by purpose."""

from __future__ import annotations

import uuid

import pytest

from node.security.blind_index import BlindIndex, Pseudonymizer, RegionalIndex, normal_value
from node.security.suites import Suite

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("system", "value", "normal"),
    [
        ("identity_number", "14260119491231002x", "14260119491231002X"),
        ("identity_number", "142601 19491231 002X", "14260119491231002X"),
        ("identity_number", "14260119491231002ｘ", "14260119491231002X"),
        ("passport", "e12345678", "E12345678"),
        ("health_card", "aB-1", "aB-1"),
        ("local", " 0012\n", "0012"),
    ],
)
def test_knows_one_spelling_of_an_identifier(system: str, value: str, normal: str) -> None:
    """Case of the check character, spaces and full-width digits make no difference."""
    assert normal_value(system, value) == normal


def test_finds_an_identity_number_however_it_was_typed() -> None:
    """Both spellings give the same 64 hexadecimal digits."""
    index = BlindIndex(KEY)
    one = index.index("identity_number", "14260119491231002x")
    assert one == index.index("identity_number", "14260119491231002X")
    assert len(one) == 64
    assert "1426" not in one


def test_keeps_systems_apart() -> None:
    """The same value as a health card is another index value."""
    index = BlindIndex(KEY)
    assert index.index("identity_number", "1") != index.index("health_card", "1")
    assert index.index("ab", "c") != index.index("a", "bc")


def test_is_separated_by_key_purpose_and_suite() -> None:
    """One key in two roles, two keys, and two suites give four unrelated values."""
    values = {
        BlindIndex(KEY).index("local", "1"),
        RegionalIndex(KEY).index("local", "1"),
        BlindIndex(bytes(32)).index("local", "1"),
        BlindIndex(KEY, Suite.GM).index("local", "1"),
    }
    assert len(values) == 4


def test_gives_a_pseudonym_the_shape_of_an_id() -> None:
    """A pseudonym is a valid UUID of version 8, the same at every county that has the key."""
    row_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    pseudonym = Pseudonymizer(KEY).pseudonym("residents", row_id)
    parsed = uuid.UUID(pseudonym)
    assert str(parsed) == pseudonym
    assert parsed.version == 8
    assert parsed.variant == uuid.RFC_4122
    assert pseudonym == Pseudonymizer(KEY).pseudonym("residents", row_id)
    assert pseudonym != Pseudonymizer(bytes(32)).pseudonym("residents", row_id)


def test_separates_pseudonyms_by_table() -> None:
    """The same id in another table has another pseudonym."""
    maker = Pseudonymizer(KEY)
    assert maker.pseudonym("residents", "x") != maker.pseudonym("encounters", "x")


@pytest.mark.parametrize("made", [BlindIndex, RegionalIndex, Pseudonymizer])
def test_takes_keys_of_thirty_two_bytes_only(made: type[BlindIndex]) -> None:
    """A short key is a defect, not a weaker index."""
    with pytest.raises(ValueError, match="32 bytes"):
        made(b"short")
