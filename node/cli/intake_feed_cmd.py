"""fenhe intake watch|poll|mllp: what keeps running and brings in what appears."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer

import protos.fenhe.node.v1.intake_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.intake_cmd import AsJson, MappingOption, as_dict, load_file, run_line
from node.cli.output import command, errors, out, print_json, printable
from node.cli.secrets import database_of
from node.errors import SettingsError
from node.ingestion.mapping import load_mapping
from node.ingestion.mllp import MllpServer
from node.security.tls import GrpcLimits, open_channel
from protos.fenhe.node.v1 import intake_pb2_grpc

__all__ = ["add_to"]

_CALL_S: Final = 60
_PAUSE_S: Final = 10.0

Once = Annotated[bool, typer.Option("--once", help="Look once and end.")]
Seconds = Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")]


def add_to(app: typer.Typer) -> None:
    """Put the commands on `fenhe intake`."""
    app.command(name="watch")(command(watch))
    app.command(name="poll")(command(poll))
    app.command(name="mllp")(command(mllp))


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder that files are put into.", exists=True)],
    mapping: MappingOption,
    credentials: CredentialsOption = None,
    *,
    every: Seconds = _PAUSE_S,
    once: Once = False,
    as_json: AsJson = False,
) -> None:
    """Load files as they appear in a folder.

    Each that has stopped growing is loaded, then moved to done or failed beside it.
    """
    # Late: it brings the database library with it.
    from node.ingestion.polling import FolderWatch

    load_mapping(mapping)
    seen = FolderWatch(folder)
    seen.ready()

    def look() -> None:
        for path in seen.ready():
            with connected(find_credentials(credentials)) as channel:
                stub = intake_pb2_grpc.IntakeServiceStub(channel)
                run = load_file(stub, path, mapping, quiet=as_json)
            moved = seen.put_away(path, failed=run.state == "failed")
            _tell(run, as_json, f"{moved.parent.name}/{moved.name}")

    _again(look, every, once=once)


def poll(
    url: Annotated[str, typer.Argument(help="SQLAlchemy URL, or @FILE that holds it.")],
    table: Annotated[str, typer.Option(help="Table or view to read.")],
    watermark: Annotated[str, typer.Option(help="Column that rises with every change.")],
    mapping: MappingOption,
    credentials: CredentialsOption = None,
    *,
    every: Seconds = _PAUSE_S,
    once: Once = False,
    as_json: AsJson = False,
) -> None:
    """Read a table of another system from where the last poll ended. The node remembers where."""
    # Late: it brings the database library with it.
    from node.ingestion.polling import TablePoll

    model, _ = load_mapping(mapping)
    if model.format != "rows":
        raise SettingsError(
            "a table is read under a mapping of format rows", hint="Set format: rows in it."
        )
    source = TablePoll(database_of(url), table, watermark)

    def look() -> None:
        with connected(find_credentials(credentials)) as channel:
            stub = intake_pb2_grpc.IntakeServiceStub(channel)
            last = stub.Watermark(pb.WatermarkRequest(source=model.source), timeout=_CALL_S)
            with tempfile.TemporaryDirectory(prefix="fenhe-poll-") as place:
                rows = Path(place) / "rows.jsonl"
                with rows.open("wb") as file:
                    count, newest = source.write_since(last.watermark, file)
                if count:
                    run = load_file(stub, rows, mapping, quiet=as_json, watermark=newest)
                    _tell(run, as_json, f"{count} rows up to {newest}")

    _again(look, every, once=once)


def mllp(
    mapping: MappingOption,
    credentials: CredentialsOption = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 chooses one.")] = "127.0.0.1:2575",
    as_json: AsJson = False,
) -> None:
    """Listen for HL7 v2 over MLLP.

    A message is acknowledged once the node has it durably.
    MLLP itself has neither encryption nor callers: listen on the loopback or a line of your own.
    """
    _, text = load_mapping(mapping)
    who = find_credentials(credentials)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError("--listen is HOST:PORT", hint="Such as 127.0.0.1:2575.")
    asyncio.run(_serve(who, text, (host, int(port)), as_json))


async def _serve(who: Any, mapping: str, place: tuple[str, int], as_json: bool) -> None:
    async with open_channel(who.address, who.server_name, who.tls, GrpcLimits()) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        server = MllpServer(lambda messages: _converse(stub, mapping, messages))
        await server.start(*place)
        if as_json:
            print_json({"listening": server.address})
        else:
            out.print(f"Listening on {server.address}; Ctrl-C ends.", markup=False)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await stopping.wait()
        await server.stop()


async def _converse(
    stub: Any, mapping: str, messages: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """One connection: one stream to the node; if that ends, so does the connection.

    What was not acknowledged is sent again by whoever sent it.
    """

    async def asked() -> AsyncIterator[pb.MessageIn]:
        first = True
        async for data in messages:
            yield pb.MessageIn(mapping=mapping if first else "", data=data)
            first = False

    try:
        async for answer in stub.Messages(asked()):
            yield answer.data
    except grpc.aio.AioRpcError as error:
        errors.print(f"the node ended the stream: {error.code().name}", markup=False)


def _again(look: Callable[[], None], every: float, *, once: bool) -> None:
    """Look until Ctrl-C; what fails is said and tried again."""
    pause = threading.Event()
    if once:
        pause.wait(every)
        look()
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                look()
            except grpc.RpcError as error:
                code = getattr(error, "code", lambda: None)()
                errors.print(f"not now: {code}; again in {every:g} s", markup=False)
            pause.wait(every)


def _tell(run: pb.Run, as_json: bool, what: str) -> None:
    if as_json:
        print_json(as_dict(run))
    else:
        out.print(f"{printable(what)}: {run_line(run)}", markup=False, soft_wrap=True)
