"""fenhe account: with what staff sign in at this node. No secret is ever an argument."""

from __future__ import annotations

from typing import Annotated

import typer

import protos.fenhe.control.v1.people_pb2 as pb
from node.cli.client import CredentialsOption, find_credentials
from node.cli.output import command, print_json, print_table
from node.cli.people_output import (
    AsJson,
    all_pages,
    as_dict,
    asked,
    new_request_id,
    say,
    secret,
    show_added,
    show_ended,
)
from node.cli.session_file import SessionFile
from node.errors import InvalidRequestError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the account.")]


@app.command()
@command
def add(
    name: Name,
    staff: Annotated[str, typer.Option(help="Id of one of this node's staff.")],
    oidc_subject: Annotated[
        str,
        typer.Option(help="What the issuer of node.yaml calls him or her: instead of a password."),
    ] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Add an account; asks for a first password.

    Its owner changes it at the first sign-in. None is asked for where an issuer's token opens it.
    """
    password = "" if oidc_subject else secret("First password")
    request = pb.AddAccountRequest(
        name=name,
        staff_id=staff,
        password=password,
        oidc_subject=oidc_subject,
        request_id=new_request_id(),
    )
    done = asked(credentials, "account", "AddAccount", request)
    show_added(done, f"Added: account {name},", as_json=as_json)
    if password and not as_json:
        say(f"First sign-in: fenhe session sign-in {name} --new-password")


@app.command()
@command
def disable(name: Name, credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """Close an account and end its sessions."""
    request = pb.AccountRequest(name=name, request_id=new_request_id())
    done = asked(credentials, "account", "DisableAccount", request)
    show_ended(done, f"{name} is disabled, and its sessions are over.", as_json=as_json)


@app.command()
@command
def unlock(
    name: Name,
    enable: Annotated[
        bool, typer.Option("--enable", help="Also open it again if it was disabled.")
    ] = False,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Forget wrong passwords and open the lock that they closed."""
    if enable:
        again = pb.AccountRequest(name=name, request_id=new_request_id())
        asked(credentials, "account", "EnableAccount", again)
    request = pb.AccountRequest(name=name, request_id=new_request_id())
    done = asked(credentials, "account", "UnlockAccount", request)
    show_ended(done, f"{name} is open.", as_json=as_json)


@app.command()
@command
def password(
    name: Annotated[
        str, typer.Argument(help="Name of somebody's account; left out: your own.")
    ] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Set a password, asked for; it ends the sessions."""
    if name:
        request = pb.SetPasswordRequest(
            name=name, password=secret("New password"), request_id=new_request_id()
        )
        done = asked(credentials, "account", "SetPassword", request)
        said = f"Set. {name} takes another one at the next sign-in."
    else:
        own = pb.ChangePasswordRequest(
            old_password=secret("Your password"),
            new_password=secret("New password"),
            request_id=new_request_id(),
        )
        done = asked(credentials, "account", "ChangePassword", own)
        SessionFile(find_credentials(credentials)).remove()
        said = "Changed. Sign in again with the new one."
    show_ended(done, said, as_json=as_json)


@app.command()
@command
def totp(
    name: Annotated[str, typer.Argument(help="With --remove: name of somebody's account.")] = "",
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the second factor of an account away.")
    ] = False,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Take up a second factor, or remove a lost one."""
    if remove != bool(name):
        raise InvalidRequestError(
            "a second factor is made for one's own account, and taken away by name",
            hint="Leave the name out to make one, or give a name with --remove.",
        )
    if remove:
        request = pb.AccountRequest(name=name, request_id=new_request_id())
        done = asked(credentials, "account", "RemoveTotp", request)
        show_ended(done, f"{name} has no second factor now.", as_json=as_json)
        return
    wanted = pb.EnrolTotpRequest(password=secret("Your password"), request_id=new_request_id())
    made = asked(credentials, "account", "EnrolTotp", wanted)
    if as_json:
        print_json(as_dict(made))
    else:
        say(f"Secret for the telephone, shown this once: {made.secret}")
        say(f"The same as an address: {made.uri}")
    confirmed = pb.ConfirmTotpRequest(
        code=secret("Code that the telephone shows"), request_id=new_request_id()
    )
    done = asked(credentials, "account", "ConfirmTotp", confirmed)
    if not as_json:
        show_ended(done, "Confirmed: it is asked for from now on.", as_json=False)


@app.command("list")
@command
def list_accounts(credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """List the accounts of this node."""
    found = all_pages(credentials, "account", "ListAccounts", pb.ListAccountsRequest(), "accounts")
    if as_json:
        print_json([as_dict(each) for each in found])
        return
    print_table(
        ("account", "staff", "state", "failures", "second factor"),
        [
            (
                each.name,
                each.staff_id,
                _state(each),
                each.failures,
                "yes" if each.has_totp else "no",
            )
            for each in found
        ],
    )


def _state(account: pb.Account) -> str:
    if account.disabled:
        return "disabled"
    if account.locked_until:
        return f"locked until {account.locked_until[:16]}"
    return "new password due" if account.must_change else "open"
