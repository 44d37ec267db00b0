"""A short run of the chaos, and what its own parts promise."""

from __future__ import annotations

import random
import socket
from functools import cache
from pathlib import Path

import pytest

from hierarchy_config import Hierarchy, NodeId
from node.demo.place import DemoPlace
from tests.chaos.__main__ import shown
from tests.chaos.acknowledged import AWAY, Acknowledged, note
from tests.chaos.expected import Expected, Whereabouts, expected_of
from tests.chaos.plan import KINDS, plan
from tests.chaos.proxy import CLEAR, Conditions, ProxyThread
from tests.chaos.restores import Forgiven
from tests.chaos.run import run
from tests.chaos.strangers import Strangers

SEED = 1
MINUTES = 0.7
ROWS_A_SECOND = 40


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Fifteen nodes under every kind of fault; `make chaos` runs longer."""
    outcome = run(
        tmp_path / "run", seed=SEED, minutes=MINUTES, rate=ROWS_A_SECOND, tell=lambda _line: None
    )
    assert outcome.holds, shown(outcome)
    assert outcome.verdict.acknowledged > 0


def test_a_plan_has_every_kind_and_is_its_seeds() -> None:
    """However short the run; the same seed plans the same."""
    assert plan(7, 0.2) == plan(7, 0.2)
    assert plan(7, 0.2) != plan(8, 0.2)
    assert {each.kind for each in plan(7, 0.2)} == set(KINDS)


def _ack(number: int, at_ms: int) -> Acknowledged:
    return Acknowledged("observations", "r", number, "v", "v", at_ms)


def test_only_what_a_restored_node_had_alone_is_forgiven() -> None:
    """And only what was acknowledged before; others still have the number left."""
    row = ("observations", "r")
    gone = Forgiven(row, "v", 0, 100)  # type: ignore[arg-type]
    older = Forgiven(row, "v", 1, 100)  # type: ignore[arg-type]

    assert expected_of([_ack(1, 50)], [gone]) == ({}, 1)
    kept, count = expected_of([_ack(1, 50), _ack(2, 60)], [older])
    assert (kept[row].number, count) == (1, 1)
    again, count = expected_of([_ack(1, 50), _ack(2, 160)], [gone])
    assert (again[row].number, count) == (1, 1)
    assert expected_of([_ack(1, 50), _ack(2, 60)], [])[0][row].number == 2


CITY, COUNTY, TOWNSHIP, VILLAGE = "1410", "141002", "141002100", "141002100200"
OTHER_COUNTY, OTHER_TOWNSHIP, HOME = "141024", "141024100", "141024100001"


@cache
def _tree() -> Hierarchy:
    codes = (CITY, COUNTY, TOWNSHIP, VILLAGE, OTHER_COUNTY, OTHER_TOWNSHIP, HOME)
    return DemoPlace.slice(tuple(NodeId(code) for code in codes))


def _where(
    homes: dict[str, NodeId] | None = None,
    restored_ms: dict[NodeId, int] | None = None,
    lost: frozenset[str] = frozenset(),
) -> Whereabouts:
    return Whereabouts(_tree(), homes or {}, restored_ms or {}, lost)


def _away(at_ms: int = 50) -> Expected:
    return Expected(1, NodeId(VILLAGE), NodeId(HOME), "resident", AWAY, at_ms)


def test_a_record_from_away_is_at_its_author_and_its_home_and_nowhere_between() -> None:
    """Its home's line holds it up to the county; after a move, that of the new home."""
    assert _where().nodes_of("observations", _away()) == {
        VILLAGE,
        HOME,
        OTHER_TOWNSHIP,
        OTHER_COUNTY,
    }
    moved = _where(homes={"resident": NodeId(OTHER_TOWNSHIP)})
    assert moved.nodes_of("residents", _away()) == {OTHER_TOWNSHIP, OTHER_COUNTY}
    assert moved.nodes_of("observations", _away()) == {VILLAGE, OTHER_TOWNSHIP, OTHER_COUNTY}


def test_a_restored_author_may_miss_only_what_it_wrote_before_for_another_home() -> None:
    """And what nobody can take stays with its author."""
    line = {HOME, OTHER_TOWNSHIP, OTHER_COUNTY}
    restored = _where(restored_ms={NodeId(VILLAGE): 100})
    assert restored.nodes_of("observations", _away(50)) == line
    assert restored.nodes_of("observations", _away(150)) == line | {VILLAGE}
    came = _where({"resident": NodeId(VILLAGE)}, {NodeId(VILLAGE): 100})
    assert came.nodes_of("observations", _away(50)) == {VILLAGE, TOWNSHIP, COUNTY}
    assert _where(lost=frozenset({"resident"})).nodes_of("observations", _away()) == {VILLAGE}


def test_strangers_are_met_in_the_logs_of_others(tmp_path: Path) -> None:
    """Not in the own one, and not in a line that is not whole yet."""
    own, other = tmp_path / "own.log", tmp_path / "other.log"
    at_home = Acknowledged("residents", "mine", 1, VILLAGE, VILLAGE, 1)
    away = Acknowledged("residents", "theirs", 1, HOME, HOME, 1)
    for path, ack in ((own, at_home), (other, away)):
        with path.open("w", encoding="utf-8") as file:
            note(file, [ack])
    with other.open("a", encoding="utf-8") as file:
        file.write('["residents", "half"')
    strangers = Strangers(own, lambda: 0)
    chance = random.Random(1)
    assert {strangers.one(chance) for _ in range(20)} == {("theirs", HOME)}


def test_a_proxy_holds_back_cuts_and_heals() -> None:
    """What was held arrives when the line is healed; a cut resets what is open."""
    proxies = ProxyThread()
    with socket.create_server(("127.0.0.1", 0)) as far:
        line = proxies.add(f"127.0.0.1:{far.getsockname()[1]}", seed=1)
        with socket.create_connection(("127.0.0.1", line.listens_at)) as near:
            there, _ = far.accept()
            line.conditions = Conditions(up=False)
            near.sendall(b"held")
            there.settimeout(0.3)
            with pytest.raises(TimeoutError):
                there.recv(4)
            line.conditions = CLEAR
            there.settimeout(5)
            assert there.recv(4) == b"held"
            proxies.cut(line, Conditions(open=False))
            assert there.recv(4) == b""
            there.close()
    proxies.close()
