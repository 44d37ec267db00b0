"""The whole hierarchy in one process: the real core of replication under faults, from one seed.

Virtual time, fake stores and a fake network; `python -m tests.simulation --seed K` replays one
schedule with its trace. Every schedule has a phase with faults, checked for safety, and then a
phase without, in which everything must arrive. Read world.py first.
"""

from __future__ import annotations

__all__: list[str] = []
