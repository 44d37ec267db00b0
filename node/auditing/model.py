"""Heads, anchors and findings as frozen data. Knows neither bytes nor tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hierarchy_config.model import NodeId

__all__ = [
    "NOWHERE",
    "Anchor",
    "Finding",
    "FindingKind",
    "Head",
    "Held",
    "KeptAnchor",
    "Life",
    "Point",
    "Signed",
    "bound_of",
]


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a chain: position and the hash there; the hash is empty if there is no entry."""

    position: int
    hash: str


NOWHERE: Final = Point(0, "")


@dataclass(frozen=True, slots=True)
class Life:
    """Where in the chain a life of the store began: after the entry at this position."""

    store_epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class Head:
    """Where a node's chain ends, as it signs it.

    `lives`: of its store, oldest first. `seen`: what its chain holds at the position that the other
    end asked about, its newest anchor; so a chain that was written anew shows although it has grown
    since.
    """

    node_id: NodeId
    store_epoch: int
    end: Point
    at_ms: int
    lives: tuple[Life, ...]
    seen: Point


@dataclass(frozen=True, slots=True)
class Anchor:
    """What a holder signs: that it keeps a head. `line`: see Held; `head_digest`: SHA-256."""

    holder: NodeId
    head_digest: str
    line: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement's bytes as signed, the signature, and the digest of the signer's certificate."""

    statement: bytes
    signature: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class Held:
    """What a holder keeps of a node's newest head. `at_ms`: when it was anchored."""

    store_epoch: int
    end: Point
    lives: tuple[Life, ...]
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class KeptAnchor:
    """An anchor with both statements."""

    head: Head
    anchor: Anchor
    head_signed: Signed
    anchor_signed: Signed


class FindingKind(StrEnum):
    """What is wrong with a head, seen from what was anchored before."""

    REWRITTEN = "rewritten"
    """The chain holds something else where an anchor stands."""
    CUT = "cut"
    """The chain ends before an anchor."""
    FORMER_LIFE = "former_life"
    """The head is of a store epoch before the one anchored."""
    LOST = "lost"
    """A new life of the store began before the last anchor: a restore loses what is younger than
    its backup. It is explained, said once, and contradicts nothing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about a head. `entries`: how many anchored ones the chain does not have."""

    kind: FindingKind
    store_epoch: int
    position: int
    expected: str
    found: str
    entries: int = 0


def bound_of(lives: Iterable[Life], store_epoch: int) -> int | None:
    """Up to where the entries of a life are still in the chain; None: all of them.

    A life that begins after a restore goes on from what the backup held.
    """
    return min((each.position for each in lives if each.store_epoch > store_epoch), default=None)
