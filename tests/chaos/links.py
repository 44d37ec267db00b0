"""How long a village takes to catch up over a bad line: `python -m tests.chaos.links`.

A village writes while its line is cut; then the line is as bad as its profile says, and the time is
taken until its township has confirmed everything. Loss shows as stalls and resets, as on any TCP.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hierarchy_config import NodeId
from node.settings import load_settings, save_settings
from tests.chaos.proxy import CLEAR, Conditions, LinkProxy, ProxyThread
from tests.services.people import Person, put_request
from tests.services.region import Region
from tests.services.waiting import CLOCK

__all__ = ["PROFILES", "Measured", "Profile", "measure"]

TOWNSHIP: Final = NodeId("141002104")
VILLAGE: Final = NodeId("141002104200")
ROWS_A_PERSON: Final = 4
_PEOPLE_A_BUNDLE: Final = 25
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Profile:
    """A line and what waits for it. `up_s`, `down_s`: how long it holds and is away, in turns."""

    name: str
    conditions: Conditions
    people: int
    up_s: float = 0.0
    down_s: float = 0.0


_2G: Final = Conditions(
    delay_s=0.15, jitter_s=0.15, bytes_per_s=8_000, stalls=0.05, stall_s=1.0, resets=0.001
)
"""64 kbit/s, 300 to 600 ms there and back, one chunk in twenty stalls, now and then a reset."""

PROFILES: Final = (
    Profile("2G village", _2G, people=250),
    Profile(
        "satellite",
        Conditions(delay_s=0.3, jitter_s=0.05, bytes_per_s=64_000, stalls=0.01, stall_s=1.2),
        people=1_000,
    ),
    Profile(
        "flapping, 6 s up and 4 s down",
        Conditions(bytes_per_s=64_000),
        people=1_000,
        up_s=6.0,
        down_s=4.0,
    ),
    Profile("24 h offline, then 2G", _2G, people=500),
    Profile("24 h offline, then 2 Mbit/s", Conditions(delay_s=0.02, bytes_per_s=250_000), 2_000),
)
"""A village's busy day is about 500 people with four rows each; 2,000 rows."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows that waited, seconds until all were confirmed (None: not in time), bytes on the line."""

    rows: int
    seconds: float | None
    wire_bytes: int


class Trial:
    """A township and a village with a line between them that can be made bad."""

    def __init__(self, root: Path) -> None:
        """Start both; the line is good."""
        self._exit = ExitStack()
        self._proxies = ProxyThread()
        self._exit.callback(self._proxies.close)
        self._region = self._exit.enter_context(Region(root, (TOWNSHIP, VILLAGE)))
        self.line: LinkProxy = self._proxies.add(self._region.place.address(TOWNSHIP), seed=1)
        folder = self._region.place.node_dir(VILLAGE)
        changed = {"parent_endpoint": self.line.address}
        save_settings(folder, load_settings(folder).model_copy(update=changed))
        self._region.start()
        self._people = 0

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def measure(self, profile: Profile, seconds_max: float) -> Measured:
        """Let a backlog grow with the line cut, then time how long it takes to drain."""
        self._proxies.cut(self.line, Conditions(open=False))
        rows = self._write(profile.people)
        before = self.line.passed
        over = threading.Event()
        flapping = threading.Thread(target=self._be, args=(profile, over))
        started = CLOCK.monotonic_ms()
        flapping.start()
        try:
            seconds = self._until_drained(started, seconds_max)
        finally:
            over.set()
            flapping.join()
            self._proxies.cut(self.line, CLEAR)
        return Measured(rows, seconds, self.line.passed - before)

    def _write(self, people: int) -> int:
        first, self._people = self._people, self._people + people
        for start in range(first, self._people, _PEOPLE_A_BUNDLE):
            some = range(start, min(start + _PEOPLE_A_BUNDLE, self._people))
            persons = [Person(number, VILLAGE) for number in some]
            self._region.put(VILLAGE, put_request(f"links-{start:06d}", *persons), "client")
        return people * ROWS_A_PERSON

    def _be(self, profile: Profile, over: threading.Event) -> None:
        """Be the line of a profile until it is over."""
        while not over.is_set():
            self.line.conditions = profile.conditions
            if not profile.down_s:
                over.wait()
                return
            over.wait(profile.up_s)
            self._proxies.cut(self.line, replace(profile.conditions, open=False))
            over.wait(profile.down_s)

    def _until_drained(self, started: int, seconds_max: float) -> float | None:
        wanted = self._region.rows(VILLAGE)
        pause = threading.Event()
        while (elapsed := (CLOCK.monotonic_ms() - started) / 1000) < seconds_max:
            if self._region.rows(TOWNSHIP) == wanted:
                return elapsed
            pause.wait(_LOOK_S)
        return None


def measure(
    root: Path, profiles: Sequence[Profile], seconds_max: float, tell: Callable[[str], None]
) -> list[Measured]:
    """Measure one profile after the other on the same two nodes."""
    measured = []
    with Trial(root) as trial:
        for profile in profiles:
            tell(f"{profile.name} …")
            measured.append(trial.measure(profile, seconds_max))
    return measured


def main() -> int:
    """Print a table of catch-up times; exit code 1 if one did not end in time."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.links")
    parser.add_argument("--seconds", type=float, default=300.0, help="bound of each profile")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fenhe-links-") as made:
        found = measure(
            Path(made) / "region",
            PROFILES,
            words.seconds,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    for profile, each in zip(PROFILES, found, strict=True):
        time = f"{each.seconds:6.1f} s" if each.seconds is not None else "not in time"
        print(f"{profile.name:32} {each.rows:6} rows {each.wire_bytes:9,} bytes {time}")
    return 0 if all(each.seconds is not None for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
