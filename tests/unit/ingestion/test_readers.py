"""Whatever the bytes are: units come out, nothing is lost, nothing is guessed."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime

import openpyxl
import pytest

from node.ingestion.errors import ContentDangerousError, ContentUnreadableError
from node.ingestion.mapping import MappingModel
from node.ingestion.model import Format, Unit
from node.ingestion.readers import open_reader


def units(data: bytes, form: str = "csv", **more: str) -> list[Unit]:
    """Everything that a reader gives."""
    mapping = MappingModel(name="x", source="x", format=Format(form), **more)
    return list(open_reader(io.BytesIO(data), mapping))


def cells(data: bytes, form: str = "csv") -> list[list[str]]:
    """Cells of the units that were read."""
    return [list(unit.cells) for unit in units(data, form) if not unit.troubles]


def rules(data: bytes, form: str = "csv") -> list[str]:
    """The rule that each unit broke; "" for a sound one."""
    return [each.troubles[0].rule if each.troubles else "" for each in units(data, form)]


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("gb18030", "gb18030"),
        ("utf-16", "utf-16-le"),
    ],
)
def test_finds_the_encoding_and_says_it(encoding: str, named: str) -> None:
    """Exports of hospitals are in all of these."""
    mapping = MappingModel(name="x", source="x")
    reader = open_reader(io.BytesIO("姓名,性别\n李𠮷,女\n".encode(encoding)), mapping)

    assert [list(unit.cells) for unit in reader] == [["李𠮷", "女"]]
    assert (reader.header, reader.encoding) == (("姓名", "性别"), named)


def test_turns_to_gb18030_when_ascii_ends() -> None:
    """The first MiB may be numbers."""
    data = b"a,b\n" + b"1,2\n" * 300_000 + "张三,4\n".encode("gb18030")

    assert cells(data)[-1] == ["张三", "4"]


def test_a_line_that_does_not_decode_is_one_unit() -> None:
    """Its neighbours are taken."""
    assert rules("姓名,值\n张三,1\n".encode() + b"\xff\xfe\xff,2\n" + "李四,3\n".encode()) == [
        "",
        "ENCODING_WRONG",
        "",
    ]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_finds_the_delimiter(delimiter: str) -> None:
    """Of the sample's lines."""
    text = "\n".join(delimiter.join(row) for row in (("a", "b"), ("1", "x"), ("2", "y")))

    assert cells(text.encode()) == [["1", "x"], ["2", "y"]]


def test_an_open_quotation_mark_takes_its_line_alone() -> None:
    """What stands behind it is read."""
    assert rules(b'a,b\n1,2\n"open,3\n4,5\n6,7\n') == ["", "LINE_BROKEN", "", ""]


def test_a_quoted_cell_may_hold_lines() -> None:
    """As RFC 4180 has it."""
    assert cells(b'a,b\n"x\ny, ""z""",2\n') == [['x\ny, "z"', "2"]]


def test_a_million_columns_are_one_unit() -> None:
    """A line of 2 MB, and one with 100,000 cells."""
    data = b"a,b\n" + b"1," * 1_000_000 + b"\n" + b"1," * 100_000 + b"\n3,4\n"

    assert rules(data) == ["LINE_TOO_LONG", "LINE_TOO_LONG", ""]


def test_too_few_cells_at_the_end_are_a_cut_file() -> None:
    """The rest is taken."""
    reader = open_reader(io.BytesIO(b"a,b\n1,2\n5"), MappingModel(name="x", source="x"))

    assert [bool(unit.troubles) for unit in reader] == [False, True]
    assert reader.truncated


def test_a_header_with_a_name_twice_is_refused() -> None:
    """Which of the two is meant, nobody can say."""
    with pytest.raises(ContentUnreadableError, match="twice"):
        units(b"a,b,a\n1,2,3\n")


def test_json_that_is_none_is_one_unit() -> None:
    """NaN, 1e999, a list, half an object, and thousands of brackets."""
    deep = b'{"a":' * 200 + b"1" + b"}" * 200
    lines = [b'{"a":1}', b'{"a":NaN}', b'{"a":1e999}', b"[1]", deep, b'{"a":']

    assert rules(b"\n".join(lines), "ndjson") == ["", *["LINE_BROKEN"] * 5]


def test_a_bundle_that_breaks_off_gives_what_is_whole() -> None:
    """And one unit for the rest."""
    data = b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient"}},{"res'

    assert rules(data, "bundle") == ["", "LINE_BROKEN"]


def test_messages_are_parted_at_msh() -> None:
    """With carriage returns, line feeds, block characters, or a batch around them."""
    one, two = "MSH|^~\\&|A\rPID|1", "MSH|^~\\&|B\rPID|2"
    for text in (
        f"{one}\r{two}\r",
        f"{one}\n{two}".replace("\r", "\n"),
        f"\x0b{one}\r\x1c\r\x0b{two}\r\x1c\r",
        f"FHS|^~\\&\rBHS|^~\\&\r{one}\r{two}\rBTS|2\rFTS|1\r",
    ):
        assert [unit.raw for unit in units(text.encode(), "hl7")] == [one, two]


def workbook(*rows: tuple[str | float | datetime | None, ...]) -> bytes:
    """An .xlsx file."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_reads_days_and_numbers_of_a_workbook() -> None:
    """A number that lost its zeros comes without them: the mapping's length finds it."""
    data = workbook(("号", "日期", "值"), (123, datetime(2026, 3, 1), 1.5), ("00124", None, "x"))  # noqa: DTZ001

    assert cells(data, "xlsx") == [["123", "2026-03-01", "1.5"], ["00124", "", "x"]]


def test_refuses_a_bomb() -> None:
    """Before anything is unpacked."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * (64 << 20))
    with pytest.raises(ContentDangerousError):
        units(stream.getvalue(), "xlsx")


def test_a_cut_workbook_is_refused() -> None:
    """Its directory stands at its end."""
    with pytest.raises(ContentUnreadableError):
        units(workbook(("a",), (1,))[:-40], "xlsx")


def test_a_packing_that_excel_does_not_use_is_refused() -> None:
    """Its ratio is not bounded by that of deflate, and no workbook has it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("xl/workbook.xml", b"<workbook/>")
    with pytest.raises(ContentUnreadableError):
        units(stream.getvalue(), "xlsx")


def test_a_part_that_is_held_as_a_whole_is_bounded() -> None:
    """Sheets are read row by row, and may be larger."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("xl/theme/theme1.xml", b"0" * ((64 << 20) + 1))
    with pytest.raises(ContentDangerousError):
        units(stream.getvalue(), "xlsx")
