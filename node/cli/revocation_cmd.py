"""fenhe node revoke|revoked: whose keys are not to be believed any more."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.revocation_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, out, print_json, print_table, printable
from node.errors import InvalidRequestError
from protos.fenhe.node.v1 import revocation_pb2_grpc

__all__ = ["add_to"]

_CALL_S: Final = 30
_PAGE: Final = 200


def add_to(app: typer.Typer) -> None:
    """Add the commands to `fenhe node`."""
    for function in (revoke, revoked):
        app.command()(command(function))


def revoke(
    node_id: Annotated[
        str, typer.Argument(metavar="CODE", help="Division code of a node below this one.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why; stands in the list for ever.")] = "",
    credentials: CredentialsOption = None,
    caller: Annotated[
        str,
        typer.Option(metavar="NAME", help="A caller of this node: NAME, or KIND/NAME."),
    ] = "",
    key: Annotated[
        str,
        typer.Option(metavar="DIGEST", help="A caller of this node by the SHA-256 of his key."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Revoke the keys of a node below, or of a caller of this node. It cannot be taken back."""
    if [bool(node_id), bool(caller), bool(key)].count(True) != 1:
        raise InvalidRequestError(
            "one of three is revoked: a node, a caller by name, or a caller by key",
            hint="Name a division code, or give --caller, or --key.",
        )
    if not reason:
        raise InvalidRequestError("a revocation has a reason", hint="Give --reason TEXT.")
    request = pb.RevokeRequest(
        node_id=node_id,
        caller=caller,
        key=key.lower(),
        reason=reason,
        request_id=uuid.uuid4().hex,
    )
    with connected(find_credentials(credentials)) as channel:
        stub = revocation_pb2_grpc.RevocationServiceStub(channel)
        said = stub.Revoke(request, timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
        return
    made = said.revocation
    who = node_id or caller or f"the key {key[:16]}"
    if said.repeated:
        _say(f"{who} was revoked at {made.at} already: {made.reason}")
        return
    _say(f"{who} is revoked from {made.at} on, here now and elsewhere as the links carry it.")
    if made.issued_before:
        _say("Not every key of it is known: all that was issued to it until then is revoked.")
    if node_id:
        _say(f"A new machine: `fenhe node invite {node_id}` at its parent, and `fenhe node join`.")
        _say("What lies below it was certified by it, and joins anew after it.")


def revoked(
    credentials: CredentialsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the revocations that this node knows, its own and others'."""
    found: list[pb.Revocation] = []
    after = ""
    with connected(find_credentials(credentials)) as channel:
        stub = revocation_pb2_grpc.RevocationServiceStub(channel)
        while True:
            said = stub.ListRevoked(
                pb.ListRevokedRequest(page_size=_PAGE, after=after), timeout=_CALL_S
            )
            found.extend(said.revocations)
            after = said.next_after
            if not after:
                break
    if as_json:
        print_json([_as_dict(each) for each in found])
        return
    print_table(
        ("by node", "no.", "revoked", "what", "from", "in effect", "reason"),
        [
            (
                each.signer,
                each.number,
                each.node_id,
                _what(each),
                each.at[:16],
                "yes" if each.in_effect else "no",
                each.reason,
            )
            for each in found
        ],
    )


def _what(made: pb.Revocation) -> str:
    if made.principals:
        return ", ".join(each.split("/", 4)[-1] for each in made.principals)
    if made.target == "caller":
        return f"a caller's key {made.keys[0][:16]}"
    return f"{len(made.keys)} keys" + (", and all issued by then" if made.issued_before else "")


def _say(sentence: str) -> None:
    out.print(printable(sentence), markup=False, soft_wrap=True)


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
