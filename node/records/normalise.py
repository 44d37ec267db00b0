"""The one place where what a caller typed is brought to one form, before it is checked.

Codes and identifiers: NFKC, so that full-width digits of a Chinese keyboard are digits. Text for
people: only widths are folded, because NFKC would also turn a dose of 1½ into 11⁄2. Both are
trimmed; an empty optional value becomes None. No information is corrected or guessed.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Final

from node.records.icd10 import normal_icd10
from node.records.model import Bundle, NewIdentifier, NewRecord, NewResident
from replication.core.model import Value

__all__ = ["normalise_bundle"]

# The full-width forms of ASCII, and the ideographic space.
_WIDTHS: Final = {0xFF01 + step: 0x21 + step for step in range(94)} | {0x3000: 0x20}
_TEXT_COLUMNS: Final = frozenset({"display", "dosage", "department"})
_ICD10_COLUMNS: Final = frozenset({("conditions", "code"), ("encounters", "reason_code")})


def normalise_bundle(bundle: Bundle) -> Bundle:
    """Return the bundle in normal form. The request id is left as it is: it is compared exactly."""
    return replace(
        bundle,
        residents=tuple(_resident(resident) for resident in bundle.residents),
        records=tuple(_record(record) for record in bundle.records),
    )


def _resident(resident: NewResident) -> NewResident:
    return NewResident(
        resident_id=_optional(resident.resident_id),
        name=_text(resident.name),
        sex=_code(resident.sex),
        birth_date=_code(resident.birth_date),
        identifiers=tuple(
            NewIdentifier(_code(each.system), _identifier_value(each))
            for each in resident.identifiers
        ),
        phone=_optional(resident.phone),
        address=_text(resident.address) or None if resident.address else None,
        home_node=_optional(resident.home_node),
        deceased_on=_optional(resident.deceased_on),
    )


def _identifier_value(identifier: NewIdentifier) -> str:
    value = _code(identifier.value)
    return value.upper() if _code(identifier.system) == "identity_number" else value


def _record(record: NewRecord) -> NewRecord:
    return NewRecord(
        record_id=_optional(record.record_id),
        table=record.table,
        resident_id=_code(record.resident_id),
        values={name: _value(record.table, name, value) for name, value in record.values.items()},
        retracted=record.retracted,
        home_node=_optional(record.home_node),
        home_epoch=record.home_epoch,
    )


def _value(table: str, name: str, value: Value) -> Value:
    if not isinstance(value, str):
        return value
    if name in _TEXT_COLUMNS:
        return _text(value) or None
    code = _code(value) or None
    return normal_icd10(code) if code and (table, name) in _ICD10_COLUMNS else code


def _code(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def _optional(text: str | None) -> str | None:
    return _code(text) or None if text else None


def _text(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_WIDTHS).strip()
