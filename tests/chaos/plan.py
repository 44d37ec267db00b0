"""Which faults a run has, and when: planned from its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["KINDS", "Planned", "plan"]

RATES: Final = {
    "kill": 22.0,
    "cut": 5.0,
    "half_open": 2.5,
    "one_way": 3.0,
    "delay": 3.0,
    "pause": 3.0,
    "rotate": 2.5,
    "kill_mariadbd": 2.0,
    "full_disk": 0.7,
    "restore": 0.9,
    "restore_mariadb": 0.4,
    "reparent": 0.0,
}
"""How often a minute each kind is planned; once at least, and 0.0: once."""
KINDS: Final = tuple(RATES)
_LASTS_S: Final = {
    "kill": (0.0, 3.0),
    "cut": (2.0, 12.0),
    "half_open": (3.0, 12.0),
    "one_way": (3.0, 12.0),
    "delay": (5.0, 15.0),
    "pause": (1.0, 8.0),
    "kill_mariadbd": (0.5, 4.0),
    "full_disk": (4.0, 10.0),
}
_WHEN: Final = {
    # Stores are put back late: their backups are made before the run.
    "restore": (0.5, 0.8),
    "restore_mariadb": (0.5, 0.8),
    # Early, so that faults strike while it goes on.
    "reparent": (0.15, 0.35),
}
"""In which part of the run a kind falls."""
_WHENEVER: Final = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: when it begins (seconds from the start), what, for how long, and its luck."""

    at_s: float
    kind: str
    lasts_s: float
    luck: float


def plan(seed: int, minutes: float) -> list[Planned]:
    """The faults of a run in order of time; every kind at least once."""
    chance = random.Random(seed)
    planned = []
    for kind, rate in RATES.items():
        for _ in range(max(1, round(rate * minutes))):
            at_s = chance.uniform(*_WHEN.get(kind, _WHENEVER)) * minutes * 60
            lasts_s = chance.uniform(*_LASTS_S.get(kind, (0.0, 0.0)))
            planned.append(Planned(at_s, kind, lasts_s, chance.random()))
    return sorted(planned, key=lambda each: each.at_s)
