"""The name of a member of the region, as the URI and the DNS name that a certificate carries.

    node      spiffe://linfen/141002001               n141002001.n141002.n1410.linfen.fenhe
    others    spiffe://linfen/141002001/client/his-1  client-his-1.n141002001.n141002.….fenhe

The URI says who it is. The DNS name says the same in a form that name constraints confine to the
subtree of the issuing node: URI constraints see only the host (RFC 5280, 4.2.1.10).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hierarchy_config.model import NodeId
from node.security.caller import CallerKind
from node.security.errors import PeerIdentityError

__all__ = ["NAME_CHARACTERS_MAX", "Principal", "parse_principal"]

NAME_CHARACTERS_MAX: Final = 48
"""With the longest kind before it, a name stays one DNS label (63 characters)."""

_NAME: Final = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{NAME_CHARACTERS_MAX - 2}}}[a-z0-9])?")
_URI: Final = re.compile(
    r"spiffe://(?P<region>[a-z0-9][a-z0-9-]*)/(?P<node>[0-9]{4,12})"
    r"(?:/(?P<kind>[a-z]+)/(?P<name>[a-z0-9-]+))?"
)


@dataclass(frozen=True, slots=True)
class Principal:
    """A node (kind NODE, empty name), or someone under the authority of one.

    Raises:
        PeerIdentityError: The name is not 1 to 48 lower-case letters, digits and inner hyphens,
            or a node has one.
    """

    region: str
    node_id: NodeId
    kind: CallerKind = CallerKind.NODE
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind is CallerKind.NODE:
            if self.name:
                raise PeerIdentityError("a node has no name besides its id")
        elif not _NAME.fullmatch(self.name):
            raise PeerIdentityError(
                f"{self.name!r} cannot name a {self.kind}",
                hint=f"Use 1 to {NAME_CHARACTERS_MAX} of a-z, 0-9 and hyphens between them.",
            )

    @property
    def spiffe_id(self) -> str:
        """The URI of its certificates."""
        node = f"spiffe://{self.region}/{self.node_id}"
        return node if self.kind is CallerKind.NODE else f"{node}/{self.kind}/{self.name}"

    def dns_name(self, node_dns_name: str) -> str:
        """The DNS name of its certificates, given that of its node."""
        if self.kind is CallerKind.NODE:
            return node_dns_name
        return f"{self.kind}-{self.name}.{node_dns_name}"


def parse_principal(uri: str) -> Principal:
    """The principal that a URI names.

    Raises:
        PeerIdentityError: It is not written exactly as `Principal.spiffe_id` writes it.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise PeerIdentityError("the URI of the certificate names no member of a region")
    region, node_id = match["region"], NodeId(match["node"])
    if match["kind"] is None:
        return Principal(region, node_id)
    try:
        kind = CallerKind(match["kind"])
    except ValueError:
        raise PeerIdentityError("the certificate names an unknown kind of caller") from None
    # Kind NODE with a name is refused by Principal itself.
    return Principal(region, node_id, kind, match["name"])
