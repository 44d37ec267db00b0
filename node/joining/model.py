"""What passes through a door, whatever carries it."""

from __future__ import annotations

from dataclasses import dataclass

from node.joining.proof import StretchCost

__all__ = ["Begun", "JoinAsked", "Joined"]


@dataclass(frozen=True, slots=True)
class Begun:
    """What the parent says first."""

    salt: bytes
    cost: StretchCost
    nonce: bytes


@dataclass(frozen=True, slots=True)
class JoinAsked:
    """A child's second call, as it came."""

    node_id: str
    parent_nonce: bytes
    tls_request: bytes
    authority_request: bytes
    proof: bytes
    possession: bytes


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer and the parent's proof over it."""

    answer: bytes
    proof: bytes
