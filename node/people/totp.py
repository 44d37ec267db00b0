"""The second factor: time-based codes of six digits (RFC 6238, HMAC-SHA-1, steps of 30 seconds).

Pure. A code counts for its step, the one before and the one after, and once: whoever read it over a
shoulder comes too late.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final
from urllib.parse import quote, urlencode

__all__ = ["SECRET_BYTES", "code_at", "enrolment_uri", "secret_text", "step_of", "used_step"]

SECRET_BYTES: Final = 20
_STEP_MS: Final = 30_000
_DIGITS: Final = 6
_SKEW: Final = (0, -1, 1)
_CODE: Final = re.compile(r"[0-9]{6}")


def step_of(now_ms: int) -> int:
    """The number of the step."""
    return now_ms // _STEP_MS


def code_at(secret: bytes, step: int, digits: int = _DIGITS) -> str:
    """The code of a step (RFC 4226, 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), hashlib.sha1)
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**digits:0{digits}d}"


def used_step(secret: bytes, code: str, now_ms: int, last_step: int) -> int | None:
    """The step that a code is of; None: it is wrong, or of a step that was used before."""
    now = step_of(now_ms)
    is_code = _CODE.fullmatch(code) is not None
    asked = code if is_code else "-" * _DIGITS
    found: int | None = None
    for skew in _SKEW:
        step = now + skew
        fits = step >= 0 and hmac.compare_digest(code_at(secret, max(step, 0)), asked)
        if fits and step > last_step and found is None:
            found = step
    return found


def secret_text(secret: bytes) -> str:
    """The secret as it is typed into a telephone: base 32 in groups of four."""
    text = base64.b32encode(secret).decode().rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def enrolment_uri(secret: bytes, account: str, issuer: str) -> str:
    """What a telephone reads from a picture of it (otpauth)."""
    text = base64.b32encode(secret).decode().rstrip("=")
    label = quote(f"{issuer}:{account}")
    return f"otpauth://totp/{label}?" + urlencode({"secret": text, "issuer": issuer})
