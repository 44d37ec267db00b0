"""The other side of `point_read`: an echo on the node's own stack, without interceptor or store.

Arguments: data folder of the node whose certificate and limits it takes. The same grpc.aio server,
options and mutual TLS; each call parses a request and serialises it again. Prints its address and
serves until its input ends.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import grpc

import protos.fenhe.empi.v1.empi_pb2 as empi
from node.clock import SystemClock
from node.foundations import read_foundations
from node.security.tls import ServerCertificates, server_options

__all__ = ["METHOD"]

METHOD: Final = "/fenhe.benchmark.Echo/Echo"


async def _echo(
    request: empi.GetResidentRequest, _context: grpc.aio.ServicerContext[Any, Any]
) -> empi.GetResidentRequest:
    return request


async def main(data_dir: Path) -> None:
    """Serve until standard input ends."""
    base = read_foundations(data_dir, SystemClock())
    server = grpc.aio.server(options=server_options(base.limits))
    _, service, method = METHOD.split("/")
    handler = grpc.unary_unary_rpc_method_handler(
        _echo,
        request_deserializer=empi.GetResidentRequest.FromString,
        response_serializer=empi.GetResidentRequest.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    credentials = ServerCertificates(base.credentials.tls).credentials()
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
