"""fenhe empi: who may be one person, as matching finds it, and the steward's queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import typer

import protos.fenhe.empi.v1.empi_pb2 as empi
import protos.fenhe.empi.v1.steward_pb2 as pb
from node.cli.client import CredentialsOption
from node.cli.output import EXIT_PARTIAL, command, out, print_json, print_table, printable
from node.cli.person_cmd import as_dict, identifier_of, person_lines, typed
from node.cli.steward_cmd import AsJson, asked
from node.errors import InvalidRequestError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_SEXES: Final = {"male": empi.SEX_MALE, "female": empi.SEX_FEMALE, "": empi.SEX_UNSPECIFIED}
_SAID: Final = {
    "link": "The first is certain.",
    "review": "Somebody may be the one: compare before you register him.",
    "new": "Nobody here is like him in what was given.",
}


@app.command()
@command
def candidates(  # noqa: PLR0917 -- the options of a command
    name: Annotated[str, typer.Option(help="Name, in characters or pinyin.")] = "",
    birth_date: Annotated[str, typer.Option(help="YYYY-MM-DD.")] = "",
    sex: Annotated[str, typer.Option(help="male or female.")] = "",
    identity_number: Annotated[
        str, typer.Option(help="Of 18 characters; - reads it from a line.")
    ] = "",
    phone: Annotated[str, typer.Option(help="Telephone number.")] = "",
    address: Annotated[str, typer.Option(help="As written down.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=50, help="At most so many.")] = 10,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Who of the residents here may be the one described, and why."""
    if sex not in _SEXES:
        raise InvalidRequestError("--sex is male or female")
    described = empi.Resident(
        name=name, birth_date=birth_date, sex=_SEXES[sex], phone=phone, address=address
    )
    if identity_number:
        described.identifiers.append(identifier_of(typed(identity_number)))
    found = asked(credentials, "Candidates", pb.CandidatesRequest(resident=described, limit=limit))
    if as_json:
        print_json(as_dict(found))
    else:
        _show_candidates(found)
    if found.is_partial:
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
@command
def review(
    state: Annotated[str, typer.Option(help="waiting, decided or gone.")] = "waiting",
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 10,
    after: Annotated[str, typer.Option(help="The page after this mark.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Pairs that may be one person, side by side."""
    request = pb.ListPairsRequest(state=state, after=after, limit=limit)
    page = asked(credentials, "ListPairs", request)
    if as_json:
        print_json(as_dict(page))
        return
    for pair in page.pairs:
        _show_pair(pair)
    if not page.pairs and not page.next_after:
        out.print(f"No pair is {state}.")
    elif state == "waiting" and page.pairs:
        out.print("Decide: fenhe resident merge SURVIVOR OTHER --reason ..., or resident apart.")
    if page.next_after:
        out.print(f"More: --after {page.next_after}", soft_wrap=True, markup=False)


def _show_candidates(found: pb.CandidatesResponse) -> None:
    out.print(_SAID.get(found.outcome, found.outcome))
    if found.is_partial:
        out.print(
            f"Not everybody was compared: {found.indexed} of {found.residents} residents are in"
            " the index. Ask again.",
        )
    for each in found.candidates:
        out.print()
        out.print(f"{each.probability:.1%}, {each.weight:+.1f} bits", markup=False)
        lines = person_lines(each.resident)
        width = max(len(label) for label, _ in lines)
        for label, value in lines:
            out.print(f"  {label:<{width}}  {printable(value)}", markup=False, soft_wrap=True)
        out.print(f"  {'why':<{width}}  {_why(each.evidence)}", markup=False, soft_wrap=True)


def _show_pair(pair: pb.Pair) -> None:
    out.print(f"{pair.probability:.1%}, {pair.weight:+.1f} bits, {pair.state}", markup=False)
    for name, resident in (("one", pair.first), ("other", pair.second)):
        out.print(f"{name:<5}  {resident.resident_id}", markup=False)
    first, second = (dict(person_lines(each)[1:]) for each in (pair.first, pair.second))
    said = {each.field.replace("_", " "): each for each in pair.evidence}
    names = {"born": "birth date"}
    rows = []
    for label in dict.fromkeys([*first, *second]):
        weighed = said.get(names.get(label, label))
        rows.append(
            (
                label,
                printable(first.get(label, "")),
                printable(second.get(label, "")),
                weighed.level.replace("_", " ") if weighed else "",
                f"{weighed.bits:+.1f}" if weighed else "",
            )
        )
    others = said.keys() - {names.get(label, label) for label in (*first, *second)}
    rows.extend(
        (field, "", "", said[field].level.replace("_", " "), f"{said[field].bits:+.1f}")
        for field in sorted(others)
    )
    print_table(("field", "one", "other", "agreement", "bits"), rows, right=("bits",))
    out.print()


def _why(evidence: Iterable[pb.FieldEvidence]) -> str:
    return ", ".join(
        f"{each.field.replace('_', ' ')} {each.level.replace('_', ' ')} {each.bits:+.1f}"
        for each in evidence
    )
