"""Every method of the table leaves a deed, or has a reason why not."""

from __future__ import annotations

from node.auditing.deeds import AUDITED, NOT_AUDITED
from node.security.methods import DOOR_METHODS, METHODS


def test_every_method_is_audited_or_says_why_not() -> None:
    """A new method has to be put into one of the two."""
    assert set(AUDITED) | set(NOT_AUDITED) == set(METHODS) | DOOR_METHODS
    assert set(AUDITED) & set(NOT_AUDITED) == set()
    assert [name for name, reason in NOT_AUDITED.items() if len(reason) < 20] == []
