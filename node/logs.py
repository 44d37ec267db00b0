"""Structured logs: one JSON object a line, no patient data.

What is logged are node ids, counts, codes and durations. Values of records and residents never
reach a log call. A processor is the second fence: it withholds the values of keys that would carry
them, and whatever looks like an identity number, a telephone, a password, a key or a token in any
text. A log file is its owner's alone.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

__all__ = ["configure_logs", "get_logger"]

WITHHELD: Final = "[withheld]"

_NEVER: Final = frozenset(
    {
        # Of residents.
        "address",
        "birth_date",
        "body",
        "identifier",
        "identity_number",
        "name",
        "patient",
        "phone",
        "value",
        # Secrets.
        "authorization",
        "credentials",
        "database_url",
        "passphrase",
        "password",
        "private_key",
        "secret",
        "token",
        "totp",
        "url",
    }
)
"""Keys whose values no line ever holds, however deep they stand."""

_TELLTALE: Final = re.compile(
    # A resident identity number (GB 11643): place, birth date, order, check symbol.
    r"(?<!\d)[1-9]\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\d)"
    # A mobile number of China.
    r"|(?<!\d)1[3-9]\d{9}(?!\d)"
    # The password of a URL.
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
    # A key in text form, whole or cut off.
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    # A signed token in three parts, and what follows the word for one.
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}"
    # The code of an invitation, with its dashes.
    r"|\b\d{4,12}(?:-[0-9A-HJKMNP-TV-Z]{4}){2}-[0-9A-HJKMNP-TV-Z]{3}\b",
    re.DOTALL,
)
"""What gives a secret or a person away in any text, an exception's included."""

_DEPTH_MAX: Final = 6


def configure_logs(level: str, path: Path | None) -> TextIO:
    """Send logs to `path`, or to stderr; what they are written to, open as long as the process.

    Called once a process, by node/app.py or the CLI.
    """
    stream: TextIO = sys.stderr if path is None else _opened(path)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            # After the exception has become text: it is looked through too.
            _redact,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    return stream


def _opened(path: Path) -> TextIO:
    """The file, to be appended to; made with mode 0600 whatever the umask is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.fdopen(descriptor, "a", encoding="utf-8", buffering=1)


def get_logger(area: str) -> Any:
    """A logger whose lines say which area of the node speaks."""
    return structlog.get_logger(area=area)


def _redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {key: _clean(key, value, 0) for key, value in event.items()}


def _clean(key: object, value: Any, depth: int) -> Any:
    """The value as it may be written."""
    if (isinstance(key, str) and key.lower() in _NEVER) or depth > _DEPTH_MAX:
        return WITHHELD
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {each: _clean(each, inner, depth + 1) for each, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean("", inner, depth + 1) for inner in value]
        case bytes() | bytearray() | memoryview():
            return WITHHELD
        case _:
            return _TELLTALE.sub(WITHHELD, str(value))
