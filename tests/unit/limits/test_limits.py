"""Buckets, pools and the gate: what is let in, what is refused, and what the refusal says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hardware_profiles import PROFILE_NAMES, load_profile
from node.limits import CallGate, CallLimits, LimitError
from node.limits.buckets import Buckets
from node.limits.errors import (
    LookupsLimitedError,
    OverloadedError,
    RateLimitedError,
    TooManyCallsError,
)
from node.limits.gate import ADDRESS_CALLERS, ALL_LOOKUPS, BURST_S, CONNECT, LINKS_A_PEER
from node.limits.pools import WAIT_MS_MAX, WAIT_MS_MIN, Pool
from node.security.caller import CallerKind

GET = "/fenhe.empi.v1.ResidentService/Get"
FIND = "/fenhe.empi.v1.ResidentService/Find"
ASK = "/fenhe.federation.v1.QueryService/Ask"
WATCH = "/grpc.health.v1.Health/Watch"
ME, OTHER, CHILD = "spiffe://r/1/client/me", "spiffe://r/1/client/other", "spiffe://r/11"
HERE, THERE = "10.0.0.1", "10.0.0.2"


class HandClock:
    """Moves when told."""

    def __init__(self) -> None:
        self.at = 1_000

    def now_ms(self) -> int:
        return self.at

    def monotonic_ms(self) -> int:
        return self.at


@pytest.fixture
def clock() -> HandClock:
    """A clock at rest."""
    return HandClock()


@pytest.fixture
def gate(clock: HandClock) -> CallGate:
    """Ten calls a second, eight at once, six lookups a minute."""
    return CallGate(CallLimits(10, 8, 6), clock)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Calls that are under way until the test ends."""
    with ExitStack() as stack:
        yield stack


def call(
    gate: CallGate,
    method: str = GET,
    kind: CallerKind = CallerKind.CLIENT,
    who: str = ME,
    where: str = HERE,
) -> None:
    """One call that ends at once."""
    with gate.passing(method, kind, who, where):
        pass


class TestBuckets:
    def test_is_full_at_first_and_fills_again(self) -> None:
        """Three at once, then one each tenth of a second; the wait said is the wait needed."""
        buckets = Buckets(10, 3)
        assert [buckets.take("a", 0) for _ in range(3)] == [0, 0, 0]
        wait = buckets.take("a", 0)
        assert wait > 0
        assert buckets.take("a", wait) == 0
        assert buckets.take("a", wait) > 0

    def test_asking_in_vain_does_not_put_the_wait_off(self) -> None:
        """A refused call costs nothing."""
        buckets = Buckets(1, 1)
        buckets.take("a", 0)
        first = buckets.take("a", 0)
        for at in range(0, first, 100):
            buckets.take("a", at)
        assert buckets.take("a", first) == 0

    def test_keys_do_not_share(self) -> None:
        """One who has used up his share takes none of another's."""
        buckets = Buckets(1, 1)
        buckets.take("a", 0)
        assert buckets.take("b", 0) == 0

    def test_remembers_a_bounded_number_of_keys(self) -> None:
        """Whoever invents keys fills no memory."""
        buckets = Buckets(1, 1, keys_max=4)
        for number in range(100):
            buckets.take(str(number), 0)
        assert len(buckets._held) == 4  # noqa: SLF001

    def test_a_clock_that_stands_gives_nothing(self) -> None:
        """Tokens come from time alone."""
        buckets = Buckets(1000, 1)
        buckets.take("a", 5_000)
        assert buckets.take("a", 4_000) > 0


class TestPool:
    def test_forgets_who_has_left(self) -> None:
        """Keys of callers that are gone are not kept."""
        pool = Pool(10, 2)
        pool.enter("a")
        pool.leave("a", 5)
        assert pool.under_way == 0
        assert not pool._keys  # noqa: SLF001

    @pytest.mark.parametrize("took_ms", [0, 3, 400, 10**7])
    def test_says_a_bounded_wait_that_is_spread(self, took_ms: int) -> None:
        """Those who are refused do not come back at one moment, nor never."""
        pool = Pool(10, 10)
        for _ in range(100):
            pool.enter("a")
            pool.leave("a", took_ms)
        waits = [pool.wait_ms() for _ in range(16)]
        assert all(WAIT_MS_MIN <= wait <= WAIT_MS_MAX for wait in waits)
        assert len(set(waits)) > 1 or waits[0] == WAIT_MS_MAX


class TestGate:
    def test_refuses_a_caller_that_calls_too_often_and_says_when(
        self, gate: CallGate, clock: HandClock
    ) -> None:
        """After the burst; another caller goes on; after the wait it goes on itself."""
        for _ in range(10 * BURST_S):
            call(gate)
        with pytest.raises(RateLimitedError) as refused:
            call(gate)
        call(gate, who=OTHER)
        clock.at += refused.value.wait_ms
        call(gate)

    def test_a_caller_that_is_refused_takes_nothing_from_its_neighbours(
        self, gate: CallGate
    ) -> None:
        """A flood of one program does not shut out the others at the same address."""
        for _ in range(10 * BURST_S):
            call(gate)
        for _ in range(10_000):
            with pytest.raises(RateLimitedError):
                call(gate)
        call(gate, who=OTHER)

    def test_refuses_an_address_that_makes_up_callers(self, gate: CallGate) -> None:
        """Four callers' worth, however many names are used."""
        for number in range(10 * BURST_S * ADDRESS_CALLERS):
            call(gate, who=f"{ME}-{number}")
        with pytest.raises(RateLimitedError):
            call(gate, who=f"{ME}-fresh")
        call(gate, who=f"{ME}-fresh", where=THERE)

    def test_one_caller_leaves_places_to_others(self, gate: CallGate, held: ExitStack) -> None:
        """Three quarters of the places are the most that one caller has."""
        for _ in range(6):
            held.enter_context(gate.passing(GET, CallerKind.CLIENT, ME, HERE))
        with pytest.raises(TooManyCallsError):
            call(gate)
        call(gate, who=OTHER)

    def test_is_full_when_the_places_are_taken_and_recovers_at_once(self, gate: CallGate) -> None:
        """Nothing queues: the ninth is refused; when the eight have ended it is let in."""
        with ExitStack() as held:
            for number in range(8):
                held.enter_context(gate.passing(GET, CallerKind.CLIENT, f"{ME}-{number}", HERE))
            with pytest.raises(OverloadedError) as refused:
                call(gate)
            assert 0 < refused.value.wait_ms <= WAIT_MS_MAX
        call(gate)

    def test_analysts_leave_half_of_the_places_to_care(
        self, gate: CallGate, held: ExitStack
    ) -> None:
        """A question that comes when half is taken waits outside; a patient's does not."""
        for number in range(4):
            held.enter_context(gate.passing(GET, CallerKind.CLIENT, f"{ME}-{number}", HERE))
        with pytest.raises(OverloadedError):
            call(gate, ASK, CallerKind.ANALYST, OTHER)
        call(gate)

    def test_neighbours_are_let_in_whatever_callers_do(
        self, gate: CallGate, held: ExitStack
    ) -> None:
        """All places taken and every bucket of their common address empty: the link still opens."""
        for number in range(8):
            held.enter_context(gate.passing(GET, CallerKind.CLIENT, f"{ME}-{number}", HERE))
        for number in range(1000):
            with pytest.raises(LimitError):
                call(gate, who=f"{OTHER}-{number}")
        for _ in range(LINKS_A_PEER):
            held.enter_context(gate.passing(CONNECT, CallerKind.NODE, CHILD, HERE))
        call(gate, CONNECT, CallerKind.NODE, CHILD + "2")

    def test_a_child_that_dials_without_end_is_refused(self, gate: CallGate) -> None:
        """Its sibling is not."""
        for _ in range(60):
            call(gate, CONNECT, CallerKind.NODE, CHILD)
        with pytest.raises(RateLimitedError):
            call(gate, CONNECT, CallerKind.NODE, CHILD)
        call(gate, CONNECT, CallerKind.NODE, CHILD + "2")

    def test_workers_of_the_nodes_own_questions_need_no_place_of_callers(
        self, gate: CallGate, held: ExitStack
    ) -> None:
        """A question that was let in can be finished."""
        for number in range(8):
            held.enter_context(gate.passing(GET, CallerKind.CLIENT, f"{ME}-{number}", HERE))
        for _ in range(100):
            call(gate, "/fenhe.federation.v1.ExecutorService/AskSite", CallerKind.EXECUTOR, ME)
        assert gate.pools["callers"].under_way == 8
        assert gate.pools["workers"].under_way == 0

    def test_who_watches_the_health_takes_no_place_of_care(
        self, gate: CallGate, held: ExitStack
    ) -> None:
        """A watch may last for days; four of one caller are enough."""
        for _ in range(4):
            held.enter_context(gate.passing(WATCH, CallerKind.CLIENT, ME, HERE))
        with pytest.raises(TooManyCallsError):
            call(gate, WATCH)
        assert gate.pools["callers"].under_way == 0

    def test_looking_people_up_has_a_bucket_of_its_own(
        self, gate: CallGate, clock: HandClock
    ) -> None:
        """Six numbers a minute; reads by id go on."""
        for _ in range(6):
            call(gate, FIND)
        with pytest.raises(LookupsLimitedError) as refused:
            call(gate, FIND)
        call(gate, GET)
        clock.at += refused.value.wait_ms
        call(gate, FIND)

    def test_many_callers_together_look_up_no_more_than_four(self, gate: CallGate) -> None:
        """Whoever has a hundred credentials cannot list people faster than four can."""
        for number in range(6 * ALL_LOOKUPS):
            call(gate, FIND, who=f"{ME}-{number}")
        with pytest.raises(LookupsLimitedError):
            call(gate, FIND, who=f"{ME}-fresh")

    def test_counts_every_refusal_by_its_code(self, clock: HandClock) -> None:
        """For the metrics."""
        codes: list[str] = []
        gate = CallGate(CallLimits(10, 8, 1), clock, codes.append)
        call(gate, FIND)
        for _ in range(3):
            with pytest.raises(LookupsLimitedError):
                call(gate, FIND)
        assert codes == ["LOOKUPS_LIMITED"] * 3

    def test_a_place_is_given_back_when_the_call_fails(self, gate: CallGate) -> None:
        """Whatever it raised."""
        with (
            pytest.raises(ValueError, match="broken"),
            gate.passing(GET, CallerKind.CLIENT, ME, HERE),
        ):
            raise ValueError("broken")
        assert gate.pools["callers"].under_way == 0


def test_every_profile_says_its_limits() -> None:
    """And a larger node takes more."""
    limits = [CallLimits.of(load_profile(name)) for name in PROFILE_NAMES]
    assert len({each.calls_per_s for each in limits}) == len(PROFILE_NAMES)
    assert all(each.calls_at_once >= 64 for each in limits)
