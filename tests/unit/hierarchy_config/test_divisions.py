"""The shipped table of divisions is what its README says; another table is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierarchy_config import CareLevel, load_divisions, shipped_divisions
from hierarchy_config.divisions import DivisionTableError


def test_linfen_has_2502_divisions_each_under_its_prefix() -> None:
    """The table itself follows the numbering; region files need not."""
    divisions = load_divisions()
    assert len(divisions) == 2502
    assert divisions == shipped_divisions("linfen")
    for division in divisions.values():
        assert CareLevel.of_code(division.code) is division.level
        if division.parent is not None:
            assert division.code.startswith(division.parent)
            assert divisions[division.parent].level.depth == division.level.depth - 1
        assert division.name_zh
        assert division.pinyin


@pytest.mark.parametrize(
    "text",
    [
        "code,name\n",
        "code,name_zh,pinyin,level,parent\n1410,临汾市,Linfen,moon,\n",
        "code,name_zh,pinyin,level,parent\n1410,a,b,city,\n1410,a,b,city,\n",
    ],
)
def test_refuses_another_table(tmp_path: Path, text: str) -> None:
    """Other columns, an unknown level, a code twice."""
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DivisionTableError):
        load_divisions(path)


def test_a_missing_table_is_one_clear_error(tmp_path: Path) -> None:
    """Not a traceback of the file system."""
    with pytest.raises(DivisionTableError, match=r"none\.csv"):
        load_divisions(tmp_path / "none.csv")


def test_a_table_may_name_the_code_that_a_code_succeeds(tmp_path: Path) -> None:
    """Codes change every year."""
    path = tmp_path / "table.csv"
    path.write_text(
        "code,name_zh,pinyin,level,parent,succeeds\n1410,临汾市,Linfen,city,,1426\n",
        encoding="utf-8",
    )
    assert next(iter(load_divisions(path).values())).succeeds == "1426"
