"""The dictionary of datasets: what may be asked about, and what each column may be used for.

Free text (names of drugs as typed, dosages, departments) stands in no dataset: a group's key is
shown even when its figures are withheld, so a key must never be one person's text. Physical
columns are those of the columnar replica; derived ones come from the `places` relation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from federation.core.model import ColumnType

__all__ = [
    "DATASETS",
    "OBSERVATION_RANGES",
    "RESIDENT_COLUMN",
    "ColumnClass",
    "Dataset",
    "DatasetColumn",
    "MeasureRange",
]

RESIDENT_COLUMN = "resident_id"
"""The one identifier that may be counted, as COUNT(DISTINCT resident_id)."""


class ColumnClass(StrEnum):
    """What a column may be used for."""

    IDENTIFIER = "identifier"
    """Never selected, grouped or filtered."""
    DIMENSION = "dimension"
    """Grouped and filtered; aggregated if it is a number."""
    MEASURE = "measure"
    """Aggregated and filtered, never a group's key."""


@dataclass(frozen=True, slots=True)
class MeasureRange:
    """Plausible values, both ends included; bounds of a sum need them."""

    low: float
    high: float
    unit: str


@dataclass(frozen=True, slots=True)
class DatasetColumn:
    """One column of a dataset. `unit` is a UCUM code, empty where there is none."""

    name: str
    column_class: ColumnClass
    type: ColumnType
    description: str
    unit: str = ""
    derived: bool = False
    """From `places` by the home, not stored in the replica."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A relation that can be asked about; one row is `row_is`."""

    name: str
    row_is: str
    columns: tuple[DatasetColumn, ...]
    one_row_per_resident: bool = False
    by_name: Mapping[str, DatasetColumn] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = MappingProxyType({column.name: column for column in self.columns})
        object.__setattr__(self, "by_name", by_name)


_STRING, _INTEGER, _NUMBER, _DATE = (
    ColumnType.STRING,
    ColumnType.INTEGER,
    ColumnType.NUMBER,
    ColumnType.DATE,
)


def _dimension(
    name: str, column_type: ColumnType, description: str, *, unit: str = "", derived: bool = False
) -> DatasetColumn:
    return DatasetColumn(name, ColumnClass.DIMENSION, column_type, description, unit, derived)


def _measure(name: str, description: str) -> DatasetColumn:
    return DatasetColumn(name, ColumnClass.MEASURE, _NUMBER, description)


def _identifier(name: str, description: str) -> DatasetColumn:
    return DatasetColumn(name, ColumnClass.IDENTIFIER, _STRING, description)


_COMMON = (
    _identifier(RESIDENT_COLUMN, "The resident; only COUNT(DISTINCT resident_id)."),
    _identifier("row_id", "The row itself."),
    _dimension("home", _STRING, "Division code of the resident's current home."),
    _dimension("township", _STRING, "Township of the home (9 digits).", derived=True),
    _dimension("county", _STRING, "County of the home (6 digits).", derived=True),
    _dimension("author", _STRING, "Division code of the node where the row was written."),
    _dimension("sex", _STRING, "male, female, unstated or unknown (GB/T 2261.1)."),
    _dimension("birth_year", _INTEGER, "Year of birth.", unit="a"),
)

_ENCOUNTER = _identifier("encounter_id", "The encounter that the row belongs to.")


def _dataset(name: str, row_is: str, *columns: DatasetColumn) -> Dataset:
    return Dataset(name, row_is, _COMMON + columns, one_row_per_resident=name == "residents")


_ALL = (
    _dataset(
        "residents",
        "a resident",
        _dimension("deceased_on", _DATE, "First day of the month of death; null while alive."),
    ),
    _dataset(
        "encounters",
        "a visit",
        _dimension("class", _STRING, "ambulatory, inpatient, emergency, home or virtual."),
        _dimension("started_on", _DATE, "First day."),
        _dimension("ended_on", _DATE, "Last day; null while open."),
        _dimension("reason_code", _STRING, "ICD-10 code of the reason."),
    ),
    _dataset(
        "conditions",
        "a diagnosis",
        _ENCOUNTER,
        _dimension("code", _STRING, "ICD-10 code."),
        _dimension("onset_on", _DATE, "Onset, as recorded."),
        _dimension(
            "clinical_status", _STRING, "active, recurrence, remission, resolved or unknown."
        ),
    ),
    _dataset(
        "observations",
        "one measured value",
        _ENCOUNTER,
        _dimension("code", _STRING, "LOINC code of what was observed."),
        _measure("value", "The value, in the row's unit; see the ranges by code."),
        _dimension("unit", _STRING, "UCUM unit of the value."),
        _dimension("observed_on", _DATE, "Day of the observation."),
    ),
    _dataset(
        "medications",
        "a course of a medicine",
        _dimension("code", _STRING, "Code of the medicine."),
        _dimension("started_on", _DATE, "First day."),
        _dimension("ended_on", _DATE, "Last day; null while it goes on."),
    ),
    _dataset(
        "procedures",
        "a procedure done",
        _dimension("code", _STRING, "Code of the procedure."),
        _dimension("performed_on", _DATE, "Day it was done."),
    ),
    _dataset(
        "immunizations",
        "a dose given",
        _dimension("code", _STRING, "Code of the vaccine."),
        _dimension("given_on", _DATE, "Day it was given."),
        _dimension("dose_number", _INTEGER, "Number of the dose in its series."),
    ),
)

DATASETS: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in _ALL})
"""Every dataset by name."""

OBSERVATION_RANGES: Mapping[str, MeasureRange] = MappingProxyType(
    {
        "8480-6": MeasureRange(40.0, 300.0, "mm[Hg]"),
        "8462-4": MeasureRange(20.0, 200.0, "mm[Hg]"),
        "2093-3": MeasureRange(20.0, 1000.0, "mg/dL"),
        "8302-2": MeasureRange(20.0, 260.0, "cm"),
        "29463-7": MeasureRange(0.2, 400.0, "kg"),
    }
)
"""Plausible values of `observations.value` by LOINC code; a code that is missing declares none."""
