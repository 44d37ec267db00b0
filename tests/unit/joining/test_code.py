"""The code that is said on the telephone: read however it is typed, and mistakes are found."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierarchy_config.model import NodeId
from node.joining.code import new_code, read_code
from node.joining.errors import JoinCodeError

NODE = NodeId("141002001201")
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def codes() -> st.SearchStrategy[str]:
    """Spoken codes of any node."""
    nodes = st.from_regex(r"[1-9][0-9]{3,11}", fullmatch=True)
    return st.builds(lambda node: new_code(NodeId(node), os.urandom).spoken, nodes)


def test_has_the_form_that_is_printed() -> None:
    """Division code, then four, four and three symbols."""
    assert re.fullmatch(
        rf"{NODE}-[{SYMBOLS}]{{4}}-[{SYMBOLS}]{{4}}-[{SYMBOLS}]{{3}}",
        (new_code(NODE, os.urandom).spoken),
    )


@given(codes())
def test_is_read_as_it_was_spoken(spoken: str) -> None:
    """Small letters, spaces, other dashes, full-width signs and the letters mixed up."""
    code = read_code(spoken)
    assert code.spoken == spoken
    wide = "".join(chr(ord(each) + 0xFEE0) if each.isalnum() else each for each in spoken)
    mixed = spoken.lower().replace("0", "o").replace("1", "l").replace("-", " – ")
    for typed in (spoken.lower(), spoken.replace("-", ""), wide, mixed, f"  {spoken}\n"):
        assert read_code(typed) == code


@given(codes(), st.data())
def test_one_wrong_symbol_is_found(spoken: str, data: st.DataObject) -> None:
    """Anywhere, the division code included."""
    plain = spoken.replace("-", "")
    at = data.draw(st.integers(0, len(plain) - 1))
    allowed = "0123456789" if at < len(plain) - 11 else SYMBOLS
    wrong = data.draw(st.sampled_from([each for each in allowed if each != plain[at]]))
    with pytest.raises(JoinCodeError):
        read_code(plain[:at] + wrong + plain[at + 1 :])


@given(codes(), st.data())
def test_two_neighbours_that_changed_places_are_found(spoken: str, data: st.DataObject) -> None:
    """The second most usual mistake of a typist."""
    plain = spoken.replace("-", "")
    at = data.draw(st.integers(0, len(plain) - 2))
    swapped = plain[:at] + plain[at + 1] + plain[at] + plain[at + 2 :]
    if swapped != plain:
        with pytest.raises(JoinCodeError):
            read_code(swapped)


@pytest.mark.parametrize(
    "typed", ["", "7K3Q-XM9T-2B4", "141002001201", "x" * 10_000, "141002001201-7K3Q-XM9T-2B", "☃"]
)
def test_what_is_no_code_is_refused_with_a_next_step(typed: str) -> None:
    """Too short, too long, without the division code."""
    with pytest.raises(JoinCodeError) as raised:
        read_code(typed)
    assert raised.value.hint


def test_the_secret_is_in_no_text_of_the_code() -> None:
    """Not in its representation, which logs and tracebacks show; only where it is asked for."""
    code = new_code(NODE, os.urandom)
    assert code.secret not in repr(code)
    assert code.secret in code.spoken.replace("-", "")


def test_codes_differ() -> None:
    """Fifty bits: a thousand codes are a thousand."""
    assert len({new_code(NODE, os.urandom).secret for _ in range(1_000)}) == 1_000
