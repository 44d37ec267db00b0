"""What applying a region says: as it comes for people, as one document for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import grpc
import pytest
import typer

import protos.fenhe.node.v1.region_pb2 as pb
from node.cli import region_cmd


class Root:
    """Stands for the root's service: what History answers, one after the other."""

    def __init__(self, *progress: Sequence[str]) -> None:
        self._progress = list(progress)

    def History(self, _request: pb.HistoryRequest, timeout: float) -> pb.HistoryResponse:
        assert timeout > 0
        said = self._progress.pop(0) if len(self._progress) > 1 else self._progress[0]
        return pb.HistoryResponse(epochs=[pb.EpochSummary(epoch=4, progress=said)])


class AwayError(grpc.RpcError):
    """The root went away."""


def steps(*names: str, fails: bool = False) -> Iterator[pb.ApplyResponse]:
    """The steps of epoch 4."""
    for name in names:
        yield pb.ApplyResponse(step=name, epoch=4, detail=f"{name} to all")
    if fails:
        raise AwayError


def tell(root: Root, said: Iterator[Any], follow: int = 0, *, as_json: bool = True) -> None:
    """As apply and rollback do with their call."""
    region_cmd._tell(cast(Any, root), said, follow, as_json=as_json)  # noqa: SLF001 - its output


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks again at once."""
    monkeypatch.setattr(region_cmd, "_LOOK_AGAIN_S", 0)


def test_a_settled_change_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else stands on the standard output."""
    tell(Root(["2 nodes lack it"], ["settled"]), steps("offered", "decided"), 9)
    said = json.loads(capsys.readouterr().out)
    assert (said["epoch"], said["settled"], said["progress"]) == ("4", True, ["settled"])
    assert [step["step"] for step in said["steps"]] == ["offered", "decided"]


def test_a_change_that_is_not_settled_says_so_in_document_and_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 5, as without --json; without --follow nobody asked."""
    with pytest.raises(typer.Exit) as ended:
        tell(Root(["2 nodes lack it"]), steps("decided"), 2)
    assert ended.value.exit_code == 5
    said = json.loads(capsys.readouterr().out)
    assert (said["settled"], said["progress"]) == (False, ["2 nodes lack it"])

    tell(Root([]), steps("decided"))
    assert json.loads(capsys.readouterr().out)["settled"] is False


def test_a_call_that_breaks_off_leaves_the_steps_before_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program can tell whether it was decided; nothing at all said is no document."""
    with pytest.raises(AwayError):
        tell(Root([]), steps("offered", "decided", fails=True))
    assert json.loads(capsys.readouterr().out)["steps"][-1]["step"] == "decided"
    with pytest.raises(AwayError):
        tell(Root([]), steps(fails=True))
    assert not capsys.readouterr().out


def test_people_see_each_step_and_each_sentence_once(capsys: pytest.CaptureFixture[str]) -> None:
    """As it comes."""
    tell(Root(["a"], ["a", "b"], ["settled"]), steps("offered"), 9, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 4: offered: offered to all",
        "  a",
        "  b",
        "  settled",
    ]
