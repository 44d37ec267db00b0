"""Proposes a mapping by looking at a file: at its header first, then at what stands below.

A proposal is a draft for somebody to read: every line says how sure it is and why, and what is not
sure enough is left out with the best guess beside it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, cast

from node.ingestion.dates import DEFAULT_FORMATS, iso_day
from node.ingestion.elements import ELEMENTS, Element, Kind, element_of
from node.ingestion.errors import ContentUnreadableError
from node.ingestion.mapping import MappingModel
from node.ingestion.model import Format
from node.ingestion.normalising import icd10_text, identifier_text, number_of, sex_of
from node.ingestion.readers import open_reader
from node.records.icd10 import who_code
from node.records.identity import IdentityNumberError, parse_identity_number
from node.records.observation_codes import observation_codes

__all__ = ["ColumnProposal", "Proposal", "format_of", "propose"]

_ROWS: Final = 2000
_SURE: Final = 0.6
_MOST: Final = 0.8
_UNIT: Final = re.compile(r"^(.*?)\s*[(（\[]([^)）\]]{1,20})[)）\]]\s*$")
_DE: Final = re.compile(r"DE\d{2}\.\d{2}\.\d{3}\.\d{2}", re.ASCII)
_TRIED_FORMATS: Final = (*DEFAULT_FORMATS, "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y")
_SUFFIXES: Final = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".txt": Format.CSV,
    ".xlsx": Format.XLSX,
    ".jsonl": Format.NDJSON,
    ".ndjson": Format.NDJSON,
    ".json": Format.BUNDLE,
    ".hl7": Format.HL7,
}


@dataclass(frozen=True, slots=True)
class ColumnProposal:
    """What a column seems to be. `element` "": nothing that is known."""

    column: str
    element: str
    sureness: float
    reason: str
    unit: str = ""
    dates: tuple[str, ...] = ()
    length: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_sure(self) -> bool:
        """Whether the mapping takes it."""
        return bool(self.element) and self.sureness >= _SURE


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mapping's text, and what each line rests on."""

    name: str
    format: Format
    encoding: str
    rows: int
    columns: tuple[ColumnProposal, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        """A mapping file, with a comment a line."""
        lines = [
            f"# Proposed from {self.rows} rows; read every line before it is used.",
            f"name: {self.name}",
            f"source: {self.name}",
            f"format: {self.format.value}",
        ]
        lines += [f"# {note}" for note in self.notes]
        if self.columns:
            lines.append("columns:")
        for each in self.columns:
            lines += _lines(each)
        return "\n".join(lines) + "\n"


def format_of(path: Path, head: bytes) -> Format:
    """The format of a file, by its name and its first bytes."""
    if head.startswith(b"PK\x03\x04"):
        return Format.XLSX
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n\x0b")
    if text.startswith((b"MSH", b"FHS", b"BHS")):
        return Format.HL7
    if text.startswith(b"{"):
        first = text.split(b"\n", 1)[0]
        if b'"resourceType"' in first and b'"Bundle"' not in first[:200]:
            return Format.NDJSON
        return Format.BUNDLE if b'"Bundle"' in text[:4096] else Format.ROWS
    return _SUFFIXES.get(path.suffix.lower(), Format.CSV)


def propose(path: Path, name: str) -> Proposal:
    """A mapping for a file.

    Raises:
        ContentUnreadableError: It is of no format that is read here.
    """
    with path.open("rb") as file:
        stream = cast(BinaryIO, file)
        kind = format_of(path, stream.read(8192))
        stream.seek(0)
        if kind not in {Format.CSV, Format.XLSX, Format.ROWS}:
            return Proposal(name, kind, "", 0, notes=("The format says itself what it holds.",))
        reader = open_reader(stream, MappingModel(name="x", source="x", format=kind))
        units = [each for each in islice(iter(reader), _ROWS) if not each.troubles]
        if not reader.header:
            raise ContentUnreadableError("no columns")
        columns = [
            _column(column, [unit.cells[place].strip() for unit in units])
            for place, column in enumerate(reader.header)
        ]
        encoding = reader.encoding
    return Proposal(name, kind, encoding, len(units), tuple(_unique(columns)), _notes(columns))


def _notes(columns: Sequence[ColumnProposal]) -> tuple[str, ...]:
    named = {each.element for each in columns if each.is_sure}
    notes = []
    if not any(
        f"person.{each}" in named
        for each in ("identity_number", "health_card", "health_record", "local_id", "resident_id")
    ):
        notes.append("No column says whom a row is about: name one, such as person.local_id.")
    if "encounter.started_on" in named and "encounter.class" not in named:
        kind = "inpatient" if "encounter.ended_on" in named else "ambulatory"
        notes.append(
            f"No column says what kind of visit it is. If all are {kind}, add the line "
            f"constants: {{encounter.class: {kind}}}"
        )
    subjects = {each.partition(".")[0] for each in named}
    if subjects == {"person"}:
        notes.append("Only people, no records.")
    return tuple(notes)


def _unique(columns: Sequence[ColumnProposal]) -> list[ColumnProposal]:
    """An element is fed by one column: the surest."""
    best: dict[str, ColumnProposal] = {}
    for each in columns:
        held = best.get(each.element)
        if each.is_sure and (held is None or each.sureness > held.sureness):
            best[each.element] = each
    return [
        each
        if not each.is_sure or best[each.element] is each
        else ColumnProposal(
            each.column, each.element, 0.3, f"like {best[each.element].column}, which is surer"
        )
        for each in columns
    ]


def _column(column: str, cells: Sequence[str]) -> ColumnProposal:
    filled = [cell for cell in cells if cell]
    bare, unit = _parted(column)
    element, sureness, reason = _by_header(bare)
    if element is None:
        element, sureness, reason = _by_values(filled)
    elif filled:
        fits = _fit(element, filled)
        if fits < _MOST:
            sureness, reason = sureness * fits, f"{reason}, but only {fits:.0%} of cells fit"
    if element is None:
        return ColumnProposal(column, "", 0.0, "nothing that is known")
    dates = _formats(filled) if element.kind is Kind.DATE else ((), ())
    length, notes = _length(element, filled)
    return ColumnProposal(
        column,
        element.name,
        round(sureness, 2),
        reason,
        unit if element.kind is Kind.NUMBER else "",
        dates[0],
        length,
        (*dates[1], *notes),
    )


def _parted(column: str) -> tuple[str, str]:
    found = _UNIT.match(unicodedata.normalize("NFKC", column))
    return (found[1], found[2]) if found and found[1] else (column, "")


def _key(text: str) -> str:
    return re.sub(r"[\s_\-./]+", "", unicodedata.normalize("NFKC", text).lower())


def _by_header(column: str) -> tuple[Element | None, float, str]:
    if _DE.fullmatch(column.strip()):
        return element_of(column.strip()), 0.99, "a DE code of WS/T 363"
    wanted = _key(column)
    for element in ELEMENTS.values():
        if wanted in {_key(word) for word in (*element.words, element.name)}:
            return element, 0.95, "its header"
    for element in ELEMENTS.values():
        for word in element.words:
            if len(word) >= 2 and not word.isascii() and _key(word) in wanted:
                return element, 0.7, f"its header holds {word}"
    return None, 0.0, ""


def _by_values(cells: Sequence[str]) -> tuple[Element | None, float, str]:
    """What the cells are, where the header does not say."""
    if len(cells) < 3:
        return None, 0.0, ""
    for name, test, reason in _TESTS:
        share = sum(map(test, cells)) / len(cells)
        if share >= _MOST:
            return ELEMENTS[name], 0.85 * share, f"{share:.0%} of its cells are {reason}"
    return None, 0.0, ""


def _is_identity(text: str) -> bool:
    try:
        parse_identity_number(identifier_text(text))
    except IdentityNumberError:
        return False
    return True


_TESTS: Final[tuple[tuple[str, Callable[[str], bool], str], ...]] = (
    ("person.identity_number", _is_identity, "identity numbers"),
    ("observation.code", lambda text: text in observation_codes(), "LOINC codes"),
    ("condition.code", lambda text: len(text) >= 3 and bool(who_code(icd10_text(text))), "ICD-10"),
    (
        "person.phone",
        lambda text: bool(re.fullmatch(r"1[3-9]\d{9}", text, re.ASCII)),
        "mobile numbers",
    ),
    ("person.sex", lambda text: not text.isdigit() and sex_of(text) is not None, "words for sex"),
)


def _fit(element: Element, cells: Sequence[str]) -> float:
    """Which share of the cells can be read as what the element holds."""
    tests: dict[Kind, Callable[[str], bool]] = {
        Kind.DATE: lambda text: iso_day(text, _TRIED_FORMATS) is not None,
        Kind.NUMBER: lambda text: number_of(text) is not None,
        Kind.SEX: lambda text: sex_of(text) is not None,
        Kind.ICD10: lambda text: who_code(icd10_text(text)) is not None,
    }
    test = tests.get(element.kind)
    if element.name == "person.identity_number":
        test = _is_identity
    return 1.0 if test is None else sum(map(test, cells)) / len(cells)


def _formats(cells: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Formats that read every day; a note if two of them read it differently."""
    unread = [cell for cell in cells if iso_day(cell) is None]
    if not unread:
        return (), ()
    fitting = [each for each in _TRIED_FORMATS if all(iso_day(c, (each,)) for c in unread)]
    if len(fitting) == 1:
        return (*DEFAULT_FORMATS, fitting[0]), ()
    if len(fitting) > 1:
        return (), ("day and month cannot be told apart: say which under dates",)
    return (), ("some cells are in no known format",)


def _length(element: Element, cells: Sequence[str]) -> tuple[int | None, tuple[str, ...]]:
    """The length of a numeric identifier, where shorter ones look as if they had lost zeros."""
    if element.kind is not Kind.IDENTIFIER or not cells or not all(map(str.isdigit, cells)):
        return None, ()
    lengths = Counter(map(len, cells))
    longest = max(lengths)
    has_zeros = any(cell.startswith("0") for cell in cells)
    if len(lengths) > 1 and lengths[longest] >= len(cells) / 2 and not has_zeros:
        shorter = len(cells) - lengths[longest]
        return longest, (f"{shorter} of {len(cells)} are shorter: leading zeros may be lost",)
    return None, ()


def _lines(each: ColumnProposal) -> list[str]:
    """A column's lines. JSON's quotation is YAML's too, so any header is safe."""
    name = json.dumps(each.column, ensure_ascii=False)
    notes = "; ".join((f"{each.sureness:.0%}: {each.reason}", *each.notes))
    if not each.is_sure:
        guess = f", perhaps {each.element}" if each.element else ""
        return [f"  # {notes}{guess}", f"  {name}: null"]
    more = {
        **({"unit": each.unit} if each.unit else {}),
        **({"dates": list(each.dates)} if each.dates else {}),
        **({"length": each.length} if each.length else {}),
    }
    value = json.dumps({"to": each.element, **more}, ensure_ascii=False) if more else each.element
    return [f"  # {notes}", f"  {name}: {value}"]
