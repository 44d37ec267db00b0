"""Consents, relations, grants and reviews as frozen data, from rows and for callers."""

from __future__ import annotations

from dataclasses import dataclass

from node.consent.words import BREAK_GLASS
from replication.core.model import RowChange

__all__ = ["Broken", "Consent", "Grant", "Relation", "Review", "Wanted", "grant_of"]


@dataclass(frozen=True, slots=True)
class Consent:
    """What a resident allows or forbids. Empty text: not given, or not yet."""

    consent_id: str
    resident_id: str
    purpose: str
    recipient: str
    decision: str
    from_on: str
    until_on: str
    note: str
    recorded_at: str
    given_to: str
    revoked_at: str

    @classmethod
    def of(cls, row: RowChange) -> Consent:
        """The consent that a row holds."""
        return cls(
            row.row_id,
            row.resident_id,
            _text(row, "purpose"),
            _text(row, "recipient"),
            _text(row, "decision"),
            _text(row, "from_on"),
            _text(row, "until_on"),
            _text(row, "note"),
            row.recorded_at,
            _text(row, "given_to"),
            _text(row, "revoked_at"),
        )


@dataclass(frozen=True, slots=True)
class Relation:
    """An organization that cares for a resident."""

    relation_id: str
    resident_id: str
    organization_id: str
    kind: str
    from_on: str
    until_on: str
    author_node: str
    opened_by: str
    ended_at: str

    @classmethod
    def of(cls, row: RowChange) -> Relation:
        """The relation that a row holds."""
        return cls(
            row.row_id,
            row.resident_id,
            _text(row, "organization_id"),
            _text(row, "kind"),
            _text(row, "from_on"),
            _text(row, "until_on"),
            row.author_node,
            _text(row, "opened_by"),
            _text(row, "ended_at"),
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """Access for a while. `granted_for`: the organization of whoever granted it."""

    grant_id: str
    resident_id: str
    grantee: str
    kind: str
    from_at: str
    until_at: str
    reason: str
    granted_by: str
    granted_for: str
    author_node: str
    home_node: str
    revoked_at: str

    @property
    def is_broken_glass(self) -> bool:
        """Whether it is stronger than consents."""
        return self.kind == BREAK_GLASS


def grant_of(row: RowChange) -> Grant:
    """The grant that a row holds."""
    return Grant(
        row.row_id,
        row.resident_id,
        _text(row, "grantee"),
        _text(row, "kind"),
        _text(row, "from_at"),
        _text(row, "until_at"),
        _text(row, "reason"),
        _text(row, "granted_by"),
        _text(row, "granted_for"),
        row.author_node,
        row.home_node,
        _text(row, "revoked_at"),
    )


@dataclass(frozen=True, slots=True)
class Broken:
    """A glass that was broken. `overrides`: a consent forbids what it opens."""

    grant: Grant
    overrides: bool


@dataclass(frozen=True, slots=True)
class Review:
    """A broken glass as the resident's home sees it; `state` is the finding, or "open"."""

    grant: Grant
    state: str
    note: str = ""
    closed_at: str = ""
    closed_by: str = ""

    @classmethod
    def of(cls, grant: Grant, row: RowChange | None) -> Review:
        """The review of a grant; `row`: what was found, None if nobody has looked."""
        if row is None:
            return cls(grant, "open")
        found = (_text(row, name) for name in ("finding", "note", "closed_at", "closed_by"))
        return cls(grant, *found)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A consent, relation or grant that a caller wants written down; what is empty is not given.

    `what` and `whom`: decision and recipient of a consent, kind and organization of a relation,
    grantee (as `whom`) of a grant.
    """

    request_id: str
    resident_id: str
    what: str = ""
    whom: str = ""
    purpose: str = ""
    from_on: str = ""
    until_on: str = ""
    reason: str = ""
    hours: int = 0
    identifier: tuple[str, str] = ("", "")


def _text(row: RowChange, name: str) -> str:
    return str(row.values.get(name) or "")
