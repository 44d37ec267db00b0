"""Sizes that keep the code readable, read from the syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house.tree import code_files, functions, shown, syntax

FILE_LINES = 500
FUNCTION_LINES = 70
CORE_FUNCTION_LINES = 50
POSITIONAL_PARAMETERS = 6
COMPLEXITY = 10

# path::function → why a limit does not serve it. An entry that is no longer needed fails.
EXEMPT: dict[str, str] = {}

_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)


def _is_core(path: Path) -> bool:
    return shown(path).startswith(("replication/core/", "federation/core/"))


def _over_the_limits() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in code_files():
        limit = CORE_FUNCTION_LINES if _is_core(path) else FUNCTION_LINES
        for name, function in functions(path):
            faults = [
                *_too_long(function, limit),
                *_too_many_parameters(path, function),
                *_too_branched(function),
            ]
            if faults:
                found[f"{shown(path)}::{name}"] = ", ".join(faults)
    return found


def _too_long(function: ast.FunctionDef | ast.AsyncFunctionDef, limit: int) -> list[str]:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    return [f"{lines} lines of {limit}"] if lines > limit else []


def _too_many_parameters(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    if shown(path).startswith("node/cli/"):
        return []  # a command's signature is its list of options
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    count = len([name for name in names if name not in {"self", "cls"}])
    if count > POSITIONAL_PARAMETERS:
        return [f"{count} positional parameters of {POSITIONAL_PARAMETERS}"]
    return []


def _too_branched(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    count = 1 + _branches(function)
    return [f"complexity {count} of {COMPLEXITY}"] if count > COMPLEXITY else []


def _branches(node: ast.AST) -> int:
    """Decisions below a node, as McCabe counts them; a function inside counts for itself."""
    total = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, _BRANCHES):
            total += 1
        elif isinstance(child, ast.match_case):
            total += 0 if _is_wildcard(child) else 1
        total += _branches(child)
    return total


def _is_wildcard(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None


def test_files_stay_readable() -> None:
    """No file is longer than its limit."""
    lengths = {
        shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in code_files()
    }
    assert {name: n for name, n in lengths.items() if n > FILE_LINES} == {}


def test_functions_stay_readable() -> None:
    """No function exceeds the limits of length, parameters or complexity without a reason."""
    assert {n: why for n, why in _over_the_limits().items() if n not in EXEMPT} == {}


def test_exemptions_are_still_needed() -> None:
    """An exemption whose function is within the limits again is removed."""
    assert set(EXEMPT) - set(_over_the_limits()) == set()


def test_counts_branches_as_expected() -> None:
    """The counter sees branches, loops, handlers and cases, and nothing in inner functions."""
    source = (
        "def f(x):\n"
        "    if x:\n        pass\n    elif x > 1:\n        pass\n"
        "    for _ in x:\n        pass\n"
        "    try:\n        pass\n    except KeyError:\n        pass\n"
        "    match x:\n        case 1:\n            pass\n        case _:\n            pass\n"
        "    def inner():\n        if x:\n            pass\n"
    )
    assert _branches(ast.parse(source).body[0]) == 5


def test_every_file_parses() -> None:
    """Every file of the project is read by these tests."""
    assert len([syntax(path) for path in code_files()]) > 50
