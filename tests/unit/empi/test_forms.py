"""How values are read before they are compared."""

from __future__ import annotations

from datetime import date

import pytest

from node.empi.forms import form_of, is_identity_number, parse_date
from node.empi.kinds import FieldKind, recognise_kind
from node.empi.pinyin import name_pinyin, place_pinyin
from node.records.identity import make_identity_number


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("单雄", "shanxiong"),
        ("曾伟", "zengwei"),
        ("仇英", "qiuying"),
        ("解珍", "xiezhen"),
        ("查良", "zhaliang"),
        ("盖文", "gewen"),
        ("乐天", "yuetian"),
        ("尉迟敬", "yuchijing"),
        ("王单", "wangdan"),
    ],
)
def test_reads_a_surname_as_one(name: str, read: str) -> None:
    """A character that is a surname is read as a surname, in the first place only."""
    assert name_pinyin(name) == read


def test_reads_places_of_linfen() -> None:
    """尧都 and 洪洞 are read as people there say."""
    assert place_pinyin("尧都区") == "yaoduqu"
    assert place_pinyin("洪洞县") == "hongtongxian"


@pytest.mark.parametrize("value", ["", "  ", "NaN", "None", "不详", "\u3000"])
@pytest.mark.parametrize("kind", list(FieldKind))
def test_missing_values_have_no_form(kind: FieldKind, value: str) -> None:
    """What says that nothing is known is no value of any kind."""
    assert form_of(kind, value) is None


def test_a_chinese_name_sounds_like_its_pinyin() -> None:
    """Characters and letters meet in the sound; blanks between characters say nothing."""
    chinese, latin = form_of("full_name", "王 伟"), form_of("surname", "Wang")
    assert chinese is not None
    assert latin is not None
    assert chinese.second == "wangwei"
    assert latin.second == "wang"


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("1987-03-05", "19870305"),
        ("1987年3月5日", "19870305"),
        ("05/03/1987", "19870305"),
        ("12/25/1987", "19871225"),
        ("19871503", "19871503"),
        ("1987-03-05 00:00:00", "19870305"),
        ("yesterday", None),
        ("12345678", None),
    ],
)
def test_reads_dates_and_keeps_their_errors(text: str, digits: str | None) -> None:
    """A month of 15 is an error that comparison has to see, not a missing value."""
    assert parse_date(text) == digits


def test_an_old_identity_number_is_the_new_one() -> None:
    """15 digits and 18 name the same person."""
    number = make_identity_number("142601", date(1976, 5, 4), 21)
    old = form_of("identifier", number[:6] + number[8:17])
    assert old is not None
    assert old.text == number.lower()


def test_judges_identity_numbers_by_their_check_character() -> None:
    """Any one digit changed makes a number unsound."""
    number = make_identity_number("141002", date(1990, 12, 31), 7).lower()
    assert is_identity_number(number)
    assert not is_identity_number(number[:15] + str((int(number[15]) + 1) % 10) + number[16:])
    assert not is_identity_number("１４１００２１９９０１２３１００７")


def test_telephones_are_compared_without_their_country() -> None:
    """+86, 0086 and blanks say nothing of whose telephone it is."""
    assert form_of("phone", "+86 139 0357 1234") == form_of("phone", "13903571234")
    assert form_of("phone", "0086-13903571234") == form_of("phone", "13903571234")


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("c1", [f"19{d}-01-02" for d in range(70, 90)], "date"),
        ("given_name", ["anna", "ben"], "given_name"),
        ("c2", ["m", "f"] * 10, "category"),
        ("c3", [f"{each}伟" for each in "王李张刘郭杨赵高贾武任曹卫梁韩"], "full_name"),
        ("mobile", ["13903571234", "15803571111"], "phone"),
        ("x", [f"1390357{n:04d}" for n in range(50)], "phone"),
        ("date", ["red", "green", "blue"], "category"),
        ("soc_sec_id", ["5304218", "4066625"], "identifier"),
        ("住址", ["山西省临汾市尧都区汾河路1号", "洪洞县大槐树镇"], "address"),
        ("身份证号", ["142601197605040211"], "identifier"),
    ],
)  # fmt: skip
def test_recognises_what_a_column_holds(name: str, values: list[str], kind: str) -> None:
    """Values decide, and the name hints."""
    assert recognise_kind(name, values) == kind
