"""What a clinic hands in, brought to normal form and checked.

Owns the bundle, its normal form, its faults with their codes, and the code lists: identity numbers,
ICD-10, observations. Promises that every fault of a bundle is found and that no fault repeats a
value. Never stores, reads a clock or asks another node.
"""

from __future__ import annotations

from node.records.checks import BUNDLE_ROWS_MAX, check_bundle
from node.records.faults import FAULT_CODES, Fault
from node.records.identity import (
    IdentityNumber,
    IdentityNumberError,
    make_identity_number,
    parse_identity_number,
)
from node.records.model import Bundle, NewIdentifier, NewRecord, NewResident
from node.records.normalise import normalise_bundle

__all__ = [
    "BUNDLE_ROWS_MAX",
    "FAULT_CODES",
    "Bundle",
    "Fault",
    "IdentityNumber",
    "IdentityNumberError",
    "NewIdentifier",
    "NewRecord",
    "NewResident",
    "check_bundle",
    "make_identity_number",
    "normalise_bundle",
    "parse_identity_number",
]
