"""Statements that read segments, their dead rows and the delta as one relation.

Pure text, shared by the node (delta and dead rows in memory) and by Ray's workers (both as files).
"""

# ruff: noqa: S608 - statements are made of the schema's own names, quoted where they are data.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from federation.columnar.schema import COLUMN_NAMES, identifier, literal

__all__ = ["SegmentPart", "SiteColumn", "dead_positions", "relation", "site_filter"]


class SiteColumn(StrEnum):
    """Which column says at which site a row counts."""

    HOME = "home"
    AUTHOR = "author"


@dataclass(frozen=True, slots=True)
class SegmentPart:
    """A segment as a reader needs it; `path` is absolute."""

    path: str
    number: int
    rows: int
    homes: frozenset[str]
    authors: frozenset[str]
    resident_rows: int
    has_dead: bool

    def sites(self, column: SiteColumn) -> frozenset[str]:
        """Every value of the site column in the file."""
        return self.homes if column is SiteColumn.HOME else self.authors


def site_filter(column: SiteColumn, sites: frozenset[str]) -> str:
    """The condition that keeps the rows of some sites; false for none."""
    if not sites:
        return "false"
    listed = ", ".join(literal(site) for site in sorted(sites))
    return f"{identifier(column.value)} IN ({listed})"


def dead_positions(dead: str, dataset: str, number: int) -> str:
    """A relation `position` of the superseded rows of one segment; `dead` is a relation."""
    return f"SELECT position FROM {dead} WHERE dataset = {literal(dataset)} AND segment = {number}"


def relation(
    dataset: str,
    segments: Sequence[SegmentPart],
    *,
    dead: str,
    delta: str | None,
    column: SiteColumn,
    sites: frozenset[str] | None,
) -> str:
    """The SELECT of all live rows of a dataset at some sites; None means every site.

    Segments without any of the sites are not opened; those with no others are not filtered.
    """
    names = ", ".join(identifier(name) for name in COLUMN_NAMES[dataset])
    branches = list(_segment_branches(dataset, segments, dead, column, sites))
    if delta is not None:
        condition = "" if sites is None else f" WHERE {site_filter(column, sites)}"
        branches.append(f"SELECT {names} FROM {delta}{condition}")
    if not branches:
        # Columns and types without rows.
        branches.append(f"SELECT {names} FROM {_empty(dataset)} WHERE false")
    return "\nUNION ALL\n".join(branches)


def _empty(dataset: str) -> str:
    return identifier(f"delta_{dataset}")


def _segment_branches(
    dataset: str,
    segments: Sequence[SegmentPart],
    dead: str,
    column: SiteColumn,
    sites: frozenset[str] | None,
) -> Iterator[str]:
    names = ", ".join(identifier(name) for name in COLUMN_NAMES[dataset])
    whole: list[str] = []
    filtered: list[str] = []
    for segment in segments:
        present = segment.sites(column)
        if sites is not None and not present & sites:
            continue
        needs_filter = sites is not None and not present <= sites
        if segment.has_dead:
            condition = f" WHERE {site_filter(column, sites)}" if sites and needs_filter else ""
            yield (
                f"SELECT {names} FROM "
                f"read_parquet({literal(segment.path)}, file_row_number = true) AS stored "
                f"ANTI JOIN ({dead_positions(dead, dataset, segment.number)}) AS dead "
                f"ON stored.file_row_number = dead.position{condition}"
            )
        else:
            (filtered if needs_filter else whole).append(literal(segment.path))
    if whole:
        yield f"SELECT {names} FROM read_parquet([{', '.join(whole)}])"
    if filtered and sites is not None:
        yield (
            f"SELECT {names} FROM read_parquet([{', '.join(filtered)}]) "
            f"WHERE {site_filter(column, sites)}"
        )
