"""The table of docs/permissions.md, as the table of methods would have it.

`python -m tests.house.permissions` prints it, so that it can be pasted when the methods change.
"""

from __future__ import annotations

from collections.abc import Iterator

from hierarchy_config.model import CareLevel
from node.security.caller import CallerKind
from node.security.methods import METHODS, MethodRule, Relation

__all__ = ["rows"]

_PLACES = {Relation.CHILD: " of a child", Relation.ANYWHERE: " of any node", Relation.HERE: ""}


def rows() -> Iterator[str]:
    """A row a method, by name."""
    for method, rule in sorted(METHODS.items()):
        name = method.removeprefix("/").removeprefix("fenhe.")
        data, purposes = str(int(rule.data)), ", ".join(rule.purposes)
        cells = (f"`{name}`", _open_to(rule), _levels(rule), data, purposes)
        yield "| " + " | ".join(cells) + " |"


def _open_to(rule: MethodRule) -> str:
    said = []
    for kind in sorted(rule.kinds):
        roles = sorted(rule.roles) if kind is CallerKind.STAFF else []
        said.append(f"{kind} ({', '.join(roles)})" if roles else str(kind))
    return ", ".join(said) + _PLACES[rule.relation]


def _levels(rule: MethodRule) -> str:
    if rule.levels == frozenset(CareLevel):
        return "all"
    named = [level for level in CareLevel if level in rule.levels]
    return ", ".join(named)


if __name__ == "__main__":
    print("\n".join(rows()))
