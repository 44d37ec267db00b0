"""Plays scripts against two LinkEnds and writes down what they do, in the manner of etcd's raft.

A script is blocks of a command, `----`, and what it printed:

    write child bulk 2     two more entries in the child's log
    connect                a new stream; both ends start from what they persisted
    step                   every frame under way arrives, once
    settle                 step until nothing moves
    lose child             the frame that the child sent first vanishes
    fail parent CODE       the parent's next apply fails with this code
    hold parent            the parent's applies wait until `release parent`
    break                  the stream is gone with all that is under way
    backup parent          keep what the parent has on disk
    restore parent 2       put it back, with this store epoch
    tick 1000              this many milliseconds later
    letter child bulk 1    a sealed letter to a node beyond the other side
    prune child 4          drop the child's log up to this entry, but for letters under way
    recovering child       what its next Hellos say, until every lane has been served
    remember child 4       after so many entries passed over it persists its place; before connect
    busy parent yes        it puts off who wants a snapshot; `no`: no more
    old parent             it speaks protocol 1; `new parent`: the newest
    state parent           what the parent has on disk

What becomes of moves is in scenario_moves.py.

`python -m tests.unit.replication_core.scenario FILE…` writes the outputs anew; read the difference.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

from replication.core.config import LinkConfig, PeerRole
from replication.core.effects import (
    SEED,
    ApplyBatch,
    Close,
    Effect,
    LinkFrame,
    LinkUp,
    LogPart,
    ReadLog,
    SaveDelivered,
    SaveMark,
    Send,
)
from replication.core.greeting import RECOVERING, seed_feature
from replication.core.link import LinkEnd
from replication.core.model import (
    PROTOCOL_MAX,
    Batch,
    Cursor,
    Form,
    Goodbye,
    Hello,
    Lane,
    LogEntry,
    Mark,
    Receipt,
    Refusal,
)
from tests.unit.replication_core.scenario_moves import MovesScenario

__all__ = ["play", "rewrite"]

_IDS = {"parent": "141002001", "child": "141002001201"}
_BEYOND = "141024"
_LANES = (Lane.CARE, Lane.BULK)


@dataclass(slots=True)
class _Disk:
    epoch: int = 1
    log: list[LogEntry] = field(default_factory=list)
    inbound: dict[Lane, Cursor] = field(default_factory=dict)
    outbound: dict[Lane, Cursor] = field(default_factory=dict)
    peer_seen: tuple[int, str] = (0, "")
    pruned_to: int = 0
    wanting: frozenset[Lane] = frozenset()

    def copy(self) -> _Disk:
        return replace(
            self, log=list(self.log), inbound=dict(self.inbound), outbound=dict(self.outbound)
        )


class _Side:
    def __init__(self, name: str) -> None:
        self.name = name
        self.disk = _Disk()
        self.backup = _Disk()
        self.end: LinkEnd | None = None
        self.sent: deque[LinkFrame] = deque()
        self.fail_with = ""
        self.holding = False
        self.busy = False
        self.protocol = PROTOCOL_MAX
        self.save_after = 1000
        self.held: list[ApplyBatch] = []

    def dial(self, now: int) -> None:
        epoch, incarnation = self.disk.peer_seen
        other = "child" if self.name == "parent" else "parent"
        config = LinkConfig(
            node_id=_IDS[self.name],
            peer_id=_IDS[other],
            peer_role=PeerRole(other),
            store_epoch=self.disk.epoch,
            store_incarnation=f"{self.name}-{self.disk.epoch}",
            peer_store_epoch_seen=epoch,
            peer_incarnation_seen=incarnation,
            batch_bytes_min=100,
            batch_bytes_max=1000,
            window_bytes=4000,
            lanes=_LANES,
            save_after_entries=self.save_after,
            protocol_max=self.protocol,
            features=(RECOVERING, *map(seed_feature, sorted(self.disk.wanting)))
            if self.disk.wanting
            else (),
        )
        self.end = LinkEnd(config, self.disk.inbound, self.disk.outbound)
        self.sent.clear()
        self.held.clear()

    def write(self, lane: Lane, count: int, form: Form = Form.FULL) -> None:
        for _ in range(count):
            number = len(self.disk.log) + 1
            rows = b"r" * 200
            node = _IDS[self.name]
            home = node if form is Form.FULL else _BEYOND
            self.disk.log.append(
                LogEntry(number, node, 1, number, lane, home, form, 1, 1, 0, 1, rows)
            )

    def read(self, effect: ReadLog) -> LogPart:
        """Of the log, or of a snapshot where it does not reach back or the peer wants one."""
        disk, position = self.disk, effect.position
        if position == SEED and self.busy:
            return LogPart((), effect.after)
        if position == SEED or (not position and effect.after < disk.pruned_to):
            position = f"{len(disk.log)}:0"
        if position:
            return self._snapshot(effect, position)
        found: list[LogEntry] = []
        scanned = effect.after
        for entry in disk.log[effect.after :]:
            scanned = entry.sequence
            if entry.lane is effect.lane and self._goes(entry):
                found.append(entry)
            if sum(len(one.rows) for one in found) >= effect.bytes_max:
                break
        return LogPart(found, scanned)

    def _goes(self, entry: LogEntry) -> bool:
        protocol = self.end.protocol if self.end is not None else 0
        return entry.form is not Form.SEALED or (protocol > 1 and bool(entry.rows))

    def _snapshot(self, effect: ReadLog, position: str) -> LogPart:
        """Every entry stands for the row it made; letters come from the log, as they are."""
        head, done = map(int, position.split(":"))
        rows = [e for e in self.disk.log[:head] if e.lane is effect.lane and self._goes(e)]
        if done >= len(rows) and position == effect.position:
            return LogPart((), max(head, effect.after), "", coalesced=True)
        some = rows[done : done + max(1, effect.bytes_max // 200)]
        return LogPart(some, effect.after, f"{head}:{done + len(some)}", coalesced=True)

    def erase(self, cursor: Cursor) -> list[int]:
        """Letters that the other side holds now; the entry stays as a number."""
        erased = []
        for i, entry in enumerate(self.disk.log[: cursor.covers_to]):
            if entry.form is Form.SEALED and entry.lane is cursor.lane and entry.rows:
                self.disk.log[i] = replace(entry, rows=b"")
                erased.append(entry.sequence)
        return erased

    def note_served(self, before: Cursor | None, after: Cursor) -> None:
        """A snapshot has ended: this lane wants none any more."""
        if before is not None and before.position and not after.position:
            self.disk.wanting -= {after.lane}


class Scenario:
    """Two nodes and the stream between them."""

    def __init__(self) -> None:
        self._sides = {name: _Side(name) for name in ("child", "parent")}
        self._now = 0
        self._out: list[str] = []

    def command(self, line: str) -> list[str]:
        """Carry out one command; returns what it printed."""
        self._out = []
        word, *arguments = line.split()
        commands: dict[str, Callable[..., None]] = {
            "write": self._write,
            "connect": self._connect,
            "step": self._step,
            "settle": self._settle,
            "lose": self._lose,
            "fail": self._fail,
            "hold": self._hold,
            "release": self._release,
            "break": self._break,
            "backup": self._backup,
            "restore": self._restore,
            "tick": self._tick,
            "state": self._state,
            "letter": self._letter,
            "prune": self._prune,
            "recovering": self._recovering,
            "remember": self._remember,
            "busy": self._busy,
            "old": lambda side: self._speak(side, 1),
            "new": lambda side: self._speak(side, PROTOCOL_MAX),
        }
        commands[word](*arguments)
        return self._out or ["ok"]

    def _letter(self, side: str, lane: str, count: str) -> None:
        self._write(side, lane, count, Form.SEALED)

    def _prune(self, side: str, up_to: str) -> None:
        self._sides[side].disk.pruned_to = int(up_to)

    def _recovering(self, side: str) -> None:
        self._sides[side].disk.wanting = frozenset(_LANES)

    def _remember(self, side: str, entries: str) -> None:
        self._sides[side].save_after = int(entries)

    def _busy(self, side: str, answer: str) -> None:
        self._sides[side].busy = answer == "yes"

    def _speak(self, side: str, protocol: int) -> None:
        self._sides[side].protocol = protocol

    def _write(self, side: str, lane: str, count: str, form: Form = Form.FULL) -> None:
        self._sides[side].write(Lane[lane.upper()], int(count), form)
        end = self._sides[side].end
        if end is not None:
            head = len(self._sides[side].disk.log)
            self._perform(self._sides[side], end.log_advanced(head, self._now))

    def _connect(self) -> None:
        for side in self._sides.values():
            side.dial(self._now)
        for side in self._sides.values():
            assert side.end is not None
            self._perform(side, side.end.start(self._now))

    def _step(self) -> None:
        arriving = [
            (other, frame)
            for side, other in (("child", "parent"), ("parent", "child"))
            for frame in self._sides[side].sent
        ]
        for side in self._sides.values():
            side.sent.clear()
        for name, frame in arriving:
            end = self._sides[name].end
            assert end is not None
            self._perform(self._sides[name], end.receive(frame, self._now))

    def _settle(self) -> None:
        for _ in range(50):
            if not any(side.sent for side in self._sides.values()):
                return
            self._step()
        raise AssertionError("the link never comes to rest")

    def _lose(self, side: str) -> None:
        self._out.append(f"lost: {_frame(self._sides[side].sent.popleft())}")

    def _fail(self, side: str, code: str) -> None:
        self._sides[side].fail_with = code

    def _hold(self, side: str) -> None:
        self._sides[side].holding = True

    def _release(self, name: str) -> None:
        side = self._sides[name]
        side.holding = False
        held, side.held = side.held, []
        for effect in held:
            self._apply(side, effect)

    def _break(self) -> None:
        for side in self._sides.values():
            side.sent.clear()
            side.end = None

    def _backup(self, side: str) -> None:
        self._sides[side].backup = self._sides[side].disk.copy()

    def _restore(self, side: str, epoch: str) -> None:
        self._sides[side].disk = self._sides[side].backup.copy()
        self._sides[side].disk.epoch = int(epoch)

    def _tick(self, milliseconds: str) -> None:
        self._now += int(milliseconds)
        for side in self._sides.values():
            if side.end is not None:
                self._perform(side, side.end.tick(self._now))

    def _state(self, name: str) -> None:
        disk = self._sides[name].disk
        self._out.append(f"store epoch {disk.epoch}, log {len(disk.log)}")
        for word, cursors in (("has", disk.inbound), ("delivered", disk.outbound)):
            self._out += [f"{word} {_cursor(cursor)}" for _, cursor in sorted(cursors.items())]

    # -- effects --------------------------------------------------------------------------------

    def _perform(self, side: _Side, effects: list[Effect]) -> None:
        for effect in effects:
            self._out.append(f"{side.name}: {_effect(effect)}")
            self._carry_out(side, effect)

    def _carry_out(self, side: _Side, effect: Effect) -> None:
        end, disk = side.end, side.disk
        assert end is not None
        match effect:
            case Send(frame):
                side.sent.append(frame)
            case LinkUp(hello):
                disk.peer_seen = (hello.store_epoch, hello.store_incarnation)
                self._perform(side, end.log_advanced(len(disk.log), self._now))
            case ReadLog():
                self._read(side, effect)
            case ApplyBatch():
                if side.holding:
                    side.held.append(effect)
                else:
                    self._apply(side, effect)
            case SaveDelivered(cursor, _):
                disk.outbound[cursor.lane] = cursor
                self._out += [f"{side.name}: erase letter {n}" for n in side.erase(cursor)]
            case SaveMark() | Close():
                pass
            case _:
                assert_never(effect)

    def _read(self, side: _Side, effect: ReadLog) -> None:
        assert side.end is not None
        part = side.read(effect)
        self._perform(
            side,
            side.end.entries_read(
                effect.lane,
                part.entries,
                part.scanned_to,
                self._now,
                position=part.position,
                coalesced=part.coalesced,
            ),
        )

    def _apply(self, side: _Side, effect: ApplyBatch) -> None:
        lane = effect.batch.lane
        assert side.end is not None
        if side.fail_with:
            code, side.fail_with = side.fail_with, ""
            self._perform(side, side.end.batch_failed(lane, code, self._now))
            return
        side.note_served(side.disk.inbound.get(lane), effect.cursor_after)
        side.disk.inbound[lane] = effect.cursor_after
        self._perform(side, side.end.batch_applied(lane, effect.cursor_after, self._now))


def _effect(effect: Effect) -> str:
    match effect:
        case Send(frame):
            return f"send {_frame(frame)}"
        case LinkUp(hello):
            return f"up with {hello.node_id}, store epoch {hello.store_epoch}"
        case ReadLog(lane, after, bytes_max, position):
            where = f", snapshot at {position}" if position else ""
            return f"read {lane.name} after {after}, {bytes_max} bytes{where}"
        case ApplyBatch(batch, _):
            return f"apply {_frame(batch)}"
        case SaveDelivered(cursor, _):
            return f"save delivered {_cursor(cursor)}"
        case SaveMark(mark):
            return f"save {_frame(mark)}"
        case Close(code, reason, _):
            return f"close {code}: {reason}"
        case _:
            assert_never(effect)


def _frame(frame: LinkFrame) -> str:
    match frame:
        case Hello():
            cursors = "; ".join(_cursor(cursor) for cursor in frame.cursors) or "nothing"
            seen = frame.peer_store_epoch_seen
            said = f", says {' '.join(frame.features)}" if frame.features else ""
            said += f", protocol {frame.protocol_max}" if frame.protocol_max < PROTOCOL_MAX else ""
            return f"Hello epoch {frame.store_epoch}, seen {seen}, has {cursors}{said}"
        case Batch():
            covers = f"({frame.covers_from}, {frame.covers_to}]"
            where = f" snapshot at {frame.position}" if frame.position else ""
            return f"Batch {frame.lane.name} {frame.number} {covers} rows {frame.row_count}{where}"
        case Receipt():
            refused = f" refused {frame.refused}" if frame.refused else ""
            return f"Receipt {_cursor(frame.cursor)}{refused}"
        case Mark():
            return f"Mark at {frame.at_sequence}"
        case Refusal():
            return f"Refusal {frame.code}: {frame.reason}"
        case Goodbye():
            return "Goodbye"
        case _:
            assert_never(frame)


def _cursor(cursor: Cursor) -> str:
    epoch = cursor.stream_epoch
    where = f"{cursor.number} to {cursor.covers_to}"
    where += f" snapshot at {cursor.position}" if cursor.position else ""
    return f"{cursor.lane.name} {where} of stream {epoch.sender}/{epoch.receiver}"


def play(script: str) -> str:
    """Play a script; returns it with the outputs as they are."""
    moves = script.startswith("# moves")
    scenario: Scenario | MovesScenario = MovesScenario() if moves else Scenario()
    played: list[str] = []
    for block in script.strip().split("\n\n"):
        lines = block.split("\n")
        commands = [line for line in lines[: lines.index("----")] if line]
        played += commands
        played.append("----")
        for command in commands:
            if not command.startswith("#"):
                played += scenario.command(command)
        played.append("")
    return "\n".join(played)


def rewrite(path: Path) -> None:
    """Write a script's outputs anew."""
    path.write_text(play(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        rewrite(Path(name))
