"""fenhe hierarchy: look at a region file; change the region (region_cmd.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from hierarchy_config import (
    REPLICATED_TABLES,
    CareLevel,
    CopyForm,
    Hierarchy,
    NodeId,
    load_region,
    shipped_region,
)
from node.cli import region_cmd
from node.cli.output import command, out, print_json, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)
region_cmd.add_to(app)

_INDEX_NOTE: Final = (
    "resident id, home, and the identity number as a keyed index: who has the region's key and a "
    "number can look for it"
)

RegionFile = Annotated[
    Path | None, typer.Option("--region", help="Region file; default: the shipped Linfen.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _load(region: Path | None) -> Hierarchy:
    return load_region(region or shipped_region())


@app.command()
@command
def validate(
    file: Annotated[Path | None, typer.Argument(help="Region file; default: Linfen.")] = None,
) -> None:
    """Check a region file and name every fault in it."""
    hierarchy = _load(file)
    counts = ", ".join(f"{_count(hierarchy, level)} {level.value}" for level in CareLevel)
    out.print(f"{hierarchy.region}: well formed, epoch {hierarchy.epoch}: {counts}")


@app.command()
@command
def tree(
    root: Annotated[str | None, typer.Argument(help="Division code; default: the root.")] = None,
    region: RegionFile = None,
    depth: Annotated[int, typer.Option("--depth", help="Levels to show.", min=0, max=3)] = 1,
) -> None:
    """Draw a part of the hierarchy."""
    hierarchy = _load(region)
    top = NodeId(root) if root is not None else hierarchy.root
    hierarchy.entry(top)
    _draw(hierarchy, top, "", "", depth)


@app.command()
@command
def show(
    node_id: Annotated[str, typer.Argument(help="Division code of the node.")],
    region: RegionFile = None,
    as_json: AsJson = False,
) -> None:
    """Say all that the region file says of one node."""
    hierarchy = _load(region)
    code = NodeId(node_id)
    entry = hierarchy.entry(code)
    facts: dict[str, object] = {
        "node_id": code,
        "name": entry.name_zh,
        "pinyin": entry.pinyin,
        "level": entry.level.value,
        "path_to_root": list(hierarchy.path_to_root(code)),
        "children": len(hierarchy.children(code)),
        "nodes_below": len(hierarchy.subtree(code)) - 1,
        "endpoint": entry.endpoint,
        "profile": entry.profile,
        "dns_name": hierarchy.dns_name(code),
        "spiffe_id": hierarchy.spiffe_id(code),
        "cell_count_min": hierarchy.cell_count_min(code),
        "copied_up": _copied_up(hierarchy, code),
    }
    if as_json:
        print_json(facts)
        return
    copied = _copied_up(hierarchy, code)
    rows = [(key, _flat(value)) for key, value in facts.items() if key != "copied_up"]
    by_forms: dict[str, list[str]] = {}
    for table, forms in copied.items():
        by_forms.setdefault(", ".join(forms), []).append(table)
    for forms_named, tables in by_forms.items():
        rows.append((f"copied_up {forms_named}", ", ".join(tables)))
    if CopyForm.INDEX.value in copied["residents"]:
        rows.append(("an index entry", _INDEX_NOTE))
    print_table(("what", "value"), rows)


def _copied_up(hierarchy: Hierarchy, code: NodeId) -> dict[str, list[str]]:
    """The forms in which each replicated table goes up; "index" makes rows of resident_index."""
    copied = {
        table: [form.value for form in hierarchy.copy_forms(code, table)]
        for table in sorted(REPLICATED_TABLES)
    }
    if CopyForm.INDEX.value in copied["residents"]:
        copied["resident_index"] = [CopyForm.INDEX.value]
    return copied


def _count(hierarchy: Hierarchy, level: CareLevel) -> int:
    return sum(entry.level is level for entry in hierarchy.nodes.values())


def _draw(hierarchy: Hierarchy, node: NodeId, lead: str, branch: str, depth: int) -> None:
    entry = hierarchy.entry(node)
    below = len(hierarchy.subtree(node)) - 1
    hidden = f"  ({below} below)" if below and depth == 0 else ""
    out.print(f"{lead}{branch}{node} {entry.name_zh} {entry.pinyin}{hidden}", markup=False)
    if depth == 0:
        return
    children = hierarchy.children(node)
    inner = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for number, child in enumerate(children, 1):
        last = number == len(children)
        _draw(hierarchy, child, inner, "└─ " if last else "├─ ", depth - 1)


def _flat(value: object) -> str:
    if isinstance(value, list):
        return " → ".join(map(str, value))
    return "–" if value is None else str(value)
