"""Commands without a node: what they say when something is missing, wrong or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import protos.fenhe.federation.v1.federation_pb2 as pb
import protos.fenhe.node.v1.joining_pb2 as joining_pb
from hierarchy_config import REPLICATED_TABLES
from node.cli import joining_cmd, node_cmd, query_cmd
from node.cli.main import app
from node.cli.output import faults_shown
from node.demo.place import DemoPlace
from node.security.caller import CallerKind
from node.security.credentials import issue_credentials
from tests.services.waiting import CLOCK

RUNNER = CliRunner()
SQL = "SELECT COUNT(*) FROM residents"


class Failed(grpc.RpcError):
    """A failed call as gRPC raises it."""

    def __init__(
        self, status: grpc.StatusCode, details: str, trailing: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._status, self._details, self._trailing = status, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


def shown(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr for an error."""
    with pytest.raises(typer.Exit) as ended, faults_shown():
        raise error
    assert ended.value.exit_code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("code", ["RAY_UNAVAILABLE", "MANIFEST_REFUSED", "PLAN_MISMATCH"])
def test_a_nodes_own_code_is_shown_whatever_the_status(
    code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """UNAVAILABLE from a node that answered is not a node that cannot be reached."""
    error = Failed(
        grpc.StatusCode.UNAVAILABLE,
        f"{code}: something is away Next: Ask again.",
        [("fenhe-code", code)],
    )
    said = shown(error, capsys)
    assert said.startswith(f"{code}: something is away\n")
    assert "Next: Ask again." in said
    assert "NODE_UNREACHABLE" not in said


def test_a_refusal_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is what docs/errors.md lists."""
    details = "QUERY_REFUSED: SQL_STAR: * would select rows Next: Name the columns."
    said = shown(
        Failed(grpc.StatusCode.INVALID_ARGUMENT, details, [("fenhe-code", "QUERY_REFUSED")]),
        capsys,
    )
    assert said.startswith("QUERY_REFUSED: SQL_STAR: * would select rows\n")
    assert "Next: Name the columns." in said


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, "NODE_UNREACHABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_call_that_reached_no_code_has_a_next_step(
    status: grpc.StatusCode, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """GRPC's own statuses name none."""
    said = shown(Failed(status, "failed to connect\nand a trace"), capsys)
    assert said.startswith(f"{code}: ")
    assert "Next: " in said


class Silent:
    """A query service whose streams hold no answer."""

    def Ask(self, _request: pb.QueryRequest, timeout: float) -> Iterator[pb.QueryEvent]:
        assert timeout > 0
        return iter([pb.QueryEvent(), pb.QueryEvent()])


def test_a_stream_without_an_answer_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Never an exit code alone."""
    with pytest.raises(typer.Exit), faults_shown():
        query_cmd.ask(Silent(), pb.QueryRequest(sql=SQL), 1.0)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert said.startswith("ANSWER_MISSING: ")
    assert "Next: " in said


def test_no_credentials_and_no_folder_are_told_apart(tmp_path: Path) -> None:
    """Each says its next step; the folder is named."""
    none = RUNNER.invoke(app, ["query", SQL], env={"FENHE_CREDENTIALS": None})
    assert none.exit_code == 1
    assert "SETTINGS_INVALID: " in none.stderr
    assert "--as" in none.stderr
    missing = RUNNER.invoke(app, ["query", SQL, "--as", str(tmp_path / "nowhere")])
    assert missing.exit_code == 1
    assert "CERTIFICATE_UNUSABLE: " in missing.stderr
    assert "nowhere" in missing.stderr
    assert "Next: " in missing.stderr


def test_expired_credentials_are_named_before_tls_is(tmp_path: Path) -> None:
    """TLS would only say that the handshake failed."""
    place, _ = DemoPlace.open(tmp_path / "demo", "sqlite", CLOCK, (DemoPlace.slice().root,))
    node = place.hierarchy.root
    issue_credentials(
        place.node_dir(node),
        CallerKind.ANALYST,
        "late",
        tmp_path / "late",
        address="127.0.0.1:1",
        server_name=place.hierarchy.dns_name(node),
        now=datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC),
        lifetime=timedelta(seconds=-1),
    )
    done = RUNNER.invoke(app, ["query", SQL, "--as", str(tmp_path / "late")])
    assert done.exit_code == 1
    assert "expired" in done.stderr
    assert "fenhe node credentials" in done.stderr


def test_a_wrong_word_is_exit_code_2() -> None:
    """A basis or a kind that does not exist."""
    assert RUNNER.invoke(app, ["query", SQL, "--basis", "nowhere"]).exit_code == 2
    words = ["node", "credentials", "node", "x", "--data", "d", "--out", "o"]
    assert RUNNER.invoke(app, words).exit_code == 2


def test_a_folder_without_a_node_issues_nothing(tmp_path: Path) -> None:
    """The next step is to make one."""
    words = ["node", "credentials", "client", "his-1", "--data", str(tmp_path)]
    done = RUNNER.invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "fenhe node init" in done.stderr
    assert not (tmp_path / "out").exists()


def test_init_and_credentials_by_hand(tmp_path: Path) -> None:
    """Two commands from nothing to a folder that --as takes."""
    data, out = str(tmp_path / "city"), tmp_path / "me"
    made = RUNNER.invoke(app, ["node", "init", "1410", "--data", data, "--suite", "gm"])
    assert made.exit_code == 0, made.stderr
    assert "suite: gm" in (tmp_path / "city" / "node.yaml").read_text()
    words = ["node", "credentials", "operator", "me", "--data", data, "--out", str(out)]
    done = RUNNER.invoke(app, [*words, "--address", "10.0.0.1:4510", "--days", "7"])
    assert done.exit_code == 0, done.stderr
    assert "10.0.0.1:4510" in done.stdout
    assert {path.name for path in out.iterdir()} >= {"cert.pem", "key.pem", "root.pem"}


def test_a_new_epoch_is_begun_only_by_somebody_who_says_so(tmp_path: Path) -> None:
    """Nobody can be asked without a terminal: refused, with the cost and the option named."""
    data = str(tmp_path / "city")
    assert RUNNER.invoke(app, ["node", "init", "1410", "--data", data]).exit_code == 0
    done = RUNNER.invoke(app, ["node", "new-epoch", "--data", data])
    assert done.exit_code == 1
    assert "CONFIRMATION_MISSING: " in done.stderr
    assert "amend, retract and move nothing" in done.stderr
    assert "--yes" in done.stderr
    said = RUNNER.invoke(app, ["node", "new-epoch", "--yes", "--data", data])
    assert "has never been used" in said.stderr


@pytest.mark.parametrize(("answer", "refused"), [("n\n", True), ("y\n", False)])
def test_at_a_terminal_a_new_epoch_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, refused: bool
) -> None:
    """Anything but yes changes nothing."""
    data = str(tmp_path / "city")
    assert RUNNER.invoke(app, ["node", "init", "1410", "--data", data]).exit_code == 0
    monkeypatch.setattr(node_cmd, "_is_terminal", lambda: True)
    done = RUNNER.invoke(app, ["node", "new-epoch", "--data", data], input=answer)
    assert done.exit_code == 1
    assert ("not confirmed; nothing was changed" in done.stderr) is refused
    assert ("has never been used" in done.stderr) is not refused


def test_every_replicated_table_is_shown() -> None:
    """What goes up is told of all tables, and what an index entry carries."""
    told = RUNNER.invoke(app, ["hierarchy", "show", "141002"])
    assert told.exit_code == 0
    for table in REPLICATED_TABLES:
        assert table in told.stdout
    assert "keyed index" in " ".join(told.stdout.split())
    facts = json.loads(RUNNER.invoke(app, ["hierarchy", "show", "141002", "--json"]).stdout)
    assert facts["copied_up"].keys() == REPLICATED_TABLES
    assert facts["copied_up"]["identifiers"] == ["none"]


def test_a_profile_gives_the_configuration_of_its_database(tmp_path: Path) -> None:
    """Sized by the profile, durable, in the folder that was named."""
    done = CliRunner().invoke(app, ["profile", "show", "village", "--mariadb", str(tmp_path)])
    assert done.exit_code == 0
    assert f'datadir = "{tmp_path}"' in done.output
    assert "innodb_flush_log_at_trx_commit = 1" in done.output
    assert "innodb_buffer_pool_size = 96M" in done.output


def invited(door: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What stands on stdout and stderr for a code whose door is there."""
    invitation = joining_pb.Invitation(node_id="141002", expires_at="2026-11-23T08:00:00.000Z")
    made = joining_pb.CreateInvitationResponse(
        code="141002-7K3Q-XM9T-2B4", door=door, invitation=invitation, root_digest="ab" * 32
    )
    joining_cmd.show_code(made, as_json=False)
    said = capsys.readouterr()
    return said.out, said.err


@pytest.mark.parametrize("door", ["127.0.0.1:4511", "localhost:4511", "[::1]:4511"])
def test_a_door_that_nobody_else_reaches_is_said(
    door: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before somebody reads an address aloud that leads nowhere."""
    assert "listen" in invited(door, capsys)[1]


@pytest.mark.parametrize("door", ["10.14.0.1:4511", "city.example:4511", "[2001:db8::1]:4511"])
def test_the_command_of_the_new_machine_holds_no_code(
    door: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process list would show it; the command asks for it."""
    shown, warned = invited(door, capsys)
    assert f"fenhe node join --parent {door} --data FOLDER --run\n" in shown
    assert shown.count("141002-7K3Q-XM9T-2B4") == 1
    assert warned == ""


def test_signing_in_as_nobody_says_what_to_type() -> None:
    """The name is asked of nobody: it is an argument."""
    done = RUNNER.invoke(app, ["session", "sign-in"])
    assert done.exit_code == 1
    assert "fenhe session sign-in NAME" in done.stderr


def test_no_help_is_cut_on_a_narrow_terminal() -> None:
    """The sentence that stands beside a command's name fits eighty columns."""
    cut = [" ".join(path) for path, said in _sentences(get_command(app), ()) if said[-3:] == "..."]
    assert not cut


def _sentences(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    below: dict[str, Any] = getattr(command, "commands", {})
    room = 80 - 4 - max(map(len, below), default=0)
    for name, each in below.items():
        yield (*path, name), each.get_short_help_str(room)
        yield from _sentences(each, (*path, name))
