"""The backups of one node at a place: which there are, what rests on what, and what may go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from node.backup.chunks import ChunkSeal, Step
from node.backup.errors import BackupDamagedError, BackupError, BackupMissingError
from node.backup.keys import BackupKeys, BackupSecret
from node.backup.manifest import MANIFEST, Manifest, chunk_name, read_manifest
from node.backup.place import Place

__all__ = ["Held", "Shelf", "open_shelf"]


@dataclass(frozen=True, slots=True)
class Held:
    """A finished backup. `keys` None: no secret was given, and nothing of it is proven."""

    manifest: Manifest
    keys: BackupKeys | None


class Shelf:
    """One node's folder at a place."""

    def __init__(self, place: Place, node_id: str) -> None:
        self.place = place
        self.node_id = node_id

    def held(self, secret: BackupSecret | None) -> tuple[list[Held], list[BackupError]]:
        """Finished backups, oldest first, and what is wrong with those that cannot be used."""
        found: list[Held] = []
        faults: list[BackupError] = []
        for folder in self.place.folders(self.node_id):
            try:
                data = self.place.read(f"{self.node_id}/{folder}/{MANIFEST}")
            except BackupMissingError:
                continue
            try:
                found.append(Held(*read_manifest(data, folder, secret)))
            except BackupError as error:
                faults.append(error)
        return sorted(found, key=lambda each: each.manifest.number), faults

    def unfinished(self) -> list[str]:
        """Folders without a manifest: what a backup left that did not end."""
        return [
            folder
            for folder in self.place.folders(self.node_id)
            if MANIFEST not in self.place.files(f"{self.node_id}/{folder}")
        ]

    def chosen(self, held: Sequence[Held], number: int | None) -> Held:
        """The backup of that number, None: the newest. Raises BackupMissingError."""
        for each in reversed(held):
            if number is None or each.manifest.number == number:
                return each
        wanted = "no backup" if number is None else f"no backup {number}"
        raise BackupMissingError(f"{self.place.name} holds {wanted} of node {self.node_id}")

    @staticmethod
    def chain(held: Sequence[Held], last: Held) -> list[Held]:
        """What is restored one after the other: a full backup, then what rests on it.

        Raises:
            BackupDamagedError: One of them is gone.
        """
        by_folder = {each.manifest.folder: each for each in held}
        found = [last]
        while base := found[-1].manifest.base:
            if base not in by_folder or len(found) > len(held):
                raise BackupDamagedError(
                    f"{found[-1].manifest.folder} rests on {base}, which is not there"
                )
            found.append(by_folder[base])
        return found[::-1]

    def steps(self, backup: Held) -> Iterator[Step]:
        """The steps of one backup, in order, each opened and found to be the one in its place.

        Raises:
            BackupDamagedError: A chunk is missing or is not what was written.
        """
        manifest = backup.manifest
        if backup.keys is None:
            raise BackupError("a backup cannot be opened without its key")
        seal = ChunkSeal(backup.keys.chunk, bytes.fromhex(manifest.uid))
        for number, data in self.chunks(backup):
            yield from seal.open(data, number, last=number == len(manifest.chunks) - 1)

    def chunks(self, backup: Held) -> Iterator[tuple[int, bytes]]:
        """The chunks as they lie there, each with the digest that the manifest names."""
        manifest = backup.manifest
        for number, digest in enumerate(manifest.chunks):
            name = chunk_name(f"{self.node_id}/{manifest.folder}", number)
            try:
                data = self.place.read(name)
            except BackupMissingError:
                raise BackupDamagedError(f"{name} is missing") from None
            if sha256(data).hexdigest() != digest:
                raise BackupDamagedError(f"{name} was altered")
            yield number, data

    def check(self, backup: Held) -> None:
        """Read every chunk; open it too if the keys are there. Raises BackupDamagedError."""
        if backup.keys is None:
            for _ in self.chunks(backup):
                pass
            return
        last: Step = {}
        for step in self.steps(backup):
            last = step
        if last.get("do") != "end" or last.get("counts") != dict(backup.manifest.counts):
            raise BackupDamagedError(f"{backup.manifest.folder} does not end as it should")

    def retire(self, held: Sequence[Held], keep: int) -> list[str]:
        """Remove all but the newest `keep` and what they rest on; the folders that went."""
        needed: set[str] = set()
        for each in held[-keep:]:
            needed.update(link.manifest.folder for link in self.chain(held, each))
        gone = [each.manifest.folder for each in held if each.manifest.folder not in needed]
        # What rests on others goes before them, and the manifest first: what a crash leaves is
        # either whole or no backup.
        for folder in reversed(gone):
            self.place.remove(f"{self.node_id}/{folder}/{MANIFEST}")
            self.place.remove(f"{self.node_id}/{folder}")
        return gone


def open_shelf(place: Place, node_id: str | None) -> Shelf:
    """The shelf of a node; None: the only one there.

    Raises:
        BackupMissingError: There is none, or there are several and none was named.
    """
    nodes = [name for name in place.folders("") if name.isdigit()]
    if node_id is not None:
        return Shelf(place, node_id)
    if not nodes:
        raise BackupMissingError(f"{place.name} holds no backup")
    if len(nodes) > 1:
        raise BackupMissingError(
            f"{place.name} holds backups of {', '.join(nodes)}",
            hint="Say which with --node.",
        )
    return Shelf(place, nodes[0])
