"""The code of an invitation, as it is said on the telephone.

    141002001201-7K3Q-XM9T-2B4

The division code, ten symbols of Crockford's base 32 (no I, L, O, U: nobody can mix them up), and
Crockford's check symbol over everything before it. The check finds every single wrong symbol and
every two that changed places on the machine where it is typed, so that a typing mistake costs none
of the five proofs. Secrets are chosen so that the check is a plain symbol too: 49.8 bits are left.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from hierarchy_config.model import NodeId
from node.clock import RandomBytes
from node.joining.errors import JoinCodeError

__all__ = ["JoinCode", "new_code", "read_code"]

_SYMBOLS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SECRET: Final = 10
_CHECK_MODULUS: Final = 37
_CODE: Final = re.compile(rf"([0-9]{{4,12}})([{_SYMBOLS}]{{{_SECRET}}})([{_SYMBOLS}])")
_READ_AS: Final = str.maketrans({"O": "0", "I": "1", "L": "1"})
_TYPED_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class JoinCode:
    """For whom, and the ten symbols that only the two operators know."""

    node_id: NodeId
    secret: str = field(repr=False)

    @property
    def spoken(self) -> str:
        """As it is read out and typed."""
        body = self.secret + _SYMBOLS[_check(self.node_id, self.secret)]
        return "-".join((self.node_id, body[:4], body[4:8], body[8:]))


def new_code(node_id: NodeId, random_bytes: RandomBytes) -> JoinCode:
    """A code that nobody can guess."""
    while True:
        number = int.from_bytes(random_bytes(8), "big")
        secret = "".join(_SYMBOLS[number >> (5 * place) & 31] for place in range(_SECRET))
        if _check(node_id, secret) < len(_SYMBOLS):
            return JoinCode(node_id, secret)


def read_code(typed: str) -> JoinCode:
    """What was typed, small or capital, full width or not, with any spaces and dashes.

    Raises:
        JoinCodeError: It is no code, or a symbol of it is wrong.
    """
    folded = unicodedata.normalize("NFKC", typed[:_TYPED_MAX]).upper()
    plain = "".join(each for each in folded if each.isalnum()).translate(_READ_AS)
    found = _CODE.fullmatch(plain)
    if found is None:
        raise JoinCodeError(
            "this is not a code: it has a division code of 4 to 12 digits and eleven letters and "
            "digits behind it"
        )
    code = JoinCode(NodeId(found[1]), found[2])
    if _check(code.node_id, code.secret) != _SYMBOLS.index(found[3]):
        raise JoinCodeError("the code has a typing mistake, in the division code or behind it")
    return code


def _check(node_id: str, secret: str) -> int:
    number = int(node_id)
    for symbol in secret:
        number = number * 32 + _SYMBOLS.index(symbol)
    return number % _CHECK_MODULUS
