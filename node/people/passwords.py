"""Passwords: what is a good one, and what is kept of it. Pure but for its random bytes.

Kept is Argon2id (RFC 9106) as the PHC string with its parameters, so that a hash made when machines
were slower still opens, and is replaced at the next sign-in. It is sealed like every secret cell.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from node.clock import RandomBytes
from node.people.errors import PasswordWeakError

__all__ = ["PASSWORD_COST", "PasswordCost", "Passwords", "refuse_weak"]

_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_LENGTH_MIN: Final = 12
LENGTH_MAX: Final = 128
_DIFFERENT_MIN: Final = 6
_PHC: Final = re.compile(r"\$argon2id\$v=19\$m=(\d{1,8}),t=(\d{1,4}),p=(\d{1,3})\$.+")


@dataclass(frozen=True, slots=True)
class PasswordCost:
    """The work that one guess costs: memory in KiB, passes over it, lanes."""

    memory_kib: int
    passes: int
    lanes: int

    def is_less_than(self, other: PasswordCost) -> bool:
        """Whether a guess is cheaper in memory or in passes."""
        return self.memory_kib < other.memory_kib or self.passes < other.passes


PASSWORD_COST: Final = PasswordCost(memory_kib=65_536, passes=3, lanes=1)
"""About half a second on the small machines that villages have."""


class Passwords:
    """Hashes and compares. Takes the time and the memory that the cost says; keeps nothing."""

    def __init__(self, random_bytes: RandomBytes, cost: PasswordCost = PASSWORD_COST) -> None:
        self._random_bytes = random_bytes
        self._cost = cost
        # Compared with where there is no account, so that its absence takes as long as a password.
        self._nobodys = ""

    def stretched(self, password: str) -> str:
        """What is kept of a password."""
        cost = self._cost
        derive = Argon2id(
            salt=self._random_bytes(_SALT_BYTES),
            length=_HASH_BYTES,
            iterations=cost.passes,
            lanes=cost.lanes,
            memory_cost=cost.memory_kib,
        )
        return derive.derive_phc_encoded(_normal(password))

    def fits(self, password: str, kept: str | None) -> bool:
        """Whether it is the password. None, or what is no hash of ours: the same work, and no."""
        known = kept is not None and cost_of(kept) is not None
        if not self._nobodys:
            self._nobodys = self.stretched(self._random_bytes(16).hex())
        try:
            Argon2id.verify_phc_encoded(
                _normal(password)[: 4 * LENGTH_MAX], kept if known and kept else self._nobodys
            )
        except InvalidKey:
            return False
        return known

    def is_outdated(self, kept: str) -> bool:
        """Whether it was made for less work than now."""
        cost = cost_of(kept)
        return cost is None or cost.is_less_than(self._cost)


def cost_of(kept: str) -> PasswordCost | None:
    """The parameters of a hash; None: it is none of ours."""
    match = _PHC.fullmatch(kept)
    return None if match is None else PasswordCost(*map(int, match.groups()))


def refuse_weak(password: str, account: str) -> None:
    """Refuse a password that is soon guessed.

    Raises:
        PasswordWeakError: It is; the message does not repeat it.
    """
    length = len(_normal(password).decode())
    if not _LENGTH_MIN <= length <= LENGTH_MAX:
        raise PasswordWeakError(f"a password has {_LENGTH_MIN} to {LENGTH_MAX} characters")
    if len(set(password)) < _DIFFERENT_MIN:
        raise PasswordWeakError(f"a password has at least {_DIFFERENT_MIN} different characters")
    if account.casefold() in password.casefold():
        raise PasswordWeakError("a password does not hold the name of its account")


def _normal(password: str) -> bytes:
    # One word typed on two keyboards is one word; what is not Unicode fits nothing.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "replace")
