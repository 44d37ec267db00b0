"""Looks at a data folder: whose it is, its keys, certificates, clock, disks and database."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, func, make_url, select

from hardware_profiles import HardwareProfile
from hierarchy_config import Hierarchy, NodeId
from node.clock import Clock, parse_ms
from node.doctor.findings import Checkup, Finding, Severity
from node.guards import DiskGuard, server_folder
from node.security.certificates import certificates_from_pem
from node.security.credentials import load_node_credentials
from node.security.errors import CertificateUnusableError
from node.security.folders import NodeFolder
from node.settings import NodePaths, NodeSettings
from node.storage.engine import check_durability
from node.storage.tables import AUDIT

__all__ = ["FolderLooks"]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITERS: Final = stat.S_IWGRP | stat.S_IWOTH
_DISK_ROOM_MIN: Final = 1.2
_DAYS_LEFT_MIN: Final = 30
_AHEAD_MS_MAX: Final = 5 * 60_000


@dataclass(frozen=True, slots=True)
class FolderLooks:
    """What can be seen of a node from its data folder and its database, running or not."""

    data: Path
    settings: NodeSettings
    hierarchy: Hierarchy
    profile: HardwareProfile
    clock: Clock

    def add_to(self, checkup: Checkup, engine: Engine | None = None) -> None:
        """Have all of it looked at; what needs the database only with one."""
        checkup.add("FILES", self.files)
        checkup.add("KEYS", self.keys)
        checkup.add("CERTIFICATE", self.certificate)
        checkup.add("CERTIFICATE", self.authority)
        checkup.add("DISK", lambda: self.disks(engine))
        if engine is not None:
            checkup.add("CLOCK", lambda: self.clock_at(engine))
            checkup.add("DURABILITY", lambda: _durability(engine))

    def files(self) -> Iterator[Finding]:
        """Who may open the folder, and files of it that hold secrets beside the keys."""
        state = self.data.stat()
        if state.st_uid != os.geteuid():
            yield Finding(
                "FILES",
                Severity.WARNING,
                f"{self.data} belongs to another user (uid {state.st_uid})",
                "Run the node and its commands as the user whose folder it is.",
            )
        if state.st_mode & _OTHERS:
            worst = Severity.BAD if state.st_mode & _WRITERS else Severity.WARNING
            yield Finding(
                "FILES",
                worst,
                f"others may open {self.data} (mode {stat.S_IMODE(state.st_mode):04o})",
                f"Run `chmod 700 {self.data}`.",
            )
        else:
            yield Finding("FILES", Severity.GOOD, "the data folder is its owner's alone")
        urls = (self.settings.database, self.settings.redis_url or "")
        settings = NodePaths(self.data).settings
        if any(url and make_url(url).password for url in urls) and _mode(settings) & _OTHERS:
            yield Finding(
                "FILES",
                Severity.BAD,
                "node.yaml holds a password and others may read it",
                f"Run `chmod 600 {settings}`, and change the password if others had access.",
            )

    def keys(self) -> Iterator[Finding]:
        """Modes and owners of keys/ and of every file in it."""
        folder = NodeFolder(self.data).keys
        wrong = 0
        for path in (folder, *sorted(folder.iterdir())):
            state = path.lstat()
            wanted = 0o700 if path == folder else 0o600
            said = ""
            if path != folder and not stat.S_ISREG(state.st_mode):
                said = "is not a regular file"
            elif state.st_mode & _OTHERS:
                said = f"can be used by others (mode {stat.S_IMODE(state.st_mode):04o})"
            elif state.st_uid != os.geteuid():
                said = f"belongs to another user (uid {state.st_uid})"
            if said:
                wrong += 1
                step = f"Run `chmod {wanted:o} {path}`; replace the key if others had access."
                yield Finding("KEYS", Severity.BAD, f"{path.name} {said}", step, path.name)
        if not wrong:
            yield Finding("KEYS", Severity.GOOD, "every key is its owner's alone")

    def certificate(self) -> Iterator[Finding]:
        """Whether the node's certificate is its own, under the root, and for how long."""
        files = NodeFolder(self.data).tls
        node_id = NodeId(self.settings.node_id)
        try:
            load_node_credentials(self.data, node_id, self.hierarchy, self._now)
        except CertificateUnusableError as error:
            yield Finding("CERTIFICATE", Severity.BAD, error.message, error.hint, files.chain.name)
            return
        yield self._life(files.chain)

    def authority(self) -> Iterator[Finding]:
        """The certificate with which this node signs those below it."""
        chain = NodeFolder(self.data).authority_chain
        if chain.exists():
            yield self._life(chain)

    def _life(self, chain: Path) -> Finding:
        leaf = certificates_from_pem(chain.read_bytes())[0]
        begun, ends, now = leaf.not_valid_before_utc, leaf.not_valid_after_utc, self._now
        half = begun + (ends - begun) / 2
        days = (ends - now).days
        if now < begun or now > ends:
            said = f"{chain.name} holds from {begun:%Y-%m-%d} to {ends:%Y-%m-%d}, not now"
            step = "Compare this machine's clock; if it is right, let the parent certify it anew."
            return Finding("CERTIFICATE", Severity.BAD, said, step, chain.name)
        if ends - now < timedelta(days=_DAYS_LEFT_MIN):
            said = f"{chain.name} ends in {days} days, on {ends:%Y-%m-%d}"
            step = "See that the link to the parent is up: it is renewed over it."
            return Finding("CERTIFICATE", Severity.BAD, said, step, chain.name)
        if now > half:
            said = f"{chain.name} is past half of its life and ends on {ends:%Y-%m-%d}"
            step = "It is renewed over the link to the parent; see that the link is up."
            return Finding("CERTIFICATE", Severity.WARNING, said, step, chain.name)
        said = f"{chain.name} ends in {days} days"
        return Finding("CERTIFICATE", Severity.GOOD, said, about=chain.name)

    def disks(self, engine: Engine | None = None) -> Iterator[Finding]:
        """Free space over the watermark, of the folder's disk and of the database server's."""
        server = server_folder(engine) if engine is not None else None
        for folder in (self.data, *([server] if server else [])):
            guard = DiskGuard(
                [folder],
                self.profile.disk_free_min_mb,
                self.profile.disk_free_min_percent,
                self.clock,
            )
            room = guard.room()
            said = f"free space of {folder} is {room:.1f} times the watermark"
            step = "Make room on this disk, or lower disk_free_min in the profile."
            if room >= _DISK_ROOM_MIN:
                yield Finding("DISK", Severity.GOOD, said)
            else:
                yield Finding("DISK", Severity.BAD if room < 1 else Severity.WARNING, said, step)

    def clock_at(self, engine: Engine) -> Iterator[Finding]:
        """Whether this machine's clock stands before what it has written itself."""
        with engine.connect() as connection:
            newest = connection.execute(select(func.max(AUDIT.c.at))).scalar()
        now_ms = self.clock.now_ms()
        if newest is not None and parse_ms(newest) > now_ms + _AHEAD_MS_MAX:
            yield Finding(
                "CLOCK",
                Severity.BAD,
                f"this machine's clock says {_day(now_ms)} and the audit has entries of "
                f"{newest[:16]}: one of the two was wrong",
                "Set the clock (NTP) and compare it with a telephone.",
            )
        else:
            yield Finding("CLOCK", Severity.GOOD, "the clock is after everything written here")

    @property
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)


def _durability(engine: Engine) -> Iterator[Finding]:
    check_durability(engine)
    yield Finding("DURABILITY", Severity.GOOD, "the database keeps what it acknowledges")


def _mode(path: Path) -> int:
    return path.stat().st_mode


def _day(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M}"
