"""fenhe replication export|import: bundles on a stick, where no network reaches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.bundles_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import (
    EXIT_FAILED,
    command,
    errors,
    format_bytes,
    out,
    print_json,
    print_table,
    printable,
)
from node.errors import SettingsError
from protos.fenhe.common.v1 import common_pb2
from protos.fenhe.node.v1 import bundles_pb2_grpc

__all__ = ["add_to"]

PIECE_BYTES: Final = 1 << 20
CALL_S: Final = 24 * 3600
RECEIPTS_SUFFIX: Final = ".receipts"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Put the commands on `fenhe replication`."""
    app.command(name="export")(command(export_bundle))
    app.command(name="import")(command(import_bundle))


def export_bundle(
    peer: Annotated[str, typer.Argument(help="Division code of the parent or of a child.")],
    file: Annotated[Path, typer.Argument(help="File to write; it must not be there yet.")],
    credentials: CredentialsOption = None,
    megabytes: Annotated[
        int, typer.Option("--megabytes", min=0, help="Stop after about so much; 0: everything.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a sealed file of what a neighbour lacks."""
    if file.exists():
        raise SettingsError(f"{file} is there already", hint="Name another file.")
    fresh = file.with_name(file.name + ".part")
    request = pb.ExportBundleRequest(peer=peer, bytes_max=megabytes << 20)
    size = 0
    with connected(find_credentials(credentials)) as channel, _new_file(fresh) as stream:
        stub = bundles_pb2_grpc.BundleServiceStub(channel)
        for piece in stub.Export(request, timeout=CALL_S):
            size += stream.write(piece.data)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
    if as_json:
        print_json({"file": str(file), "peer": peer, "bytes": size})
        return
    out.print(
        f"{file}: {format_bytes(size)} for {peer}. Carry it there: fenhe replication import "
        f"{file.name}; then carry {file.name}{RECEIPTS_SUFFIX} back.",
        soft_wrap=True,
    )


def import_bundle(
    file: Annotated[Path, typer.Argument(help="A bundle, or the receipts that came back.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Apply a neighbour's file. Its receipts are written beside it, as FILE.receipts."""
    if not file.is_file():
        raise SettingsError(f"{file} is missing", hint="Name the file that export wrote.")
    with connected(find_credentials(credentials)) as channel:
        stub = bundles_pb2_grpc.BundleServiceStub(channel)
        answer: pb.ImportBundleResponse = stub.Import(_pieces(file), timeout=CALL_S)
    receipts = file.with_name(file.name + RECEIPTS_SUFFIX) if answer.receipts else None
    if receipts is not None:
        with _new_file(receipts) as stream:
            stream.write(answer.receipts)
    if as_json:
        print_json(_document(answer, receipts))
    else:
        _show(answer, receipts)
    refused = [lane for lane in answer.lanes if lane.refused]
    for lane in refused:
        errors.print(printable(f"{lane.refused}: {lane.next_step}"), markup=False)
    if refused:
        raise typer.Exit(EXIT_FAILED)


def _document(answer: pb.ImportBundleResponse, receipts: Path | None) -> dict[str, object]:
    """The answer for programs; of the receipts the file that they are in."""
    said: dict[str, object] = MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {**said, "receipts": str(receipts) if receipts is not None else ""}


def _show(answer: pb.ImportBundleResponse, receipts: Path | None) -> None:
    """What was in the file, lane by lane, and what is to be carried back."""
    _show_lanes(answer)
    if receipts is not None:
        out.print(
            f"Carry {receipts} back to {answer.peer}: fenhe replication import {receipts.name}",
            soft_wrap=True,
        )


def _show_lanes(answer: pb.ImportBundleResponse) -> None:
    are_receipts = answer.kind == "receipts"
    if not answer.lanes:
        out.print(
            f"These receipts of {answer.peer} confirm nothing new."
            if are_receipts
            else f"The bundle of {answer.peer} holds nothing that this node lacks."
        )
        return
    print_table(
        ("lane", "confirmed" if are_receipts else "applied", "had already", "refused", "holds to"),
        [
            (
                common_pb2.Lane.Name(lane.lane).removeprefix("LANE_").lower(),
                lane.applied,
                lane.repeated,
                lane.refused or "–",
                lane.covers_to,
            )
            for lane in answer.lanes
        ],
    )


def _new_file(path: Path) -> BinaryIO:
    """Nobody but its owner may read even the sealed file."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _pieces(file: Path) -> Iterator[pb.BundlePiece]:
    with file.open("rb") as stream:
        while data := stream.read(PIECE_BYTES):
            yield pb.BundlePiece(data=data)
