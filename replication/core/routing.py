"""Which way an entry of the log goes from here: up, and down to which child.

Owns the two questions, as pure functions of places. Must never know why a place holds a copy:
policy (how much of a row travels) is asked after routing, by the store. Of a letter (Form.SEALED)
`home_node` is the node it is addressed to.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from replication.core.model import Form

__all__ = ["goes_down", "goes_up"]


def goes_up(origin_node: str, home_node: str, form: Form, here_subtree: AbstractSet[str]) -> bool:
    """Whether the parent is to be sent it.

    Rows: written in this subtree, of a resident whose home is in it; what came down from the parent
    was written elsewhere, so nothing is echoed. A record of somebody who lives elsewhere goes to
    his home as a letter, because the nodes between may not read it, and climbs from there.
    Letters: written in this subtree, to a node outside it. What is in the log from before a change
    of the hierarchy, and would come to the parent from the wrong side, waits for its author.
    """
    if form is Form.SEALED:
        return origin_node in here_subtree and home_node not in here_subtree
    return origin_node in here_subtree and home_node in here_subtree


def goes_down(
    origin_node: str, home_node: str, form: Form, child_subtree: AbstractSet[str]
) -> bool:
    """Whether a child is to be sent it.

    Rows: the resident lives there, and it was written elsewhere; only full ones, since the home
    owns the record and a reduced copy would replace it. Letters: addressed to a node there, written
    elsewhere.
    """
    if form is Form.SEALED:
        return home_node in child_subtree and origin_node not in child_subtree
    return form is Form.FULL and home_node in child_subtree and origin_node not in child_subtree
