"""An epoch in sentences, for the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hierarchy_config import NodeId
from node.region.context import parse_body
from node.region.errors import RegionStatementError
from node.region.store import EpochRow, EpochState

__all__ = ["progress_of", "signed_by"]

_FACTS = (
    ("renewed", "has its certificate", "waits for its certificate"),
    ("resent", "has logged again what others need", "logs again what others need"),
    ("seeded", "is held by its parent", "is not all held by its parent yet"),
)


def signed_by(row: EpochRow) -> tuple[str, str, str]:
    """Who asked for an epoch, when it was signed, why; empty if a file was put in place by hand."""
    if row.offer is None:
        return "", "", ""
    try:
        body = parse_body(str(parse_body(row.offer)["body"]).encode())
    except (RegionStatementError, KeyError):
        return "", "", ""
    return str(body.get("by", "")), str(body.get("at", "")), str(body.get("note", ""))


def progress_of(row: EpochRow, standing: Mapping[NodeId, Mapping[str, Any]]) -> list[str]:
    """How far the effects of an epoch are, one sentence a node that was asked."""
    return list(_progress_of(row, standing))


def _progress_of(row: EpochRow, standing: Mapping[NodeId, Mapping[str, Any]]) -> Iterator[str]:
    if row.state is EpochState.PENDING:
        if row.progress.get("draining"):
            yield "decided; waits until what is closed has delivered everything"
        else:
            yield "decided, not in force here yet" if row.decision else "offered, not decided"
        return
    if row.progress.get("settled"):
        yield "settled"
        return
    if row.offer is None or row.state is EpochState.SUPERSEDED:
        return
    yield "old branches were told to delete" if row.purge_order else "can be rolled back"
    for node_id, facts in sorted(standing.items()):
        if "away" in facts:
            yield f"{node_id} does not answer ({facts['away']})"
            continue
        said = [yes if facts.get(name) else no for name, yes, no in _FACTS]
        if facts.get("taken"):
            said.append("has taken over the closed node")
        if facts.get("purged"):
            said.append("has deleted what left it")
        yield f"{node_id} is at epoch {facts.get('epoch')}, {', '.join(said)}"
