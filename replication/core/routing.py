"""Which way an entry of the log goes from here: up, and down to which child.

Owns the two questions, as pure functions of places. Must never know why a place holds a copy:
policy (how much of a row travels) is asked after routing, by the store.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from replication.core.model import Form

__all__ = ["goes_down", "goes_up"]


def goes_up(
    origin_node: str,
    home_node: str,  # noqa: ARG001 - both questions are asked in the same words
    here_subtree: AbstractSet[str],
) -> bool:
    """Whether the parent is to be sent it: it was written in this subtree.

    What came down from the parent was written elsewhere, so nothing is echoed.
    """
    return origin_node in here_subtree


def goes_down(
    origin_node: str, home_node: str, form: Form, child_subtree: AbstractSet[str]
) -> bool:
    """Whether a child is to be sent it: its resident lives there, and it was written elsewhere.

    Only full rows go down: the home owns the record, and a reduced copy would replace it.
    """
    return form is Form.FULL and home_node in child_subtree and origin_node not in child_subtree
