"""Made-up people of Linfen, each seen twice with the errors of real registers, truth known.

The population: surnames and given names by rough frequency in Shanxi, so that namesakes are common;
households that share surname, address and a telephone; twins (1 in 90 births) of one sex or not;
villages of the shipped table; identity numbers of the area at birth (1426xx until 2000).

The error model, each independent, on the second sight (the first has a third of it):

| field | what happens | share |
|---|---|---|
| name | another character of the same sound / another character / in pinyin | 1.5 / 0.7 / 0.3 % |
| sex | wrong | 0.3 % |
| birth date | missing / one digit / day and month swapped / year off by one | 1 / 1 / 0.5 / 1 % |
| number | missing / one digit / neighbours exchanged / new for old area | 15 / 1.5 / 0.5 / 0.3 % |
| telephone | missing / another number / the household's / one digit | 15 / 15 / 10 / 1 % |
| address | missing / moved / another house number / without province and city | 5 / 8 / 3 / 30 % |

Nothing here is anybody: names, numbers and places are drawn by a seeded generator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from random import Random
from typing import Final

from hierarchy_config.divisions import shipped_divisions
from hierarchy_config.model import CareLevel
from node.empi.pinyin import name_pinyin
from node.records.identity import make_identity_number

__all__ = ["FIELDS", "Registers", "linfen_people", "linfen_registers"]

FIELDS: Final = ("name", "sex", "birth_date", "identity_number", "phone", "address")

_SURNAMES: Final = (
    "王张李刘郭杨赵高贾武任曹卫梁韩崔乔薛段侯史吉宋田董秦马孙陈徐胡孔吴常柴成席尹许郑霍牛冯裴郝白"
    "申樊景解亢畅苏袁闫程邓丁关潘石尉靳范周朱何林罗谢唐于萧傅单曾仇查盖乐宁齐安毛靖晋邢雷兰原荀廉"
)
_GIVEN: Final = {
    "m": "伟强军勇杰涛明超刚平辉健志国建文华斌鹏波峰磊洋龙海东晓永红俊飞鑫浩宇轩博子泽天成林生福贵"
    "德忠义庆祥云山河江民宏洪卫振新春根保全喜旺富荣锁栓虎小康亮凯亚世嘉家佳毅义益一",
    "f": "芳娜敏静丽艳娟霞秀英玉兰梅琴云莉红玲桂珍燕婷雪萍荣花翠巧爱凤彩香月莲淑惠慧晶晓丹倩颖欣怡"
    "梦雨涵梓萱琪佳家嘉文雅洁青清蓉瑞芬素春改变果仙娥俊小媛圆苗妙琳林",
}


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist."""

    surname: str
    given: str
    sex: str
    born: date
    identity_number: str
    phone: str
    household_phone: str
    village: str
    house: int


@dataclass(frozen=True, slots=True)
class Registers:
    """Two registers of one population.

    Attributes:
        left: By field, values; None where missing.
        right: The same of the second register.
        truth: Pairs of rows that are of one person.
    """

    left: Mapping[str, list[str | None]]
    right: Mapping[str, list[str | None]]
    truth: frozenset[tuple[int, int]]


@cache
def _villages() -> tuple[tuple[str, str], ...]:
    """Area code of the county and full address of each village of the shipped table."""
    divisions = shipped_divisions()
    found = []
    for division in divisions.values():
        if division.level is CareLevel.VILLAGE:
            township = divisions[division.code[:9]]  # type: ignore[index]
            county = divisions[division.code[:6]]  # type: ignore[index]
            village = division.name_zh.removesuffix("委会").removesuffix("民委员")
            found.append((county.code, f"山西省临汾市{county.name_zh}{township.name_zh}{village}"))
    return tuple(found)


def _skewed(chance: Random, choices: Sequence[str]) -> str:
    """One of them, the first ones much more often."""
    return choices[int(len(choices) * chance.random() ** 2.2)]


def _given(chance: Random, sex: str) -> str:
    long = 2 if chance.random() < 0.72 else 1
    return "".join(_skewed(chance, _GIVEN[sex]) for _ in range(long))


def _phone(chance: Random) -> str:
    return f"1{chance.choice('35789')}{chance.randrange(10**9):09d}"


def linfen_people(count: int, seed: int) -> list[Person]:
    """A population, household after household."""
    chance, people, taken = Random(seed), list[Person](), set[str]()
    while len(people) < count:
        area, village = chance.choice(_villages())
        house, surname, shared = chance.randint(1, 400), _skewed(chance, _SURNAMES), _phone(chance)
        called: set[str] = set()
        for _ in range(chance.choice((1, 2, 2, 3, 3, 4, 5))):
            own = surname if chance.random() < 0.65 else _skewed(chance, _SURNAMES)
            born = date(1935, 1, 1) + timedelta(days=chance.randrange(32_000))
            for _ in range(2 if chance.random() < 1 / 90 else 1):
                person = _person(chance, taken, (own, born, area, village, house, shared))
                # Nobody calls two of one house the same.
                while person.given in called:
                    person = replace(person, given=_given(chance, person.sex))
                called.add(person.given)
                people.append(person)
    return people[:count]


def _person(chance: Random, taken: set[str], home: tuple[str, date, str, str, int, str]) -> Person:
    surname, born, area, village, house, shared = home
    sex = chance.choice("mf")
    old = f"1426{chance.choice(('01', '02', '22', '23', '25', '27', '28', '30', '33'))}"
    code = old if born.year < 2000 else area
    while True:
        sequence = chance.randrange(0, 500) * 2 + (sex == "m")
        number = make_identity_number(code, born, sequence)
        if number not in taken:
            break
    taken.add(number)
    phone = shared if chance.random() < 0.25 else _phone(chance)
    return Person(
        surname, _given(chance, sex), sex, born, number, phone, shared, village, house
    )  # fmt: skip


def linfen_registers(people: int, overlap: float, seed: int) -> Registers:
    """Two registers of equal size.

    Args:
        people: How many each register holds.
        overlap: The share of the first register that the second holds too.
        seed: Of the people and of the errors.
    """
    both = round(people * overlap)
    everybody = linfen_people(2 * people - both, seed)
    chance = Random(seed + 1)
    chance.shuffle(everybody)
    first, second = everybody[:people], [*everybody[:both], *everybody[people:]]
    order = list(range(people))
    chance.shuffle(order)
    left = [_seen(chance, person, 1 / 3) for person in first]
    right = [_seen(chance, second[place], 1.0) for place in order]
    return Registers(
        {name: [row[name] for row in left] for name in FIELDS},
        {name: [row[name] for row in right] for name in FIELDS},
        frozenset((place, row) for row, place in enumerate(order) if place < both),
    )


def _seen(chance: Random, person: Person, scale: float) -> dict[str, str | None]:
    """How a register wrote somebody down."""

    def drawn(*shares: float) -> int:
        """Which of the errors happens; their number if none."""
        at = chance.random()
        for number, share in enumerate(shares):
            at -= share * scale
            if at < 0:
                return number
        return len(shares)

    moved = person
    if drawn(0.08) == 0:
        moved = replace(person, village=chance.choice(_villages())[1], house=chance.randint(1, 400))
    return {
        "name": _name(chance, person, drawn(0.015, 0.007, 0.003)),
        "sex": {"m": "男", "f": "女"}[
            "fm"["mf".index(person.sex)] if drawn(0.003) == 0 else person.sex
        ],
        "birth_date": _birth(chance, person.born, drawn(0.01, 0.01, 0.005, 0.01)),
        "identity_number": _number(
            chance, person.identity_number, drawn(0.15, 0.015, 0.005, 0.003)
        ),
        "phone": _telephone(chance, person, drawn(0.15, 0.15, 0.10, 0.01)),
        "address": _address(chance, moved, drawn(0.05, 0.03, 0.30)),
    }


@cache
def _homophones() -> Mapping[str, str]:
    """By sound, the characters of given names that have it."""
    groups: defaultdict[str, str] = defaultdict(str)
    for character in sorted(set("".join(_GIVEN.values()))):
        groups[name_pinyin(character, with_surname=False)] += character
    return groups


def _name(chance: Random, person: Person, error: int) -> str:
    given, place = list(person.given), chance.randrange(len(person.given))
    match error:
        case 0:
            sound = name_pinyin(given[place], with_surname=False)
            given[place] = chance.choice(_homophones()[sound])
        case 1:
            given[place] = chance.choice(_GIVEN[person.sex])
        case 2:
            return name_pinyin(person.surname + person.given)
        case _:
            pass
    return person.surname + "".join(given)


def _one_digit(chance: Random, text: str) -> str:
    place = chance.randrange(len(text))
    return text[:place] + chance.choice("0123456789") + text[place + 1 :]


def _birth(chance: Random, born: date, error: int) -> str | None:
    text = born.strftime("%Y%m%d")
    match error:
        case 0:
            return None
        case 1:
            text = text[:3] + _one_digit(chance, text[3:])
        case 2:
            text = text[:4] + text[6:] + text[4:6]
        case 3:
            text = f"{born.year + chance.choice((-1, 1))}{text[4:]}"
        case _:
            pass
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def _number(chance: Random, number: str, error: int) -> str | None:
    match error:
        case 0:
            return None
        case 1:
            return _one_digit(chance, number)
        case 2:
            place = chance.randrange(len(number) - 1)
            return number[:place] + number[place + 1] + number[place] + number[place + 2 :]
        case 3:
            born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
            return make_identity_number("141002", born, int(number[14:17]))
        case _:
            return number


def _telephone(chance: Random, person: Person, error: int) -> str | None:
    match error:
        case 0:
            return None
        case 1:
            return _phone(chance)
        case 2:
            return person.household_phone
        case 3:
            return _one_digit(chance, person.phone)
        case _:
            return person.phone


def _address(chance: Random, person: Person, error: int) -> str | None:
    whole = f"{person.village}{person.house}号"
    match error:
        case 0:
            return None
        case 1:
            return f"{person.village}{chance.randint(1, 400)}号"
        case 2:
            return whole.removeprefix("山西省临汾市")
        case _:
            return whole
