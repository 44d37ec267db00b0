"""What the commands about people share: asking page by page, secrets, and how things are shown."""

from __future__ import annotations

import getpass
import sys
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

from node.cli.client import connected, find_credentials
from node.cli.output import out, print_json, printable
from node.errors import InvalidRequestError
from protos.fenhe.control.v1 import people_pb2_grpc

__all__ = [
    "CALL_S",
    "AsJson",
    "all_pages",
    "as_dict",
    "asked",
    "new_request_id",
    "say",
    "secret",
    "show_added",
    "show_ended",
]

CALL_S: Final = 30
_PAGE: Final = 200
_STUBS: Final[dict[str, Callable[[Any], Any]]] = {
    "org": people_pb2_grpc.OrganizationServiceStub,
    "staff": people_pb2_grpc.StaffServiceStub,
    "account": people_pb2_grpc.AccountServiceStub,
    "session": people_pb2_grpc.SessionServiceStub,
}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def asked(credentials: Any, service: str, method: str, request: Any) -> Any:
    """The answer to one call, as whoever has signed in with the credentials, or the certificate."""
    with connected(find_credentials(credentials)) as channel:
        return getattr(_STUBS[service](channel), method)(request, timeout=CALL_S)


def all_pages(credentials: Any, service: str, method: str, request: Any, items: str) -> list[Any]:
    """Everything of a list."""
    found: list[Any] = []
    request.page_size = _PAGE
    with connected(find_credentials(credentials)) as channel:
        call = getattr(_STUBS[service](channel), method)
        while True:
            page = call(request, timeout=CALL_S)
            found.extend(getattr(page, items))
            if not page.next_after:
                return found
            request.after = page.next_after


def secret(prompt: str) -> str:
    """A secret from the terminal, unseen; where there is none, the next line of standard input.

    Raises:
        InvalidRequestError: Nothing was given.
    """
    if sys.stdin.isatty():
        given = getpass.getpass(f"{prompt}: ", stream=sys.stderr)
    else:
        given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise InvalidRequestError(
            f"{prompt}: nothing was given", hint="Type it, or give it as a line of standard input."
        )
    return given


def new_request_id() -> str:
    """For one run of a command."""
    return uuid.uuid4().hex


def say(sentence: str) -> None:
    """One line; what others wrote is in it."""
    out.print(printable(sentence), markup=False, soft_wrap=True)


def show_added(done: Any, what: str, *, as_json: bool) -> None:
    """The id of what was made."""
    if as_json:
        print_json(as_dict(done))
    else:
        say(f"{what} {done.id}")


def show_ended(done: Any, changed: str, *, as_json: bool) -> None:
    """Whether something was changed."""
    if as_json:
        print_json(as_dict(done))
    else:
        say(changed if done.changed else "It was over already; nothing was changed.")


def as_dict(message: Any) -> Any:
    """A message with all its fields."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
