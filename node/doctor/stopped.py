"""Looks at the data folder of a node that does not run, and opens what it can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import func, inspect, select

from hardware_profiles import load_profile
from hierarchy_config import load_region
from node.clock import Clock
from node.doctor.findings import Checkup, Finding, Severity
from node.doctor.folder import FolderLooks
from node.errors import DataFolderInUseError
from node.guards import folder_locked
from node.opening import database_url
from node.settings import NodePaths, load_settings
from node.storage.audit import Auditor
from node.storage.engine import EngineLimits, open_engine
from node.storage.tables import AUDIT, CHANGELOG

__all__ = ["examine_folder"]


def examine_folder(data: Path, clock: Clock, *, whole_audit: bool) -> tuple[str, list[Finding]]:
    """The node's id, and what is found. Changes nothing.

    Raises:
        SettingsError, RegionFileError, ProfileFileError: A file that says what the node is cannot
            be read; the error says which.
    """
    settings = load_settings(data)
    hierarchy = load_region(data / settings.region)
    profile_file = data / settings.profile
    profile = load_profile(profile_file if profile_file.exists() else settings.profile)
    looks = FolderLooks(data, settings, hierarchy, profile, clock)
    checkup = Checkup()
    checkup.add("RUNNING", lambda: _running(data))
    checkup.add("DATABASE", lambda: _database(looks, whole_audit=whole_audit))
    looks.add_to(checkup)
    return settings.node_id, checkup.findings()


def _running(data: Path) -> Iterator[Finding]:
    lock = NodePaths(data).lock
    if not lock.exists():
        yield Finding("RUNNING", Severity.GOOD, "the node has never run")
        return
    try:
        with folder_locked(lock):
            yield Finding("RUNNING", Severity.GOOD, "no process runs on this folder")
    except DataFolderInUseError:
        yield Finding(
            "RUNNING",
            Severity.WARNING,
            "the node runs; links, alarms and canaries are seen by asking it",
            "Ask it: `fenhe doctor --as CREDENTIALS`.",
        )


def _database(looks: FolderLooks, *, whole_audit: bool) -> Iterator[Finding]:
    url = database_url(looks.settings.database, looks.data)
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        yield Finding("DATABASE", Severity.GOOD, "there is no database yet")
        return
    engine = open_engine(url, EngineLimits(connections=2))
    try:
        if not inspect(engine).has_table(AUDIT.name):
            yield Finding("DATABASE", Severity.GOOD, "the database is empty")
            return
        yield Finding("DURABILITY", Severity.GOOD, "the database keeps what it acknowledges")
        yield from looks.clock_at(engine)
        with engine.connect() as connection:
            waiting = connection.execute(
                select(func.count()).where(CHANGELOG.quarantine.c.closed_as.is_(None))
            ).scalar_one()
            broken = Auditor(looks.clock).verify(connection) if whole_audit else None
        if waiting:
            yield Finding(
                "QUARANTINE",
                Severity.WARNING,
                f"{waiting} changes were not admitted and wait",
                "Start the node and see `fenhe quarantine list`.",
            )
        if broken is not None:
            said = f"the audit does not hold at entry {broken.position}: {broken.reason}"
            step = "Keep the folder as it is and tell the node above; a backup has it whole."
            yield Finding("AUDIT", Severity.BAD, said, step)
        elif whole_audit:
            yield Finding("AUDIT", Severity.GOOD, "the audit's chain holds")
    finally:
        engine.dispose()
