"""Identity numbers, against python-stdnum and against themselves."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.cn import ric

from node.records import IdentityNumberError, make_identity_number, parse_identity_number
from node.records.identity import check_character

AREAS = st.from_regex(r"\A[1-9][0-9]{5}\Z")
BIRTHS = st.dates(date(1850, 1, 1), date(2026, 11, 23))
SEQUENCES = st.integers(0, 999)


@given(AREAS, BIRTHS, SEQUENCES)
def test_what_is_made_can_be_taken_apart(area: str, birth: date, sequence: int) -> None:
    """Parsing gives back what the number was made of."""
    number = parse_identity_number(make_identity_number(area, birth, sequence))
    assert (number.area, number.birth_date, number.sequence) == (area, birth, sequence)
    assert number.sex == ("male" if sequence % 2 else "female")


@given(AREAS, BIRTHS, SEQUENCES)
def test_the_check_character_is_the_oracles(area: str, birth: date, sequence: int) -> None:
    """python-stdnum computes the same check character."""
    number = make_identity_number(area, birth, sequence)
    assert ric.calc_check_digit(number) == number[17] == check_character(number[:17])


@given(st.dates(date(2001, 1, 1), date(2020, 1, 1)), SEQUENCES)
def test_the_oracle_accepts_our_numbers_of_an_area_it_knows(birth: date, sequence: int) -> None:
    """python-stdnum, which judges the area of the day too, accepts 141002."""
    assert ric.is_valid(make_identity_number("141002", birth, sequence))


def test_an_area_that_the_oracle_refuses_is_no_fault_here() -> None:
    """Most adults of Linfen carry areas that were abolished: the area is never judged."""
    number = make_identity_number("999999", date(1950, 3, 9), 24)
    assert not ric.is_valid(number)
    assert parse_identity_number(number).area == "999999"


@given(AREAS, BIRTHS, SEQUENCES, st.integers(0, 17), st.integers(1, 9))
def test_any_single_wrong_digit_is_refused(
    area: str, birth: date, sequence: int, position: int, step: int
) -> None:
    """MOD 11-2 finds every slip of one digit."""
    number = make_identity_number(area, birth, sequence)
    old = number[position]
    wrong = str(step if old == "X" else (int(old) + step) % 10)
    with pytest.raises(IdentityNumberError):
        parse_identity_number(number[:position] + wrong + number[position + 1 :])


@given(AREAS, BIRTHS, SEQUENCES, st.integers(0, 15))
def test_two_neighbours_swapped_are_refused(
    area: str, birth: date, sequence: int, position: int
) -> None:
    """MOD 11-2 finds every swap of neighbouring digits that differ."""
    number = make_identity_number(area, birth, sequence)
    pair = number[position : position + 2]
    if pair[0] == pair[1]:
        return
    swapped = number[:position] + pair[::-1] + number[position + 2 :]
    with pytest.raises(IdentityNumberError):
        parse_identity_number(swapped)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "14260119500309024",
        "142601195003090249999",
        "14260119501309024X",
        "14260119500230024X",
        "１４２６０１19500309024X",
        "142601500309024",
        "142601 19500309024",
    ],
)
def test_refuses_what_is_no_number(text: str) -> None:
    """Wrong length, dates that are none, full-width digits and the old 15 digits."""
    with pytest.raises(IdentityNumberError):
        parse_identity_number(text)


@pytest.mark.parametrize(("area", "sequence"), [("14100", 1), ("14100a", 1), ("141002", 1000)])
def test_makes_nothing_of_wrong_parts(area: str, sequence: int) -> None:
    """The maker refuses an area that is not six digits and a sequence out of range."""
    with pytest.raises(ValueError, match=r"six digits|0 to 999"):
        make_identity_number(area, date(2000, 1, 1), sequence)
