"""Chinese names and places as toneless pinyin.

Characters are read one by one by pypinyin, which knows words and not people: a surname that is
read in a way of its own, and places of Linfen that a dictionary misreads, stand here. What is no
Chinese character passes as it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pypinyin import Style, lazy_pinyin

__all__ = ["PLACE_READINGS", "SURNAME_READINGS", "is_chinese", "name_parts", "name_pinyin"]
__all__ += ["place_pinyin"]

SURNAME_READINGS: Final = {
    "单": "shan", "曾": "zeng", "仇": "qiu", "解": "xie", "查": "zha", "盖": "ge", "乐": "yue",
    "区": "ou", "任": "ren", "华": "hua", "朴": "piao", "缪": "miao", "翟": "zhai", "员": "yun",
    "种": "chong", "逄": "pang", "黑": "he", "折": "she", "秘": "bi", "冼": "xian", "洗": "xian",
    "覃": "qin", "谌": "chen", "尹": "yin", "燕": "yan", "应": "ying", "过": "guo", "牟": "mu",
    "句": "gou", "祭": "zhai", "殷": "yin", "召": "shao", "葛": "ge", "宁": "ning", "那": "na",
    "车": "che", "宿": "su", "卜": "bu", "石": "shi", "教": "jiao", "隗": "wei", "郗": "xi",
    "繁": "po", "阚": "kan", "晁": "chao", "乜": "nie", "费": "fei", "柏": "bai", "薄": "bo",
    "重": "chong", "长": "chang", "尉": "wei", "纪": "ji", "哈": "ha", "贲": "ben", "芮": "rui",
}  # fmt: skip
"""One character a surname: how it is read as one."""

COMPOUND_SURNAMES: Final = {
    "欧阳": "ouyang", "上官": "shangguan", "司马": "sima", "诸葛": "zhuge", "令狐": "linghu",
    "尉迟": "yuchi", "万俟": "moqi", "长孙": "zhangsun", "慕容": "murong", "皇甫": "huangfu",
    "东方": "dongfang", "司徒": "situ", "夏侯": "xiahou", "宇文": "yuwen", "公孙": "gongsun",
    "轩辕": "xuanyuan", "端木": "duanmu", "呼延": "huyan", "南宫": "nangong", "独孤": "dugu",
    "澹台": "tantai", "赫连": "helian", "申屠": "shentu", "太史": "taishi", "钟离": "zhongli",
}  # fmt: skip
"""Surnames of two characters."""

PLACE_READINGS: Final = {"尧都": "yaodu", "洪洞": "hongtong", "隰县": "xixian", "蒲县": "puxian"}
"""Places that are misread character by character."""


def is_chinese(text: str) -> bool:
    """Whether a character of the text is a CJK ideograph."""
    return any("\u3400" <= each <= "\u9fff" or each >= "\U00020000" for each in text)


@lru_cache(maxsize=30_000)
def _character(character: str) -> str:
    return "".join(lazy_pinyin(character, style=Style.NORMAL)).replace("ü", "v")


def name_parts(name: str) -> tuple[str, str]:
    """Surname and given name of a Chinese name without spaces."""
    long = 2 if name[:2] in COMPOUND_SURNAMES and len(name) > 2 else 1
    return name[:long], name[long:]


def name_pinyin(name: str, *, with_surname: bool = True) -> str:
    """The name in toneless pinyin without spaces, its surname read as a surname."""
    surname, given = name_parts(name) if with_surname else ("", name)
    read = COMPOUND_SURNAMES.get(surname) or SURNAME_READINGS.get(surname)
    return (read or "".join(map(_character, surname))) + "".join(map(_character, given))


def place_pinyin(place: str) -> str:
    """The place in toneless pinyin without spaces."""
    for written, read in PLACE_READINGS.items():
        place = place.replace(written, read)
    return "".join(map(_character, place))
