"""No text, however made, gets anything but a plan or a refusal out of the planner."""

from __future__ import annotations

import contextlib
import random
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.core.node_sql import node_sql
from federation.core.plan import make_plan
from federation.errors import QueryRefusedError
from tests.property.federation.pooled import ARGUMENTS, CONDITIONS, GROUPS, queries
from tests.unit.federation_core.test_refusals import EXAMPLES

_TEXT = (
    "SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT OFFSET DISTINCT COUNT SUM AVG MIN CASE WHEN "
    "THEN ELSE END AND OR NOT IN IS NULL LIKE BETWEEN CAST AS INTEGER EXTRACT YEAR OVER PARTITION "
    "FILTER WITH UNION JOIN ON USING VALUES INTERVAL DATE ROLLUP ALL ASC DESC NULLS FIRST EXISTS "
    "residents observations sex value county birth_year resident_id code * ( ) , ; . + - / // % "
    "= < > <> || :: ? $1 @ [ ] { } 1 0 1e9 -1 '8480-6' '' 'a' \"sex\" -- /* */ \n \x00 汾河 \\ ' "
    '" ` # -> =>'
)
_WORDS = tuple(_TEXT.split(" "))
_PIECES = (*GROUPS, *ARGUMENTS, *CONDITIONS, ", COUNT(*)", "HAVING COUNT(*) > 2", "ORDER BY 1 DESC")


def _check_planned_or_refused(sql: str) -> None:
    with contextlib.suppress(QueryRefusedError):
        node_sql(make_plan(sql), rows_per_resident_max=3)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200))
def test_any_text(sql: str) -> None:
    """Arbitrary Unicode."""
    _check_planned_or_refused(sql)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(_WORDS), max_size=30))
def test_any_words(words: list[str]) -> None:
    """Words of SQL in any order, after the words that let them in."""
    _check_planned_or_refused("SELECT " + " ".join(words))
    _check_planned_or_refused("SELECT COUNT(*) FROM residents WHERE " + " ".join(words))


def mutate(sql: str, generator: random.Random) -> str:
    """The text with one to three of its words cut, doubled, replaced or moved."""
    words = re.findall(r"\w+|\s+|'[^']*'|\W", sql)
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(words) + 1)
        other = words[generator.randrange(len(words))] if words else ""
        match generator.randrange(5):
            case 0:
                del words[at : at + 1]
            case 1:
                words.insert(at, other)
            case 2:
                words[at : at + 1] = [other]
            case 3:
                words[at : at + 1] = [f" {_WORDS[generator.randrange(len(_WORDS))]} "]
            case _:
                words.insert(at, f" {_PIECES[generator.randrange(len(_PIECES))]} ")
    return "".join(words)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query=queries(), seed=st.integers(0, 2**32))
def test_mutated_questions(query: object, seed: int) -> None:
    """Allowed questions with a few pieces changed."""
    _check_planned_or_refused(mutate(getattr(query, "sql", ""), random.Random(seed)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(example=st.sampled_from(EXAMPLES), seed=st.integers(0, 2**32))
def test_mutated_refusals(example: tuple[object, str], seed: int) -> None:
    """Refused questions with a few pieces changed."""
    _check_planned_or_refused(mutate(example[1][:2000], random.Random(seed)))
