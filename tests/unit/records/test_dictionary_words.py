"""The analysts' dictionary says the words that the checks of bundles let in, and no others."""

from __future__ import annotations

import re

import pytest

from federation.core.datasets import DATASETS
from node.records.record_checks import CLINICAL_STATUSES, ENCOUNTER_CLASSES, RECORD_KINDS
from node.records.resident_checks import SEXES
from node.storage.specs import RESIDENTS, TABLES, ColumnKind, Leaving


@pytest.mark.parametrize(
    ("dataset", "column", "words"),
    [
        *((name, "sex", SEXES) for name in DATASETS),
        ("encounters", "class", ENCOUNTER_CLASSES),
        ("conditions", "clinical_status", CLINICAL_STATUSES),
    ],
)
def test_described_words_are_those_that_are_stored(
    dataset: str, column: str, words: tuple[str, ...]
) -> None:
    """A question with a word of the description finds rows; one with another finds none."""
    said = DATASETS[dataset].by_name[column].description.split("(")[0]
    assert set(re.findall(r"[a-z]+", said)) - {"or"} == set(words)


def test_no_free_text_stands_in_a_dataset() -> None:
    """A column that a clinic fills in its own words leaves no county and is no group's key."""
    for name, dataset in DATASETS.items():
        spec = TABLES[name]
        kept = {column.name: column for column in spec.columns if column.name in dataset.by_name}
        assert all(column.leaving is not Leaving.DROP for column in kept.values())
        assert all(column.kind is not ColumnKind.TEXT for column in kept.values())
        if spec is not RESIDENTS:
            assert kept.keys() <= RECORD_KINDS[name].columns.keys()
    assert "department" not in DATASETS["encounters"].by_name
