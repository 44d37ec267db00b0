"""Limits of the door, and conversations that are good for one proof."""

from __future__ import annotations

import pytest

from node.joining.errors import DoorBusyError
from node.joining.knocks import (
    KNOCKS_MAX,
    OPEN_MS,
    WINDOW_MS,
    Conversations,
    Knocks,
    Opened,
    address_of,
)
from node.joining.proof import STRETCH

NODE = "141002001201"


def opened(nonce: int = 0) -> Opened:
    """A conversation."""
    return Opened(NODE, bytes(32), nonce.to_bytes(32, "big"), bytes(16), STRETCH, "some")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.1.2.3:4711", "10.1.2.3"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:10.1.2.3]:4711", "10.1.2.3"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::/64"),
        ("unix:/run/door", "elsewhere"),
        ("", "elsewhere"),
    ],
)
def test_tells_whom_a_knock_counts_for(peer: str, address: str) -> None:
    """One machine has many IPv6 addresses, so 64 bits of one count."""
    assert address_of(peer) == address


def test_takes_ten_a_minute_from_one_address() -> None:
    """The eleventh waits; others are not concerned; a minute later it may again."""
    knocks = Knocks()
    for n in range(KNOCKS_MAX):
        knocks.count("a", n)
    with pytest.raises(DoorBusyError, match="wait 60 s"):
        knocks.count("a", KNOCKS_MAX)
    knocks.count("b", KNOCKS_MAX)
    knocks.count("a", WINDOW_MS)
    with pytest.raises(DoorBusyError):
        knocks.count("a", WINDOW_MS)


def test_a_refused_knock_is_not_counted() -> None:
    """Who goes on knocking is heard again after a minute all the same."""
    knocks = Knocks()
    for _ in range(KNOCKS_MAX):
        knocks.count("a", 0)
    for at in range(1, WINDOW_MS, 1_000):
        with pytest.raises(DoorBusyError):
            knocks.count("a", at)
    knocks.count("a", WINDOW_MS)


def test_what_is_remembered_is_bounded() -> None:
    """A flood from everywhere is refused and forgotten a minute later."""
    knocks = Knocks()

    def knock_from_everywhere() -> None:
        for n in range(5_000):
            knocks.count(f"address {n}", 0)

    with pytest.raises(DoorBusyError):
        knock_from_everywhere()
    knocks.count("a", WINDOW_MS)


def test_conversations_are_bounded() -> None:
    """So are those that were begun and left; two minutes later there is room."""
    conversations = Conversations()

    def begin_many() -> None:
        for n in range(2_000):
            conversations.begin(opened(n), 0)

    with pytest.raises(DoorBusyError):
        begin_many()
    conversations.begin(opened(5_000), OPEN_MS)


def test_a_conversation_is_good_once() -> None:
    """A second proof with the same nonce finds nothing."""
    conversations = Conversations()
    conversations.begin(opened(1), 0)
    assert conversations.take(NODE, opened(1).parent_nonce, 1) == opened(1)
    with pytest.raises(DoorBusyError):
        conversations.take(NODE, opened(1).parent_nonce, 2)


@pytest.mark.parametrize(
    ("node", "nonce", "at"),
    [(NODE, 1, OPEN_MS), ("1410", 1, 1), (NODE, 2, 1)],
    ids=["late", "of another node", "never begun"],
)
def test_a_conversation_is_good_for_its_node_and_its_time(node: str, nonce: int, at: int) -> None:
    """Another node's, an unknown or an old one is refused, and gone."""
    conversations = Conversations()
    conversations.begin(opened(1), 0)
    with pytest.raises(DoorBusyError):
        conversations.take(node, opened(nonce).parent_nonce, at)
