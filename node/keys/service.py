"""A key service outside the node: a command that wraps and unwraps the node's key.

The command is called with one more argument, `wrap` or `unwrap`, gets one line of base64 on its
standard input and answers with one line of base64. The key is never an argument, so that no list of
processes shows it, and neither what was said nor what came back is in an error or a log.
"""

from __future__ import annotations

import base64
import binascii
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from node.keys.errors import KeyServiceError

__all__ = ["CommandService", "KeyService", "service_of"]

_TIME_S: Final = 10.0
_ANSWER_MAX: Final = 48 * 1024


class KeyService(Protocol):
    """Wraps a key with another that never leaves it. Both raise KeyServiceError."""

    def wrap(self, clear: bytes) -> bytes:
        """What can be kept on a disk."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key that was wrapped."""


def service_of(command: Sequence[str] | None) -> KeyService | None:
    """The service of node.yaml's `key_command`; None without one."""
    return CommandService(command) if command else None


class CommandService:
    """Runs a program for each question."""

    def __init__(self, command: Sequence[str], time_s: float = _TIME_S) -> None:
        self._command = tuple(command)
        self._time_s = time_s

    def wrap(self, clear: bytes) -> bytes:
        """Wrap, and see that it unwraps again before anybody relies on it."""
        wrapped = self._asked("wrap", clear)
        if not wrapped or wrapped == clear or self._asked("unwrap", wrapped) != clear:
            raise KeyServiceError("key_command does not give back what it was given to wrap")
        return wrapped

    def unwrap(self, wrapped: bytes) -> bytes:
        """What was wrapped."""
        return self._asked("unwrap", wrapped)

    def _asked(self, verb: str, data: bytes) -> bytes:
        answer = self._run(verb, base64.b64encode(data) + b"\n")
        try:
            return base64.b64decode(answer.strip(), validate=True)
        except binascii.Error:
            raise KeyServiceError(f"key_command {verb} did not answer in base64") from None

    def _run(self, verb: str, said: bytes) -> bytes:
        try:
            # A session of its own, so that what it started ends with it.
            process = subprocess.Popen(
                [*self._command, verb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise KeyServiceError(f"key_command cannot be run: {error.strerror}") from None
        try:
            answer, _ = process.communicate(said, self._time_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise KeyServiceError(
                f"key_command {verb} did not answer within {self._time_s:g} s"
            ) from None
        except OSError as error:
            _end(process)
            raise KeyServiceError(f"key_command {verb} hung up: {error.strerror}") from None
        if process.returncode:
            raise KeyServiceError(f"key_command {verb} ended with status {process.returncode}")
        if len(answer) > _ANSWER_MAX:
            raise KeyServiceError(f"key_command {verb} answered more than a wrapped key can be")
        return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
