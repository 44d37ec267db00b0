"""Documents that cannot drift: what exists stands in them, and what stands in them exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from hierarchy_config.errors import Fault
from tests.house.catalogue import all_codes, error_classes
from tests.house.permissions import rows
from tests.house.tree import ROOMS, ROOT, python_files, shown, syntax

DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.md")),
)
_CODE_CELL = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \|", re.MULTILINE)
_BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_QUOTED_COMMAND = re.compile(r"`(fenhe [a-z][^`]*)`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _root_command() -> TyperGroup:
    app = importlib.import_module("node.cli.main").app
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def _commands(
    group: TyperGroup, prefix: str = "fenhe"
) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, TyperGroup):
            if command.invoke_without_command:
                yield f"{prefix} {name}", command
            yield from _commands(command, f"{prefix} {name}")
        elif isinstance(command, TyperCommand):
            yield f"{prefix} {name}", command


COMMANDS = dict(_commands(_root_command()))


def _section(text: str, heading: str) -> str:
    """The text from a heading to the next of its level."""
    start = re.search(rf"^## {re.escape(heading)}\b.*$", text, re.MULTILINE)
    assert start is not None, f"no section {heading}"
    rest = text[start.end() :]
    end = re.search(r"^## ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name: str) -> None:
    """Each command has a section in docs/cli.md that names all its options and arguments."""
    words = _section(_read("docs/cli.md"), name)
    expected: set[str] = set()
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, TyperOption):
            expected.update(o for o in parameter.opts if o not in {"--help", "--version"})
    assert {option for option in expected if f"`{option}`" not in words} == set()


def test_documented_commands_exist() -> None:
    """Each section of docs/cli.md is a command."""
    headings = re.findall(r"^## (fenhe [a-z -]+[a-z])", _read("docs/cli.md"), re.MULTILINE)
    assert set(headings) == set(COMMANDS)


def test_every_error_has_a_next_step() -> None:
    """Each that can be raised says what to do; one that reaches nobody says where it ends."""
    silent = {
        cls.__name__
        for cls in error_classes().values()
        if not cls.default_hint and not cls.__subclasses__()
    }
    # A line of a question's coverage, which has words of its own for it.
    assert silent == {"SiteUnavailableError"}


def test_every_code_is_documented() -> None:
    """Every stable code stands in docs/errors.md, and every code there exists.

    `python -m tests.house.catalogue` prints the rows.
    """
    documented = _CODE_CELL.findall(_read("docs/errors.md"))
    assert sorted(documented) == sorted(set(documented))
    on_the_command_line = {
        node.value
        for path in python_files("node/cli")
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    known = all_codes()
    assert known - set(documented) == set()
    assert set(documented) - known - on_the_command_line == set()


def test_every_permission_is_documented() -> None:
    """The table of docs/permissions.md is the table of methods, row for row."""
    table = _section(_read("docs/permissions.md"), "The table")
    assert [line for line in table.splitlines() if line.startswith("| `")] == list(rows())


def test_every_deed_of_the_audit_is_documented() -> None:
    """The list of docs/cli.md is what can be searched for, and names nothing else."""
    known = {str(action) for action in importlib.import_module("node.storage.audit").Action}
    words = _section(_read("docs/cli.md"), "fenhe audit search")
    listed = re.search(r"^Deeds: .*?\n\n", words, re.MULTILINE | re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`([^`]+)`", listed[0])) == known


def test_every_cause_of_the_quarantine_has_an_exit() -> None:
    """The table of docs/cli.md says for each what to do, and names none that does not exist."""
    causes = {str(cause) for cause in importlib.import_module("node.storage.causes").CAUSES}
    table = _section(_read("docs/cli.md"), "fenhe quarantine list")
    cells = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", table, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"[A-Z_]+", cell)]
    assert sorted(named) == sorted(causes)


def test_operators_are_told_the_next_step() -> None:
    """An error that an operator has to mend carries the step; a base of others need not."""
    mute = {
        code
        for code, cls in error_classes().items()
        if cls.fault is Fault.OPERATOR and not cls.default_hint and not cls.__subclasses__()
    }
    assert mute == set()


@pytest.mark.parametrize(
    ("module", "model"),
    [
        ("node.settings", "NodeSettings"),
        ("hardware_profiles.profile", "HardwareProfile"),
        ("hardware_profiles.profile", "MariadbProfile"),
        ("hierarchy_config.region_model", "RegionModel"),
        ("hierarchy_config.region_model", "NodeModel"),
        ("hierarchy_config.region_model", "ThresholdsModel"),
    ],
)
def test_every_setting_is_documented(module: str, model: str) -> None:
    """Every key of every file that an operator writes stands in docs/settings.md."""
    cls: type[BaseModel] = getattr(importlib.import_module(module), model)
    text = _read("docs/settings.md")
    assert [key for key in cls.model_fields if f"`{key}`" not in text] == []


def test_every_environment_variable_is_documented() -> None:
    """Every FENHE_… that the code reads stands in docs/settings.md."""
    names = {
        node.value
        for path in python_files(*ROOMS)
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"FENHE_[A-Z_]+", node.value)
    } - {"FENHE_ERROR"}
    assert {name for name in names if f"`{name}`" not in _read("docs/settings.md")} == set()


def test_every_dataset_is_documented() -> None:
    """Datasets and the columns of their own stand in docs/questions.md."""
    datasets = importlib.import_module("federation.core.datasets").DATASETS
    text = _read("docs/questions.md")
    named = {name for d in datasets.values() for name in (d.name, *d.by_name)}
    assert {name for name in named if f"`{name}`" not in text} == set()


def _shell_lines(path: Path) -> Iterator[str]:
    for block in _BLOCK.findall(path.read_text(encoding="utf-8")):
        yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip())


def _mentioned() -> Iterator[tuple[str, str]]:
    """Every line of `fenhe` that a document or a hint of the code tells the reader to type."""
    for path in DOCUMENTS:
        for line in _shell_lines(path):
            yield shown(path), line
        for quoted in _QUOTED_COMMAND.findall(path.read_text(encoding="utf-8")):
            yield shown(path), quoted
    for path in python_files(*ROOMS):
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for quoted in _QUOTED_COMMAND.findall(node.value):
                    yield shown(path), quoted


def _faults_of(line: str) -> list[str]:
    words = shlex.split(line, comments=True, posix=True)
    if not words or words[0] not in {"fenhe", ".venv/bin/fenhe"}:
        return []
    name, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    while name not in COMMANDS:
        if not rest:
            # A group named as a whole is a way to speak of its commands.
            return [] if any(c.startswith(f"{name} ") for c in COMMANDS) else [f"no {line}"]
        name = f"{name} {rest.pop(0)}"
    while rest and any(c.startswith(f"{name} {rest[0]}") for c in COMMANDS):
        name = f"{name} {rest.pop(0)}"
    if name not in COMMANDS:
        return []
    command = COMMANDS[name]
    known = {o for p in command.params if isinstance(p, TyperOption) for o in p.opts} | {"--help"}
    arguments = sum(1 for p in command.params if isinstance(p, TyperArgument))
    unknown = [w for w in rest if w.startswith("-") and w.split("=")[0] not in known]
    bare = len(rest) > 0 and arguments == 0 and not rest[0].startswith("-")
    return [f"no option {w}: {line}" for w in unknown] + ([f"no argument: {line}"] if bare else [])


def test_commands_that_are_mentioned_exist() -> None:
    """What the documents and the hints tell a reader to type is a command with those options."""
    faults = {
        f"{place}: {fault}"
        for place, line in _mentioned()
        if "|" not in line and "…" not in line
        for fault in _faults_of(line)
    }
    assert faults == set()


def test_make_targets_that_are_mentioned_exist() -> None:
    """Every `make …` of the documents is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE))
    floors = re.search(r"^FLOORS := (.*)$", _read("Makefile"), re.MULTILINE)
    assert floors is not None
    used = {
        name
        for path in DOCUMENTS
        for name in re.findall(
            r"(?:^|`)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert used - targets - set(floors[1].split()) == set()


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link of a document is a file of the project."""
    broken = {
        f"{shown(path)}: {target}"
        for path in DOCUMENTS
        for target in _LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    }
    assert broken == set()


def test_readme_begins_with_what_a_bare_machine_lacks() -> None:
    """The first line can be pasted on a bare Debian, and the first commands are the two."""
    text = _read("README.md")
    assert "apt install make git python3-venv" in text.splitlines()[0]
    commands = [line for line in _shell_lines(ROOT / "README.md") if line.startswith("make ")]
    assert [line.split()[1] for line in commands[:2]] == ["demo", "test"]
