"""Alarms: what does not mend itself, raised once, kept while it stands, said when it is over.

Takes one look after the other and compares; reads no clock and no store, so that every rule can be
shown with made-up figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from node.security.credentials import Limited
from node.transit.model import Unanswered
from node.watch.figures import LaneFigure, LinkFigure
from replication.core.mailbox import PostState

__all__ = ["Alarm", "AlarmBook", "AlarmKind", "LaneKey", "Look", "Stall"]

REFUSALS_MAX: Final = 5
CLOCK_SKEW_MS_MAX: Final = 5 * 60_000
CERTIFICATE_DAYS_MIN: Final = 30
DISK_ROOM_MIN: Final = 1.2
"""A fifth above the watermark: there is time to act before writes are refused."""
LETTER_DAYS_MAX: Final = 1
REFUSED_DAYS: Final = 7
"""How long after it was written a refused letter is an alarm; one skipped is never confirmed."""
SETTLE_MS_MAX: Final = 30_000
"""How long a lane stands before that is worth remembering beyond this process."""
_DAY_MS: Final = 86_400_000

LaneKey = tuple[str, int]
"""A peer and the number of a lane."""


class AlarmKind(StrEnum):
    """Stable codes; they are the label of the metric too."""

    BACKLOG_STALLED = "BACKLOG_STALLED"
    LANE_REFUSED = "LANE_REFUSED"
    QUARANTINE_GROWING = "QUARANTINE_GROWING"
    DISK_NEAR_WATERMARK = "DISK_NEAR_WATERMARK"
    CERTIFICATE_EXPIRING = "CERTIFICATE_EXPIRING"
    LIMITED = "LIMITED"
    CLOCK_SKEWED = "CLOCK_SKEWED"
    LETTERS_WAIT = "LETTERS_WAIT"
    LETTERS_REFUSED = "LETTERS_REFUSED"
    ITEMS_ASIDE = "ITEMS_ASIDE"
    AUDIT_UNANCHORED = "AUDIT_UNANCHORED"
    AUDIT_CONTRADICTED = "AUDIT_CONTRADICTED"
    AUDIT_LOST = "AUDIT_LOST"
    AUDIT_RESERVE = "AUDIT_RESERVE"
    CANARY_OUT_OF_PLACE = "CANARY_OUT_OF_PLACE"
    GLASS_BROKEN = "GLASS_BROKEN"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that is wrong. `peer` "": this node itself. `since_ms`: ms since 1970 UTC."""

    kind: AlarmKind
    peer: str
    message: str
    next_step: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment.

    `disk_room`: free space over the watermark below which writes are refused; 1.0 is at it.
    `aside`: how many items cannot be read or handled, by kind. `audit`: what node/auditing found.
    `glasses`: broken over residents of this home, and not reviewed.
    """

    now_ms: int
    links: Sequence[LinkFigure]
    quarantined: int
    disk_room: float
    certificate_ends: datetime
    letters: Sequence[Unanswered] = ()
    aside: Mapping[str, int] = field(default_factory=dict)
    audit: Sequence[Alarm] = ()
    strays: Mapping[str, str] = field(default_factory=dict)
    """Canaries where they must not be, in words, by who holds them; "": this node."""
    glasses: int = 0
    limited: Limited | None = None
    """The node's certificate does not hold now."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Since when a lane stands where it stands with something to send, ms since 1970 UTC."""

    delivered_to: int
    receipt_number: int
    since_ms: int


class AlarmBook:
    """The alarms that stand."""

    def __init__(self, after_s: int, said: Callable[[Alarm, bool], None]) -> None:
        """Nothing is wrong yet.

        Args:
            after_s: How long a backlog may stand still, and over how long the quarantine is
                compared, seconds.
            said: Called once when an alarm is raised (True) and once when it is over (False).
        """
        self._after_ms = after_s * 1000
        self._said = said
        self._standing: dict[tuple[AlarmKind, str], Alarm] = {}
        self._settle_ms = min(self._after_ms // 3, SETTLE_MS_MAX)
        self._began_ms: int | None = None
        self._progress: dict[LaneKey, Stall] = {}
        self._now_ms = 0
        self._quarantine: list[tuple[int, int]] = []

    @property
    def standing(self) -> tuple[Alarm, ...]:
        """Oldest first."""
        return tuple(sorted(self._standing.values(), key=lambda alarm: alarm.since_ms))

    @property
    def lasting(self) -> Mapping[LaneKey, Stall]:
        """The stalls that are to outlive this process: those that have stood for a while."""
        return {
            key: stall
            for key, stall in self._progress.items()
            if self._now_ms - stall.since_ms >= self._settle_ms
        }

    def recall(self, stalls: Mapping[LaneKey, Stall]) -> None:
        """Go on from the `lasting` of the process before. Before the first look."""
        self._progress.update(stalls)

    def look(self, look: Look) -> None:
        """Take a look in; raise and end alarms."""
        self._now_ms = look.now_ms
        if self._began_ms is None or look.now_ms < self._began_ms:
            self._began_ms = look.now_ms
        lanes = {(link.peer, lane.lane.value) for link in look.links for lane in link.lanes}
        self._progress = {key: held for key, held in self._progress.items() if key in lanes}
        found = {(alarm.kind, alarm.peer): alarm for alarm in self._found(look)}
        for key in [key for key in self._standing if key not in found]:
            self._said(self._standing.pop(key), False)
        for key, alarm in found.items():
            held = self._standing.get(key)
            since_ms = held.since_ms if held is not None else alarm.since_ms
            now = Alarm(alarm.kind, alarm.peer, alarm.message, alarm.next_step, since_ms)
            self._standing[key] = now
            if held is None:
                self._said(now, True)

    def _found(self, look: Look) -> Iterator[Alarm]:
        for link in look.links:
            yield from self._stalled(link, look.now_ms)
            yield from _refused(link, look.now_ms)
            yield from _skewed(link, look.now_ms)
        yield from self._growing(look)
        yield from _disk(look)
        yield from _limited(look) if look.limited else _certificate(look)
        yield from _letters(look)
        yield from _aside(look)
        yield from look.audit
        yield from _strays(look)
        yield from _glasses(look)

    def _stalled(self, link: LinkFigure, now_ms: int) -> Iterator[Alarm]:
        still = [lane for lane in link.lanes if self._stands_still(link, lane, now_ms)]
        if not still:
            return
        since_ms = min(self._progress[link.peer, lane.lane.value].since_ms for lane in still)
        entries = sum(lane.lag_entries for lane in still)
        names = ", ".join(lane.lane.name.lower() for lane in still)
        what = f"{entries} entries ({names}) wait" if entries else f"A snapshot ({names}) waits"
        if link.connected:
            step = f"See the log of {link.peer}: it is linked and confirms nothing."
        elif link.next_step and not link.last_error.startswith("LINK_DOWN"):
            step = link.next_step
        else:
            step = f"See that {link.peer} runs and that the line to it is up."
        why = f" ({link.last_error})" if link.last_error else ""
        yield Alarm(
            AlarmKind.BACKLOG_STALLED,
            link.peer,
            f"{what} for {link.peer} and nothing has gone{why}.",
            step,
            since_ms,
        )

    def _stands_still(self, link: LinkFigure, lane: LaneFigure, now_ms: int) -> bool:
        key = (link.peer, lane.lane.value)
        held = self._progress.get(key)
        if not lane.is_behind:
            self._progress.pop(key, None)
            return False
        if held is None or _has_moved(held, lane) or now_ms < held.since_ms:
            self._progress[key] = Stall(lane.delivered_to, lane.receipt_number, now_ms)
            return False
        # What stood before a start gets the time to come up in.
        is_settled = now_ms - (self._began_ms or 0) >= self._settle_ms
        return is_settled and now_ms - held.since_ms >= self._after_ms

    def _growing(self, look: Look) -> Iterator[Alarm]:
        seen = self._quarantine
        seen.append((look.now_ms, look.quarantined))
        while len(seen) > 1 and look.now_ms - seen[1][0] >= self._after_ms:
            seen.pop(0)
        before = min(count for _, count in seen)
        if look.quarantined > before:
            yield Alarm(
                AlarmKind.QUARANTINE_GROWING,
                "",
                f"{look.quarantined - before} more changes wait in the quarantine, "
                f"{look.quarantined} in all.",
                "See `fenhe quarantine list` for their causes.",
                look.now_ms,
            )


def _has_moved(held: Stall, lane: LaneFigure) -> bool:
    """Whether the peer has confirmed more. A place that went back, with its stream, is no more."""
    return lane.receipt_number != held.receipt_number or lane.delivered_to > held.delivered_to


def _refused(link: LinkFigure, now_ms: int) -> Iterator[Alarm]:
    worst = max(link.lanes, key=lambda lane: lane.refusals, default=None)
    if worst is None or worst.refusals < REFUSALS_MAX:
        return
    step = (
        f"Make room on the disk of {link.peer}."
        if worst.refused == "DISK_FULL"
        else f"See docs/errors.md for {worst.refused}, and the log of {link.peer}."
    )
    yield Alarm(
        AlarmKind.LANE_REFUSED,
        link.peer,
        f"{link.peer} refused the lane {worst.lane.name.lower()} {worst.refusals} times in a row: "
        f"{worst.refused}.",
        step,
        now_ms,
    )


def _skewed(link: LinkFigure, now_ms: int) -> Iterator[Alarm]:
    if abs(link.clock_skew_ms) <= CLOCK_SKEW_MS_MAX:
        return
    way = "ahead of" if link.clock_skew_ms > 0 else "behind"
    yield Alarm(
        AlarmKind.CLOCK_SKEWED,
        link.peer,
        f"The clock of {link.peer} is {abs(link.clock_skew_ms) // 60_000} min {way} this node's.",
        "Set both clocks (NTP); then the link's next greeting ends the alarm.",
        now_ms,
    )


def _disk(look: Look) -> Iterator[Alarm]:
    if look.disk_room >= DISK_ROOM_MIN:
        return
    refused = "; writes are refused" if look.disk_room < 1 else ""
    yield Alarm(
        AlarmKind.DISK_NEAR_WATERMARK,
        "",
        f"Free space is {look.disk_room:.0%} of this node's watermark{refused}.",
        "Make room on the node's disk, or lower disk_free_min in its profile.",
        look.now_ms,
    )


def _limited(look: Look) -> Iterator[Alarm]:
    limited = look.limited
    if limited is None:
        return
    state = "this node serves its own residents and is linked to nobody"
    if limited.has_ended:
        said = f"The certificate has ended on {limited.ends:%Y-%m-%d}: {state}."
        step = (
            "It asks at the parent's door until it is renewed: see that the parent's door is open, "
            "and that this machine's clock is right. `fenhe node status` says what the door said."
        )
    else:
        said = f"The certificate begins on {limited.begins:%Y-%m-%d}, by this clock: {state}."
        step = "Set this machine's clock (NTP)."
    yield Alarm(AlarmKind.LIMITED, "", said, step, look.now_ms)


def _certificate(look: Look) -> Iterator[Alarm]:
    left_ms = int(look.certificate_ends.timestamp() * 1000) - look.now_ms
    if left_ms >= CERTIFICATE_DAYS_MIN * _DAY_MS:
        return
    yield Alarm(
        AlarmKind.CERTIFICATE_EXPIRING,
        "",
        f"This node's certificate ends on {look.certificate_ends:%Y-%m-%d}.",
        "Have the parent issue a new one and put it into certs/.",
        look.now_ms,
    )


def _aside(look: Look) -> Iterator[Alarm]:
    if not look.aside:
        return
    kinds = ", ".join(f"{count} of {kind}" for kind, count in sorted(look.aside.items()))
    yield Alarm(
        AlarmKind.ITEMS_ASIDE,
        "",
        f"What this node holds cannot be read or handled and was set aside: {kinds}.",
        "`fenhe replication verify --repair` mends rows from the neighbours; the node's log names "
        "each item (set aside), and a backup has what no neighbour holds.",
        look.now_ms,
    )


def _strays(look: Look) -> Iterator[Alarm]:
    for peer, places in look.strays.items():
        where = f"{peer} holds" if peer else "This node holds"
        yield Alarm(
            AlarmKind.CANARY_OUT_OF_PLACE,
            peer,
            f"{where} canaries that must not be there: {places}.",
            "Stop what copies data there and keep it as it is; `fenhe doctor canary look` there "
            "says where. Data has crossed a border that it must not cross.",
            look.now_ms,
        )


def _glasses(look: Look) -> Iterator[Alarm]:
    if look.glasses:
        yield Alarm(
            AlarmKind.GLASS_BROKEN,
            "",
            f"{look.glasses} time(s) somebody saw a resident of this node against the rules, in an "
            "emergency that nobody has reviewed.",
            "`fenhe access review list` names each; `fenhe access review close` says what was "
            "found.",
            look.now_ms,
        )


def _letters(look: Look) -> Iterator[Alarm]:
    """One alarm of each kind for an addressee."""
    waiting: dict[str, list[Unanswered]] = {}
    for each in look.letters:
        if each.state is not PostState.REFUSED:
            waiting.setdefault(each.to, []).append(each)
        elif look.now_ms - each.newest_ms < REFUSED_DAYS * _DAY_MS:
            yield Alarm(
                AlarmKind.LETTERS_REFUSED,
                each.to,
                f"{each.to} refused {each.count} letters of this node; they wait in its "
                "quarantine.",
                f"`fenhe record where ID` names the cause; `fenhe quarantine` at {each.to} has the "
                "exits.",
                each.newest_ms,
            )
    for to, some in waiting.items():
        oldest_ms = min(each.oldest_ms for each in some)
        if look.now_ms - oldest_ms < LETTER_DAYS_MAX * _DAY_MS:
            continue
        yield Alarm(
            AlarmKind.LETTERS_WAIT,
            to,
            f"{sum(each.count for each in some)} letters wait for the receipt of {to}, the oldest "
            f"for {(look.now_ms - oldest_ms) // _DAY_MS} d.",
            f"See that {to} and the nodes on the way to it run; `fenhe record where ID` says how "
            "far one has come.",
            oldest_ms + LETTER_DAYS_MAX * _DAY_MS,
        )
