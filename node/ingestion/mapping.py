"""Mapping files: which column is which element, and how its cells are written.

    name: clinic-his
    source: clinic-his
    format: csv
    dates: ["%Y-%m-%d", "%Y/%m/%d"]
    columns:
      病历号: person.local_id
      姓名: DE02.01.039.00
      性别: {to: person.sex, codes: {男: male, 女: female}}
      收缩压: {to: observation.8480-6, unit: mmHg}
      备注: null
    constants: {encounter.class: ambulatory}
    keys: {observation: [就诊号, 项目编码]}

The models know nothing of a file's content; mapper.py meets the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, field_validator

from hierarchy_config.config_file import FaultList, Report, read_text, read_yaml, report_shape
from node.ingestion.dates import DEFAULT_FORMATS, unknown_formats
from node.ingestion.elements import ELEMENTS, SUBJECTS, Element, element_of
from node.ingestion.errors import MappingInvalidError
from node.ingestion.model import Format

__all__ = [
    "SHIPPED",
    "ColumnModel",
    "MappingModel",
    "load_mapping",
    "mapping_text",
    "read_mapping",
    "shipped_mappings",
]

SHIPPED: Final = Path(__file__).parent / "mappings"
_COLUMNS_MAX: Final = 1000
_CODES_MAX: Final = 20_000
_TEXT_MAX: Final = 2 << 20
_DAYS: Final = ("observation.observed_on", "encounter.started_on")
_NEEDS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("encounter.started_on", ("encounter.class",)),
    ("observation.code", ("observation.value",)),
    ("observation.value", ("observation.code",)),
    ("observation.value", _DAYS),
    ("procedure.code", ("procedure.performed_on", "encounter.started_on")),
    ("immunization.code", ("immunization.given_on", "encounter.started_on")),
)
"""What is fed, and what no record of it can be without: one of those."""

Word = Annotated[str, Field(min_length=1, max_length=200)]
Short = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnModel(_Model):
    """What one column is.

    `codes` translates cells; a cell that is not in it is a fault, unless `other` says what it is.
    `length`: of an identifier; one that is shorter has lost its leading zeros.
    """

    to: Word | list[Word]
    codes: dict[str, str] = Field(default_factory=dict, max_length=_CODES_MAX)
    other: str | None = None
    unit: str = Field(default="", max_length=40)
    dates: list[str] = Field(default_factory=list, max_length=20)
    empty: list[str] = Field(default_factory=list, max_length=50)
    length: Annotated[int, Field(ge=1, le=64)] | None = None
    optional: StrictBool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The elements that it feeds."""
        return (self.to,) if isinstance(self.to, str) else tuple(self.to)


class MappingModel(_Model):
    """A mapping file."""

    name: Short
    source: Short
    format: Format = Format.CSV
    encoding: str = Field(default="auto", pattern=r"^[A-Za-z0-9-]{1,20}$")
    delimiter: str = Field(default="auto", max_length=4)
    sheet: str = Field(default="", max_length=100)
    dates: list[str] = Field(default_factory=lambda: list(DEFAULT_FORMATS), max_length=20)
    empty: list[str] = Field(
        default_factory=lambda: ["-", "--", "NULL", "null", "\\N", "N/A", "无"]
    )
    columns: dict[str, ColumnModel | None] = Field(default_factory=dict, max_length=_COLUMNS_MAX)
    constants: dict[str, str] = Field(default_factory=dict)
    keys: dict[str, list[Word]] = Field(default_factory=dict)
    codes: dict[str, str] = Field(default_factory=dict, max_length=_CODES_MAX)

    @field_validator("columns", mode="before")
    @classmethod
    def _plain_names(cls, columns: object) -> object:
        """`column: element` is short for `column: {to: element}`."""
        if not isinstance(columns, Mapping):
            return columns
        return {
            str(name): {"to": each} if isinstance(each, str | list) else each
            for name, each in columns.items()
        }

    @property
    def is_table(self) -> bool:
        """Whether it maps columns; FHIR and HL7 say themselves what they hold."""
        return self.format in {Format.CSV, Format.XLSX, Format.ROWS}

    @property
    def mapped(self) -> dict[str, ColumnModel]:
        """The columns that are used."""
        return {name: each for name, each in self.columns.items() if each is not None}


def read_mapping(text: str, file: str = "mapping", *, is_kept: bool = False) -> MappingModel:
    """The mapping of a text. `is_kept`: that of a run, which an earlier program took as it is.

    Raises:
        MappingInvalidError: With every fault.
    """
    faults = FaultList(file)
    if len(text) > _TEXT_MAX:
        faults.report("(file)", f"{len(text)} characters", f"at most {_TEXT_MAX}")
        raise MappingInvalidError(faults.all())
    document = read_yaml(text, faults.report)
    made = None if document is None else _made(document, faults.report)
    if made is not None:
        _check(made, faults.report, is_kept=is_kept)
    if made is None or faults.all():
        raise MappingInvalidError(faults.all())
    return made


def load_mapping(name_or_path: str) -> tuple[MappingModel, str]:
    """The shipped mapping of a name, or a file; and its text.

    Raises:
        MappingInvalidError: With every fault.
    """
    shipped = SHIPPED / f"{name_or_path}.yaml"
    is_shipped = name_or_path in shipped_mappings()
    path = shipped if is_shipped else Path(name_or_path)
    faults = FaultList(str(name_or_path))
    if not path.exists():
        names = ", ".join(shipped_mappings())
        faults.report("(file)", name_or_path, f"a file, or one that comes with Fenhe: {names}")
        raise MappingInvalidError(faults.all())
    text = read_text(path, faults.report)
    if text is None:
        raise MappingInvalidError(faults.all())
    return read_mapping(text, path.name), text


def shipped_mappings() -> tuple[str, ...]:
    """Names of the mappings that come with the program."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def mapping_text(model: MappingModel) -> str:
    """A mapping as the text of a file that reads to the same."""
    import yaml

    document = model.model_dump(mode="json", exclude_defaults=True)
    columns = document.get("columns", {})
    for name, each in columns.items():
        if isinstance(each, dict) and set(each) == {"to"}:
            columns[name] = each["to"]
    text: str = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    return text


def _made(document: Mapping[str, Any], report: Report) -> MappingModel | None:
    try:
        return MappingModel.model_validate(document)
    except ValidationError as error:
        report_shape(error, MappingModel, report)
        return None


def _check(made: MappingModel, report: Report, *, is_kept: bool) -> None:
    if made.is_table and not made.mapped:
        report("columns", "(none)", "at least one column that is an element")
    if not made.is_table and made.columns:
        report("columns", "columns", f"none: {made.format} says itself what it holds")
    fed = _fed(made, report)
    for name in made.constants:
        _known(f"constants.{name}", name, report)
    for subject in made.keys:
        if subject not in SUBJECTS:
            report(f"keys.{subject}", subject, "one of " + ", ".join(SUBJECTS))
    _check_person(made, fed, report)
    if not is_kept:
        _check_needs(made, fed, report)


def _fed(made: MappingModel, report: Report) -> dict[str, str]:
    """Columns by the element that they feed."""
    _check_dates("dates", made.dates, report)
    fed: dict[str, str] = {}
    for column, each in made.mapped.items():
        _check_dates(f"columns.{column}.dates", each.dates, report)
        for name in each.names:
            found = _known(f"columns.{column}.to", name, report)
            if found and found.name in fed:
                report(f"columns.{column}.to", name, f"one column: {fed[found.name]} feeds it too")
            if found:
                fed[found.name] = column
    return fed


def _check_person(made: MappingModel, fed: Mapping[str, str], report: Report) -> None:
    """Every row has to say whom it is about."""
    by = ("resident_id", "identity_number", "health_card", "health_record", "passport", "local_id")
    named = {*fed, *(each.name for each in map(element_of, made.constants) if each)}
    if made.is_table and not any(f"person.{each}" in named for each in by):
        report("columns", "(no person)", "a column of " + ", ".join(f"person.{e}" for e in by))


def _check_needs(made: MappingModel, fed: Mapping[str, str], report: Report) -> None:
    """What every record of a table would lack is said before the first row."""
    named = {*fed, *(each.name for each in map(element_of, made.constants) if each)}
    measured = {name for name in fed if ELEMENTS[name].measures}
    for subject, needs in _NEEDS:
        if subject in fed and named.isdisjoint(needs):
            report("columns", f"(no {needs[0]})", _wanted(subject, needs))
    if measured and named.isdisjoint(_DAYS):
        report("columns", f"(no {_DAYS[0]})", _wanted(min(measured), _DAYS))


def _wanted(subject: str, needs: Sequence[str]) -> str:
    return f"a column or constant of {' or '.join(needs)}, for {subject}"


def _check_dates(key: str, formats: list[str], report: Report) -> None:
    for each in unknown_formats(tuple(formats)):
        report(key, each, "a format with year, month and day, such as %Y-%m-%d")


def _known(key: str, name: str, report: Report) -> Element | None:
    found = element_of(name)
    if found is None:
        near = [
            each for each in ELEMENTS if each.split(".")[-1] == name.rsplit(".", maxsplit=1)[-1]
        ]
        report(key, name, "an element or DE code" + (f", such as {near[0]}" if near else ""))
    return found
