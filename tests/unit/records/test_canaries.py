"""Ids of canaries: told from people's, and of which home."""

from __future__ import annotations

import random

import pytest

from node.clock import Ids
from node.records.canaries import canary_home, is_canary, mint_canary
from node.records.faults import FaultReport
from node.records.values import check_id
from node.security.blind_index import Pseudonymizer
from node.storage.shapes import is_row_id


class StillClock:
    """Always the same moment."""

    def now_ms(self) -> int:
        return 1_750_000_000_000

    def monotonic_ms(self) -> int:
        return 0


@pytest.mark.parametrize("home", ["1410", "141002", "141002001", "141002001201"])
def test_an_id_tells_its_home(home: str) -> None:
    """At every level; and it is an id like any other to the database."""
    made = mint_canary(home, b"\x01\x02\xff")
    assert is_row_id(made)
    assert is_canary(made)
    assert canary_home(made) == home


def test_no_persons_id_is_a_canarys() -> None:
    """Neither one that a node mints nor a pseudonym."""
    source = random.Random(7)
    ids = Ids(StillClock(), source.randbytes)
    pseudonyms = Pseudonymizer(source.randbytes(32))
    for number in range(2000):
        assert not is_canary(ids.mint_timeless())
        assert not is_canary(pseudonyms.pseudonym("residents", str(number)))


@pytest.mark.parametrize(
    "made",
    [
        "",
        "ca9a27ee-ca9a-7141-8002-001201aaaaaa",
        "ca9a27ee-ca9a-8fff-8fff-ffffffaaaaaa",
        "ca9a27ee-ca9a-814f-8002-001201aaaaaa",
        "ca9a27ee-ca9a-8141-8002-001201aaaaaa0",
    ],
)
def test_what_is_no_canary_has_no_home(made: str) -> None:
    """Of a broken id nothing is guessed."""
    assert canary_home(made) is None


def test_a_bundle_cannot_name_a_canarys_id() -> None:
    """A clinic can hide nobody from the counts by giving him such an id."""
    report = FaultReport()
    check_id("residents[0].resident_id", mint_canary("141002001201", bytes(3)), report)
    [fault] = report.all()
    assert fault.code == "ID_RESERVED"
