"""What a neighbour says of a home: read, or nothing of it believed."""

from __future__ import annotations

import json

import pytest

from node.residence.errors import GrantInvalidError
from node.residence.papers import Ask, ask_in, ask_out, home_in, home_out
from replication.core.residence import KnownHome

_HOME = KnownHome("141002001201", 3)
_ID = "01890000-0000-7000-8000-000000000001"


def test_a_home_is_read_as_it_was_said() -> None:
    """Nobody's home is said as well."""
    assert home_in(home_out(_HOME)) == _HOME
    assert home_in(home_out(None)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 200_000,
        b'{"home_node": "141002", "home_epoch": 1e999}',
        b'{"home_node": "141002", "home_epoch": 1180591620717411303424}',
        b'{"home_node": "141002", "home_epoch": true}',
        b'{"home_node": "141002", "home_epoch": 0}',
        b'{"home_node": "somewhere", "home_epoch": 2}',
        b'{"home_node": "141002"}',
    ],
)
def test_a_home_that_is_none_is_not_believed(body: bytes) -> None:
    """Nor does it end the question."""
    assert home_in(body) is None


def test_a_reason_that_is_no_text_is_refused() -> None:
    """No database could keep it."""
    ask = Ask(_ID, "141002001201", "moved house", "141002001201", None)
    assert ask_in(ask_out(ask)) == ask
    said = json.loads(ask_out(ask)) | {"reason": "\ud800"}
    with pytest.raises(GrantInvalidError):
        ask_in(json.dumps(said).encode())
