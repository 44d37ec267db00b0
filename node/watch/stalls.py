"""Since when lanes stand still, kept in the store: a node that restarts often still alarms.

A fact of store_state for each lane that has stood for a while; nothing is written while lanes
drain or stay empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Engine

from node.storage.tables import CHANGELOG
from node.watch.alarms import LaneKey, Stall
from replication.changelog import StoreState, read_transaction, write_transaction

__all__ = ["StallFacts"]

_PREFIX: Final = "stalled:"


class StallFacts:
    """What is remembered of stalls. Blocks on the database."""

    def __init__(self, engine: Engine) -> None:
        """Reads nothing yet."""
        self._engine = engine
        self._facts = StoreState(CHANGELOG)
        self._saved: dict[LaneKey, Stall] = {}

    def load(self) -> Mapping[LaneKey, Stall]:
        """As they were saved last."""
        with read_transaction(self._engine) as connection:
            facts = self._facts.load(connection)
        self._saved = {
            _key(name): _stall(value) for name, value in facts.items() if name.startswith(_PREFIX)
        }
        return self._saved

    def save(self, stalls: Mapping[LaneKey, Stall]) -> None:
        """Remember these and forget the others; writes only what is not so already."""
        gone = [key for key in self._saved if key not in stalls]
        new = {key: stall for key, stall in stalls.items() if self._saved.get(key) != stall}
        if not (gone or new):
            return
        with write_transaction(self._engine) as connection:
            for key in gone:
                self._facts.forget(connection, _name(key))
            for key, stall in new.items():
                self._facts.save(connection, _name(key), _value(stall))
        self._saved = dict(stalls)


def _name(key: LaneKey) -> str:
    peer, lane = key
    return f"{_PREFIX}{peer}:{lane}"


def _key(name: str) -> LaneKey:
    peer, _, lane = name.removeprefix(_PREFIX).partition(":")
    return peer, int(lane)


def _value(stall: Stall) -> str:
    return f"{stall.delivered_to} {stall.receipt_number} {stall.since_ms}"


def _stall(value: str) -> Stall:
    delivered_to, receipt_number, since_ms = map(int, value.split())
    return Stall(delivered_to, receipt_number, since_ms)
