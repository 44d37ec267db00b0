"""The body of an addressee's receipt."""

from __future__ import annotations

import json
import re
from typing import Any, Final

__all__ = ["receipt_in", "receipt_out"]

_LETTER_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OUTCOME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,46}(:[0-9]{1,16})?|")


def receipt_out(letter_id: str, outcome: str, at: str) -> bytes:
    """What an addressee says of a letter; `at` is ISO by its clock."""
    return json.dumps({"letter": letter_id, "outcome": outcome, "at": at}).encode()


def receipt_in(body: bytes) -> tuple[str, str] | None:
    """The letter's id and its outcome; None: it is no receipt."""
    try:
        said: dict[str, Any] = json.loads(body)
        letter_id, outcome = said["letter"], said["outcome"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(letter_id, str) or not isinstance(outcome, str):
        return None
    sound = _LETTER_ID.fullmatch(letter_id) and _OUTCOME.fullmatch(outcome)
    return (letter_id, outcome) if sound else None
