"""This node's links: the one it dials to its parent, and those its children dial to it.

Owns which links are up, dials the parent for ever, routes questions hop by hop, and says how each
link is. Promises that no question leaves but over a link and that a peer is who its certificate
says. Never opens a connection to a child: a parent does not dial.
"""

from node.links.hub import LinkHub, LinkState, ParentLink
from node.links.streams import ClientStream, ServerStream

__all__ = ["ClientStream", "LinkHub", "LinkState", "ParentLink", "ServerStream"]
