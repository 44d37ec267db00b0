"""`federated_group`: seconds of a grouped count and mean over 64 sites, beside pooled DuckDB.

Ours: a city, three counties, twelve townships and 48 villages, each with its own coordinator and
its own columnar replica of its own residents' rows (segments on disk, one DuckDB thread), in one
process. The question goes from the city down the tree as bytes of the wire and comes back as
partials: planned anew at every node, fed, scanned, merged, released at the counties under a cell
threshold of 10 distinct residents, finished at the city. As many sites compute at once as the other
side has threads. Links, certificates and signatures are not in it.

Beside: one DuckDB with the same rows in a native table and a thread a core, asked for the plain
grouped count and mean. `detail` has ours without a threshold, and the pooled question that counts
distinct residents for the same threshold. The answers are compared before anything is timed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import duckdb

from benchmarks.result import Result, Scale, alternate, ratio_of
from benchmarks.site_rows import Site, filled_sites, pooled
from benchmarks.tree import Tree
from hierarchy_config import (
    CareLevel,
    Hierarchy,
    NodeId,
    Thresholds,
    load_region,
    shipped_region,
    slice_hierarchy,
)

__all__ = ["run"]

_GOAL: Final = 1.5
_BRANCHES: Final[Mapping[CareLevel, int]] = {
    CareLevel.CITY: 3,
    CareLevel.COUNTY: 4,
    CareLevel.TOWNSHIP: 4,
    CareLevel.VILLAGE: 0,
}
_QUESTION: Final = (
    "SELECT code, sex, COUNT(*) AS n, AVG(value) AS mean FROM observations GROUP BY code, sex"
)
_DISTINCT: Final = (
    "SELECT code, sex, COUNT(*) AS n, AVG(value) AS mean FROM observations GROUP BY code, sex"
    " HAVING COUNT(DISTINCT resident_id) >= 10"
)


def run(scale: Scale) -> Result:
    """Make the rows, compare the answers, measure."""
    rows = scale.pick(50_000_000, 5_000_000)
    threads = os.cpu_count() or 1
    hierarchy = _tree_of_64()
    started = time.perf_counter()
    sites = filled_sites(scale.folder / "sites", hierarchy, rows)
    pool = pooled(scale.folder, sites, threads)
    making_s = time.perf_counter() - started
    try:
        trees = {least: _tree(hierarchy, sites, least, threads) for least in (10, 1)}
        for tree in trees.values():
            _compare(tree, pool)
        ours, open_, beside, distinct = alternate(
            scale.pick(7, 5),
            lambda: _seconds_of_tree(trees[10]),
            lambda: _seconds_of_tree(trees[1]),
            lambda: _seconds_of_pool(pool, _QUESTION),
            lambda: _seconds_of_pool(pool, _DISTINCT),
        )
        for tree in trees.values():
            tree.close()
    finally:
        pool.close()
        for site in sites:
            site.replica.close()
    figure, other, ratio = ratio_of(ours, beside)
    return Result(
        name="federated_group",
        figure=figure,
        unit="s",
        beside="pooled DuckDB",
        beside_figure=other,
        ratio=ratio,
        goal=f"<= {_GOAL}",
        met=ratio <= _GOAL,
        detail={
            "rows": rows,
            "sites": len(sites),
            "threads": threads,
            "without_threshold_s": ratio_of(open_, beside)[0],
            "without_threshold_ratio": ratio_of(open_, beside)[2],
            "pooled_with_distinct_s": ratio_of(distinct, beside)[0],
            "ratio_to_pooled_with_distinct": ratio_of(ours, distinct)[2],
            "making_the_rows_s": making_s,
        },
    )


def _tree_of_64() -> Hierarchy:
    """The first counties, townships and villages of the shipped hierarchy: 1 + 3 + 12 + 48."""
    region = load_region(shipped_region())
    chosen: list[NodeId] = []
    level = [region.root]
    while level:
        chosen += level
        level = [
            child
            for node in level
            for child in region.children(node)[: _BRANCHES[region.entry(node).level]]
        ]
    return slice_hierarchy(region, chosen)


def _tree(hierarchy: Hierarchy, sites: list[Site], least: int, threads: int) -> Tree:
    return Tree(replace(hierarchy, thresholds=Thresholds(least, {})), sites, at_once=threads)


def _compare(tree: Tree, pool: duckdb.DuckDBPyConnection) -> None:
    """Both sides, once, which also warms them; RuntimeError if they differ."""
    ours = tree.ask(_QUESTION)
    theirs = pool.execute(_QUESTION).fetchall()
    if len(ours) != len(theirs):
        raise RuntimeError(f"{len(ours)} groups, pooled {len(theirs)}")
    for (code, sex, n, mean), expected in zip(sorted(ours), sorted(theirs), strict=True):
        same = (code, sex, n) == expected[:3] and math.isclose(mean, expected[3], rel_tol=1e-9)
        if not same:
            raise RuntimeError(f"{code}, {sex}: {n}, {mean}; pooled {expected[2:]}")


def _seconds_of_tree(tree: Tree) -> float:
    started = time.perf_counter()
    tree.ask(_QUESTION)
    return time.perf_counter() - started


def _seconds_of_pool(pool: duckdb.DuckDBPyConnection, question: str) -> float:
    started = time.perf_counter()
    pool.execute(question).fetchall()
    return time.perf_counter() - started
