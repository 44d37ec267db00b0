"""The root of the command tree."""

from __future__ import annotations

import os

import typer

from node.cli import (
    account_cmd,
    audit_cmd,
    backup_cmd,
    checkup_cmd,
    consent_cmd,
    demo_cmd,
    empi_cmd,
    hierarchy_cmd,
    intake_cmd,
    intake_feed_cmd,
    intake_quarantine_cmd,
    keys_cmd,
    node_cmd,
    org_cmd,
    profile_cmd,
    quarantine_cmd,
    query_cmd,
    record_cmd,
    replication_cmd,
    resident_cmd,
    session_cmd,
    staff_cmd,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="fenhe",
    help="Fenhe (汾河): a regional health data platform. One node a place, one log, one river.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(node_cmd.app, name="node", help="Make, run and look at one node.")
app.add_typer(hierarchy_cmd.app, name="hierarchy", help="Who is above whom, and what is copied up.")
app.add_typer(profile_cmd.app, name="profile", help="What a node may use of its machine.")
app.add_typer(replication_cmd.app, name="replication", help="How copies move between nodes.")
app.add_typer(resident_cmd.app, name="resident", help="Who residents are, and where they live.")
app.add_typer(empi_cmd.app, name="empi", help="Who may be one person, and why.")
app.add_typer(record_cmd.app, name="record", help="Where a record is.")
app.add_typer(consent_cmd.consent_app, name="consent", help="What residents allow and forbid.")
app.add_typer(consent_cmd.access_app, name="access", help="Who may see a resident, and why.")
app.add_typer(quarantine_cmd.app, name="quarantine", help="What was not admitted, and its exits.")
app.add_typer(keys_cmd.app, name="keys", help="What a node's store is sealed with.")
app.add_typer(audit_cmd.app, name="audit", help="Who did what to whose data, and its proof.")
app.add_typer(org_cmd.app, name="org", help="Hospitals, centres, clinics and their departments.")
app.add_typer(staff_cmd.staff_app, name="staff", help="Who works here.")
app.add_typer(staff_cmd.role_app, name="role", help="What staff may, from when until when.")
app.add_typer(account_cmd.app, name="account", help="With what staff sign in at this node.")
app.add_typer(session_cmd.app, name="session", help="Sign in and out; who has signed in.")
app.add_typer(intake_cmd.app, name="intake", help="Bring data in: files, folders, tables, HL7.")
intake_cmd.app.add_typer(
    intake_quarantine_cmd.app, name="quarantine", help="What was not admitted, and its exits."
)
intake_feed_cmd.add_to(intake_cmd.app)
demo_cmd.add_to(app)
backup_cmd.add_to(app)
query_cmd.add_to(app)
checkup_cmd.add_to(app)


def main() -> None:
    """Entry point of the command `fenhe`. What a command makes is its own user's alone."""
    os.umask(0o077)
    app(prog_name="fenhe")
