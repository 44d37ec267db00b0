"""The hierarchy as federation asks it: sites are plain strings, since they come from the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId

__all__ = ["SiteTree", "places_of"]


class SiteTree:
    """One configuration epoch. Methods raise NodeUnknownError for a site that is not in it."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy

    def __contains__(self, site: str) -> bool:
        return site in self._hierarchy

    @property
    def epoch(self) -> int:
        """Number of the configuration."""
        return self._hierarchy.epoch

    @property
    def largest_threshold(self) -> int:
        """The largest cell_count_min of any node."""
        return max(map(self._hierarchy.cell_count_min, self._hierarchy.nodes))

    def children(self, site: str) -> tuple[str, ...]:
        """The sites directly below, by id."""
        return self._hierarchy.children(NodeId(site))

    def subtree(self, site: str) -> frozenset[str]:
        """The site and everything below it."""
        return frozenset[str](self._hierarchy.subtree(NodeId(site)))

    def path_to_root(self, site: str) -> tuple[str, ...]:
        """The site, its parent, … and the root last."""
        return self._hierarchy.path_to_root(NodeId(site))

    def next_hop(self, start: str, target: str) -> str:
        """The child of `start` whose subtree holds `target`."""
        return self._hierarchy.next_hop(NodeId(start), NodeId(target))

    def cell_count_min(self, sites: Iterable[str]) -> int:
        """The largest threshold of some sites; 1 for none."""
        return max((self._hierarchy.cell_count_min(NodeId(site)) for site in sites), default=1)


def places_of(hierarchy: Hierarchy) -> Mapping[str, tuple[str | None, str | None]]:
    """Home → (township, county) of every node, for the columnar replica's `places`."""
    return {
        site: (
            hierarchy.ancestor_at(site, CareLevel.TOWNSHIP),
            hierarchy.ancestor_at(site, CareLevel.COUNTY),
        )
        for site in hierarchy.nodes
    }
