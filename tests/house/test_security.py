"""What we say of security can be checked: tests exist, packages are pinned, findings judged."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.tree import ROOMS, ROOT

STATES = {"met", "partly", "not"}
_NAMED = re.compile(r"`(tests/[^`]+)`")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\]+)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def rows() -> Iterator[tuple[str, str, str]]:
    """Requirement, state and what shows it, of every row of docs/security.md."""
    for line in (ROOT / "docs/security.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("| ") or len(cells) != 4 or cells[2] == "state":
            continue
        yield cells[0], cells[2], cells[3]


def _exists(named: str) -> bool:
    file, _, test = named.partition("::")
    path = ROOT / file
    if not path.exists():
        return False
    if not test:
        return True
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, functions) and node.name == test for node in ast.walk(tree))


def test_every_row_says_how_it_stands() -> None:
    """Met, partly or not; nothing else, and no norm without a row."""
    states = [state for _, state, _ in rows()]
    assert len(states) > 60
    assert set(states) == STATES


def test_what_is_met_names_a_test_that_exists() -> None:
    """A promise without its test is none."""
    bare = [what for what, state, shown in rows() if state == "met" and not _NAMED.search(shown)]
    assert bare == []
    gone = [(what, name) for what, _, shown in rows() for name in _NAMED.findall(shown)]
    assert [each for each in gone if not _exists(each[1])] == []


@pytest.mark.parametrize("name", ["demo", "dev"])
def test_every_package_is_pinned_with_its_digests(name: str) -> None:
    """Pip refuses a file that is not one of these, whoever serves it."""
    text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 30
    for line in lines:
        assert _PINNED.match(line), line[:80]
        assert _HASH.search(line), line[:80]


def test_setup_installs_by_digest() -> None:
    """A lock that pip is not told to obey locks nothing."""
    assert "--require-hashes" in (ROOT / ".ci/setup").read_text(encoding="utf-8")


def test_bandit_finds_nothing_that_was_not_judged() -> None:
    """Each exception stands in pyproject.toml with its reason, or on its line."""
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-f", "json", "-r", *ROOMS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)
    assert found["errors"] == []
    assert [f"{each['filename']}: {each['test_id']}" for each in found["results"]] == []


def test_the_list_of_packages_can_be_made(tmp_path: Path) -> None:
    """`make sbom` names every package of the lock that a node is installed with."""
    file = tmp_path / "sbom.json"
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("cyclonedx-py")), "requirements", "--of", "JSON"),
            *("-o", str(file), str(ROOT / "requirements/demo.txt")),
        ],
        check=True,
        capture_output=True,
    )
    made = json.loads(file.read_text(encoding="utf-8"))
    text = (ROOT / "requirements/demo.txt").read_text(encoding="utf-8")
    pinned = {m[1].lower() for line in text.splitlines() if (m := _PINNED.match(line))}
    assert made["bomFormat"] == "CycloneDX"
    assert {each["name"].lower() for each in made["components"]} == pinned
