"""Errors of the cache.

CacheError
└── RedisMissingError     a Redis is named in node.yaml and the extra is not installed
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = ["CacheError", "RedisMissingError"]


class CacheError(NodeError):
    """Base of the cache's errors."""

    code = "CACHE_ERROR"


class RedisMissingError(CacheError):
    """node.yaml names a Redis server, and redis-py is not installed."""

    code = "REDIS_MISSING"
    fault = Fault.OPERATOR
    default_hint = "Install it: pip install 'fenhe[redis]'; or take redis_url out of node.yaml."

    def __init__(self) -> None:
        super().__init__("a cache in Redis needs the extra `redis`, which is not installed")
