"""Made-up people with Latin names in two registers, truth known, as `matching` links them.

Names and streets are syllables put together, the first ones much more often, so that common and
rare ones occur. The error model, on the second register: each of the eight fields is missing with
4 %, and has a typing error (a letter changed, left out, doubled or exchanged with its neighbour)
with 12 %; given name and surname change places with 2 %; one in ten has moved house.
"""

from __future__ import annotations

from random import Random
from typing import Final

from node.empi.synthetic import Registers

__all__ = ["LATIN_FIELDS", "latin_registers"]

LATIN_FIELDS: Final = (
    "first_name",
    "last_name",
    "dob",
    "street",
    "house_no",
    "town",
    "zip",
    "member_id",
)
_BEGIN: Final = ("mar", "an", "jo", "pe", "el", "ka", "lu", "da", "ro", "chri", "vic", "ste", "bra")
_MIDDLE: Final = ("", "li", "na", "ste", "ber", "mi", "ni", "do", "ra", "ven", "tha", "gor")
_END: Final = ("a", "n", "ly", "son", "ton", "ie", "er", "man", "field", "ham", "ard", "ell")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def _word(chance: Random) -> str:
    """A name; those of early syllables are common."""
    return "".join(
        parts[int(len(parts) * chance.random() ** 1.8)] for parts in (_BEGIN, _MIDDLE, _END)
    )


def latin_registers(people: int, overlap: float, seed: int) -> Registers:
    """Two registers of equal size, of which `overlap` of the first is in the second too."""
    chance = Random(seed)
    both = round(people * overlap)
    towns = [(_word(chance), f"{chance.randrange(10_000, 99_999)}") for _ in range(300)]
    everybody = [_person(chance, towns) for _ in range(2 * people - both)]
    second = [*everybody[:both], *everybody[people:]]
    order = list(range(people))
    chance.shuffle(order)
    right = [_seen(chance, second[place], towns) for place in order]
    return Registers(
        {name: [row[at] for row in everybody[:people]] for at, name in enumerate(LATIN_FIELDS)},
        {name: [row[at] for row in right] for at, name in enumerate(LATIN_FIELDS)},
        frozenset((place, row) for row, place in enumerate(order) if place < both),
    )


def _person(chance: Random, towns: list[tuple[str, str]]) -> list[str | None]:
    born = (chance.randint(1930, 2020), chance.randint(1, 12), chance.randint(1, 28))
    return [
        _word(chance),
        _word(chance),
        "{:04d}-{:02d}-{:02d}".format(*born),
        f"{_word(chance)} street",
        str(chance.randint(1, 200)),
        *chance.choice(towns),
        f"{chance.randrange(10**8):08d}",
    ]


def _seen(
    chance: Random, person: list[str | None], towns: list[tuple[str, str]]
) -> list[str | None]:
    row = list(person)
    if chance.random() < 0.10:
        row[3:7] = [f"{_word(chance)} street", str(chance.randint(1, 200)), *chance.choice(towns)]
    if chance.random() < 0.02:
        row[0], row[1] = row[1], row[0]
    return [
        None if chance.random() < 0.04 else _typed(chance, value) if value else None
        for value in row
    ]


def _typed(chance: Random, text: str) -> str:
    if chance.random() >= 0.12:
        return text
    place = chance.randrange(len(text))
    other = chance.choice("0123456789" if text[place].isdigit() else _LETTERS)
    before, here, after = text[:place], text[place], text[place + 1 :]
    return chance.choice(
        (before + other + after, before + after, text + here, before + after[:1] + here + after[1:])
    )
