"""fenhe resident find|show|timeline: who somebody is, and his records."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.common.v1.common_pb2 as common
import protos.fenhe.empi.v1.empi_pb2 as empi
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import EXIT_FAILED, command, out, print_json, print_table, printable
from node.errors import InvalidRequestError
from node.records.identity import IdentityNumberError, parse_identity_number
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.empi.v1 import empi_pb2_grpc

__all__ = ["Resident", "add_to", "as_dict", "identifier_of", "person_lines", "typed"]

_CALL_S: Final = 30
_SEXES: Final = {
    empi.SEX_MALE: "male",
    empi.SEX_FEMALE: "female",
    empi.SEX_UNSTATED: "not stated",
    empi.SEX_UNKNOWN: "unknown",
}
_DAYS: Final = ("started_on", "onset_on", "observed_on", "performed_on", "given_on")

Resident = Annotated[str, typer.Argument(help="The resident's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `fenhe resident`."""
    for each in (find, show, timeline):
        app.command()(each)


@command
def find(
    identifier: Annotated[
        str,
        typer.Argument(help="SYSTEM:VALUE, or an identity number alone; - reads it from a line."),
    ],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """The resident who carries a number, among those this node holds."""
    request = empi.FindResidentRequest(identifier=identifier_of(typed(identifier)))
    with connected(find_credentials(credentials)) as channel:
        found = empi_pb2_grpc.ResidentServiceStub(channel).Find(request, timeout=_CALL_S)
    if as_json:
        print_json(as_dict(found))
    elif found.HasField("resident"):
        _print_person(found.resident)
    else:
        out.print("Nobody here carries it whom you may see.")
    if not found.HasField("resident"):
        raise typer.Exit(EXIT_FAILED)


@command
def show(
    resident: Resident,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Who a resident is, and under which other ids he is known."""
    request = empi.GetResidentRequest(resident_id=resident)
    with connected(find_credentials(credentials)) as channel:
        found = empi_pb2_grpc.ResidentServiceStub(channel).Get(request, timeout=_CALL_S)
    if as_json:
        print_json(as_dict(found))
    else:
        _print_person(found)


@command
def timeline(
    resident: Resident,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    after: Annotated[str, typer.Option(help="The page after this mark.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """A resident's records under all his ids, newest first."""
    request = care.TimelineRequest(
        resident_id=resident, page=common.PageRequest(size=limit, token=after)
    )
    with connected(find_credentials(credentials)) as channel:
        page = care_pb2_grpc.RecordServiceStub(channel).Timeline(request, timeout=_CALL_S)
    if as_json:
        print_json(as_dict(page))
        return
    if not page.records:
        out.print("No records here that you may see.")
        return
    others = {record.resident_id for record in page.records} != {resident}
    print_table(
        ("day", "record", "code", "what", "by", *(("under id",) if others else ())),
        [
            (*_described(record), *((record.resident_id,) if others else ()))
            for record in page.records
        ],
    )
    if page.next_token:
        out.print(f"More: --after {page.next_token}", soft_wrap=True)


def typed(value: str) -> str:
    """A value of the command line; for - a line of the input, which no list of processes shows."""
    return sys.stdin.readline().strip() if value == "-" else value


def identifier_of(said: str) -> empi.Identifier:
    """An identifier as it is typed.

    Raises:
        InvalidRequestError: It names no system, and is no identity number.
    """
    system, colon, value = said.partition(":")
    if colon:
        return empi.Identifier(system=system, value=value)
    try:
        parse_identity_number(said)
    except IdentityNumberError as wrong:
        raise InvalidRequestError(
            f"neither SYSTEM:VALUE nor an identity number, which has {wrong}",
            hint="Such as health_card:A123, or a number of 18 characters.",
        ) from None
    return empi.Identifier(system="identity_number", value=said)


def person_lines(person: empi.Resident) -> list[tuple[str, str]]:
    """What is known of somebody, line by line."""
    lines = [
        ("id", person.resident_id),
        ("name", person.name),
        ("born", person.birth_date),
        ("sex", _SEXES.get(person.sex, "")),
        *((each.system.replace("_", " "), each.value) for each in person.identifiers),
        ("phone", person.phone),
        ("address", person.address),
        ("died", person.deceased_on),
        ("home", person.home_node),
        ("merged into", person.merged_into),
        ("merged ids", ", ".join(person.merged_ids)),
    ]
    return [(name, value) for name, value in lines if value]


def as_dict(message: Any) -> Any:
    """A message for JSON, with the names of the protocol."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _print_person(person: empi.Resident) -> None:
    lines = person_lines(person)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        out.print(f"{name:<{width}}  {printable(value)}", markup=False, soft_wrap=True)


def _described(record: care.Record) -> tuple[str, str, str, str, str]:
    kind = record.WhichOneof("body") or ""
    body = getattr(record, kind) if kind else None
    day = next((found for name in _DAYS if (found := getattr(body, name, ""))), "")
    code = getattr(body, "code", "") or getattr(body, "reason_code", "")
    what = " ".join(
        part
        for part in (
            f"{body.value:g} {body.unit}" if kind == "observation" and body else "",
            getattr(body, "display", ""),
            # A message's field that Python keeps for itself.
            getattr(body, "class", "") if kind == "encounter" else "",
            getattr(body, "clinical_status", ""),
        )
        if part
    )
    return day, kind, printable(code), printable(what), record.author_node
