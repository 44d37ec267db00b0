"""Plays scripts about moves of residents: who grants, what each node owes, what is admitted.

    ask COUNTY TO              what a node does with a request to move him there
    grant BY TO EPOCH          a grant, as every node of the tree judges and takes it
    rival BY TO EPOCH          another grant of the same epoch: which one stands
    at NODE from PEER AUTHOR HOME EPOCH VERSION    whether the row is admitted there
    late VERSION BASE          what an old home's identity row is to the new home

Places: CITY, COUNTY, TOWN with A and B below it, FAR in the town BEYOND.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replication.core.admission import AdmissionContext, Held, judge
from replication.core.config import PeerRole
from replication.core.model import Form, Lane, Operation, RowChange, Version
from replication.core.residence import (
    Grant,
    KnownHome,
    MoveRequest,
    decide,
    duty,
    is_genuine,
    judge_late_edit,
    outranks,
)

__all__ = ["MovesScenario"]

_PATHS = {
    "CITY": ("CITY",),
    "COUNTY": ("COUNTY", "CITY"),
    "TOWN": ("TOWN", "COUNTY", "CITY"),
    "BEYOND": ("BEYOND", "COUNTY", "CITY"),
    "A": ("A", "TOWN", "COUNTY", "CITY"),
    "B": ("B", "TOWN", "COUNTY", "CITY"),
    "FAR": ("FAR", "BEYOND", "COUNTY", "CITY"),
}


def _path(node: str) -> Sequence[str]:
    return _PATHS.get(node, ())


def _subtree(node: str) -> frozenset[str]:
    return frozenset(each for each, path in _PATHS.items() if node in path)


class MovesScenario:
    """One resident, whose first home is A, as everybody knows."""

    def __init__(self) -> None:
        self._home = KnownHome("A", 1)
        self._grant: Grant | None = None
        self._granted_ms = 0

    def command(self, line: str) -> list[str]:
        """Carry out one command; returns what it printed."""
        word, *arguments = line.split()
        commands: dict[str, Callable[..., list[str]]] = {
            "ask": self._ask,
            "grant": self._take,
            "rival": self._rival,
            "at": self._judge,
            "late": self._late,
        }
        return commands[word](*arguments)

    def _ask(self, here: str, to: str) -> list[str]:
        step = decide(here, MoveRequest("resident", to, "moved"), self._home, _path)
        return [f"{here}: {step.decision.value} {step.node}".rstrip()]

    def _made(self, by: str, to: str, epoch: str) -> Grant:
        self._granted_ms += 1
        return Grant("resident", int(epoch), to, self._home.home_node, by, self._granted_ms)

    def _take(self, by: str, to: str, epoch: str) -> list[str]:
        grant = self._made(by, to, epoch)
        if not is_genuine(grant, by, _path):
            return [f"not genuine: {by} is not the lowest node above {grant.from_node} and {to}"]
        self._grant = grant
        return [f"{node}: {duty(node, grant, _path).value}" for node in _PATHS]

    def _rival(self, by: str, to: str, epoch: str) -> list[str]:
        assert self._grant is not None
        rival = self._made(by, to, epoch)
        wins = outranks(rival, self._grant, _path)
        return [f"stands: {(rival if wins else self._grant).home_node}"]

    def _judge(self, here: str, _from: str, peer: str, *row: str) -> list[str]:
        author, home, epoch, version = row
        change = RowChange(
            "records",
            "row",
            "resident",
            Version(1, int(version)),
            Operation.PUT,
            author,
            home,
            int(epoch),
            1,
            "2026-11-23T20:00:00.000Z",
            Form.FULL,
            {},
        )
        knows = here in _path("A")
        context = AdmissionContext(
            peer_role=PeerRole.PARENT if peer in _path(here) else PeerRole.CHILD,
            lane=Lane.BULK,
            here_subtree=_subtree(here),
            peer_subtree=_subtree(peer),
            here_path=frozenset(_path(here)),
            home_epoch=self._home.home_epoch if knows else 0,
            home_node=self._home.home_node if knows else "",
            granted_epoch=self._grant.home_epoch if self._grant else 0,
            granted_home=self._grant.home_node if self._grant else "",
        )
        verdict = judge(change, Held(Version(1, 1), 1) if knows else None, context)
        return [f"{verdict.decision.value} {verdict.cause or ''}".rstrip()]

    def _late(self, offered: str, base: str) -> list[str]:
        known = Version(1, int(base)) if base != "none" else None
        return [judge_late_edit(known, Version(1, int(offered))).value]
