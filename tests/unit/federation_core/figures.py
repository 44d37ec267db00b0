"""Partial answers written out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.model import Cell, Column, PartialAnswer, Table
from federation.core.partials import partial_columns
from federation.core.plan import LogicalPlan


def site(node_id: str, residents: int = 50, known: int | None = 50) -> SiteCoverage:
    """A live site."""
    return SiteCoverage(node_id, SiteState.LIVE, node_id, 1_000, residents, known)


def answer(
    plan: LogicalPlan, node_id: str, rows: Sequence[Mapping[str, Cell]], hidden: Sequence[int] = ()
) -> PartialAnswer:
    """A site's answer; counts that a row leaves out are its p0_n, other figures null."""
    columns = []
    for part in partial_columns(plan):
        values = tuple(
            None
            if index in hidden and part.name not in row
            else row.get(part.name, _default(part.name, row))
            for index, row in enumerate(rows)
        )
        columns.append(Column(part.name, part.type, values))
    return PartialAnswer(Table(tuple(columns)), tuple(hidden), Coverage((site(node_id),)))


def _default(name: str, row: Mapping[str, Cell]) -> Cell:
    if name == "residents_exact":
        return True
    return row.get("p0_n") if name.endswith(("_n", "residents")) else None
