"""Helper processes that start together: made ready first, released by one line, then waited for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from benchmarks.places import ended

__all__ = ["Crew", "report", "wait_for_start", "work_for"]


class Crew:
    """Some processes of one module of this package; each prints ready, waits, works, reports."""

    def __init__(self, module: str, arguments: Sequence[Sequence[str]]) -> None:
        """Nothing is started yet; one process for each list of arguments."""
        self._module = module
        self._arguments = arguments
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for each in self._arguments:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"benchmarks.{self._module}", *each],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in self._processes:
            self._line(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            # Who goes on after its report waits for this.
            if process.stdin is not None:
                process.stdin.close()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes]

    def work(self) -> list[dict[str, Any]]:
        """Release all at once; what each reports, when the last has finished."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(self._line(process)) for process in self._processes]

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ended(f"benchmarks.{self._module}", process.wait())
        return line


def wait_for_start() -> None:
    """In a helper: say that everything is ready and wait for the word."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit(1)


def work_for(seconds: float, step: Callable[[], object], rows: int = 1, steps_max: int = 0) -> None:
    """In a helper: repeat a step of so many rows until the time is up; report rows and seconds.

    `steps_max`: stop after so many; 0 for no such end.
    """
    started, used = time.perf_counter(), time.process_time()
    steps = 0
    while (taken := time.perf_counter() - started) < seconds and not 0 < steps_max <= steps:
        step()
        steps += 1
    report({"steps": steps * rows, "seconds": taken, "cpu_s": time.process_time() - used})


def report(figures: dict[str, Any]) -> None:
    """In a helper: what was measured."""
    print(json.dumps(figures), flush=True)
