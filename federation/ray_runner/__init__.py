"""The Ray executor: tasks in warm actors of a Ray session that belongs to one node.

Ray runs in a process of its own (`host`), started before gRPC is loaded there and spoken to over
its pipes; the node's own process never imports ray. The session lives on this machine only: bound
to loopback, with a token of its own, in a private folder that is removed at the stop. Every child
is asked through the node's own loopback service; no worker dials another node. Scans, merges and
asks run inside Ray's workers, and every result says where.
"""

from __future__ import annotations

from federation.ray_runner.executor import RayExecutor
from federation.ray_runner.messages import Loopback, RaySettings

__all__ = ["Loopback", "RayExecutor", "RaySettings"]
