"""Every stable code that a user, an operator or a peer can meet, gathered from the code itself.

`python -m tests.house.catalogue` prints the rows of docs/errors.md that the code would have, so
that a missing one can be pasted.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hierarchy_config.errors import Fault, FenheError
from tests.house.tree import import_everything, python_files, syntax

_CODE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
# What makes the codes that close a link or stand in a refusing receipt: their first argument.
_LINK_CALLS = {"Refusal", "ReceiptFault", "LinkEnded", "_close", "_refuse"}

_WHOSE = {
    Fault.CALLER: "the caller's",
    Fault.PEER: "the peer's",
    Fault.OPERATOR: "the operator's",
    Fault.HERE: "this node's",
}


def error_classes() -> dict[str, type[FenheError]]:
    """Code → the class that carries it, for every error of the rooms.

    Raises:
        ValueError: Two classes share a code.
    """
    import_everything()
    found: dict[str, type[FenheError]] = {}
    for cls in _subclasses(FenheError):
        if "code" not in vars(cls) or cls.__module__.startswith("tests."):
            continue
        known = found.setdefault(cls.code, cls)
        if known is not cls:
            raise ValueError(f"{cls.code}: {known.__qualname__} and {cls.__qualname__}")
    return found


def _subclasses(cls: type[FenheError]) -> Iterator[type[FenheError]]:
    for below in cls.__subclasses__():
        yield below
        yield from _subclasses(below)


def bundle_codes() -> Mapping[str, str]:
    """What may be wrong with a row of a bundle, with its meaning."""
    codes: Mapping[str, str] = importlib.import_module("node.records.checks").FAULT_CODES
    return codes


def refusal_codes() -> dict[str, tuple[str, str]]:
    """Why a question is refused: code → meaning, nearest allowed form."""
    refusals = importlib.import_module("federation.core.refusals").REFUSALS
    return {code.value: (rule.meaning, rule.nearest) for code, rule in refusals.items()}


def link_codes() -> set[str]:
    """Codes that end or refuse something on a link without being an exception."""
    admission = importlib.import_module("replication.core.admission")
    causes = {cause.value for cause in admission.Cause}
    offer = importlib.import_module("replication.core.inbound").Offer
    causes |= {offer.GAP.value, offer.DIGEST.value, offer.STREAM_EPOCH.value}
    named = {code for path in python_files("replication") for code in _first_arguments(path)}
    return (causes | named) - set(error_classes())


def _first_arguments(path: Path) -> Iterator[str]:
    for node in ast.walk(syntax(path)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).split(".")[-1]
        for argument in node.args[:2] if name in _LINK_CALLS else ():
            if (
                isinstance(argument, ast.Constant)
                and isinstance(argument.value, str)
                and _CODE.fullmatch(argument.value)
            ):
                yield argument.value


def all_codes() -> set[str]:
    """Every code there is."""
    return set(error_classes()) | set(bundle_codes()) | set(refusal_codes()) | link_codes()


def rows() -> Iterator[str]:
    """The rows of docs/errors.md, in its sections' order."""

    def cells(*texts: str) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") or "–" for text in texts) + " |"

    by_room: dict[str, list[type[FenheError]]] = {}
    for cls in error_classes().values():
        by_room.setdefault(cls.__module__.split(".")[0], []).append(cls)
    for room, classes in by_room.items():
        yield f"\n## {room}\n"
        yield "| code | meaning | whose fault | next step |\n|---|---|---|---|"
        for cls in sorted(classes, key=lambda c: c.code):
            meaning = (cls.__doc__ or "").strip().split("\n")[0]
            again = "; trying again may help" if cls.retryable else ""
            yield cells(f"`{cls.code}`", meaning, _WHOSE[cls.fault] + again, cls.default_hint)
    yield "\n## bundles\n\n| code | meaning |\n|---|---|"
    for code, meaning in bundle_codes().items():
        yield cells(f"`{code}`", meaning)
    yield "\n## questions\n\n| code | meaning | nearest allowed form |\n|---|---|---|"
    for code, (meaning, nearest) in refusal_codes().items():
        yield cells(f"`{code}`", meaning, nearest)
    yield "\n## links\n\n| code | meaning | next step |\n|---|---|---|"
    yield from (cells(f"`{code}`", "", "") for code in sorted(link_codes()))


if __name__ == "__main__":
    print("\n".join(rows()))
