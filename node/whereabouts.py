"""Where this node is reached, told to the others; where its parent is reached, asked each time.

The directory (node.yaml: directory) is a help and never a condition: without it, or while it does
not answer, the addresses of node.yaml and of the region file serve, and what went wrong is one line
in the log with its next step. Nothing found here is trusted: the parent proves who it is by its
certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, TypeVar

from hierarchy_config import FenheError, FileDirectory, Hierarchy, NodeDirectory, NodeId
from hierarchy_config.consul_directory import ConsulDirectory
from hierarchy_config.directory import split_endpoint
from hierarchy_config.errors import Fault
from node.errors import NodeError
from node.foundations import Foundations
from node.logs import get_logger

__all__ = ["ParentAddressUnknownError", "Whereabouts", "open_directory", "public_address"]

_ANSWER_S: Final = 5.0
_LOOK_EVERY_S: Final = 30.0
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - compared, not bound  # nosec B104

T = TypeVar("T")


class ParentAddressUnknownError(NodeError):
    """Neither the directory, nor node.yaml, nor the region file says where the parent is."""

    code = "PARENT_ADDRESS_UNKNOWN"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = "Set parent_endpoint in node.yaml, or endpoint in the region file."


def open_directory(said: str, data_dir: Path, region: str) -> NodeDirectory:
    """The directory that node.yaml names: file:FOLDER, or consul://host:port.

    Raises:
        ConsulMissingError: py-consul is not installed.
    """
    kind, _, place = said.partition(":")
    if kind == "file":
        return FileDirectory(data_dir / place)
    host, port = split_endpoint(place.removeprefix("//"))
    return ConsulDirectory(host, port, region=region)


def public_address(address: str, hierarchy: Hierarchy, node_id: NodeId) -> str | None:
    """Where others reach a node that listens on host:port.

    A node that listens on every address of its machine is reached as the region file says; None if
    that says nothing.
    """
    host, _ = split_endpoint(address)
    return hierarchy.entry(node_id).endpoint if host in _ANY_ADDRESS else address


class Whereabouts:
    """A node's dealings with the directory, if it has one. Used on one event loop."""

    def __init__(
        self,
        base: Foundations,
        thread: Executor,
        open_named: Callable[[str, Path, str], NodeDirectory] = open_directory,
    ) -> None:
        """`thread` runs one call at a time; nothing is asked yet."""
        self._base = base
        self._thread = thread
        self._log = get_logger("directory")
        self._registered = False
        self._silent = False
        self._told_epoch = base.hierarchy.epoch
        self._directory: NodeDirectory | None = None
        said = base.settings.directory
        if said is not None:
            try:
                self._directory = open_named(said, base.paths.data, base.hierarchy.region)
            except FenheError as error:
                self._failed(error.message, error.hint)

    @property
    def has_directory(self) -> bool:
        """Whether addresses may turn up that are not known yet."""
        return self._directory is not None

    async def parent_endpoint(self, parent: NodeId) -> str:
        """Where to dial now: as registered, else as node.yaml says, else as the region file says.

        Raises:
            ParentAddressUnknownError: Nobody says.
        """
        found = None
        if self._directory is not None:
            found = await self._ask(self._directory.registration_of, parent)
        known = self._base.settings.parent_endpoint or self._base.hierarchy.entry(parent).endpoint
        if found is None and known is None:
            raise ParentAddressUnknownError(f"no address of the parent {parent} is known")
        return found or known or ""

    async def run(self, address: str) -> None:
        """Register the node, again after the directory was away, and look for a newer region."""
        public = public_address(address, self._base.hierarchy, self._base.node_id)
        if public is None and self._directory is not None:
            self._log.warning(
                "the node is not registered: it listens on every address",
                hint="Set listen to one address, or the node's endpoint in the region file.",
            )
        while self._directory is not None:
            await self.look(public)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self, public: str | None) -> None:
        """Look once: for a newer region, and whether we are registered at `public`."""
        directory = self._directory
        state = None if directory is None else await self._ask(directory.read)
        if directory is None or state is None:
            # It may have forgotten us when it is back.
            self._registered = False
            return
        self._compare(state.hierarchy.epoch)
        if public is not None and not self._registered:
            self._registered = await self._ask(self._register, directory, public) is not None
            if self._registered:
                self._log.info("registered", endpoint=public)

    async def stop(self) -> None:
        """Take the registration back."""
        if self._directory is not None and self._registered:
            await self._ask(self._directory.deregister, self._base.node_id)

    def _compare(self, epoch: int) -> None:
        if epoch > self._told_epoch:
            self._told_epoch = epoch
            self._log.warning(
                "a newer region is published",
                epoch=epoch,
                in_force=self._base.hierarchy.epoch,
                hint=f"Put it in place of {self._base.settings.region} and start the node again.",
            )

    def _register(self, directory: NodeDirectory, public: str) -> bool:
        directory.register(self._base.node_id, public)
        return True

    async def _ask(self, question: Callable[..., T], *about: Any) -> T | None:
        """The directory's answer; None, and a line in the log, if there is none."""
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._thread, question, *about)
        try:
            answer = await asyncio.wait_for(asked, _ANSWER_S)
        except FenheError as error:
            self._failed(error.message, error.hint)
        except TimeoutError:
            self._failed("no answer in time", "See whether the directory of node.yaml runs.")
        except OSError as error:
            self._failed(str(error.strerror), "See who may read and write the directory's folder.")
        else:
            if self._silent:
                self._silent = False
                self._log.info("the directory answers again")
            return answer
        return None

    def _failed(self, reason: str, hint: str) -> None:
        """One line when it begins, not one at each dial."""
        if not self._silent:
            self._silent = True
            self._log.warning("the directory is not used", reason=reason, hint=hint)
