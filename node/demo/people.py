"""The demo's people: real measurements of NHEFS under invented Linfen identities.

Measurements, diagnoses, sex, age and death are those of the input file. Names, identity numbers,
homes and the days within a year are made up here, the same on every run. `mean_systolic_pooled`
answers the demo's question from the input file alone, without any of Fenhe's storage, so that the
federated answer has something independent to be equal to.
"""

from __future__ import annotations

import csv
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Final

from node.records.identity import make_identity_number
from node.records.model import NewIdentifier, NewRecord, NewResident
from replication.core.model import Value

__all__ = ["INPUT", "Person", "PooledCell", "mean_systolic_pooled", "people_of", "read_input"]

INPUT: Final = Path(__file__).parent / "data" / "nhefs.csv"
_NAMESPACE: Final = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")

# Area codes of the years in which these people were born: Linfen was prefecture 1426 until 2000.
_BIRTH_AREAS: Final = {"141002": "142601", "141024": "142625"}
_SURNAMES: Final = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅"
_GIVEN: Final = {
    "male": "伟强磊军勇杰涛明超刚平辉健志国建文华斌鹏",
    "female": "芳娜敏静丽艳娟霞秀英玉兰梅琴云莉红玲桂珍",
}
_STREETS: Final = ("汾河路", "鼓楼街", "解放路", "尧都街", "平阳街", "向阳路")

_CONDITIONS: Final[Mapping[str, str]] = {
    "hbp": "I10",
    "diabetes": "E14",
    "asthma": "J45",
    "bronch": "J42",
    "tb": "A16",
    "hf": "I50",
    "pepticulcer": "K27",
    "colitis": "K52",
    "hepatitis": "B19",
    "chroniccough": "R05",
    "hayfever": "J30",
    "polio": "A80",
    "tumor": "C80",
    "nervousbreak": "F48",
}
"""Diagnoses that the study asked for ("ever, by 1971") and the ICD-10 category of each."""

_MEASURES: Final[tuple[tuple[str, str, str, int], ...]] = (
    ("sbp", "8480-6", "mm[Hg]", 1982),
    ("dbp", "8462-4", "mm[Hg]", 1982),
    ("cholesterol", "2093-3", "mg/dL", 1971),
    ("ht", "8302-2", "cm", 1971),
    ("wt71", "29463-7", "kg", 1971),
    ("wt82", "29463-7", "kg", 1982),
)
"""Column, LOINC code, unit, year of the examination."""


@dataclass(frozen=True, slots=True)
class Person:
    """One person of the input with everything the clinic's system would send."""

    village: str
    resident: NewResident
    records: tuple[NewRecord, ...]


@dataclass(frozen=True, slots=True)
class PooledCell:
    """The demo's question answered from the input file: one group."""

    county: str
    sex: str
    people: int
    mean_systolic: float


@lru_cache(maxsize=1)
def read_input() -> tuple[Mapping[str, str], ...]:
    """The rows of the input file, as text by column."""
    with INPUT.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def people_of(village: str, villages: Sequence[str]) -> Iterator[Person]:
    """The people who live in one of the demo's villages."""
    numbers = _identity_numbers(tuple(villages))
    for number, row in enumerate(read_input()):
        if _village_of(number, villages) == village:
            yield _person(row, village, numbers[number])


def mean_systolic_pooled(villages: Sequence[str]) -> list[PooledCell]:
    """People and mean systolic pressure by county and sex, from the input file alone."""
    groups: dict[tuple[str, str], list[float]] = {}
    for number, row in enumerate(read_input()):
        if row["sbp"]:
            county = _village_of(number, villages)[:6]
            groups.setdefault((county, _sex(row)), []).append(float(row["sbp"]))
    return [
        PooledCell(county, sex, len(values), math.fsum(values) / len(values))
        for (county, sex), values in sorted(groups.items())
    ]


def _village_of(number: int, villages: Sequence[str]) -> str:
    return villages[number % len(villages)]


def _sex(row: Mapping[str, str]) -> str:
    return "male" if row["sex"] == "0" else "female"


def _id(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(("fenhe-demo", *parts))))


def _birth_date(row: Mapping[str, str]) -> date:
    chance = Random(f"birth {row['seqn']}")
    return date(1971 - int(row["age"]), chance.randint(1, 12), chance.randint(1, 28))


@lru_cache(maxsize=4)
def _identity_numbers(villages: tuple[str, ...]) -> tuple[str, ...]:
    """One number a person, in the order of the input, all different."""
    taken: set[str] = set()
    numbers = []
    for position, row in enumerate(read_input()):
        area = _BIRTH_AREAS[_village_of(position, villages)[:6]]
        # Three digits whose last is odd for men, even for women (GB 11643).
        sequence = 1 if _sex(row) == "male" else 2
        while (number := make_identity_number(area, _birth_date(row), sequence)) in taken:
            sequence += 2
        taken.add(number)
        numbers.append(number)
    return tuple(numbers)


def _person(row: Mapping[str, str], village: str, number: str) -> Person:
    seqn = row["seqn"]
    chance = Random(int(seqn))
    sex = _sex(row)
    born = _birth_date(row)
    resident_id = _id("resident", seqn)
    resident = NewResident(
        resident_id=resident_id,
        name=_name(chance, sex),
        sex=sex,
        birth_date=born.isoformat(),
        identifiers=(NewIdentifier("identity_number", number),),
        phone=f"1{chance.choice('35789')}{chance.randint(0, 999_999_999):09d}",
        address=f"{chance.choice(_STREETS)}{chance.randint(1, 200)}号",
        home_node=village,
        deceased_on=_deceased_on(row),
    )
    return Person(village, resident, tuple(_records(row, resident_id, chance)))


def _name(chance: Random, sex: str) -> str:
    given = "".join(chance.choices(_GIVEN[sex], k=chance.choice((1, 2, 2))))
    return chance.choice(_SURNAMES) + given


def _deceased_on(row: Mapping[str, str]) -> str | None:
    if row["death"] != "1" or not row["yrdth"]:
        return None
    year, month = 1900 + int(float(row["yrdth"])), int(float(row["modth"] or 1))
    day = int(float(row["dadth"] or 1))
    return date(year, month, min(day, 28)).isoformat()


def _records(row: Mapping[str, str], resident_id: str, chance: Random) -> Iterator[NewRecord]:
    seqn = row["seqn"]
    days = {
        year: date(year, chance.randint(1, 12), chance.randint(1, 28)).isoformat()
        for year in (1971, 1982)
    }
    measured = [measure for measure in _MEASURES if row[measure[0]]]
    for year in sorted({1971, *(measure[3] for measure in measured)}):
        values: dict[str, Value] = {"class": "ambulatory", "started_on": days[year]}
        yield NewRecord(_id("encounter", seqn, str(year)), "encounters", resident_id, values)
    for column, code, unit, year in measured:
        yield NewRecord(
            _id("observation", seqn, column),
            "observations",
            resident_id,
            {
                "encounter_id": _id("encounter", seqn, str(year)),
                "code": code,
                "value": float(row[column]),
                "unit": unit,
                "observed_on": days[year],
            },
        )
    for column, code in _CONDITIONS.items():
        if row[column] == "1":
            yield NewRecord(
                _id("condition", seqn, column),
                "conditions",
                resident_id,
                {
                    "encounter_id": _id("encounter", seqn, "1971"),
                    "code": code,
                    "clinical_status": "unknown",
                },
            )
