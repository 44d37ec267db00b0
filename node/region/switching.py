"""The files of a switch from one epoch to the next, each written whole or not at all.

The order: the former region file (what the node's certificate may still be named by), the settings,
the region file. Whoever finds the region file of an epoch finds the others too. A death before it
may leave a node without its parent's address; it starts all the same, and writes the rest.
"""

from __future__ import annotations

from hierarchy_config import Hierarchy, load_region
from node.foundations import Foundations
from node.security.key_files import write_public
from node.settings import save_settings

__all__ = ["write_epoch"]


def write_epoch(base: Foundations, text: str, hierarchy: Hierarchy) -> None:
    """Put a region file in place of the one in force. Durable on return; twice does no harm."""
    region = base.paths.data / base.settings.region
    if load_region(region).epoch == hierarchy.epoch:
        return
    # Two changes may pass before a certificate is renewed: the file is of the name it carries.
    if not base.credentials.is_former:
        write_public(base.paths.former_region, region.read_bytes())
    node_id = base.node_id
    if hierarchy.parent(node_id) != base.hierarchy.parent(node_id):
        # It is the address of the former parent.
        save_settings(base.paths.data, base.settings.model_copy(update={"parent_endpoint": None}))
    write_public(region, text.encode("utf-8"))
