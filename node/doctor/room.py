"""The room put together for one life of the node: looks, canaries, and the alarm above."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hierarchy_config import NodeId
from hierarchy_config.errors import FenheError
from node.clock import Clock
from node.doctor.canaries import Canaries, Sighting
from node.doctor.findings import Checkup, Finding, Severity
from node.doctor.folder import FolderLooks
from node.doctor.running import RunningLooks
from node.errors import InvalidRequestError
from node.foundations import Foundations
from node.guards import server_folder
from node.joining.room import JoiningRoom
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.opening import OpenStore
from node.questions import Questions
from node.security.caller import Caller
from node.watch import WatchRoom
from replication.channel import AskRefusedError
from replication.core.model import Request

__all__ = ["CheckupRoom"]

STRAYS: Final = "doctor.strays"
_TICK_S: Final = 300.0
_NIGHT_HOUR_UTC: Final = 18
"""Two in the night in China."""
_LOOK_AGAIN_MS: Final = 20 * 3600_000
_ASK_MS: Final = 10_000
_TOLD_MAX: Final = 100_000


class CheckupRoom:
    """`checkup` for whoever has something to look at; `examine`, `plant`, `find` for operators."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        watch: WatchRoom,
        *,
        joining: JoiningRoom,
        questions: Questions,
        threads: Executor,
        clock: Clock,
    ) -> None:
        """Looks at nothing yet; answers children from now on."""
        self.node_id = base.node_id
        self._base = base
        self._hub = hub
        self._engine = store.engine
        self._threads = threads
        self.clock = clock
        self._log = get_logger("doctor")
        former = base.former.subtree(base.node_id) if base.former is not None else frozenset()
        self.canaries = Canaries(
            store.storage,
            store.cache,
            questions.columnar_residents,
            base.hierarchy.subtree(base.node_id) | former,
            os.urandom,
        )
        self.checkup = Checkup()
        folder = FolderLooks(base.paths.data, base.settings, base.hierarchy, base.profile, clock)
        folder.add_to(self.checkup, store.engine)
        self._running = RunningLooks(hub, watch, joining, store)
        self._running.add_to(self.checkup)
        self.checkup.add("CANARY", self._canary_findings)
        self._seen: Sighting | None = None
        self._looked_ms = -_LOOK_AGAIN_MS
        self._told = False
        self._children: dict[NodeId, tuple[str, ...]] = {}
        watch.strays = self.standing
        hub.child_handlers = {**hub.child_handlers, STRAYS: self._on_strays}

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of children."""
        return {STRAYS: self._on_strays}

    async def run(self) -> None:
        """Look every night, and keep the node above told while something is wrong."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self._is_night():
                await self._blocking_look()
            await self._tell()

    def examine(self, *, whole_audit: bool) -> list[Finding]:
        """Look at everything. Blocks."""
        found = self.checkup.findings()
        if whole_audit:
            last = Checkup()
            last.add("AUDIT", self._running.whole_audit)
            found = sorted(
                (*found, *last.findings()), key=lambda e: (-e.severity, e.topic, e.about)
            )
        return found

    def plant(self, caller: Caller) -> tuple[str, bool]:
        """See Canaries.plant. Blocks."""
        return self.canaries.plant(caller)

    async def find(self, folder: str) -> Sighting:
        """Look for canaries now; `folder`: one more to search for clear marks, "" none.

        Raises:
            InvalidRequestError: It is no folder of this machine.
        """
        more = {}
        if folder:
            path = Path(folder) if "\0" not in folder else None
            if path is None or not path.is_absolute() or not path.is_dir():
                raise InvalidRequestError("there is no such folder on the node's machine")
            more = {"folder": path}
        seen = await self._blocking_look(more)
        await self._tell()
        return seen

    def standing(self) -> dict[str, str]:
        """What is wrong, by who holds it ("": this node), for the alarms."""
        found: dict[str, str] = {
            child: "; ".join(places) for child, places in self._children.items() if places
        }
        if self._seen is not None and self._seen.strays:
            found[""] = "; ".join(_said(self._seen))
        return found

    def _is_night(self) -> bool:
        now_ms = self.clock.now_ms()
        hour = datetime.fromtimestamp(now_ms / 1000, UTC).hour
        due = self.clock.monotonic_ms() - self._looked_ms >= _LOOK_AGAIN_MS
        return due and hour == _NIGHT_HOUR_UTC

    async def _blocking_look(self, more: Mapping[str, Path] | None = None) -> Sighting:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._look, more or {})

    def _look(self, more: Mapping[str, Path]) -> Sighting:
        server = server_folder(self._engine)
        folders = {"data": self._base.paths.data, **more}
        if server is not None:
            folders["database"] = server
        seen = self.canaries.look(folders)
        self._seen, self._looked_ms = seen, self.clock.monotonic_ms()
        self._log.info("looked for canaries", strays=len(seen.strays), looked_at=seen.looked_at)
        return seen

    async def _tell(self) -> None:
        """Tell the node above what is here; and once that it is over."""
        parent = self._hub.hierarchy.parent(self.node_id)
        strays = _said(self._seen) if self._seen is not None else []
        if parent is None or not (strays or self._told):
            return
        body = json.dumps({"strays": strays[:100]}).encode()
        try:
            await self._hub.ask(parent, STRAYS, body, remaining_ms=_ASK_MS)
        except FenheError as error:
            # Not linked, or of an older release: told again at the next tick.
            self._log.info("the node above was not told", code=error.code)
            return
        self._told = bool(strays)

    async def _on_strays(self, child: NodeId, request: Request) -> bytes:
        try:
            said = json.loads(request.body[:_TOLD_MAX])
            strays = tuple(str(each)[:200] for each in said["strays"][:100])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise AskRefusedError("BAD_REQUEST", "what a child says cannot be read") from None
        self._children[child] = strays
        self._log.warning("a child holds canaries of others", child=child, places=len(strays))
        return b"{}"

    def _canary_findings(self) -> Iterator[Finding]:
        standing = self.standing()
        step = (
            "Stop what copies data there, keep it as it is for whoever looks into it, and tell the "
            "person in charge of data protection: something crossed a border it must not cross."
        )
        for who, places in standing.items():
            said = f"canaries where they must not be: {places}"
            yield Finding("CANARY", Severity.BAD, said, step, who)
        if standing:
            return
        if self.canaries.own() is None:
            said = "this node has no canary, so that none of it can be found elsewhere"
            yield Finding("CANARY", Severity.WARNING, said, "Run `fenhe doctor canary plant`.")
        elif self._seen is None:
            said = "nobody has looked for canaries since the start"
            next_step = "It is looked for at night; now with `fenhe doctor canary look`."
            yield Finding("CANARY", Severity.WARNING, said, next_step)
        else:
            said = f"no canary is out of place ({self._seen.looked_at} things looked at)"
            yield Finding("CANARY", Severity.GOOD, said)


def _said(seen: Sighting) -> list[str]:
    """Strays in words, each place once."""
    words = {
        f"{each.place} {each.detail}" + (f" of {each.home}" if each.home else "")
        for each in seen.strays
    }
    return sorted(words)
