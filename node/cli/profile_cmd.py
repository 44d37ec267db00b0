"""fenhe profile: what a node may use of its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from hardware_profiles import detect as propose
from hardware_profiles import load_profile, mariadb_configuration, profile_text
from node.cli.output import command, errors, print_json

__all__ = ["app"]

MARIADB_PORT: Final = 3306

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def show(
    name: Annotated[
        str, typer.Argument(help="city, county, township, village, or a file.")
    ] = "village",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    mariadb: Annotated[
        Path | None,
        typer.Option(help="Print the my.cnf of a MariaDB server with this data folder instead."),
    ] = None,
) -> None:
    """Print a profile as YAML."""
    profile = load_profile(name)
    if mariadb is not None:
        folder = mariadb.absolute()
        text = mariadb_configuration(profile, folder, MARIADB_PORT, folder / "mysqld.sock")
        typer.echo(text, nl=False)
    elif as_json:
        print_json(profile.model_dump(mode="json"))
    else:
        typer.echo(profile_text(profile), nl=False)


@app.command()
@command
def detect(
    level: Annotated[str | None, typer.Option(help="Level the node will serve.")] = None,
) -> None:
    """Look at this machine and propose a profile (YAML on stdout)."""
    proposal = propose(level=level)
    machine = proposal.machine
    errors.print(
        f"{machine.cores} cores, {machine.memory_mb} MiB of memory, "
        f"{machine.disk_free_mb} MiB of disk free"
    )
    if proposal.lowered:
        errors.print("Lowered to fit this machine: " + ", ".join(proposal.lowered))
    typer.echo(profile_text(proposal.profile), nl=False)
