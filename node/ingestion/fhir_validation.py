"""Validation of FHIR R4 resources against the official JSON schema, reduced for what is taken.

How it was reduced says fhir_schema/README.md. Validators are built once a process, which takes
half a second; the library is of the extra `intake`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import zstandard

from node.ingestion.errors import IntakeExtraMissingError

__all__ = ["TAKEN", "schema_fault"]

_FILE: Final = Path(__file__).parent / "fhir_schema" / "fhir.schema.json.zst"

TAKEN: Final = (
    "Patient",
    "Encounter",
    "Condition",
    "Observation",
    "MedicationRequest",
    "MedicationStatement",
    "Procedure",
    "Immunization",
)
"""The kinds of resource that have a table here."""


@cache
def _validator(kind: str) -> Any:
    try:
        import jsonschema_rs
    except ImportError as error:
        raise IntakeExtraMissingError("FHIR resources are validated by jsonschema-rs") from error
    definitions, dialect = _schema()
    return jsonschema_rs.validator_for(
        {"$schema": dialect, "$ref": f"#/definitions/{kind}", "definitions": definitions}
    )


@cache
def _schema() -> tuple[Mapping[str, Any], str]:
    document = json.loads(zstandard.decompress(_FILE.read_bytes()))
    return document["definitions"], document["$schema"]


def schema_fault(kind: str, resource: Mapping[str, object]) -> str | None:
    """Where a resource breaks the schema (a path of names, no values); None: nowhere.

    Raises:
        IntakeExtraMissingError: The library is not installed.
    """
    validator = _validator(kind)
    if validator.is_valid(resource):
        return None
    first = next(iter(validator.iter_errors(resource)), None)
    path = [str(each) for each in getattr(first, "instance_path", ())]
    return ".".join(path) or kind
