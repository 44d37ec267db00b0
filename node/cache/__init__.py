"""Answers kept ready: a resident's record as the bytes that go on the wire.

Owns what is kept and where: in the process, or in a Redis server, behind one contract (Cache). It
promises that what it hands out is a resident as of a stated position of the change log, with every
change up to there taken out, and that nothing clear leaves the process. It never decides who may
see an answer and audits nothing: that is the storage's (node/storage/answers.py), hit or not.

How an answer is never stale
    The cache is a reader of the change log. Its *position* is its cursor: every answer whose
    resident changed up to there is gone. The storage reads, in the very transaction that writes
    the audit entry, whether an identity entry lies beyond that position or waits for its number;
    if one does, the answer kept is left alone and the tables are read. So a kept answer is as
    fresh as a read of the tables, and how quickly the cache follows the log decides only how often
    it helps.

How an old answer never comes back
    An answer is put with the log's head of the transaction it was read in. The cache refuses it
    if its position is beyond that (a change may have been taken out between the read and the put);
    if its position is behind, what follows takes the answer out again when it gets there. Moving
    the position and taking out are one step, as are looking at the position and putting: a lock in
    the process, a script in Redis.

Restart, loss, restore
    In the process a restart begins empty at the log's head. In Redis the position is kept beside
    the answers and is the durable cursor: a restarted node goes on from there, warm. Every start
    from nothing (Redis emptied, its position evicted, the log pruned beyond it or gone back) draws
    a new generation, which is part of every key, so answers of an older one are out of reach. Keys
    carry the store's epoch and incarnation, so a restored database meets no answers of its former
    life.

What Redis sees
    Keys of node, generation and resident id; values sealed under the node's data key and bound to
    node and resident. An answer that does not open counts as not kept. A Redis that is down, slow
    or full costs one log line and a gauge; every read then goes to the tables. Who controls Redis
    can keep an older sealed answer back and replay it: Redis belongs to the node's own machine or
    rack, as its database does.

What is not kept
    Absence (nobody of that id), searches by identifier, records and timelines: they are read from
    the tables each time.
"""

from node.cache.contract import Cache, CachedAnswer, Held
from node.cache.errors import CacheError, RedisMissingError
from node.cache.follower import CacheFollower, ChangedResidents, ChangeSource, FollowerTask
from node.cache.in_process import InProcessCache
from node.cache.redis_cache import RedisCache, StoreLife

__all__ = [
    "Cache",
    "CacheError",
    "CacheFollower",
    "CachedAnswer",
    "ChangeSource",
    "ChangedResidents",
    "FollowerTask",
    "Held",
    "InProcessCache",
    "RedisCache",
    "RedisMissingError",
    "StoreLife",
]
