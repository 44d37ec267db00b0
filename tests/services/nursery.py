"""Node processes forked from one that has imported their modules already.

A node's packages take a second or more of a processor to import, and the tests start hundreds of
nodes and commands. Each is still a process, and runs its command from the entry point on: it has
its own session, threads and files, and can be killed, stopped and continued. The demo, the
benchmarks, the tests of commands and of power cuts start theirs from the interpreter on.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final

from node.demo.processes import NodeProcess

__all__ = ["forked"]

_PR_SET_PDEATHSIG: Final = 1
_NOTHING: Final = Path(os.devnull)


def forked(
    words: Sequence[str], said: Path, given: Path = _NOTHING, printed: Path = _NOTHING
) -> NodeProcess:
    """Start `fenhe` with words, its stderr and stdout appended to files, its input from one."""
    files = (str(given), str(printed), str(said))
    process = _nursery().Process(target=_live, args=(list(words), files), daemon=True)
    process.start()
    return _Forked(process)


@cache
def _nursery() -> ForkServerContext:
    """One for each process that runs tests; it ends with that process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.services.nursery_modules"])
    return context


class _Forked:
    """A forked process, spoken to as one that was spawned."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        if process.pid is None:
            raise RuntimeError("a process that was started has an id")
        self.pid: int = process.pid

    def poll(self) -> int | None:
        """None while it runs; its exit code, or the negative number of the signal that ended it."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("fenhe", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing, if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _live(words: list[str], files: tuple[str, str, str]) -> None:
    """What the forked process does: no more than a shell would, then the command itself."""
    os.setsid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    for number, path in enumerate(files):
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT if number else os.O_RDONLY
        file = os.open(path, how, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the process's life
    sys.argv = ["fenhe", *words]
    from tests.services.nursery_modules import FENHE

    os.umask(0o077)
    FENHE(prog_name="fenhe")
