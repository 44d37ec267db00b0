"""The shape of a region file: which keys there are and what each may hold (pydantic)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from hierarchy_config.divisions import division_tables
from hierarchy_config.model import (
    CELL_COUNT_MIN_DEFAULT,
    PEOPLE_TABLES,
    REPLICATED_TABLES,
    CareLevel,
    CopyForm,
    NodeId,
)

__all__ = ["PROFILE_NAMES", "Located", "NodeModel", "RegionModel", "ThresholdsModel"]

PROFILE_NAMES: Final = frozenset(level.value for level in CareLevel)

_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:.]+\]"
)


def _code(value: object) -> NodeId:
    # YAML reads an unquoted code as a number; no code begins with 0, so nothing is lost.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError("a division code of 4, 6, 9 or 12 digits")  # noqa: TRY004 - for pydantic
    CareLevel.of_code(text)
    return NodeId(text)


def _endpoint(value: object) -> str:
    expected = "host:port with a port of 1 to 65535"
    if not isinstance(value, str) or len(value) > 260:
        raise ValueError(expected)
    host, _, port = value.rpartition(":")
    if not _HOST.fullmatch(host) or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise ValueError(expected)
    if not 1 <= int(port) <= 65535:
        raise ValueError(expected)
    return value


def _profile(value: object) -> str:
    if isinstance(value, str) and (value in PROFILE_NAMES or value.endswith((".yaml", ".yml"))):
        return value
    raise ValueError("a profile (" + ", ".join(CareLevel) + ") or the path of a profile's .yaml")


def _level(value: object) -> CareLevel:
    if isinstance(value, str) and value in PROFILE_NAMES:
        return CareLevel(value)
    raise ValueError("a level (" + ", ".join(CareLevel) + ")")


def _name(value: object) -> str:
    if isinstance(value, str) and 1 <= len(value.strip()) <= 100 and value.isprintable():
        return value.strip()
    raise ValueError("a name of 1 to 100 characters")


Code = Annotated[NodeId, BeforeValidator(_code)]
Name = Annotated[str, BeforeValidator(_name)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeModel(_Model):
    """One entry under `nodes` or `changes`. `parent: null` makes it the root."""

    id: Code
    parent: Code | None = None
    level: Annotated[CareLevel, BeforeValidator(_level)] | None = None
    name: Name | None = None
    pinyin: Name | None = None
    endpoint: Annotated[str, BeforeValidator(_endpoint)] | None = None
    profile: Annotated[str, BeforeValidator(_profile)] | None = None
    succeeds: Code | None = None

    @property
    def names_parent(self) -> bool:
        """Whether the entry says what its parent is, be it none."""
        return "parent" in self.model_fields_set


@dataclass(frozen=True, slots=True)
class Located:
    """An entry with its key in the file."""

    key: str
    node: NodeModel


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000:
        return value
    raise ValueError("a whole number of residents from 1 to 100000")


Count = Annotated[int, BeforeValidator(_count)]


class ThresholdsModel(_Model):
    """The key `thresholds`."""

    cell_count_min: Count = CELL_COUNT_MIN_DEFAULT
    overrides: dict[Code, Count] = Field(default_factory=dict)


def _forms(value: object) -> tuple[CopyForm, ...]:
    known = frozenset(form.value for form in CopyForm)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(each, str) and each in known for each in value)
        or len(set(value)) != len(value)
    ):
        raise ValueError("a list of different forms (" + ", ".join(CopyForm) + ")")
    if len(value) > 1 and {CopyForm.FULL, CopyForm.NONE} & set(value):
        raise ValueError("full or none alone, without another form")
    return tuple(CopyForm(each) for each in value)


def _sending_level(value: object) -> CareLevel:
    level = _level(value)
    if level is CareLevel.CITY:
        raise ValueError("a level that has a parent (county, township, village)")
    return level


def _table(value: object) -> str:
    if isinstance(value, str) and (value == "*" or value in REPLICATED_TABLES):
        return value
    raise ValueError('"*" or a table (' + ", ".join(sorted(REPLICATED_TABLES)) + ")")


def _whole_people(rules: dict[str, tuple[CopyForm, ...]]) -> dict[str, tuple[CopyForm, ...]]:
    for table in sorted(PEOPLE_TABLES & rules.keys()):
        if rules[table] not in {(CopyForm.FULL,), (CopyForm.NONE,)}:
            raise ValueError(f"{table}: full or none; there is no other form of who works here")
    return rules


SendingLevel = Annotated[CareLevel, BeforeValidator(_sending_level)]
Table = Annotated[str, BeforeValidator(_table)]
Forms = Annotated[tuple[CopyForm, ...], BeforeValidator(_forms)]


class RegionModel(_Model):
    """Every key of the file; `nodes` and `changes` are read entry by entry elsewhere."""

    region: str
    epoch: int
    divisions: str = "linfen"
    nodes: None = None
    changes: None = None
    policies: dict[SendingLevel, Annotated[dict[Table, Forms], AfterValidator(_whole_people)]] = (
        Field(default_factory=dict)
    )
    thresholds: ThresholdsModel = Field(default_factory=ThresholdsModel)

    @field_validator("region", mode="before")
    @classmethod
    def _region(cls, value: object) -> str:
        if isinstance(value, str) and re.fullmatch(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", value):
            return value
        raise ValueError("a DNS label of small letters, digits and hyphens, at most 32")

    @field_validator("epoch", mode="before")
    @classmethod
    def _epoch(cls, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31:
            return value
        raise ValueError("a whole number from 1")

    @field_validator("divisions", mode="before")
    @classmethod
    def _divisions(cls, value: object) -> str:
        if isinstance(value, str) and value in division_tables():
            return value
        raise ValueError("a shipped table of divisions (" + ", ".join(division_tables()) + ")")

    @field_validator("policies")
    @classmethod
    def _policies(
        cls, value: dict[CareLevel, dict[str, tuple[CopyForm, ...]]]
    ) -> dict[CareLevel, dict[str, tuple[CopyForm, ...]]]:
        for level, tables in value.items():
            if "*" not in tables:
                raise ValueError(f'a rule "*" under {level} for the tables it does not name')
        return value

    @classmethod
    def model_construct_without(cls, given: Mapping[str, Any], faulty: set[str]) -> RegionModel:
        """Return a model of the sound keys, so that the checks of meaning can still be made."""
        sound = {key: value for key, value in given.items() if str(key) not in faulty}
        return cls.model_validate({"region": "unnamed", "epoch": 1, **sound})
