"""The region file: YAML in, a Hierarchy out, or every fault of it at once.

    region: linfen            name in certificates and DNS
    epoch: 3                  rises with each change
    divisions: linfen         shipped table that gives names, levels and parents
    nodes: all                or a list: {id, parent?, level?, name?, pinyin?, endpoint?, profile?,
                              succeeds?}; only `id` is needed where the table knows it
    changes: []               with `nodes: all`: entries that differ from the table
    policies: {county: {"*": [deidentified], residents: [index, deidentified]}}
    thresholds: {cell_count_min: 10, overrides: {"141002001": 20}}

A parent that is not named is the nearest ancestor that the file has. A level that stands under
`policies` is ruled by the file alone; one that does not keeps the built-in rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from hierarchy_config.config_file import (
    ConfigFault,
    FaultList,
    Report,
    read_text,
    read_yaml,
    report_shape,
)
from hierarchy_config.divisions import shipped_divisions
from hierarchy_config.errors import HierarchyError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CopyRule, Division, NodeEntry, NodeId, Thresholds
from hierarchy_config.region_checks import entry_of, find_faults, nearest
from hierarchy_config.region_model import Located, NodeModel, RegionModel

__all__ = [
    "RegionFileError",
    "dump_region",
    "load_region",
    "parse_region",
    "region_text",
    "shipped_region",
]

_REGIONS: Final = Path(__file__).parent / "regions"


class RegionFileError(HierarchyError):
    """A region file is not one; `faults` holds all that is wrong with it."""

    code = "REGION_FILE_INVALID"
    default_hint = "Correct each line named above, then run `fenhe hierarchy validate FILE`."

    def __init__(self, faults: tuple[ConfigFault, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


def shipped_region(name: str = "linfen") -> Path:
    """Return the path of a shipped region file."""
    return _REGIONS / f"{name}.yaml"


def load_region(path: Path | str) -> Hierarchy:
    """Read a region file.

    Raises:
        RegionFileError: With every fault of the file, not only the first.
    """
    source = Path(path)
    faults = FaultList(str(source))
    text = read_text(source, faults.report)
    if text is None:
        raise RegionFileError(faults.all())
    return parse_region(text, file=str(source))


def parse_region(text: str, *, file: str = "(text)") -> Hierarchy:
    """Turn the text of a region file into its hierarchy; `file` is how faults name it.

    Raises:
        RegionFileError: With every fault of the text.
    """
    faults = FaultList(file)
    document = read_yaml(text, faults.report)
    if document is not None:
        model = _region_model(document, faults.report)
        divisions = shipped_divisions(model.divisions)
        nodes = _located(document, divisions, faults.report)
        find_faults(model, nodes, divisions, faults.report)
        if not faults.all():
            return _hierarchy(model, nodes, divisions)
    raise RegionFileError(faults.all())


# --- shape: what each key may hold ---------------------------------------------------------------


def _region_model(document: Mapping[str, Any], report: Report) -> RegionModel:
    """Validate all but the nodes; a faulty key is reported and falls back to its default."""
    header = {key: value for key, value in document.items() if key not in ("nodes", "changes")}
    try:
        return RegionModel.model_validate(header)
    except ValidationError as error:
        faulty = report_shape(error, RegionModel, report)
    return RegionModel.model_construct_without(header, faulty)


def _located(
    document: Mapping[str, Any],
    divisions: Mapping[NodeId, Division],
    report: Report,
) -> list[Located]:
    """Read the nodes' entries, each with its key; those of the table first when all are meant."""
    listed, changes = document.get("nodes"), document.get("changes")
    if listed == "all":
        changed = _entries("changes", changes or [], report)
        given = {each.node.id for each in changed}
        of_table = [Located("nodes", NodeModel(id=code)) for code in divisions if code not in given]
        return of_table + changed
    if changes:
        report("changes", changes, "none, unless `nodes` is all")
    if listed is None:
        report("nodes", "(missing)", "all, or a list of nodes")
        return []
    return _entries("nodes", listed, report)


def _entries(key: str, listed: object, report: Report) -> list[Located]:
    if not isinstance(listed, list):
        report(key, listed, "all, or a list of nodes" if key == "nodes" else "a list of nodes")
        return []
    found = []
    for position, raw in enumerate(listed):
        node = _node_model(f"{key}[{position}]", raw, report)
        if node is not None:
            found.append(Located(f"{key}[{position}]", node))
    return found


def _node_model(key: str, raw: object, report: Report) -> NodeModel | None:
    """Validate one entry; what is wrong is left out, so that the rest is still looked at."""
    try:
        return NodeModel.model_validate(raw)
    except ValidationError as error:
        faulty = report_shape(error, NodeModel, report, prefix=key)
    if not isinstance(raw, dict) or "id" in faulty or "id" not in raw:
        return None
    return NodeModel.model_validate({name: v for name, v in raw.items() if str(name) not in faulty})


# --- meaning -------------------------------------------------------------------------------------


def _hierarchy(
    model: RegionModel, nodes: list[Located], divisions: Mapping[NodeId, Division]
) -> Hierarchy:
    present = frozenset(each.node.id for each in nodes)
    entries = [entry_of(each.node, present, divisions) for each in nodes]
    return Hierarchy(
        region=model.region,
        epoch=model.epoch,
        nodes={entry.node_id: entry for entry in entries},
        rules=tuple(
            CopyRule(level, table, forms)
            for level, tables in model.policies.items()
            for table, forms in tables.items()
        ),
        thresholds=Thresholds(model.thresholds.cell_count_min, dict(model.thresholds.overrides)),
    )


def dump_region(hierarchy: Hierarchy, path: Path | str) -> None:
    """Write a hierarchy as a region file that loads to the same hierarchy; replaces atomically."""
    target = Path(path)
    draft = target.with_name(f".{target.name}.part")
    draft.write_text(region_text(hierarchy), encoding="utf-8")
    draft.replace(target)


def region_text(hierarchy: Hierarchy) -> str:
    """Return a hierarchy as the text of a region file, less what the division table knows."""
    divisions = shipped_divisions()
    present = frozenset(hierarchy.nodes)
    policies: dict[str, dict[str, list[str]]] = {}
    for rule in hierarchy.rules:
        forms = [str(form) for form in rule.forms]
        policies.setdefault(str(rule.level), {})[rule.table] = forms
    thresholds = hierarchy.thresholds
    document = {
        "region": hierarchy.region,
        "epoch": hierarchy.epoch,
        "divisions": "linfen",
        "nodes": [_dumped(entry, present, divisions) for entry in hierarchy.nodes.values()],
        "policies": policies,
        "thresholds": {
            "cell_count_min": thresholds.cell_count_min,
            "overrides": {str(key): least for key, least in thresholds.overrides.items()},
        },
    }
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False, default_flow_style=None)


def _dumped(
    entry: NodeEntry, present: frozenset[NodeId], divisions: Mapping[NodeId, Division]
) -> dict[str, str | None]:
    division = divisions.get(entry.node_id)
    dumped: dict[str, str | None] = {"id": entry.node_id}
    if entry.parent != nearest(entry.node_id, present, divisions):
        dumped["parent"] = entry.parent
    if division is None or division.level is not entry.level:
        dumped["level"] = entry.level.value
    if division is None or division.name_zh != entry.name_zh:
        dumped["name"] = entry.name_zh
    if division is None or division.pinyin != entry.pinyin:
        dumped["pinyin"] = entry.pinyin
    if entry.endpoint is not None:
        dumped["endpoint"] = entry.endpoint
    if entry.profile != entry.level.value:
        dumped["profile"] = entry.profile
    if entry.succeeds is not None:
        dumped["succeeds"] = entry.succeeds
    return dumped
