"""A short run of the chaos, and what its own parts promise."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.chaos.__main__ import shown
from tests.chaos.acknowledged import Acknowledged
from tests.chaos.expected import expected_of
from tests.chaos.plan import KINDS, plan
from tests.chaos.proxy import CLEAR, Conditions, ProxyThread
from tests.chaos.restores import Forgiven
from tests.chaos.run import run

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
