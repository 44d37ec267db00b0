"""Errors of transit.

    TransitError
    ├── LetterInvalidError      bytes that are no letter, or not what their entry says
    ├── LetterSignatureError    not signed by the node it names as its sender
    ├── LetterKeyOldError       sealed to a key that this node does not have
    ├── LetterSealError         sealed to this node, and altered since
    └── LetterTooLargeError     more than a batch could carry

No message holds anything of a letter's body.
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "LetterInvalidError",
    "LetterKeyOldError",
    "LetterSealError",
    "LetterSignatureError",
    "LetterTooLargeError",
    "TransitError",
]


class TransitError(NodeError):
    """Base of the errors of letters."""

    code = "TRANSIT_ERROR"


class LetterInvalidError(TransitError):
    """Bytes that are no letter, or one that contradicts the entry it came in."""

    code = "LETTER_MALFORMED"
    fault = Fault.PEER
    default_hint = "See `fenhe quarantine show`; the author sends again what got no receipt."


class LetterSignatureError(TransitError):
    """A letter is not the word of the node that it names."""

    code = "LETTER_SIGNATURE"
    fault = Fault.PEER
    default_hint = "Find out which node handed it on; the true author sends its own again."


class LetterKeyOldError(TransitError):
    """A letter is sealed to another key than this node's."""

    code = "LETTER_KEY_OLD"
    fault = Fault.PEER
    default_hint = "Nothing to do: its author is told and seals it anew."


class LetterSealError(TransitError):
    """A letter sealed to this node does not open."""

    code = "LETTER_UNREADABLE"
    fault = Fault.PEER
    default_hint = "See `fenhe quarantine show`; the author sends again what got no receipt."


class LetterTooLargeError(TransitError):
    """A letter's body is larger than one entry of the log may be."""

    code = "LETTER_TOO_LARGE"
    fault = Fault.HERE
    default_hint = "Send it in pieces."
