"""What an answer covers: one line a site, and totals that are null where one part is unknown.

An offline node is data here, never an exception and never silently absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from federation.errors import DuplicateSiteError

__all__ = ["COUNTED_STATES", "Coverage", "SiteCoverage", "SiteState", "merge_coverage"]


class SiteState(StrEnum):
    """How one site took part in an answer."""

    LIVE = "live"
    REPLICA = "replica"
    MISSING = "missing"
    SEEDING = "seeding"
    NO_ANALYTICS = "no_analytics"
    IN_TRANSFER = "in_transfer"
    DENIED = "denied"


COUNTED_STATES = frozenset({SiteState.LIVE, SiteState.REPLICA})
"""States in which a site's rows are in the answer in full, as of `as_of_ms`."""


@dataclass(frozen=True, slots=True)
class SiteCoverage:
    """One site's part.

    `as_of_ms` is milliseconds since 1970 UTC, None when nothing of the site is counted.
    `residents_known` comes from the parent's main index, None if unknown. `residents_quarantined`
    have a row that waits in the quarantine of whoever answered: they are not in
    `residents_covered`. `reason` is one sentence when the site is not counted, else empty.
    """

    node_id: str
    state: SiteState
    answered_by: str = ""
    as_of_ms: int | None = None
    residents_covered: int = 0
    residents_known: int | None = None
    residents_quarantined: int = 0
    reason: str = ""

    @property
    def is_counted(self) -> bool:
        """Whether the site's rows are in the answer."""
        return self.state in COUNTED_STATES

    @property
    def is_complete(self) -> bool:
        """Whether the site is counted for every resident known to live there; unknown is not.

        An index may lag behind the site, so a quarantined resident is looked at by himself.
        """
        known = self.residents_known
        if not self.is_counted or known is None or self.residents_quarantined:
            return False
        return self.residents_covered >= known


@dataclass(frozen=True, slots=True)
class Coverage:
    """Every site of the scope once, by node id; totals are computed, never carried beside them."""

    sites: tuple[SiteCoverage, ...] = ()
    cells_suppressed: int = 0
    cell_count_min: int = 1

    @property
    def residents_covered(self) -> int:
        """Residents whose data was counted."""
        return sum(site.residents_covered for site in self.sites)

    @property
    def residents_known(self) -> int | None:
        """Residents homed in the scope; None if any site's figure is unknown."""
        total = 0
        for site in self.sites:
            if site.residents_known is None:
                return None
            total += site.residents_known
        return total

    @property
    def missing(self) -> tuple[SiteCoverage, ...]:
        """Sites whose rows are not in the answer."""
        return tuple(site for site in self.sites if not site.is_counted)

    @property
    def is_complete(self) -> bool:
        """Whether no site is missing or short of known residents and no cell is withheld."""
        return self.cells_suppressed == 0 and all(site.is_complete for site in self.sites)

    def site(self, node_id: str) -> SiteCoverage | None:
        """The line of one site, or None if it is not in the scope."""
        return next((site for site in self.sites if site.node_id == node_id), None)


def merge_coverage(parts: Iterable[Coverage]) -> Coverage:
    """The union of disjoint coverages; order of the parts does not matter.

    Raises:
        DuplicateSiteError: A site stands in two parts, so its rows would count twice.
    """
    sites: dict[str, SiteCoverage] = {}
    cells_suppressed = 0
    cell_count_min = 1
    for part in parts:
        cells_suppressed += part.cells_suppressed
        cell_count_min = max(cell_count_min, part.cell_count_min)
        for site in part.sites:
            if site.node_id in sites:
                raise DuplicateSiteError(f"site {site.node_id} is covered by two partial answers")
            sites[site.node_id] = site
    ordered = tuple(sites[node_id] for node_id in sorted(sites))
    return Coverage(ordered, cells_suppressed, cell_count_min)
