"""The caller of `point_read`: a process that keeps some calls under way and counts the answers.

Arguments: folder of credentials, address, method ("get" or "echo"), seconds, calls under way, and a
file with one resident id a line.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from pathlib import Path

import protos.fenhe.empi.v1.empi_pb2 as empi
from benchmarks.crew import report
from benchmarks.echo_server import METHOD
from node.security.credentials import load_credentials
from node.security.tls import GrpcLimits, open_channel

_WARM_S = 0.5
_GET = "/fenhe.empi.v1.ResidentService/Get"


async def main(
    credentials: str, address: str, method: str, seconds: str, calls: str, ids: list[str]
) -> None:
    """Warm up, count for the seconds, report calls a second and milliseconds a call."""
    who = load_credentials(Path(credentials))
    requests = cycle([empi.GetResidentRequest(resident_id=each) for each in ids])
    async with open_channel(address, who.server_name, who.tls, GrpcLimits()) as channel:
        answer = empi.Resident if method == "get" else empi.GetResidentRequest
        call = channel.unary_unary(
            _GET if method == "get" else METHOD,
            request_serializer=empi.GetResidentRequest.SerializeToString,
            response_deserializer=answer.FromString,
        )

        async def one() -> None:
            await call(next(requests), timeout=30)

        await _keep(one, _WARM_S, int(calls))
        started = time.perf_counter()
        taken = await _keep(one, float(seconds), int(calls))
        elapsed = time.perf_counter() - started
    ordered = statistics.quantiles(taken, n=100)
    report(
        {
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


if __name__ == "__main__":
    who, where, what, long, many, file = sys.argv[1:]
    asyncio.run(main(who, where, what, long, many, Path(file).read_text().split()))
