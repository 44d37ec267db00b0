"""The other side of `node_idle`: a process that has imported what a node imports, and waits.

Arguments: "list" prints the packages that are not this project's and that a node has loaded; a list
of names imports those and nothing else, says so, and waits for the end of its input.
"""

from __future__ import annotations

import sys
from importlib import import_module


def _loaded_by_a_node() -> list[str]:
    """Modules of other packages in memory once a node's parts are imported, engines included."""
    before = set(sys.modules)
    for name in ("node.app", "node.cli.main", "pymysql", "duckdb", "pyarrow"):
        import_module(name)
    ours = {"benchmarks", "federation", "hardware_profiles", "hierarchy_config", "node", "protos"}
    ours |= {"replication", "__main__"}
    return sorted(name for name in set(sys.modules) - before if name.partition(".")[0] not in ours)


def main() -> None:
    """List, or import and wait."""
    if sys.argv[1:] == ["list"]:
        print("\n".join(_loaded_by_a_node()))
        return
    for name in sys.stdin.readline().split():
        try:
            import_module(name)
        except ImportError:
            # Modules that others make while they load; there is nothing to import by name.
            continue
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
