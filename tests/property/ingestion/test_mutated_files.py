"""Files that somebody or something has broken: no crash, no unit lost, no value believed."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.ingestion.errors import (
    ContentDangerousError,
    ContentUnreadableError,
    MappingColumnsError,
)
from node.ingestion.mapping import MappingModel, read_mapping
from node.ingestion.pipeline import judge, mapper_of
from node.ingestion.readers import open_reader
from node.ingestion.registering import ERRORS, Judged
from tests.contracts.ingestion.place import OBSERVATIONS, observation_lines
from tests.contracts.ingestion.test_runs import RESOURCES
from tests.unit.ingestion.test_readers import workbook

REFUSED = (ContentUnreadableError, ContentDangerousError, MappingColumnsError)
TODAY = "2026-11-30"
ORU = (
    "MSH|^~\\&|L|H|F|N|20260301||ORU^R01|1|P|2.5\rPID|1||P1^^^H^MR||张^三||19900307|M\r"
    "OBR|1|O1|F1|P|||20260301\rOBX|1|NM|8480-6^SBP^LN||128|mmHg|||||F\r"
)


def _table() -> tuple[bytes, MappingModel]:
    return "\n".join(observation_lines(5, 4)).encode(), read_mapping(OBSERVATIONS)


def _chinese() -> tuple[bytes, MappingModel]:
    return "\n".join(observation_lines(5, 4)).encode("gb18030"), read_mapping(OBSERVATIONS)


def _sheet() -> tuple[bytes, MappingModel]:
    rows = [tuple(line.split(",")) for line in observation_lines(3, 3)]
    return workbook(*rows), read_mapping(OBSERVATIONS.replace("format: csv", "format: xlsx"))


def _resources() -> tuple[bytes, MappingModel]:
    text = "\n".join(json.dumps(each) for each in RESOURCES)
    return text.encode(), read_mapping("name: f\nsource: f\nformat: ndjson\n")


def _bundle() -> tuple[bytes, MappingModel]:
    entries = [{"resource": each} for each in RESOURCES]
    text = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries})
    return text.encode(), read_mapping("name: f\nsource: f\nformat: bundle\n")


def _messages() -> tuple[bytes, MappingModel]:
    return (ORU * 4).encode(), read_mapping("name: h\nsource: h\nformat: hl7\n")


SOURCES: tuple[Callable[[], tuple[bytes, MappingModel]], ...] = (
    _table,
    _chinese,
    _sheet,
    _resources,
    _bundle,
    _messages,
)
_PIECES = (b"\xff", b"\x00", b'"', b",", b"\n", b"|", b"^", b"{", b"]", b"NaN", b"1e999", b"\x1c")


def mutated(data: bytes, source: random.Random) -> bytes:
    """Some bytes changed, put in, left out, doubled or cut off."""
    made = bytearray(data)
    for _ in range(source.randrange(1, 6)):
        place = source.randrange(len(made) + 1)
        match source.randrange(5):
            case 0:
                made[place : place + 1] = source.randbytes(1)
            case 1:
                made[place:place] = source.choice(_PIECES)
            case 2:
                del made[place : place + source.randrange(1, 40)]
            case 3:
                made[place:place] = made[place : place + source.randrange(1, 80)]
            case _:
                del made[max(place, 1) :]
    return bytes(made)


def read_through(data: bytes, mapping: MappingModel) -> list[Judged]:
    """Every unit, judged."""
    reader = open_reader(io.BytesIO(data), mapping)
    mapper = mapper_of(mapping, reader.header)
    return [judge(mapper, unit, TODAY) for unit in reader]


@pytest.mark.parametrize("make", SOURCES)
@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32))
def test_a_mutated_file_is_refused_whole_or_read_whole(
    make: Callable[[], tuple[bytes, MappingModel]], seed: int
) -> None:
    """Units are numbered without a gap, and each is sound or says which rule it broke."""
    data, mapping = make()
    try:
        judged = read_through(mutated(data, random.Random(seed)), mapping)
    except REFUSED:
        return
    assert [each.unit.number for each in judged] == list(range(1, len(judged) + 1))
    for each in judged:
        if each.is_good:
            assert each.draft.records or each.draft.person.introduces
        else:
            assert {trouble.rule for trouble in each.troubles} & ERRORS


@pytest.mark.parametrize("make", SOURCES)
def test_the_unbroken_file_is_taken(make: Callable[[], tuple[bytes, MappingModel]]) -> None:
    """Else the property would say nothing."""
    data, mapping = make()

    assert sum(each.is_good for each in read_through(data, mapping)) >= 3


@settings(max_examples=100)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    """As each format."""
    for make in SOURCES:
        _, mapping = make()
        try:
            read_through(data, mapping)
        except REFUSED:
            continue
