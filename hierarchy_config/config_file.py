"""Reading a YAML configuration file so that all its faults are shown together.

Owns the fault (file, key, value, what was expected), a YAML reader that refuses a key standing
twice, and the translation of pydantic's errors into faults. Knows no particular file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

__all__ = ["ConfigFault", "FaultList", "Report", "read_text", "read_yaml", "report_shape"]

Report = Callable[[str, object, str], None]
"""Takes a fault: key, value, what was expected."""


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing wrong with a configuration file: where, what stands there, what was expected."""

    file: str
    key: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.value}: expected {self.expected}"


class FaultList:
    """Gathers the faults of one file in the order they are found."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._faults: list[ConfigFault] = []

    def report(self, key: str, value: object, expected: str) -> None:
        """Add a fault; a long value is cut."""
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        self._faults.append(ConfigFault(self._file, key, shown, expected))

    def all(self) -> tuple[ConfigFault, ...]:
        """Return what was reported so far."""
        return tuple(self._faults)


def read_text(path: Path, report: Report) -> str | None:
    """Return the file's text, or None after reporting why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        report("(file)", error.strerror or "unreadable", "a readable YAML file")
    except UnicodeDecodeError:
        report("(file)", "not UTF-8", "a YAML file in UTF-8")
    return None


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
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of SafeLoader  # nosec B506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(file)"
        report(place, error.problem or "", "YAML")
        return None
    except yaml.YAMLError as error:
        report("(file)", str(error).splitlines()[0], "YAML")
        return None
    except (ValueError, RecursionError):
        # A date that no calendar has, a number of thousands of digits, lists in lists without end.
        report("(file)", "a value that cannot be read", "YAML")
        return None
    if not isinstance(document, dict):
        report("(file)", type(document).__name__, "a mapping of keys to values")
        return None
    return document


def report_shape(
    error: ValidationError, model: type[BaseModel], report: Report, *, prefix: str = ""
) -> set[str]:
    """Report each error of `model` under its key and return the top-level keys at fault."""
    keys: set[str] = set()
    for each in error.errors(include_url=False):
        location = [part for part in each["loc"] if part != "[key]"]
        key = prefix
        for part in location:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
        value = "(missing)" if each["type"] == "missing" else each["input"]
        report(key or "(file)", value, _expected(each["type"], each["msg"], model, location))
        keys.add(str(location[0]) if location else "")
    return keys


def _expected(kind: str, message: str, model: type[BaseModel], location: list[int | str]) -> str:
    match kind:
        case "missing":
            return "a value: this key is required"
        case "model_type" | "dict_type":
            return "a mapping of keys to values"
        case "extra_forbidden":
            holder = model
            for part in location[:-1]:
                inner = holder.model_fields[str(part)].annotation
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    holder = inner
            return "a known key (" + ", ".join(holder.model_fields) + ")"
        case _:
            return message.removeprefix("Value error, ").removeprefix("Input should be ")
