"""What a caller hands in: a bundle of residents and records, before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replication.core.model import Value

__all__ = ["Bundle", "NewIdentifier", "NewRecord", "NewResident"]


@dataclass(frozen=True, slots=True)
class NewIdentifier:
    """An identifier to register: system "identity_number", "health_card", … and its value."""

    system: str
    value: str


@dataclass(frozen=True, slots=True)
class NewResident:
    """A resident to register. sex is "male", "female", "unstated" or "unknown"; dates are ISO."""

    resident_id: str | None
    name: str
    sex: str
    birth_date: str
    identifiers: tuple[NewIdentifier, ...] = ()
    phone: str | None = None
    address: str | None = None
    home_node: str | None = None
    deceased_on: str | None = None


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to store in `table`; values are the table's own columns. An existing id amends.

    `retracted`: take back the record of that id. Only ids count then; table and values are empty.
    `home_node`: where a resident is at home who is not known at this node; of one who is known it
    is not looked at. `home_epoch` 0: the home knows.
    """

    record_id: str | None
    table: str
    resident_id: str
    values: Mapping[str, Value]
    retracted: bool = False
    home_node: str | None = None
    home_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Bundle:
    """All of it is stored, or nothing. The same request_id again gives the first answer."""

    request_id: str
    residents: tuple[NewResident, ...] = ()
    records: tuple[NewRecord, ...] = ()
