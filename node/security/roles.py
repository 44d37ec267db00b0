"""What a member of staff may be here: the field's roles, named once.

A role says what somebody does; whose data he sees follows from his organization and the residents'
care relations (node/storage/scope.py), and which calls are open to him from the table of methods.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Role"]


class Role(StrEnum):
    """A role of an assignment. Somebody with several assignments has the roles of all of them."""

    OPERATOR = "operator"
    """Says who keeps the node running, and opens no method: that is an operator's certificate."""
    ADMINISTRATOR = "administrator"
    """Manages organizations, staff and accounts of a subtree."""
    DOCTOR = "doctor"
    NURSE = "nurse"
    REGISTRAR = "registrar"
    """Registers residents and their identifiers."""
    ANALYST = "analyst"
    AUDITOR = "auditor"
    """Reads the audit, and nothing that it is about."""
