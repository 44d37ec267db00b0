"""fenhe keys: the keys of a node's store, their rotation, their escrow, and getting them back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.keys_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, errors, out, print_json, print_table, printable
from node.errors import InvalidRequestError
from protos.fenhe.node.v1 import keys_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)
escrow_app = typer.Typer(no_args_is_help=True)
app.add_typer(escrow_app, name="escrow", help="Keys deposited above, for recovery only.")

_CALL_S: Final = 120
_SEALS_MAX: Final = 1 << 32
_AGO: Final = 16

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def _stub(credentials: Path | None) -> Iterator[keys_pb2_grpc.KeysServiceStub]:
    with connected(find_credentials(credentials)) as channel:
        yield keys_pb2_grpc.KeysServiceStub(channel)


@app.command()
@command
def status(credentials: CredentialsOption = None, as_json: JsonOption = False) -> None:
    """Show the data keys of a node, and how far re-sealing has come."""
    with _stub(credentials) as stub:
        said = stub.Status(pb.KeysStatusRequest(), timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
        return
    print_table(
        ("table", "key", "suite", "state", "made", "days", "seals", "of 2^32", "rows left"),
        [
            (
                each.table,
                each.key_id,
                each.suite,
                each.state,
                each.created_at[:10],
                each.age_days,
                each.seals,
                f"{each.seals / _SEALS_MAX:.2%}",
                each.rows if each.state == "retired" else None,
            )
            for each in said.keys
        ],
        right=("of 2^32",),
    )
    running = [each for each in said.work if each.state == "running"]
    if running:
        print_table(
            ("re-sealing", "since", "rows so far", "do not open"),
            [
                (each.table, each.started_at[:_AGO], each.resealed, each.unreadable)
                for each in running
            ],
        )
        _say(f"At most {said.rows_a_second} rows a second (reseal_rows_s of the profile).")
    for each in said.work:
        if each.unreadable and each.state == "done":
            errors.print(
                f"{each.table}: {each.unreadable} rows do not open and keep their old key alive."
            )


@app.command()
@command
def rotate(
    credentials: CredentialsOption = None,
    table: Annotated[
        list[str] | None, typer.Option(help="A table as `keys status` names it; may be repeated.")
    ] = None,
    node: Annotated[
        bool, typer.Option("--node", help="Wrap all data keys under a new node key instead.")
    ] = False,
    to_file: Annotated[
        bool, typer.Option("--to-file", help="With --node: leave the outside key service.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Seal under new keys from now on, and re-seal what is stored."""
    if node and table:
        raise InvalidRequestError(
            "--node wraps every data key, and --table names one",
            hint="Give the one or the other.",
        )
    if to_file and not node:
        raise InvalidRequestError("--to-file is about the node's key", hint="Give --node too.")
    request = pb.RotateKeysRequest(
        tables=table or (), node=node, request_id=uuid.uuid4().hex, to_file=to_file
    )
    with _stub(credentials) as stub:
        said = stub.Rotate(request, timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
    elif node:
        _say(f"{said.wrapped} data keys are wrapped under a new node key.")
        _say("Make a backup now: those made before hold the former key.")
    else:
        _say(f"{len(said.key_ids)} new keys seal from now on; what is stored is re-sealed.")
        _say("See how far it is: fenhe keys status")


@escrow_app.command("status")
@command
def escrow_status(credentials: CredentialsOption = None, as_json: JsonOption = False) -> None:
    """Show where a node's keys are deposited, and whose keys it holds."""
    with _stub(credentials) as stub:
        said = stub.EscrowStatus(pb.EscrowStatusRequest(), timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
        return
    if said.why:
        _say(f"Not deposited: {said.why}.")
    elif not said.deposited_at:
        _say(f"To be deposited at {said.parent} when it is linked.")
    else:
        state = "all keys in use" if said.complete else "keys have changed since: to be renewed"
        _say(f"Deposited at {said.parent} on {said.deposited_at[:_AGO]}: {state}.")
    if said.held:
        print_table(
            ("holds the keys of", "since", "key set"),
            [(each.node_id, each.received_at[:_AGO], each.key_set[:16]) for each in said.held],
        )


@app.command()
@command
def recover(
    node_id: Annotated[str, typer.Argument(metavar="CODE", help="Division code of a child.")],
    credentials: CredentialsOption = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to make: the second operator gives it, the first leaves it out.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take a child's keys out of escrow, two operators."""
    from node.security.key_files import write_secret

    if out_file is not None and out_file.exists():
        raise InvalidRequestError(
            f"{out_file} exists", hint="Name another file; it is never written over."
        )
    # Without a file only to approve: keys that nobody can write down must not be given out.
    request = pb.RecoverKeysRequest(node_id=node_id, approve_only=out_file is None)
    with _stub(credentials) as stub:
        said = stub.Recover(request, timeout=_CALL_S)
    if said.keys and out_file is not None:
        write_secret(out_file, said.keys)
    if as_json:
        print_json(
            {
                "node_id": node_id,
                "approved_by": list(said.approved_by),
                "needed": said.needed,
                "written": str(out_file) if said.keys else "",
            }
        )
        return
    _say(f"Approved by {', '.join(said.approved_by)} ({len(said.approved_by)} of {said.needed}).")
    if said.keys:
        _say(
            f"The keys of {node_id} are in {out_file}. Whoever has the file and its disk reads it."
        )
        _say(f"On its machine: fenhe keys restore {out_file} --data FOLDER")
        _say("Then delete the file. The node and this one have it in their audit.")
    else:
        _say("Two operators, with credentials of two names, approve within an hour; then one runs:")
        _say(f"    fenhe keys recover {node_id} --out FILE")


@app.command()
@command
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `keys recover` wrote.")],
    data: Annotated[Path, typer.Option("--data", envvar="FENHE_DATA", help="The data folder.")],
    as_json: JsonOption = False,
) -> None:
    """Open a store whose node key is lost."""
    from node.clock import SystemClock
    from node.keys.restoring import restore_keys

    count = restore_keys(data, file, SystemClock())
    if as_json:
        print_json({"data": str(data), "wrapped": count})
        return
    _say(f"{count} data keys are wrapped under a new node key; the node can be started.")
    _say("Then rotate them all, since they have left the machine: fenhe keys rotate")


def _say(sentence: str) -> None:
    out.print(printable(sentence), markup=False, soft_wrap=True)


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
