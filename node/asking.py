"""As whom a question is asked: its purpose, its scope, and whose consents bind it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from federation.core.model import Audience, Manifest, QueryRequest
from hierarchy_config import Hierarchy, NodeId
from node.consent.words import recipients_for
from node.errors import DeniedError
from node.security.caller import Caller, CallerKind
from node.security.purposes import Purpose, purposes_of_count

__all__ = ["asked_by", "audience_of"]


def asked_by(
    request: QueryRequest, caller: Caller, here: NodeId, hierarchy: Hierarchy
) -> QueryRequest:
    """The question as the caller may ask it: with a purpose, and of no more than his divisions.

    A certificate asks of the whole subtree of its node; a member of staff of the divisions that he
    is an analyst of.

    Raises:
        DeniedError: He is an analyst of another division than he asks of, or of several and has
            named none.
    """
    purpose = request.purpose
    if not purpose and caller.purpose != Purpose.OPERATION:
        purpose = caller.purpose
    if caller.kind is not CallerKind.STAFF:
        return replace(request, purpose=purpose)
    allowed = caller.asks & hierarchy.subtree(here)
    scope = NodeId(request.scope) if request.scope else _widest(allowed, hierarchy)
    if scope not in allowed:
        raise DeniedError(
            "a question is for the division that its asker is an analyst of, or one below it",
            hint="Name one with --scope; `fenhe role list` shows yours.",
        )
    return replace(request, purpose=purpose, scope=scope)


def _widest(nodes: Collection[NodeId], hierarchy: Hierarchy) -> NodeId | None:
    """The one of the nodes that all others are below; None if there is none."""
    for node in nodes:
        if hierarchy.subtree(node) >= frozenset(nodes):
            return node
    return None


def audience_of(manifest: Manifest, hierarchy: Hierarchy, day: str) -> Audience:
    """Whose consents bind a question on a day: all words that they may have for who asks it."""
    asker = NodeId(manifest.asking_node)
    path = hierarchy.path_to_root(asker) if asker in hierarchy else ()
    return Audience(
        purposes_of_count(manifest.purpose),
        tuple(recipients_for(manifest.organization_id, path)),
        day,
    )
