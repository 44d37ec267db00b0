"""fenhe backup, fenhe restore: keep a node elsewhere, and put it back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

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
from node.cli.secrets import database_of
from node.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.backup.chains import Held
    from node.backup.errors import BackupError
    from node.backup.keys import BackupSecret

__all__ = ["add_to"]

app = typer.Typer(invoke_without_command=True)
key_app = typer.Typer(no_args_is_help=True)
app.add_typer(key_app, name="key", help="Make a key for backups.")

DataDir = Annotated[
    Path | None, typer.Option("--data", envvar="FENHE_DATA", help="The node's data folder.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="Key file or passphrase file, readable by its owner only."),
]
Source = Annotated[str, typer.Option("--from", help="Folder or URL that holds the backups.")]
NodeOption = Annotated[
    str | None, typer.Option("--node", help="Division code, if the place holds several nodes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_LIST: Final = "list"


def add_to(root: typer.Typer) -> None:
    """Add both commands to the root."""
    root.add_typer(app, name="backup", help="Keep a node's store and keys elsewhere, encrypted.")
    root.command(name="restore")(command(restore))


@app.callback()
@command
def backup(  # noqa: PLR0917 -- the options of a command
    context: typer.Context,
    data: DataDir = None,
    to: Annotated[str | None, typer.Option("--to", help="Folder, or URL of an object store.")] = (
        None
    ),
    key: KeyFile = None,
    full: Annotated[bool, typer.Option("--full", help="Everything, whatever is there.")] = False,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=1, help="Then remove all but so many, and what they rest on."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a backup of a node, running or not: what changed since the last, or everything."""
    if context.invoked_subcommand is not None:
        return
    from node.backup.keys import load_secret
    from node.backup.making import make_backup
    from node.backup.place import open_place

    if data is None or to is None or key is None:
        raise typer.BadParameter("--data, --to and --key say what is kept, where, and sealed how")
    os.umask(0o077)
    secret = load_secret(key)
    clock = SystemClock()
    started = clock.monotonic_ms()
    made = make_backup(data, open_place(to), secret, clock=clock, full=full, keep=keep)
    manifest = made.manifest
    elapsed_s = (clock.monotonic_ms() - started) / 1000
    if as_json:
        print_json(
            {
                "node_id": manifest.node_id,
                "number": manifest.number,
                "kind": manifest.kind,
                "reason": made.reason,
                "head": manifest.head,
                "store_epoch": manifest.store_epoch,
                "chunks": len(manifest.chunks),
                "bytes": manifest.bytes,
                "removed": list(made.removed),
                "elapsed_s": elapsed_s,
            }
        )
        return
    why = f" ({made.reason})" if made.reason else ""
    out.print(
        f"Backup {manifest.number} of node {manifest.node_id}: {manifest.kind}{why}, "
        f"{manifest.bytes:,} bytes, log at {manifest.head}, {elapsed_s:.1f} s.",
        soft_wrap=True,
    )
    for folder in made.removed:
        errors.print(f"Removed {folder}.")


@key_app.command()
@command
def new(file: Annotated[Path, typer.Argument(help="File to make.")]) -> None:
    """Make a key file for backups. Without it no backup made with it can be read."""
    from node.backup.keys import new_key_file

    new_key_file(file, os.urandom)
    out.print(
        f"The key is in {file}. Keep a copy where the node and its backups are not.", soft_wrap=True
    )


@app.command(name="list")
@command
def list_backups(
    source: Source, node: NodeOption = None, key: KeyFile = None, as_json: AsJson = False
) -> None:
    """Say which backups a place holds. With the key: whether they are what was written."""
    _show_list(source, node, _secret(key), as_json)


@app.command()
@command
def check(
    source: Source,
    node: NodeOption = None,
    key: KeyFile = None,
    at: Annotated[int | None, typer.Option("--at", help="One backup; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read every chunk and verify it. With the key: open it too."""
    from node.backup.chains import open_shelf
    from node.backup.errors import BackupError
    from node.backup.place import open_place

    secret = _secret(key)
    shelf = open_shelf(open_place(source), node)
    held, faults = shelf.held(secret)
    chosen = held if at is None else [shelf.chosen(held, at)]
    if not held and not faults:
        shelf.chosen(held, at)
    said: list[dict[str, object]] = []
    for each in chosen:
        try:
            for link in shelf.chain(held, each)[:-1] if at is not None else ():
                shelf.check(link)
            shelf.chain(held, each)
            shelf.check(each)
            said.append({"number": each.manifest.number, "whole": True, "fault": ""})
        except BackupError as error:
            said.append({"number": each.manifest.number, "whole": False, "fault": error.message})
    if at is None:
        said += [{"number": None, "whole": False, "fault": error.message} for error in faults]
    if as_json:
        print_json({"opened": secret is not None, "backups": said})
    else:
        words = [(row["number"], "whole" if row["whole"] else row["fault"]) for row in said]
        print_table(("backup", "state"), words)
        if secret is None:
            errors.print("Digests only: give --key to open every chunk.")
    if not all(row["whole"] for row in said):
        errors.print("BACKUP_DAMAGED: restore from those that are whole; make a full backup.")
        raise typer.Exit(EXIT_FAILED)


def restore(  # noqa: PLR0917 -- the options of a command
    source: Source,
    data: DataDir = None,
    key: KeyFile = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Number of a backup, or `list`; default: newest.")
    ] = None,
    node: NodeOption = None,
    database: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL of an empty database, or @FILE with it."),
    ] = None,
    epoch: Annotated[
        int, typer.Option("--epoch", min=0, help="Least store epoch of the new life.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Put a node back into an empty folder."""
    if at == _LIST:
        _show_list(source, node, _secret(key), as_json)
        return
    from node.backup.chains import open_shelf
    from node.backup.keys import load_secret
    from node.backup.place import open_place
    from node.backup.restoring import restore as put_back

    if data is None or key is None or (at is not None and not at.isdigit()):
        raise typer.BadParameter("--data and --key are needed; --at is a number or `list`")
    os.umask(0o077)
    done = put_back(
        open_shelf(open_place(source), node),
        load_secret(key),
        data,
        at=int(at) if at else None,
        database=database_of(database) if database else None,
        epoch=epoch,
        told=lambda line: errors.print(f"  {line}"),
    )
    if as_json:
        print_json(
            {
                "node_id": done.node_id,
                "number": done.number,
                "backups": done.backups,
                "rows": done.rows,
                "store_epoch": done.epoch,
            }
        )
        return
    out.print(
        f"Node {done.node_id} is restored from backup {done.number} ({done.rows:,} rows); its "
        f"store begins epoch {done.epoch} and recovers. Start it: fenhe node run --data {data}; "
        "then see how far it is: fenhe node recover --status",
        soft_wrap=True,
    )


def _secret(key: Path | None) -> BackupSecret | None:
    from node.backup.keys import load_secret

    return None if key is None else load_secret(key)


def _show_list(source: str, node: str | None, secret: BackupSecret | None, as_json: bool) -> None:
    from node.backup.chains import open_shelf
    from node.backup.place import open_place

    shelf = open_shelf(open_place(source), node)
    held, faults = shelf.held(secret)
    if as_json:
        print_json(_as_json(held, faults))
    else:
        _print_list(held, is_proven=secret is not None)
        for fault in faults:
            errors.print(printable(f"{fault.code}: {fault.message}"), markup=False)
    if not held and not faults:
        shelf.chosen(held, None)


def _as_json(held: Sequence[Held], faults: Sequence[BackupError]) -> dict[str, object]:
    return {
        "backups": [
            {
                "number": each.manifest.number,
                "kind": each.manifest.kind,
                "rests_on": each.manifest.base,
                "created_at": each.manifest.created_at,
                "node_id": each.manifest.node_id,
                "store_epoch": each.manifest.store_epoch,
                "head": each.manifest.head,
                "database": each.manifest.database,
                "revision": each.manifest.revision,
                "release": each.manifest.release,
                "rows": sum(each.manifest.counts.values()),
                "bytes": each.manifest.bytes,
                "proven": each.keys is not None,
            }
            for each in held
        ],
        "faults": [{"code": fault.code, "message": fault.message} for fault in faults],
    }


def _print_list(held: Sequence[Held], *, is_proven: bool) -> None:
    print_table(
        ("backup", "kind", "made at (UTC)", "epoch", "log at", "rows", "size", "release", "proven"),
        [
            (
                each.manifest.number,
                each.manifest.kind,
                each.manifest.created_at[:19].replace("T", " "),
                each.manifest.store_epoch,
                each.manifest.head,
                sum(each.manifest.counts.values()),
                format_bytes(each.manifest.bytes),
                each.manifest.release,
                "yes" if each.keys is not None else "no",
            )
            for each in held
        ],
        right=("size",),
    )
    if held and not is_proven:
        errors.print("Not proven: give --key to see whether they are what was written.")
