"""What the node and the host of its Ray session say to each other, over two pipes.

A frame is four bytes of length and a pickle. Both ends are this program under one user, and the
pipes have no name that another could open, so what arrives is as trusted as the program itself.
"""

from __future__ import annotations

import asyncio
import pickle  # nosec B403
import struct
from dataclasses import dataclass
from typing import Protocol

from federation.columnar import SnapshotFiles
from federation.core.coverage import SiteCoverage
from federation.core.model import PartialAnswer, SiteProgress
from federation.executors.stage import Stage

__all__ = [
    "Cancelled",
    "Failed",
    "Finished",
    "FromHost",
    "FromNode",
    "Loopback",
    "LoopbackIssuer",
    "Partition",
    "RaySettings",
    "Ready",
    "StageFor",
    "Stepped",
    "pack",
    "read_frame",
]

_LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loopback:
    """How a worker reaches its own node's ExecutorService: one query's certificate, PEM."""

    address: str
    server_name: str
    root_pem: bytes
    certificate_pem: bytes
    key_pem: bytes


class LoopbackIssuer(Protocol):
    """Supplied by the node: a certificate of kind executor, for one query."""

    def __call__(self, query_id: str, lifetime_ms: int) -> Loopback: ...


@dataclass(frozen=True, slots=True)
class RaySettings:
    """What the session may use; from the hardware profile.

    `memory_mb` and `threads` are DuckDB's over all workers. `asks_max` bounds the children that one
    worker asks at once.
    """

    workers: int
    object_store_mb: int = 80
    memory_mb: int = 512
    threads: int = 2
    asks_max: int = 32


@dataclass(frozen=True, slots=True)
class HostStart:
    """The first frame to the host. `session` is the folder that Ray lives in."""

    settings: RaySettings
    session: str
    replica: str


@dataclass(frozen=True, slots=True)
class Partition:
    """The sites that one worker counts."""

    lines: tuple[SiteCoverage, ...]


@dataclass(frozen=True, slots=True)
class StageFor:
    """A stage for the host; `files` is there if there is anything to scan."""

    number: int
    stage: Stage
    loopback: Loopback | None
    files: SnapshotFiles | None
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The node has lost interest in a stage."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The session is up; one line a worker."""

    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stepped:
    """A child was asked or has answered."""

    number: int
    step: SiteProgress


@dataclass(frozen=True, slots=True)
class Finished:
    """A stage's result; `is_damaged` if a worker could not read a segment."""

    number: int
    answer: PartialAnswer
    open_sites: tuple[SiteCoverage, ...]
    tasks: tuple[str, ...]
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A stage could not be run. `is_ray` if Ray is at fault, else it is a fault of the program."""

    number: int
    is_ray: bool
    text: str


FromNode = HostStart | StageFor | Cancelled
FromHost = Ready | Stepped | Finished | Failed


def pack(message: FromNode | FromHost) -> bytes:
    """A frame."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> FromNode | FromHost | None:
    """The next message; None at the end of the pipe, also in the middle of a frame."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > FRAME_BYTES_MAX:
            return None
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    message: FromNode | FromHost = pickle.loads(body)  # noqa: S301 - see the module's docstring  # nosec B301
    return message
