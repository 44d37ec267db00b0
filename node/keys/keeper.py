"""Keeps the data keys in order: rotates them, has rows re-sealed, and destroys what nothing names.

A new key is stored before anything is sealed under it. An old one is destroyed when three things
hold: its tables were gone through since it was retired, whoever sealed with it at that moment has
long ended, and nothing names it in a count of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection

from node.clock import Clock, RandomBytes, parse_ms
from node.keys.errors import KeyPurposeError
from node.keys.node_key import exchange, find_node_key, settled_node_key, wrapped_anew
from node.keys.places import PLACES, PURPOSES, SealedPlace
from node.keys.resealing import Resealer, count_rows, naming
from node.keys.service import KeyService
from node.keys.work import ResealState, ResealWork, Work
from node.security.caller import Caller
from node.security.errors import KeyFileError
from node.security.folders import NodeFolder
from node.security.sealing import GENERAL, DataKeys, new_data_key, unwrap_key
from node.security.suites import suite_named
from node.storage.audit import Action, Auditor, Deed, Outcome
from node.storage.data_keys import KeyState, StoredKeys, wrapped_of
from node.storage.model import DataKey
from node.storage.transactions import Transactions

__all__ = ["GENERAL_NAME", "GRACE_MS", "KeyGround", "KeyKeeper", "KeyStanding", "RotationLimits"]

GENERAL_NAME: Final = "general"
"""How the general key is called where a table is named."""
GRACE_MS: Final = 600_000
"""Far longer than any transaction lasts: what was sealed before it began is committed by then."""
_DAY_MS: Final = 86_400_000
_AUDITED: Final = "data_keys"


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """When a key is replaced by itself. `days` 0: by no age."""

    days: int
    seals: int


@dataclass(frozen=True, slots=True)
class KeyGround:
    """What the keeper stands on."""

    node_id: str
    folder: NodeFolder
    keys: DataKeys
    stored: StoredKeys
    transactions: Transactions
    auditor: Auditor
    clock: Clock
    random_bytes: RandomBytes
    service: KeyService | None


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """One data key. `rows`: that still name it, counted for retired keys only."""

    key: DataKey
    age_days: int
    rows: int | None

    @property
    def table(self) -> str:
        """What it seals."""
        return self.key.purpose or GENERAL_NAME


class KeyKeeper:
    """One for a running node; every method blocks, and may be called from several threads."""

    def __init__(self, ground: KeyGround, grace_ms: int = GRACE_MS) -> None:
        self._g = ground
        self._grace_ms = grace_ms
        self._work = Work()
        self._resealer = Resealer(ground.node_id, ground.keys, ground.transactions, ground.clock)
        # A step must not see another key between its reading and its cursor.
        self._one_at_a_time = threading.Lock()
        self._retired_at: dict[str, int] = {}

    # -- rotation ----------------------------------------------------------------------------

    def rotate(self, caller: Caller, tables: Sequence[str] = ()) -> list[str]:
        """Seal these tables (none named: everything) under new keys from now on; ids of the keys.

        Durable and audited on return; what is stored follows row by row.

        Raises:
            KeyPurposeError: A table has no key of its own. Nothing was rotated.
            KeyServiceError, KeyFileError: The node's key cannot be read. Nothing was rotated.
        """
        purposes = _purposes(tables)
        g = self._g
        with self._one_at_a_time:
            held = g.stored.load()
            node_key = find_node_key(g.folder, g.node_id, wrapped_of(held), g.service)
            suite = suite_named(g.keys.suite)
            made = [
                new_data_key(g.node_id, node_key, g.random_bytes, suite, purpose)
                for purpose in purposes
            ]
            places = list(PLACES) if GENERAL in purposes else purposes

            def store(connection: Connection) -> None:
                g.stored.replace(connection, made)
                self._work.begin(connection, places, g.clock.now_ms())
                g.auditor.write(connection, caller, *(_rotated(each) for each in purposes))

            g.transactions.write(store)
            # Not before it is durable: what a lost key sealed would be lost.
            g.keys.adopt(node_key, made)
            now_ms = g.clock.monotonic_ms()
            retired = [each for each in held if each.purpose in purposes]
            self._retired_at |= {
                each.key_id: now_ms for each in retired if each.state == KeyState.CURRENT
            }
        return [key.key_id for key in made]

    def rotate_due(self, caller: Caller, limits: RotationLimits) -> list[str]:
        """Rotate what is too old or has sealed too much; the tables. One that is under way waits.

        A key from the future, by a clock that was wrong, has no age.
        """
        standing = self._g.transactions.read(self._work.all)
        due = [
            key.purpose or GENERAL_NAME
            for key in self._g.stored.load()
            if key.state == KeyState.CURRENT
            and self._is_due(key, limits)
            and not _is_running(standing, key.purpose)
        ]
        if due:
            self.rotate(caller, due)
        return due

    def _is_due(self, key: DataKey, limits: RotationLimits) -> bool:
        is_old = limits.days > 0 and self._age_days(key) >= limits.days
        return is_old or key.seals >= limits.seals

    def rotate_node_key(self, caller: Caller, *, to_file: bool = False) -> int:
        """Wrap all data keys under a new node key; how many. No backup may be under way.

        `to_file`: the new key is kept as it is, so that the outside service can be left.

        A death at any line leaves a folder that opens (node_key.py).

        Raises:
            KeyServiceError, KeyFileError: Nothing was changed.
        """
        g = self._g
        with self._one_at_a_time:
            held = wrapped_of(g.stored.load())
            old = settled_node_key(g.folder, g.node_id, held, g.service)

            def store(new: bytes) -> None:
                made = wrapped_anew(
                    g.node_id,
                    held,
                    lambda key: unwrap_key(g.node_id, old, key),
                    new,
                    g.random_bytes,
                )
                deed = Deed(Action.ROTATE, _AUDITED, Outcome.DONE, len(made), object_id="node")

                def write(connection: Connection) -> None:
                    g.stored.rewrap(connection, made)
                    g.auditor.write(connection, caller, deed)

                g.transactions.write(write)

            try:
                exchange(g.folder, None if to_file else g.service, g.random_bytes, store)
            except OSError as error:
                raise KeyFileError(
                    f"the new key file cannot be written: {error.strerror}",
                    hint="Free space in keys/ and run the same command again; the node goes on.",
                ) from error
        return len(held)

    # -- what goes on by itself ---------------------------------------------------------------

    def count_seals(self) -> None:
        """Write down how often each key has sealed."""
        self._g.stored.count_seals(self._g.keys.take_seals())

    def step(self, rows_max: int) -> int | None:
        """Re-seal some rows of one table; how many. None: there is nothing to do."""
        with self._one_at_a_time:
            standing = self._g.transactions.read(self._work.all)
            for name, place in PLACES.items():
                if name in standing and standing[name].state is ResealState.RUNNING:
                    return self._resealer.step(place, rows_max).rows
        return None

    def destroy_unnamed(self, caller: Caller) -> list[str]:
        """Delete the retired keys that nothing names any more; their ids. Reads whole tables."""
        g = self._g
        gone = []
        for key in g.stored.load():
            if key.state != KeyState.RETIRED or not self._may_end(key):
                continue
            if g.transactions.write(partial(self._destroy, caller=caller, key=key)):
                g.keys.forget(key.key_id)
                gone.append(key.key_id)
        return gone

    def _may_end(self, key: DataKey) -> bool:
        retired_ms = self._retired_at.get(key.key_id)
        if retired_ms is not None and (self._g.clock.monotonic_ms() - retired_ms < self._grace_ms):
            return False
        standing = self._g.transactions.read(self._work.all)
        return all(
            place.name in standing and standing[place.name].state is ResealState.DONE
            for place in _places_of(key.purpose)
        )

    def _destroy(self, connection: Connection, caller: Caller, key: DataKey) -> bool:
        if _rows_naming(connection, key) or not self._g.stored.destroy(connection, key.key_id):
            return False
        deed = Deed(Action.DESTROY, _AUDITED, Outcome.DONE, 1, object_id=key.key_id)
        self._g.auditor.write(connection, caller, deed)
        return True

    # -- showing ------------------------------------------------------------------------------

    def standing(self) -> tuple[list[KeyStanding], list[ResealWork]]:
        """Every data key, by table, and the work on every table.

        Counts the rows that name a retired key, in whole tables.
        """
        self.count_seals()
        return self._g.transactions.read(self._standing)

    def _standing(self, connection: Connection) -> tuple[list[KeyStanding], list[ResealWork]]:
        order = {name: at for at, name in enumerate((*PURPOSES, GENERAL))}
        found = []
        for key in self._g.stored.all(connection):
            retired = key.state == KeyState.RETIRED
            rows = _rows_naming(connection, key) if retired else None
            found.append(KeyStanding(key, self._age_days(key), rows))

        def place(each: KeyStanding) -> tuple[int, str, str]:
            return order.get(each.key.purpose, -1), each.key.state, each.key.created_at

        work = self._work.all(connection)
        return sorted(found, key=place), [work[name] for name in order if name in work]

    def _age_days(self, key: DataKey) -> int:
        return max(0, self._g.clock.now_ms() - parse_ms(key.created_at)) // _DAY_MS


def _purposes(tables: Sequence[str]) -> list[str]:
    if not tables:
        return [*PURPOSES, GENERAL]
    named = [GENERAL if each == GENERAL_NAME else each for each in dict.fromkeys(tables)]
    if any(each not in PLACES and each != GENERAL for each in named) or "" in tables:
        raise KeyPurposeError("a table was named that has no data key of its own")
    return named


def _places_of(purpose: str) -> list[SealedPlace]:
    """Where a key may be named: the general key, as an old store's only one, anywhere."""
    if purpose in PLACES:
        return [PLACES[purpose]]
    return list(PLACES.values())


def _rows_naming(connection: Connection, key: DataKey) -> int:
    return sum(
        count_rows(connection, place, naming(place, [key.key_id]))
        for place in _places_of(key.purpose)
    )


def _is_running(standing: dict[str, ResealWork], purpose: str) -> bool:
    names = {place.name for place in _places_of(purpose)} & standing.keys()
    return any(standing[name].state is ResealState.RUNNING for name in names)


def _rotated(purpose: str) -> Deed:
    return Deed(Action.ROTATE, _AUDITED, Outcome.DONE, 1, object_id=purpose or GENERAL_NAME)
