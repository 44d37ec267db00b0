"""`python -m benchmarks [NAME…] [--json] [--quick]`: run benchmarks and report ratios.

Exit code 0 also when a goal is missed, which the report says; 1 when a benchmark cannot run; 2 for
a name that is none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks.result import Benchmark, Result, Scale
from hierarchy_config import FenheError
from node.cli.output import print_table

NAMES: Final = (
    "hop_single",
    "hop_hundred",
    "lag_hop",
    "lag_tree",
    "catch_up",
    "log_cost",
    "point_read",
    "node_idle",
    "children_idle",
    "federated_group",
    "ingest",
    "trust_cost",
    "join",
    "matrix",
    "matching",
)
_HEADERS: Final = ("name", "figure", "unit", "beside", "its figure", "ratio", "goal", "met")


def _load(name: str) -> Benchmark:
    """The benchmark of a name; its module is imported only now, with what it needs."""
    run: Benchmark = import_module(f"benchmarks.{name}").run
    return run


def main(arguments: Sequence[str] | None = None, load: Callable[[str], Benchmark] = _load) -> int:
    """Run what was asked for; one after the other, so that none disturbs another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="one line of JSON a benchmark")
    parser.add_argument("--quick", action="store_true", help="less data, fewer rounds")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.names) - set(NAMES))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    results: list[Result] = []
    failed = False
    for name in asked.names or NAMES:
        result = _run(name, load, quick=asked.quick)
        failed = failed or result is None
        if result is not None:
            results.append(result)
            if asked.json:
                print(result.to_json(), flush=True)
    if not asked.json:
        _print_results(results)
    return 1 if failed else 0


def _run(name: str, load: Callable[[str], Benchmark], *, quick: bool) -> Result | None:
    """One benchmark in a folder of its own; None if it could not run, said on stderr."""
    started = time.perf_counter()
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="fenhe-bench-") as folder:
            result = load(name)(Scale(Path(folder), quick))
    except (FenheError, OSError, RuntimeError) as error:
        print(f"{name} cannot run: {error}", file=sys.stderr)
        return None
    print(f"{name} took {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return result


def _print_results(results: Sequence[Result]) -> None:
    rows = [
        (
            each.name,
            f"{each.figure:.4g}",
            each.unit,
            each.beside,
            f"{each.beside_figure:.4g}",
            f"{each.ratio:.2f}",
            each.goal,
            "yes" if each.met else "MISSED",
        )
        for each in results
    ]
    print_table(_HEADERS, rows)
    for each in results:
        for key, value in each.detail.items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"{each.name}.{key} = {shown}")


if __name__ == "__main__":
    sys.exit(main())
