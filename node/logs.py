"""Structured logs: one JSON object a line, no patient data.

What is logged are node ids, counts, codes and durations. Values of records and residents never
reach a log call; a processor drops keys that would carry them, as a second fence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

__all__ = ["configure_logs", "get_logger"]

_NEVER: Final = frozenset(
    {"name", "phone", "address", "identifier", "identity_number", "birth_date", "value", "body"}
)


def configure_logs(level: str, path: Path | None) -> None:
    """Send logs to `path`, or to stderr. Called once a process, by node/app.py or the CLI."""
    stream: TextIO = sys.stderr if path is None else path.open("a", encoding="utf-8", buffering=1)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )


def get_logger(area: str) -> Any:
    """A logger whose lines say which area of the node speaks."""
    return structlog.get_logger(area=area)


def _redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in _NEVER & event.keys():
        event[key] = "[withheld]"
    return event
