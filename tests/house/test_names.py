"""One word for one thing, and a project that speaks only of itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.tree import ROOMS, ROOT, code_files, python_files, shown, syntax

# word → the word that is used here instead. See docs/glossary.md.
BANNED_EVERYWHERE = {
    "tier": "level",
    "layer": "level",
    "master": "parent",
    "slave": "child",
    "tenant": "home_node",
    "golden": "enterprise_id",
    "dup": "candidate_pair",
    "cfg": "configuration",
    "mgr": "a noun that says what it does",
    "msg": "message",
    "resp": "response",
    "idx": "index",
    "addr": "address",
    "svc": "service",
    "util": "a noun that says what it does",
    "utils": "a noun that says what it does",
    "helper": "a noun that says what it does",
    "helpers": "a noun that says what it does",
}
BANNED_IN = {
    "federation": {"job": "query"},
    "replication": {"job": "batch"},
}
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")

# What only a machine that the project was written on would hold, and promises instead of work.
_NOT_OURS = re.compile(
    r"/work/|/opt/pypi|/home/[a-z]|\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|pypi\.org|npmjs\."
)
_TEXT = {".py", ".md", ".proto", ".toml", ".yaml", ".ini", ".mako", ".txt", ".in", ".cfg", ""}


def _defined_names(path: Path) -> Iterator[str]:
    """Names that a file gives to things: modules, classes, functions, arguments, variables."""
    yield path.stem
    for node in ast.walk(syntax(path)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case _:
                pass


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _project_files() -> Iterator[Path]:
    folders = (*ROOMS, "protos", "tests", "benchmarks", "docs", "requirements", ".ci")
    for folder in folders:
        yield from (p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix in _TEXT)
    yield from (p for p in ROOT.iterdir() if p.is_file() and p.suffix in _TEXT)


def test_uses_one_word_for_one_thing() -> None:
    """No name of ours holds a word that the glossary replaces."""
    found = {
        f"{shown(path)}: {name} (use {words[word]})"
        for path in code_files()
        for words in [BANNED_EVERYWHERE | BANNED_IN.get(shown(path).split("/")[0], {})]
        for name in _defined_names(path)
        for word in _words(name)
        if word in words
    }
    assert found == set()


def test_speaks_only_of_itself() -> None:
    """No file names a folder of somebody's machine, a registry, or work that was put off."""
    found = {
        f"{shown(path)}:{number}: {line.strip()[:80]}"
        for path in _project_files()
        if path != Path(__file__).resolve() and "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if _NOT_OURS.search(line)
    }
    assert found == set()


def test_nothing_is_left_unwritten() -> None:
    """No function only says that it is not there yet."""
    found = {
        f"{shown(path)}:{node.lineno}"
        for path in python_files(*ROOMS)
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Name) and node.id == "NotImplemented" + "Error"
    }
    assert found == set()


LINES_OF_THE_CHAOS = "tests/chaos/proxy.py"
"""Emulates lines: to delay what passes is what it does."""


def test_tests_do_not_wait_by_the_clock() -> None:
    """No test sleeps: it waits for the thing itself, with a deadline."""
    found = {
        f"{shown(path)}:{node.lineno}"
        for path in python_files("tests")
        if shown(path) != LINES_OF_THE_CHAOS
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"time.sleep", "asyncio.sleep"}
        and not (len(node.args) == 1 and ast.unparse(node.args[0]) == "0")
    }
    assert found == set()


def test_tests_are_not_skipped() -> None:
    """What is marked to be skipped protects nothing."""
    found = {
        f"{shown(path)}:{node.lineno}"
        for path in python_files("tests")
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in {"pytest.skip", "pytest.mark.skip", "pytest.mark.skipif"}
    }
    assert found == set()
