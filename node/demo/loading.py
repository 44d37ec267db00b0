"""Loads the people at their villages through gRPC, as a clinic's system would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId
from node.cli.client import connected
from node.cli.output import errors
from node.demo.people import Person, people_of, read_input
from node.demo.place import DemoPlace
from node.records.model import NewRecord
from node.security.credentials import load_credentials
from protos.fenhe.care.v1 import care_pb2_grpc

__all__ = ["Loaded", "load_people"]

ROWS_A_BUNDLE: Final = 900
_SEXES: Final = {"male": empi.SEX_MALE, "female": empi.SEX_FEMALE}
_BODIES: Final = {
    "encounters": ("encounter", care.Encounter),
    "conditions": ("condition", care.Condition),
    "observations": ("observation", care.Observation),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """People of the input, people accepted, row versions acknowledged (by village)."""

    people: int
    accepted: int
    acknowledged: dict[NodeId, int]


def load_people(place: DemoPlace) -> Loaded:
    """Send every person's bundle to his village's node, all villages side by side."""
    progress = Progress(
        TextColumn("   {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
    )
    villages = place.villages
    people = {village: list(people_of(village, villages)) for village in villages}
    with progress, ThreadPoolExecutor(len(villages)) as threads:
        tasks = {
            village: progress.add_task(
                f"{village} {place.hierarchy.entry(village).name_zh}", total=len(people[village])
            )
            for village in villages
        }

        def load(village: NodeId) -> tuple[int, int]:
            return _load_village(
                place, village, people[village], lambda n: progress.advance(tasks[village], n)
            )

        results = dict(zip(villages, threads.map(load, villages), strict=True))
    return Loaded(
        people=len(read_input()),
        accepted=sum(accepted for accepted, _ in results.values()),
        acknowledged={village: rows for village, (_, rows) in results.items()},
    )


def _load_village(
    place: DemoPlace, village: NodeId, people: Sequence[Person], advance: Callable[[int], None]
) -> tuple[int, int]:
    credentials = load_credentials(place.credentials_dir(f"client-{village}"))
    accepted = acknowledged = 0
    with connected(credentials) as channel:
        stub = care_pb2_grpc.RecordServiceStub(channel)
        for number, group in enumerate(_bundles(people)):
            response = stub.PutBundle(_request(f"demo-{village}-{number:04d}", group), timeout=60)
            accepted += len(response.resident_ids)
            acknowledged += response.acknowledged
            advance(len(group))
    return accepted, acknowledged


def _bundles(people: Sequence[Person]) -> Iterator[list[Person]]:
    """Groups of people whose rows fit one bundle."""
    group: list[Person] = []
    rows = 0
    for person in people:
        size = 1 + len(person.resident.identifiers) + len(person.records)
        if group and rows + size > ROWS_A_BUNDLE:
            yield group
            group, rows = [], 0
        group.append(person)
        rows += size
    if group:
        yield group


def _request(request_id: str, people: Sequence[Person]) -> care.PutBundleRequest:
    return care.PutBundleRequest(
        request_id=request_id,
        residents=[_resident(person) for person in people],
        records=[_record(record) for person in people for record in person.records],
    )


def _resident(person: Person) -> empi.Resident:
    resident = person.resident
    return empi.Resident(
        resident_id=resident.resident_id or "",
        name=resident.name,
        sex=_SEXES[resident.sex],
        birth_date=resident.birth_date,
        identifiers=[
            empi.Identifier(system=each.system, value=each.value) for each in resident.identifiers
        ],
        phone=resident.phone or "",
        address=resident.address or "",
        home_node=resident.home_node or "",
        deceased_on=resident.deceased_on or "",
    )


def _record(record: NewRecord) -> care.Record:
    body, message = _BODIES[record.table]
    values = dict(record.values)
    encounter = str(values.pop("encounter_id", "") or "")
    return care.Record(
        record_id=record.record_id or "",
        resident_id=record.resident_id,
        encounter_id=encounter,
        **{body: message(**values)},
    )
