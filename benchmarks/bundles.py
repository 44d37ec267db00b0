"""The rows that benchmarks write: blood pressures of made-up residents, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random

from node.records.model import Bundle, NewRecord, NewResident

__all__ = ["observation_bundles", "resident_bundle"]


def resident_bundle(name: str, number: int) -> Bundle:
    """Residents without identifiers; `name` makes the request id."""
    draw = Random(name)
    return Bundle(
        f"{name}-residents",
        residents=tuple(
            NewResident(
                None,
                f"居民{place}",
                draw.choice(("male", "female")),
                f"{draw.randint(1930, 2010)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}",
            )
            for place in range(number)
        ),
    )


def observation_bundles(
    name: str, resident_ids: Sequence[str], rows_a_bundle: int
) -> Iterator[Bundle]:
    """Bundles of new observations without end; one row is about 350 bytes on the wire."""
    draw = Random(name)
    for number in count():
        yield Bundle(
            f"{name}-{number:08d}",
            records=tuple(
                NewRecord(
                    None,
                    "observations",
                    draw.choice(resident_ids),
                    {
                        "code": "8480-6",
                        "value": float(draw.randint(90, 190)),
                        "unit": "mm[Hg]",
                        "observed_on": f"2026-{draw.randint(1, 9):02d}-{draw.randint(1, 28):02d}",
                    },
                )
                for _ in range(rows_a_bundle)
            ),
        )
