"""What a log line withholds, whoever wrote it and however deep it stands."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from node.joining.code import new_code
from node.logs import WITHHELD, configure_logs, get_logger
from tests.services.people import Person

PERSON = Person(7, "141002001201")  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A log file; afterwards logging is as it was."""
    path = tmp_path / "node.log"
    with configure_logs("debug", path):
        yield path
    structlog.reset_defaults()


def lines(path: Path) -> list[dict[str, Any]]:
    """What was written."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "key",
    ["name", "phone", "address", "identity_number", "password", "token", "Secret", "database_url"],
)
def test_keys_of_patients_and_secrets_are_withheld(log: Path, key: str) -> None:
    """At the top, in a mapping, in a list of mappings."""
    get_logger("t").info("x", **{key: "Zhao"}, more={"deep": [{key: "Zhao"}]})
    [line] = lines(log)
    assert line[key] == WITHHELD
    assert line["more"]["deep"][0][key] == WITHHELD
    assert "Zhao" not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "secret",
    [
        PERSON.identity_number,
        PERSON.phone,
        "mysql+pymysql://fenhe:hunter2@127.0.0.1/x",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQ",
        "Bearer abcdefgh12345678",
        "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJzdGFmZiJ9.c2lnbmF0dXJlYnl0ZXM",
        new_code("141002001201", lambda count: bytes(range(count))).spoken,  # type: ignore[arg-type]
    ],
)
def test_what_gives_itself_away_is_withheld_in_any_text(log: Path, secret: str) -> None:
    """In a message, in a value, in the text of an exception."""
    logger = get_logger("t")
    said = f"it was {secret}, it seems"
    logger.warning(said, reason=f"({secret})")
    try:
        raise ValueError(f"no such row: {secret}")
    except ValueError as error:
        logger.exception("unexpected error", exc_info=error)
    text = log.read_text(encoding="utf-8")
    assert secret not in text
    assert "hunter2" not in text
    assert "MC4CAQ" not in text
    assert text.count(WITHHELD) >= 3
    assert "ValueError" in text


def test_bytes_and_things_without_end_are_withheld(log: Path) -> None:
    """Nobody can say what is in them."""
    deep: list[Any] = []
    deep.append(deep)
    get_logger("t").info("x", body=b"\xff", chunk=b"raw", deep=deep)
    [line] = lines(log)
    assert (line["body"], line["chunk"]) == (WITHHELD, WITHHELD)
    assert WITHHELD in json.dumps(line["deep"])


def test_what_operators_need_stays(log: Path) -> None:
    """Node ids, codes, counts, times, addresses of machines in a sentence."""
    said = {
        "peer": "141002001201",
        "code": "LINK_DOWN",
        "rows": 12_345,
        "at": "2026-03-04T05:06:07.890Z",
        "listen": "127.0.0.1:4510",
        "principal": "spiffe://linfen/141002/operator/demo",
        "incident": "9f8e7d6c",
    }
    get_logger("t").info("serving", **said)
    [line] = lines(log)
    assert {key: line[key] for key in said} == said


def test_a_log_file_is_its_owners_alone(log: Path) -> None:
    """Whatever the umask was."""
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
