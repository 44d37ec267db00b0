"""The caller of `point_read` and `trust_cost`: keeps some calls under way and counts the answers.

Arguments: folder of credentials, address, method ("get" or "echo"), seconds, calls under way, a
file with one resident id a line, and, for one who has signed in, a file with his token.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import protos.fenhe.empi.v1.empi_pb2 as empi
from benchmarks.crew import report
from benchmarks.echo_server import METHOD
from node.security.credentials import load_credentials
from node.security.tls import GrpcLimits, open_channel

_WARM_S = 0.5
_GET = "/fenhe.empi.v1.ResidentService/Get"


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to ask, how, and with what right."""

    credentials: Path
    address: str
    method: str
    seconds: float
    calls: int
    ids: list[str]
    token: str = ""


async def main(asked: Asked) -> None:
    """Warm up, count for the seconds, report calls a second and milliseconds a call."""
    who = load_credentials(asked.credentials)
    requests = cycle([empi.GetResidentRequest(resident_id=each) for each in asked.ids])
    shown = (("authorization", f"Bearer {asked.token}"),) if asked.token else ()
    async with open_channel(asked.address, who.server_name, who.tls, GrpcLimits()) as channel:
        is_get = asked.method == "get"
        answer = empi.Resident if is_get else empi.GetResidentRequest
        call = channel.unary_unary(
            _GET if is_get else METHOD,
            request_serializer=empi.GetResidentRequest.SerializeToString,
            response_deserializer=answer.FromString,
        )

        async def one() -> None:
            await call(next(requests), timeout=30, metadata=shown)

        warm = await _keep(one, _WARM_S, asked.calls)
        started = time.perf_counter()
        taken = await _keep(one, asked.seconds, asked.calls)
        elapsed = time.perf_counter() - started
    ordered = statistics.quantiles(taken, n=100)
    report(
        {
            "calls": len(warm) + len(taken),
            "calls_s": len(taken) / elapsed,
            "p50_ms": ordered[49] * 1000,
            "p99_ms": ordered[98] * 1000,
        }
    )


async def _keep(one: Callable[[], Awaitable[None]], seconds: float, calls: int) -> list[float]:
    """Seconds of each call that ended, with `calls` under way all the time."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (started := time.perf_counter()) < until:
            await one()
            taken.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(calls):
            group.create_task(caller())
    return taken


def _read(arguments: list[str]) -> Asked:
    who, where, what, long, many, ids, *token = arguments
    return Asked(
        Path(who),
        where,
        what,
        float(long),
        int(many),
        Path(ids).read_text(encoding="utf-8").split(),
        Path(token[0]).read_text(encoding="utf-8") if token else "",
    )


if __name__ == "__main__":
    asyncio.run(main(_read(sys.argv[1:])))
