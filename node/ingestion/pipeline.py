"""One run, from its content to its end: read → map → normalise → validate → identify → store.

Goes by windows; `step` does one and returns, so that several runs share a thread. Everything that
a step leaves behind is in the database: a Pipeline can be thrown away at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol, cast

from node.clock import Clock, today
from node.ingestion.checking import check_draft
from node.ingestion.content import Contents
from node.ingestion.errors import ContentIncompleteError
from node.ingestion.fhir import FhirMapper
from node.ingestion.hl7v2 import Hl7Mapper
from node.ingestion.mapper import TableMapper
from node.ingestion.mapping import MappingModel, read_mapping
from node.ingestion.model import Draft, Format, Person, RunState, Trouble, Unit, placed
from node.ingestion.persons import Persons
from node.ingestion.readers import Opened, open_reader
from node.ingestion.registering import Judged
from node.ingestion.runs import Item, Run, Runs
from node.ingestion.writing import WindowWriter, Written
from node.storage import Storage

__all__ = ["WINDOW_UNITS", "Pipeline", "Workshop", "judge", "mapper_of"]

WINDOW_UNITS: Final = 1500
WINDOW_CHARACTERS: Final = 2 << 20
WINDOW_ROWS: Final = 4000
_AGAIN: Final = "PERSON_UNKNOWN"
_UNFORESEEN: Final = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
_AGAIN_UNITS: Final = 500


class Mapper(Protocol):
    """What turns units into drafts."""

    @property
    def fields(self) -> Mapping[str, str]:
        """Columns by the element that they feed."""

    def draft(self, unit: Unit) -> tuple[Draft, list[Trouble]]:
        """What a unit says, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What pipelines work with."""

    storage: Storage
    persons: Persons
    contents: Contents
    runs: Runs
    clock: Clock


def mapper_of(mapping: MappingModel, header: Sequence[str]) -> Mapper:
    """The mapper of a format. Raises MappingColumnsError."""
    match mapping.format:
        case Format.NDJSON | Format.BUNDLE:
            return FhirMapper(mapping)
        case Format.HL7:
            return Hl7Mapper(mapping)
        case _:
            return TableMapper(mapping, header)


def judge(mapper: Mapper, unit: Unit, today_iso: str, item_id: int = 0) -> Judged:
    """Map, normalise and validate one unit."""
    if unit.troubles:
        return Judged(unit, Draft(Person()), list(unit.troubles), item_id=item_id)
    try:
        draft, troubles = mapper.draft(unit)
        troubles = placed([*troubles, *check_draft(draft, today_iso)], mapper.fields)
    except _UNFORESEEN as error:
        # Of values that came from outside, valid by every schema and of a shape nobody thought of.
        trouble = Trouble("UNIT_UNREADABLE", type(error).__name__)
        return Judged(unit, Draft(Person()), [trouble], item_id=item_id)
    return Judged(unit, draft, troubles, item_id=item_id)


class Pipeline:
    """Reads one run. `step` until it returns False."""

    def __init__(self, workshop: Workshop, run: Run, *, reads: bool = True) -> None:
        """Opens the content, if it is to be read, or if only it says what the columns are.

        Raises:
            ContentUnreadableError, ContentDangerousError: It is not of its format.
            MappingColumnsError: It lacks columns that the mapping names.
            ContentIncompleteError: It is not whole.
        """
        self._shop = workshop
        self.run = run
        self.counts, self.figures = run.counts, run.figures
        mapping = read_mapping(run.mapping, is_kept=True)
        self._opened: Opened = _Nothing()
        if reads or mapping.is_table:
            self._opened = _open(workshop.contents, run.content_id, mapping)
        self._mapper = mapper_of(mapping, self._opened.header)
        used = mapping.mapped
        self._writer = WindowWriter(
            workshop.storage,
            workshop.persons,
            run,
            workshop.runs.caller_of(run),
            workshop.clock,
            columns=[(n, i) for i, n in enumerate(self._opened.header) if n in used],
            fields=self._mapper.fields,
            in_sequence=mapping.format is Format.HL7,
        )
        self._units: Iterator[Unit] = iter(self._opened)
        self._skipped = False
        self._again_after = -1

    def step(self) -> bool:
        """Do one window; False once the run has reached its end, which is then written.

        Raises:
            StorageBusyError, SQLAlchemyError: Nothing was written; a new Pipeline goes on.
        """
        if self._again_after >= 0:
            return self._again()
        if not self._skipped:
            self._skip()
        window = self._window()
        if window:
            self._write(window)
            return True
        facts = {"encoding": self._opened.encoding[:16], "truncated": self._opened.truncated}
        self._write([], facts)
        self._again_after = 0
        return True

    def _skip(self) -> None:
        """Pass over what was settled before, without mapping it."""
        for _ in range(self.counts.read):
            if next(self._units, None) is None:
                raise ContentIncompleteError("the content is shorter than it was")
        self._skipped = True

    def _window(self) -> list[Judged]:
        window: list[Judged] = []
        characters = rows = 0
        day = today(self._shop.clock).isoformat()
        for unit in self._units:
            judged = judge(self._mapper, unit, day)
            window.append(judged)
            characters += _size(unit)
            rows += len(judged.draft.records)
            if (
                len(window) >= WINDOW_UNITS
                or characters >= WINDOW_CHARACTERS
                or rows >= WINDOW_ROWS
            ):
                break
        return window

    def _again(self) -> bool:
        """Units whose person was unknown, once everybody of the content has been introduced."""
        found = self._shop.runs.waiting_of(self.run.run_id, _AGAIN, self._again_after, _AGAIN_UNITS)
        if not found:
            self._shop.runs.set_state(self.run.run_id, RunState.DONE)
            return False
        self._again_after = found[-1].item_id
        self.retry(found)
        return True

    def retry(self, items: Sequence[Item]) -> Written:
        """Judge quarantined units again; those that are sound now are stored and settled."""
        day = today(self._shop.clock).isoformat()
        window = [judge(self._mapper, each.unit, day, each.item_id) for each in items if each.unit]
        return self._write(window)

    @property
    def header(self) -> tuple[str, ...]:
        """Of a table."""
        return self._opened.header

    def _write(self, window: Sequence[Judged], facts: dict[str, Any] | None = None) -> Written:
        written = self._writer.write(window, self.counts, self.figures, facts=facts)
        self.counts, self.figures = written.counts, written.figures
        return written


class _Nothing:
    """A content that is not read: units come from the quarantine."""

    header: tuple[str, ...] = ()
    encoding = "utf-8"
    truncated = False

    def __iter__(self) -> Iterator[Unit]:
        return iter(())


def _open(contents: Contents, content_id: str, mapping: MappingModel) -> Opened:
    content = contents.load(content_id)
    if content is None or not content.is_whole:
        raise ContentIncompleteError("the content has not arrived whole")
    return open_reader(cast(BinaryIO, contents.open(content)), mapping)


def _size(unit: Unit) -> int:
    """About how much memory a unit's text takes."""
    return len(unit.raw) + sum(map(len, unit.cells)) + (2000 if unit.whole is not None else 0)
