"""fenhe session: sign in and out with a folder of credentials, and who has signed in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import protos.fenhe.control.v1.people_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, print_json, print_table
from node.cli.people_output import (
    CALL_S,
    AsJson,
    all_pages,
    as_dict,
    asked,
    new_request_id,
    say,
    secret,
    show_ended,
)
from node.cli.session_file import KeptSession, SessionFile
from node.clock import parse_ms
from node.errors import InvalidRequestError
from protos.fenhe.control.v1 import people_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command("sign-in")
@command
def sign_in(  # noqa: PLR0917 -- the options of a command
    name: Annotated[str, typer.Argument(help="Name of the account.")] = "",
    organization: Annotated[str, typer.Option(help="Id of the organization to act for.")] = "",
    code: Annotated[
        bool, typer.Option("--totp", help="Ask for the code of the second factor as well.")
    ] = False,
    new_password: Annotated[
        bool, typer.Option("--new-password", help="Take another password, asked for.")
    ] = False,
    oidc_token: Annotated[
        Path | None,
        typer.Option(help="File with a token of the issuer, or - for standard input."),
    ] = None,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Sign in; what follows with these credentials is yours."""
    if bool(name) == (oidc_token is not None):
        raise InvalidRequestError(
            "sign in by name, or with --oidc-token",
            hint="Give the account's name: `fenhe session sign-in NAME`.",
        )
    request = pb.SignInRequest(organization_id=organization)
    if oidc_token is not None:
        request.oidc_token = _token_of(oidc_token)
    else:
        request.name = name
        request.password = secret("Password")
    if code:
        request.code = secret("Code")
    if new_password:
        request.new_password = secret("New password")
    who = find_credentials(credentials)
    with connected(who, signed_in=False) as channel:
        stub = people_pb2_grpc.SessionServiceStub(channel)
        made = stub.SignIn(request, timeout=CALL_S)
    ends_ms = parse_ms(made.token_ends_at)
    SessionFile(who).save(KeptSession(made.token, made.session_id, ends_ms))
    if as_json:
        shown = as_dict(made)
        # The token is in its file, and nowhere else.
        del shown["token"]
        print_json(shown)
    else:
        say(f"Signed in as {', '.join(made.roles)} of organization {made.organization_id}.")
        say("The session ends after 15 minutes without use, and after 12 hours at the latest.")


@app.command("sign-out")
@command
def sign_out(credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """End your session, and forget its token here whatever the node says."""
    file = SessionFile(find_credentials(credentials))
    if file.load() is None:
        raise InvalidRequestError("nobody has signed in with these credentials")
    try:
        done = asked(credentials, "session", "SignOut", pb.SignOutRequest())
    finally:
        file.remove()
    show_ended(done, "Signed out.", as_json=as_json)


@app.command("list")
@command
def list_sessions(
    ended: Annotated[
        bool, typer.Option("--ended", help="Those that are over as well, of 30 days.")
    ] = False,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """List your sessions; an administrator: everybody's."""
    request = pb.ListSessionsRequest(ended=ended)
    found = all_pages(credentials, "session", "ListSessions", request, "sessions")
    if as_json:
        print_json([as_dict(each) for each in found])
        return
    print_table(
        ("session", "account", "begun", "until", "state"),
        [
            (
                each.session_id,
                each.account,
                each.created_at[:16],
                each.renew_until[:16],
                each.state,
            )
            for each in found
        ],
    )


@app.command("end")
@command
def end(
    session: Annotated[str, typer.Argument(metavar="ID", help="Id of the session, as listed.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """End a session of your own; an administrator: anybody's."""
    request = pb.EndSessionRequest(session_id=session, request_id=new_request_id())
    done = asked(credentials, "session", "EndSession", request)
    show_ended(done, "The session is over.", as_json=as_json)


def _token_of(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.readline().strip()
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise InvalidRequestError(f"{path} holds no token that can be read") from None
