"""YAML that refuses what a person would not notice: a key that stands twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

__all__ = ["Report", "read_yaml"]

Report = Callable[[str, object, str], None]
"""Takes a fault: key, value, what was expected."""


class _StrictLoader(yaml.SafeLoader):
    """Safe loader; a repeated key is an error (the standard keeps the last without a word)."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int)):
            raise yaml.constructor.ConstructorError(
                None, None, "a key that is no word", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(text: str, report: Report) -> Mapping[str, Any] | None:
    """Return the document's mapping, or None after reporting why it has none."""
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(file)"
        report(place, error.problem or "", "YAML")
        return None
    except yaml.YAMLError as error:
        report("(file)", str(error).splitlines()[0], "YAML")
        return None
    if not isinstance(document, dict):
        report("(file)", type(document).__name__, "a mapping of keys to values")
        return None
    return document
