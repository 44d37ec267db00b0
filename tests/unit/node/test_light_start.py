"""What a command and a node load before they do anything: an old machine waits for each of it."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _loaded(module: str) -> set[str]:
    """The top-level packages that a process has once it has imported the module."""
    code = f"import sys, {module}; print(*{{each.partition('.')[0] for each in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=120
    )
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("module", "needed", "late"),
    [
        ("node.cli.main", {"grpc", "typer"}, {"sqlalchemy", "sqlglot", "alembic", "ray", "duckdb"}),
        ("node.app", {"grpc", "sqlalchemy"}, {"alembic", "mako", "typer", "ray", "pyarrow"}),
    ],
)
def test_what_is_rarely_needed_is_loaded_late(
    module: str, needed: set[str], late: set[str]
) -> None:
    """Databases by no command but those that open one; migrations only where one is due."""
    loaded = _loaded(module)
    assert needed <= loaded
    assert not late & loaded
