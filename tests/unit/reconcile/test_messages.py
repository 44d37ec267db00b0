"""Messages of a comparison, and what only looks like one."""

from __future__ import annotations

import json

import pytest
import zstandard

from node.reconcile.messages import packed, unpacked
from replication.errors import RemoteProtocolError

_TOO_MUCH = 65 << 20


def test_a_message_comes_back_as_it_was() -> None:
    """Whatever JSON has."""
    said = {"slice": ["up", "observations", "村"], "keys": "", "n": 1}
    assert unpacked(packed(said)) == said


@pytest.mark.parametrize("says_its_size", [True, False])
def test_a_message_that_grows_without_bounds_is_refused(says_its_size: bool) -> None:
    """A few kilobytes that unpack to more than a message may have, whether they say so or not."""
    text = json.dumps({"a": " " * _TOO_MUCH}).encode()
    body = zstandard.ZstdCompressor(write_content_size=says_its_size).compress(text)
    assert len(body) < 1 << 16
    with pytest.raises(RemoteProtocolError):
        unpacked(body)
