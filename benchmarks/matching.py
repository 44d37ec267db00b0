"""`matching`: who somebody is among 1,000,000 residents, and how well two registers are linked.

The headline is the 99th percentile of a query's time in one thread, beside the goal of 10 ms. The
people are made up (node/empi/synthetic.py, benchmarks/latin_people.py state their errors), each
query is a second sight of one of them or of somebody else, and the model is the shipped one, which
was learnt from other seeds. `detail` has the median, how many answers were right, the memory that
the index takes, and precision, recall and F1 of linked registers, learnt without labels, with and
without the strong identifier.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from benchmarks.latin_people import LATIN_FIELDS, latin_registers
from benchmarks.result import Result, Scale, percentile
from node.empi.defaults import shipped_model
from node.empi.index import MemoryIndex, Outcome
from node.empi.linking import link
from node.empi.synthetic import FIELDS, Registers, linfen_registers

__all__ = ["run"]

_GOAL_MS: Final = 10.0
_CHINESE_SEED: Final = 77
_LATIN_SEED: Final = 78
_INDEX_SEED: Final = 79


def run(scale: Scale) -> Result:
    """Link the made-up registers, then fill an index and ask it."""
    people = scale.pick(10_000, 2_000)
    chinese = linfen_registers(people, 0.6, _CHINESE_SEED)
    latin = latin_registers(people, 0.6, _LATIN_SEED)
    detail = {
        **_linked("chinese", chinese, FIELDS),
        **_linked("chinese_without_id", chinese, [f for f in FIELDS if f != "identity_number"]),
        **_linked("latin", latin, LATIN_FIELDS),
        **_linked("latin_without_id", latin, LATIN_FIELDS[:-1]),
    }
    times, found = _asked(scale)
    figure = percentile(times, 0.99)
    return Result(
        name="matching",
        figure=figure,
        unit="ms a query, p99",
        beside="the goal",
        beside_figure=_GOAL_MS,
        ratio=figure / _GOAL_MS,
        goal="<= 1",
        met=figure <= _GOAL_MS,
        detail={"query_p50_ms": statistics.median(times), **found, **detail},
    )


def _linked(name: str, registers: Registers, fields: Sequence[str]) -> Mapping[str, float]:
    columns = [[side[field] for field in fields] for side in (registers.left, registers.right)]
    started = time.perf_counter()
    found = link(columns[0], columns[1], fields)
    seconds = time.perf_counter() - started
    pairs = list(zip(found.left.tolist(), found.right.tolist(), found.linked.tolist(), strict=True))
    linked = {(a, b) for a, b, certain in pairs if certain}
    right = len(linked & registers.truth)
    precision, recall = right / max(1, len(linked)), right / len(registers.truth)
    seen = len({(a, b) for a, b, _ in pairs} & registers.truth)
    return {
        f"{name}_precision": precision,
        f"{name}_recall": recall,
        f"{name}_f1": 2 * precision * recall / max(precision + recall, 1e-9),
        f"{name}_recall_with_review": seen / len(registers.truth),
        f"{name}_s": seconds,
    }


def _asked(scale: Scale) -> tuple[list[float], Mapping[str, float]]:
    """Milliseconds of each query, and what was found."""
    residents = scale.pick(1_000_000, 50_000)
    registers = linfen_registers(residents, scale.pick(5_000, 2_000) / residents, _INDEX_SEED)
    partner = {right: str(left) for left, right in registers.truth}
    index = MemoryIndex(shipped_model())
    started = time.perf_counter()
    index.extend(
        (str(row), values)
        for row, values in enumerate(zip(*(registers.left[f] for f in FIELDS), strict=True))
    )
    loaded = time.perf_counter() - started
    asked = [*partner, *Random(1).sample(range(residents), len(partner) // 4)]
    rows = [[registers.right[field][row] for field in FIELDS] for row in asked]
    # A node does the same once it has started: what lives for ever is not searched for garbage.
    gc.collect()
    gc.freeze()
    times, worked, linked, wrong, missed = [], list[float](), 0, 0, 0
    for number, row in zip(asked, rows, strict=True):
        started, began = time.perf_counter(), time.thread_time()
        answer = index.query(row)
        worked.append((time.thread_time() - began) * 1000)
        times.append((time.perf_counter() - started) * 1000)
        names = [each.resident_id for each in answer.candidates]
        linked += answer.outcome is Outcome.LINK
        wrong += answer.outcome is Outcome.LINK and names[0] != partner.get(number)
        missed += number in partner and partner[number] not in names
    gc.unfreeze()
    return times, {
        "residents": residents,
        "index_mib": index.memory_bytes() / 2**20,
        "index_load_s": loaded,
        "query_cpu_p50_ms": statistics.median(worked),
        "query_cpu_p99_ms": percentile(worked, 0.99),
        "query_max_ms": max(times),
        "query_linked": linked,
        "query_linked_wrongly": wrong,
        "query_missed": missed / max(1, len(partner)),
    }
