"""What the house tests read: the project's files and their syntax trees."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("hierarchy_config", "hardware_profiles", "replication", "federation", "node")
GENERATED = ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi", "_pb2_grpc.pyi")


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    """Every hand-written .py file below `folders`, sorted."""
    return tuple(
        sorted(
            path
            for folder in folders
            for path in (ROOT / folder).rglob("*.py")
            if not path.name.endswith(GENERATED)
        )
    )


def code_files() -> tuple[Path, ...]:
    """Every hand-written .py file of the project."""
    return (*python_files(*ROOMS, "tests", "benchmarks"), ROOT / "setup.py")


@cache
def syntax(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path) -> str:
    """The path as people write it: relative to the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a file with its dotted name."""

    def walk(
        node: ast.AST, prefix: str
    ) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name, child
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(syntax(path), "")


def imported_modules(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@cache
def import_everything() -> tuple[str, ...]:
    """Import every module of the rooms, so that all their classes exist; returns their names.

    Migrations are left out: Alembic runs them in its own context.
    """
    names: list[str] = []
    for room in ROOMS:
        package = importlib.import_module(room)
        names.append(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if ".migrations." in module.name or module.name.endswith("__main__"):
                continue
            importlib.import_module(module.name)
            names.append(module.name)
    return tuple(names)
