"""Made-up residents with records, as a clinic's system sends them.

Every name, number and address is a marker: text that can be looked for in files where it must not
be. The same number always makes the same person.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, timedelta

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId
from node.records.identity import make_identity_number

__all__ = ["Person", "encounter_of", "observation", "put_request"]

_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
_DIGITS = "甲乙丙丁戊己庚辛壬癸"
DAY = "2020-03-04"


@dataclass(frozen=True, slots=True)
class Person:
    """One of up to 20,000 people; the number tells them apart, wherever they live."""

    number: int
    home: NodeId

    @property
    def resident_id(self) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"resident/{self.number}"))

    @property
    def name(self) -> str:
        return "蔺暮雪" + "".join(_DIGITS[int(digit)] for digit in f"{self.number:05d}")

    @property
    def birth_date(self) -> date:
        return date(1940, 1, 1) + timedelta(days=self.number)

    @property
    def identity_number(self) -> str:
        return make_identity_number("142601", self.birth_date, 1)

    @property
    def phone(self) -> str:
        return f"139{self.number:08d}"

    @property
    def address(self) -> str:
        return f"鹳雀楼巷{self.number:05d}号"

    @property
    def markers(self) -> tuple[str, ...]:
        """What identifies him and must be nowhere in clear."""
        return (self.name, self.identity_number, self.phone, self.address)

    def record_id(self, word: str) -> str:
        """The id of his record of that name."""
        return str(uuid.uuid5(_NAMESPACE, f"record/{self.number}/{word}"))

    def message(self) -> empi.Resident:
        """As he is registered."""
        return empi.Resident(
            resident_id=self.resident_id,
            name=self.name,
            sex=empi.SEX_MALE,
            birth_date=self.birth_date.isoformat(),
            identifiers=[empi.Identifier(system="identity_number", value=self.identity_number)],
            phone=self.phone,
            address=self.address,
            home_node=self.home,
        )


def encounter_of(person: Person) -> care.Record:
    """One visit."""
    return care.Record(
        record_id=person.record_id("encounter"),
        resident_id=person.resident_id,
        encounter=care.Encounter(**{"class": "ambulatory"}, started_on=DAY),
    )


def observation(person: Person, word: str, value: float) -> care.Record:
    """A systolic pressure; the same word again amends it."""
    return care.Record(
        record_id=person.record_id(word),
        resident_id=person.resident_id,
        observation=care.Observation(code="8480-6", value=value, unit="mm[Hg]", observed_on=DAY),
    )


def put_request(request_id: str, *people: Person) -> care.PutBundleRequest:
    """Registers people, each with an encounter and an observation: four rows a person."""
    return care.PutBundleRequest(
        request_id=request_id,
        residents=[person.message() for person in people],
        records=[
            record
            for person in people
            for record in (
                encounter_of(person),
                observation(person, "systolic", 100 + person.number % 80),
            )
        ],
    )
