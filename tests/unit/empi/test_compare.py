"""Comparisons, each case worked out by hand."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from node.empi.compare import LEVELS, FormTable, compare_forms
from node.empi.forms import form_of
from node.empi.kinds import FieldKind
from node.records.identity import make_identity_number


def level(kind: FieldKind, one: str, other: str) -> str:
    """The level of two values, the same both ways round."""
    tables = []
    for value in (one, other):
        form = form_of(kind, value)
        assert form is not None
        tables.append(FormTable.of(kind, [form.text], [form.second]))
    at = np.zeros(1, dtype=np.int64)
    there = compare_forms(kind, tables[0], tables[1], at, at)
    back = compare_forms(kind, tables[1], tables[0], at, at)
    assert there.tolist() == back.tolist()
    return LEVELS[kind][int(there[0])]


@pytest.mark.parametrize(
    ("kind", "one", "other", "expected"),
    [
        ("surname", "Müller", "MULLER", "exact"),
        ("surname", "O'Brien", "obrien", "sound"),
        ("surname", "painter", "paintre", "near"),
        ("given_name", "catherine", "katharine", "close"),
        ("given_name", "j", "john", "similar"),
        ("given_name", "anna", "peter", "different"),
        ("full_name", "王小明", "王晓明", "sound"),
        ("full_name", "单雄", "Shanxiong", "sound"),
        ("full_name", "张伟", "Wei Zhang", "sound"),
        ("full_name", "John Smith", "SMITH, John", "sound"),
        ("full_name", "王小明", "王小刚", "near"),
        ("full_name", "王伟", "李强", "different"),
        ("date", "1987-03-05", "1987-05-03", "swapped"),
        ("date", "1987-03-05", "1987-03-06", "one_digit"),
        ("date", "1987-03-05", "1988-03-05", "year_off"),
        ("date", "1989-03-05", "1990-03-05", "year_off"),
        ("date", "1987-03-05", "1987-03-17", "two_digits"),
        ("date", "1987-03-05", "1964-03-05", "two_digits"),
        ("date", "1987-03-05", "1902-11-28", "different"),
        ("phone", "13903571234", "13903571235", "one_off"),
        ("phone", "13903571234", "13903572134", "one_off"),
        ("phone", "13903571234", "13903579999", "part"),
        ("postcode", "041000", "041001", "one_off"),
        ("number", "012", "12", "exact"),
        ("category", "男", "M", "exact"),
        ("address", "山西省临汾市尧都区汾河路12号", "尧都区汾河路12号", "core"),
        ("address", "尧都区汾河路12号", "尧都区汾河路35号", "street"),
        ("address", "12 stanley street", "street stanley 12", "core"),
        ("address", "stanley street", "stanely street", "near"),
    ],
)
def test_levels_of_pairs(kind: FieldKind, one: str, other: str, expected: str) -> None:
    """Each kind of error has its level."""
    assert level(FieldKind(kind), one, other) == expected


def test_two_sound_identity_numbers_are_no_slip_of_each_other() -> None:
    """Twins' numbers are near, and yet of two people; one digit wrong is a slip."""
    born = date(1990, 1, 2)
    one, other = (make_identity_number("141002", born, each) for each in (11, 13))
    assert level(FieldKind.IDENTIFIER, one, other) == "conflict"
    slip = one[:9] + str((int(one[9]) + 1) % 10) + one[10:]
    assert level(FieldKind.IDENTIFIER, one, slip) == "one_off"


def test_knows_the_old_and_the_new_area_of_linfen() -> None:
    """The same birth and sequence under 1426 and 1410; elsewhere it is a conflict."""
    born = date(1990, 1, 2)
    old, new, away = (
        make_identity_number(area, born, 11) for area in ("142601", "141002", "110101")
    )
    assert level(FieldKind.IDENTIFIER, old, new) == "area"
    assert level(FieldKind.IDENTIFIER, old, away) == "conflict"
