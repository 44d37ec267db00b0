"""The rooms: where they are imported from, what they may import, how each introduces itself."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

from tests.house.tree import ROOMS, ROOT, imported_modules, python_files, shown, syntax

# Where an exception of any kind may be caught, and why.
CATCHES_EVERYTHING = {
    "node/services/interceptor.py",  # turns what is unknown into INTERNAL with a reference
    "replication/runner.py",  # the outermost loop of a link
    "node/cli/main.py",  # the process's main
    "node/services/bundle_writes.py",  # one bundle's fault is raised to its own asker alone
    "node/storage/writes.py",  # the same, below
    "replication/changelog/together.py",  # gives up the connection, and raises again
}
# Nothing below the composition root reads the environment.
READS_ENVIRONMENT = (
    "node/cli/",
    "node/demo/",
    "node/app.py",
    "node/mariadb_server.py",  # finds the server programs on the PATH
)

PACKAGES = sorted({path.parent for path in python_files(*ROOMS) if "migrations" not in path.parts})


@pytest.mark.parametrize("room", [*ROOMS, "protos"])
def test_is_imported_from_this_tree(room: str) -> None:
    """Other distributions install packages of the same names; ours must win."""
    module = importlib.import_module(room)
    assert {Path(folder).resolve() for folder in module.__path__} == {ROOT / room}


def test_only_rooms_are_installed() -> None:
    """The distribution holds the rooms and neither tests nor benchmarks."""
    sys.path.insert(0, str(ROOT))
    try:
        packaging = importlib.import_module("setup")
    finally:
        sys.path.remove(str(ROOT))
    include = [pattern for room in packaging.ROOMS for pattern in (room, f"{room}.*")]
    found = {name.split(".")[0] for name in find_namespace_packages(str(ROOT), include=include)}
    assert found == {*ROOMS, "protos"}


@pytest.mark.parametrize("package", PACKAGES, ids=shown)
def test_package_introduces_itself(package: Path) -> None:
    """Each package says in one paragraph what it is, and lists what it offers."""
    init = package / "__init__.py"
    assert init.exists(), f"{shown(package)} has no __init__.py"
    words = ast.get_docstring(syntax(init)) or ""
    assert len(words.split()) >= 8, f"{shown(init)} does not say what it owns"
    names = {
        target.id
        for node in syntax(init).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    assert "__all__" in names, f"{shown(init)} has no __all__"


@pytest.mark.parametrize("package", PACKAGES, ids=shown)
def test_offers_what_it_lists(package: Path) -> None:
    """Every name in `__all__` exists."""
    module = importlib.import_module(".".join(package.relative_to(ROOT).parts))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize(
    ("core", "allowed"),
    [
        ("replication/core", ("replication.core", "replication.errors")),
        (
            "federation/core",
            ("federation.core", "federation.errors", "hierarchy_config", "sqlglot"),
        ),
    ],
)
def test_core_imports_little(core: str, allowed: tuple[str, ...]) -> None:
    """A core knows the standard library and itself; federation's also reads SQL with sqlglot."""
    strangers = {
        f"{shown(path)}: {name}"
        for path in python_files(core)
        for name in imported_modules(path)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(name == known or name.startswith(f"{known}.") for known in allowed)
    }
    assert strangers == set()


def test_generated_types_stay_at_the_edges() -> None:
    """Messages of the wire are turned into our own words at the edge of each room."""
    edges = (
        "node/services/",
        "node/cli/",
        "node/demo/",
        "node/links/streams.py",
        "federation/ray_runner",
    )
    strays = {
        shown(path)
        for path in python_files(*ROOMS)
        if any(name.split(".")[0] == "protos" for name in imported_modules(path))
        and path.name not in {"wire.py", "channel.py"}
        and not shown(path).startswith(edges)
    }
    assert strays == set()


def test_exceptions_are_caught_by_name() -> None:
    """`except Exception` stands only where a process or a stream would otherwise die."""
    found = {
        shown(path)
        for path in python_files(*ROOMS)
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
        )
    }
    assert found - CATCHES_EVERYTHING == set()


def test_environment_is_read_at_the_top() -> None:
    """Settings come in as arguments; only the command line and the demo look around."""
    found = {
        shown(path)
        for path in python_files(*ROOMS)
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in {"environ", "getenv", "environb"}
    }
    assert {name for name in found if not name.startswith(READS_ENVIRONMENT)} == set()


@pytest.mark.parametrize("room", ["replication", "federation"])
def test_room_with_state_explains_its_design(room: str) -> None:
    """A room with state has a DESIGN.md that can be read at one sitting."""
    lines = (ROOT / room / "DESIGN.md").read_text(encoding="utf-8").splitlines()
    assert 30 <= len(lines) <= 200
