"""One contract for every executor: the same stage, the same answer, the same lines.

All of it shares one Ray session, so the whole module runs on one event loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from federation.availability import ExtraMissingError, RayUnavailableError
from federation.core.coverage import SiteState
from federation.core.model import Audience, SiteProgress
from federation.executors import DirectExecutor, Executor, StageResult
from federation.local import LocalSite
from federation.ray_runner import RayExecutor, RaySettings
from tests.contracts.executors.township import (
    VILLAGES,
    Township,
    VillagesByHand,
    figures,
    stage,
    women,
)
from tests.unit.federation.region import COUNTY, OTHER_VILLAGE, TOWNSHIP, VILLAGE

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.ray]

SETTINGS = RaySettings(workers=2, object_store_mb=80, memory_mb=256, threads=2)
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def township(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Township]:
    """A node with rows in a segment and in the delta, and two villages below it."""
    made = Township(tmp_path_factory.mktemp("township"))
    made.fill()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ray(
    township: Township, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RayExecutor]:
    """The Ray executor, its session up."""
    executor = RayExecutor(SETTINGS, township.local, issue=township.issue, new_token=lambda: TOKEN)
    await executor.start()
    yield executor
    await executor.stop()


@pytest.fixture(params=["direct", "ray"])
def executor(request: pytest.FixtureRequest, township: Township, ray: RayExecutor) -> Executor:
    """Each executor in turn."""
    if request.param == "ray":
        return ray
    return DirectExecutor(township.villages, township.local)


@pytest.fixture
def villages(township: Township) -> VillagesByHand:
    """Both villages answering."""
    township.villages.reset()
    return township.villages


def ignore(step: SiteProgress) -> None:
    """No progress wanted."""


def states(result: StageResult) -> dict[str, SiteState]:
    """State by site, counted or not."""
    sites = (*result.answer.coverage.sites, *result.open_sites)
    assert len({site.node_id for site in sites}) == len(sites)
    return {site.node_id: site.state for site in sites}


async def test_asks_scans_and_adds_up(executor: Executor) -> None:
    """Children and the own rows make one answer: segment, delta, newest version of each row."""
    result = await executor.run(stage(ask=VILLAGES, scan=(TOWNSHIP,)), ignore)
    # Ten women here, nine at 100 and one amended to 200; two at 130 in each village.
    assert figures(result.answer) == {
        "female": (14, pytest.approx((900 + 200 + 4 * 130) / 14)),
        "male": (1, 80.0),
    }
    assert result.open_sites == ()
    assert states(result) == {
        TOWNSHIP: SiteState.REPLICA,
        VILLAGE: SiteState.LIVE,
        OTHER_VILLAGE: SiteState.LIVE,
    }
    site = result.answer.coverage.site(TOWNSHIP)
    assert site is not None
    assert site.residents_covered == 7
    assert result.tasks


async def test_several_sites_are_scanned_once_each(executor: Executor) -> None:
    """However the work is cut, every row counts once."""
    result = await executor.run(stage(scan=(COUNTY, TOWNSHIP)), ignore)
    assert figures(result.answer) == {"female": (10, 110.0), "male": (2, 85.0)}


async def test_who_forbids_the_purpose_is_left_out(executor: Executor) -> None:
    """Consents in a segment and in the delta, of whatever home, reach every worker."""
    audience = Audience(("any", "statistics"), ("everyone",), "2026-02-01")
    asked = replace(stage(scan=(COUNTY, TOWNSHIP)), audience=audience)
    result = await executor.run(asked, ignore)
    assert figures(result.answer) == {"female": (8, 112.5), "male": (1, 80.0)}
    site = result.answer.coverage.site(TOWNSHIP)
    assert site is not None
    assert site.residents_covered == 7, "no answer says how many were left out"
    earlier = replace(asked, audience=replace(audience, day="2025-12-31"))
    everybody = await executor.run(earlier, ignore)
    assert figures(everybody.answer) == {"female": (10, 110.0), "male": (2, 85.0)}


async def test_earlier_rounds_are_added(executor: Executor) -> None:
    """A stand-in's round adds to what was counted before."""
    result = await executor.run(stage(scan=(TOWNSHIP,), before=women(VILLAGE)), ignore)
    assert figures(result.answer)["female"] == (12, pytest.approx(1360 / 12))
    assert set(states(result)) == {TOWNSHIP, VILLAGE}


async def test_a_child_that_is_offline_is_a_line(
    executor: Executor, villages: VillagesByHand
) -> None:
    """Its reason is kept, and the others are counted."""
    villages.fails(VILLAGE, "it is offline")
    result = await executor.run(stage(ask=VILLAGES), ignore)
    (line,) = result.open_sites
    assert (line.node_id, line.state, line.reason) == (
        VILLAGE,
        SiteState.MISSING,
        "it is offline",
    )
    assert figures(result.answer) == {"female": (2, 130.0)}


async def test_a_refusal_keeps_its_state(executor: Executor, villages: VillagesByHand) -> None:
    """Denied is not missing: nobody stands in for it."""
    villages.fails(VILLAGE, "it refuses", SiteState.DENIED)
    result = await executor.run(stage(ask=VILLAGES), ignore)
    assert states(result)[VILLAGE] is SiteState.DENIED


async def test_an_answer_for_another_site_is_a_line(
    executor: Executor, villages: VillagesByHand
) -> None:
    """A lying child is not added up."""
    villages.answers(VILLAGE, women(OTHER_VILLAGE))
    result = await executor.run(stage(ask=VILLAGES), ignore)
    assert states(result) == {VILLAGE: SiteState.MISSING, OTHER_VILLAGE: SiteState.LIVE}
    assert "invalid" in result.open_sites[0].reason


async def test_a_silent_child_is_cut_at_the_deadline(
    executor: Executor, villages: VillagesByHand
) -> None:
    """The rest is there in time."""
    villages.is_silent(VILLAGE)
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await executor.run(stage(ask=VILLAGES, scan=(TOWNSHIP,), remaining_ms=1500), ignore)
    assert loop.time() - began < 4
    assert states(result)[VILLAGE] is SiteState.MISSING
    assert result.open_sites[0].reason == "it did not answer in time"
    assert figures(result.answer)["female"][0] == 12


async def test_cancelling_reaches_the_children(
    executor: Executor, villages: VillagesByHand
) -> None:
    """Work that nobody waits for stops at the child too."""
    villages.is_silent(VILLAGE)
    running = asyncio.create_task(executor.run(stage(ask=(VILLAGE,)), ignore))
    await asyncio.wait_for(villages.asked.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(villages.cancelled.wait(), 2)


async def test_progress_is_told_for_each_child(
    executor: Executor, villages: VillagesByHand
) -> None:
    """Asked, then answered or missing."""
    villages.fails(VILLAGE, "it is offline")
    steps: list[SiteProgress] = []
    await executor.run(stage(ask=VILLAGES), steps.append)
    assert {(step.node_id, step.state.value) for step in steps} == {
        (VILLAGE, "asked"),
        (VILLAGE, "missing"),
        (OTHER_VILLAGE, "asked"),
        (OTHER_VILLAGE, "answered"),
    }


async def test_many_questions_run_at_once(executor: Executor) -> None:
    """Answers do not get mixed up."""
    whole = stage(ask=VILLAGES, scan=(TOWNSHIP,))
    results = await asyncio.gather(*(executor.run(whole, ignore) for _ in range(8)))
    assert len({str(figures(result.answer)) for result in results}) == 1


async def test_nothing_to_do_is_an_empty_answer(executor: Executor) -> None:
    """A stage without parts counts nothing."""
    result = await executor.run(stage(), ignore)
    assert result.answer.table.row_count == 0
    assert result.open_sites == ()


# -- what holds for Ray alone --------------------------------------------------------------------


def worker_pids(tasks: tuple[str, ...]) -> set[int]:
    """Process ids that the tasks name."""
    return {int(task.split()[2]) for task in tasks}


def command(pid: int) -> str:
    """A process's command line; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pids_below(folder: Path) -> set[int]:
    """Processes whose environment or command names a folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                is_zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if str(folder).encode() in text and not is_zombie:
                found.add(int(entry.name))
    return found


async def wait_until_gone(folder: Path, *, seconds: float) -> set[int]:
    """Processes of a session that are left after a while."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := pids_below(folder)) and loop.time() < until:
        await asyncio.to_thread(os.sched_yield)
    return left


async def test_scans_asks_and_merges_run_in_ray_workers(
    ray: RayExecutor, villages: VillagesByHand
) -> None:
    """Every task names a process that is a Ray actor and not this one."""
    result = await ray.run(stage(ask=VILLAGES, scan=(COUNTY, TOWNSHIP)), ignore)
    said = " ".join(result.tasks)
    for work in (f"asked {VILLAGE}", "scanned 1 sites", "added up 4 parts"):
        assert work in said
    pids = worker_pids(result.tasks)
    assert len(pids) == SETTINGS.workers
    assert os.getpid() not in pids
    assert all(command(pid).startswith("ray::SiteWorker") for pid in pids)


async def test_a_worker_calls_with_the_certificate_of_its_query(
    ray: RayExecutor, township: Township, villages: VillagesByHand
) -> None:
    """A certificate is made for each stage that asks anybody, and for no other."""
    before = len(township.issued)
    await ray.run(stage(ask=VILLAGES), ignore)
    await ray.run(stage(scan=(TOWNSHIP,)), ignore)
    assert township.issued[before:] == ["query-1"]


async def test_a_lost_worker_costs_a_retry_and_not_the_answer(
    ray: RayExecutor, villages: VillagesByHand
) -> None:
    """The task runs on another worker."""
    pid = min(worker_pids(ray.workers))
    os.kill(pid, signal.SIGKILL)
    results = await asyncio.gather(
        *(ray.run(stage(ask=VILLAGES, scan=(TOWNSHIP,)), ignore) for _ in range(4))
    )
    for result in results:
        assert result.open_sites == ()
        assert figures(result.answer)["female"][0] == 14


async def test_nothing_of_a_stage_stays_in_the_replica(
    ray: RayExecutor, township: Township, villages: VillagesByHand
) -> None:
    """What was lent to the workers is taken back."""
    await ray.run(stage(scan=(TOWNSHIP,)), ignore)
    assert list((township.replica.folder / "tmp").glob("loan-*")) == []


async def test_only_loopback_is_listened_on(ray: RayExecutor) -> None:
    """No process of the session can be reached from another machine."""
    inodes = {link for pid in pids_below(session_folder(ray)) for link in sockets_of(pid)}
    addresses = {row[1].split(":")[0] for row in listening() if row[9] in inodes}
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert addresses
    assert addresses <= loopback


def listening() -> list[list[str]]:
    """The kernel's rows of listening TCP sockets."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return [row for row in rows if row[3] == "0A"]


def sockets_of(pid: int) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return found


def session_folder(ray: RayExecutor) -> Path:
    """The private folder of the session that runs."""
    assert ray.session is not None
    return ray.session


async def test_the_session_is_private(ray: RayExecutor) -> None:
    """Its folder and its token are the owner's alone, and its socket paths are short enough."""
    folder = session_folder(ray)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "token").stat().st_mode & 0o077 == 0
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert sockets
    assert max(len(str(path)) for path in sockets) <= 107


async def test_a_lost_host_is_said_and_started_anew(
    ray: RayExecutor, villages: VillagesByHand
) -> None:
    """The question that runs fails clearly, nothing of the session is left, the next one works."""
    folder = session_folder(ray)
    villages.is_silent(VILLAGE)
    running = asyncio.create_task(ray.run(stage(ask=(VILLAGE,)), ignore))
    await asyncio.wait_for(villages.asked.wait(), 10)
    os.kill(ray.host_pid or 0, signal.SIGKILL)
    with pytest.raises(RayUnavailableError):
        await running
    villages.reset()
    result = await ray.run(stage(ask=VILLAGES, scan=(TOWNSHIP,)), ignore)
    assert figures(result.answer)["female"][0] == 14
    assert await wait_until_gone(folder, seconds=5) == set()
    assert not folder.exists()


async def test_stopping_leaves_nothing(ray: RayExecutor) -> None:
    """No process and no file; last, because the session is everybody's."""
    folder = session_folder(ray)
    await ray.stop()
    assert await wait_until_gone(folder, seconds=5) == set()
    assert not folder.exists()
    assert ray.workers == ()


def sessions_in(folder: str) -> list[Path]:
    """Folders of sessions."""
    return list(Path(folder).glob("fenhe-ray-*"))


async def test_a_killed_node_leaves_nothing_of_ray() -> None:
    """Not even SIGKILL of the node leaves a process or a folder of its session."""
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        node = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.contracts.executors.dying_node", folder),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert node.stdout is not None
        session = Path((await asyncio.wait_for(node.stdout.readline(), 200)).decode().strip())
        assert len(pids_below(session)) > 3
        node.kill()
        await node.wait()
        assert await wait_until_gone(session, seconds=15) == set()
        assert sessions_in(folder) == []


async def test_a_start_that_ends_is_tried_again(township: Township) -> None:
    """Ray ends itself where it starts too slowly: the next attempt has a session of its own."""
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        executor = RayExecutor(
            SETTINGS,
            township.local,
            issue=township.issue,
            new_token=lambda: TOKEN,
            temporary=Path(folder),
        )
        starting = asyncio.create_task(executor.start())
        async with asyncio.timeout(60):
            while not (first := [path for path in sessions_in(folder) if pids_below(path)]):
                await asyncio.to_thread(os.sched_yield)
        for pid in pids_below(first[0]):
            os.kill(pid, signal.SIGKILL)
        await starting
        assert len(executor.workers) == SETTINGS.workers
        assert sessions_in(folder) == [executor.session]
        assert executor.session != first[0]
        await executor.stop()
        assert sessions_in(folder) == []


async def test_a_start_that_always_ends_is_said(
    township: Township, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three attempts the question fails clearly, and nothing is left of them."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        executor = RayExecutor(
            SETTINGS,
            township.local,
            issue=township.issue,
            new_token=lambda: TOKEN,
            temporary=Path(folder),
        )
        with pytest.raises(RayUnavailableError, match="ended while starting, 3 times"):
            await executor.run(stage(), ignore)
        assert sessions_in(folder) == []


async def test_without_the_extra_there_is_one_clear_sentence(township: Township) -> None:
    """Nothing is started."""
    executor = RayExecutor(
        SETTINGS,
        township.local,
        issue=township.issue,
        new_token=lambda: TOKEN,
        is_installed=lambda: False,
    )
    with pytest.raises(ExtraMissingError) as caught:
        await executor.run(stage(), ignore)
    assert "fenhe[ray]" in caught.value.hint


async def test_without_analytics_the_own_rows_are_a_line(villages: VillagesByHand) -> None:
    """The children are asked all the same."""
    executor = DirectExecutor(villages, LocalSite(None, None))
    result = await executor.run(stage(ask=VILLAGES, scan=(TOWNSHIP,)), ignore)
    assert states(result)[TOWNSHIP] is SiteState.NO_ANALYTICS
    assert figures(result.answer) == {"female": (4, 130.0)}
