"""Reads permissions.txt: what a reviewer expects of the table of methods."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Expected", "expected_rules"]

_FILE: Final = Path(__file__).with_name("permissions.txt")
_BLOCK: Final = re.compile(r"\[(?:([a-z ]+) @ ([a-z]+) ! ([a-z]+))?\](?: staff: ([a-z ]+))?")
_LEVELS: Final = {"v": "village", "t": "township", "c": "county", "r": "city"}


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of one method, in plain words. `roles` None: none is asked."""

    kinds: frozenset[str]
    relation: str
    levels: frozenset[str]
    roles: frozenset[str] | None
    data: int
    purposes: tuple[str, ...]

    def admits(self, kind: str, role: str, relation: str, level: str) -> bool:
        """Whether a caller of a kind and role ("" none) gets through at a node of a level.

        `relation`: where his node stands: self, parent, child, sibling, cousin, foreign.
        """
        stands = {
            "here": relation == "self",
            "child": relation == "child",
            "anywhere": relation != "foreign",
            "": False,
        }[self.relation]
        fits = kind != "staff" or self.roles is None or role in self.roles
        return kind in self.kinds and stands and fits and level in self.levels


def expected_rules() -> dict[str, Expected]:
    """Every method by its full name."""
    return dict(_rules(_FILE.read_text(encoding="utf-8").splitlines()))


def _rules(lines: list[str]) -> Iterator[tuple[str, Expected]]:
    block: re.Match[str] | None = None
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            block = _BLOCK.fullmatch(line)
            assert block, line
            continue
        assert block, line
        method, data, *purposes = line.split()
        service = method if method.startswith("grpc.") else f"fenhe.{method}"
        kinds, relation, levels, roles = (group or "" for group in block.groups())
        named = _LEVELS.values() if levels == "all" else [_LEVELS[each] for each in levels]
        yield (
            f"/{service}",
            Expected(
                frozenset(kinds.split()),
                relation,
                frozenset(named),
                None if roles == "any" else frozenset(roles.split()),
                int(data),
                tuple(purposes),
            ),
        )
