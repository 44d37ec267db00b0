"""What the command prints of other nodes' words: their text, and nothing a terminal obeys."""

from __future__ import annotations

import pytest

import protos.fenhe.node.v1.maintenance_pb2 as verify_pb
import protos.fenhe.node.v1.node_pb2 as node_pb
import protos.fenhe.node.v1.operations_pb2 as pb
from node.cli import node_cmd, quarantine_cmd, replication_cmd, verify_cmd
from node.cli.output import print_table, printable
from protos.fenhe.common.v1 import common_pb2

HOSTILE = "\x1b[2J\x1b]0;all well\x07 \u202etxet"


def test_control_and_bidi_characters_are_not_printed() -> None:
    """Line ends stay; Chinese stays."""
    assert printable("临汾\n县") == "临汾\n县"
    assert not set(printable(HOSTILE)) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("value", ["[/]", "[bold]x[/bold]", "[link=file:///]y", HOSTILE])
def test_a_cell_is_text_and_never_markup(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A code that one village made up must not break or colour the region's answer."""
    print_table(("code", "n"), [(value, 3)])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printable(value)[:5] in printed


@pytest.mark.parametrize("code", ["DISK_FULL", "BATCH_OUT_OF_ORDER"])
def test_a_lane_that_is_refused_says_the_code_on_a_line_that_fits(
    code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is what docs/errors.md has a row for; the line fits 100 columns."""
    monkeypatch.setattr("node.cli.output.out.width", 100)
    lane = pb.LaneReplication(
        lane=common_pb2.LANE_IDENTITY,
        state="refused",
        refusals=3,
        refused=code,
        receipt_number=1234,
        receipt_at="2026-11-24T03:18:28.165Z",
        lag_entries=20_000,
        lag_seconds=400_000,
        backlog_bytes=900_000_000,
        at_least=True,
    )
    link = pb.LinkReplication(
        peer="141002100200", connected=True, bytes_per_second=900_000, lanes=[lane]
    )

    replication_cmd._show(pb.ReplicationStatusResponse(links=[link]))  # noqa: SLF001 - its output

    printed = capsys.readouterr().out
    assert "refused x3" in printed
    assert code in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_who_speaks_what_stands_on_a_line_a_release(capsys: pytest.CaptureFixture[str]) -> None:
    """This node's own first; a neighbour that has not greeted is on none."""
    new = pb.LinkVersions(protocol_min=1, protocol_max=2, schema_min=1, schema_max=2)
    old = pb.LinkVersions(protocol_min=1, protocol_max=1, schema_max=1)
    links = [pb.LinkReplication(peer="141002", versions=new), pb.LinkReplication(peer="141003")]
    links += [pb.LinkReplication(peer=f"14100210{n}", versions=old) for n in range(6)]

    replication_cmd._show(  # noqa: SLF001 - its output
        pb.ReplicationStatusResponse(versions=new, links=links)
    )

    printed = " ".join(capsys.readouterr().out.split())
    assert "Protocol 1 to 2, schema 1 to 2: this node, 141002 Protocol" in printed
    assert (
        "Protocol 1 to 1, schema 1: 141002100, 141002101, 141002102, 141002103 and 2 more"
    ) in printed
    assert "141003" not in printed


def test_a_region_epoch_that_waits_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A decided epoch that is not in force has a line; a node without one has none."""
    node_cmd._show_state(node_pb.StatusResponse(config_epoch=1))  # noqa: SLF001 - its output
    assert "is decided" not in capsys.readouterr().err
    node_cmd._show_state(node_pb.StatusResponse(config_epoch=1, config_epoch_decided=2))  # noqa: SLF001 - its output
    assert "Region epoch 2 is decided and not in force here yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (verify_pb.LinkVerification(peer="1410", rows=9), "Equal."),
        (verify_pb.LinkVerification(peer="1410", rows=9, differing=1), "Not equal."),
        (verify_pb.LinkVerification(peer="1410", fault="LINK_DOWN"), "Not complete:"),
    ],
)
def test_a_comparison_that_could_not_be_made_is_not_called_unequal(
    link: verify_pb.LinkVerification, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A neighbour that is away says nothing about its rows."""
    verify_cmd._show(verify_pb.VerifyReport(equal=said == "Equal.", links=[link]))  # noqa: SLF001
    assert said in capsys.readouterr().out


def test_an_item_says_its_exit_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """`released` and `discarded` are the words of the store; what they mean stands beside them."""
    for outcome, words in (("released", "judged again"), ("discarded", "never applied here")):
        quarantine_cmd._told(pb.QuarantineOutcome(item_id=3, outcome=outcome), False)  # noqa: SLF001
        assert words in capsys.readouterr().out
