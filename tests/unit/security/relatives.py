"""A region in which every node has what its level can have of relatives."""

from __future__ import annotations

from typing import Final

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId

__all__ = ["HIERARCHY", "STANDS"]

# Two of everything below the city, so that each level has what it can have of relatives.
_CODES: Final = (
    "1410",
    *("141002", "141024"),
    *("141002001", "141002002", "141024001"),
    *("141002001201", "141002001202", "141002002201", "141024001201"),
)
_LEVELS: Final = {
    4: CareLevel.CITY,
    6: CareLevel.COUNTY,
    9: CareLevel.TOWNSHIP,
    12: CareLevel.VILLAGE,
}
_ABOVE: Final = {12: 9, 9: 6, 6: 4}
HIERARCHY: Final = Hierarchy(
    region="linfen",
    epoch=1,
    nodes={
        NodeId(code): NodeEntry(
            NodeId(code),
            _LEVELS[len(code)],
            code,
            code,
            NodeId(code[: _ABOVE[len(code)]]) if len(code) in _ABOVE else None,
            None,
            _LEVELS[len(code)].value,
        )
        for code in _CODES
    },
)

# Called node → the caller's node by its relation. What a level does not have is left out.
STANDS: Final = {
    "1410": {"self": "1410", "child": "141002", "foreign": "1411"},
    "141002": {
        "self": "141002",
        "parent": "1410",
        "child": "141002001",
        "sibling": "141024",
        "foreign": "141102",
    },
    "141002001": {
        "self": "141002001",
        "parent": "141002",
        "child": "141002001201",
        "sibling": "141002002",
        "cousin": "141024001",
        "foreign": "141102001",
    },
    "141002001201": {
        "self": "141002001201",
        "parent": "141002001",
        "sibling": "141002001202",
        "cousin": "141002002201",
        "foreign": "141102001201",
    },
}
