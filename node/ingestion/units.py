"""Units as laboratories write them: spellings of UCUM, and conversions to a code's own unit.

A conversion is given for a code, never for a unit alone: mg/dL of glucose and of cholesterol are
different amounts. Factors are molar masses (IUPAC) and definitions; none is rounded further than
four digits.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from types import MappingProxyType
from typing import Final

__all__ = ["convert", "normal_unit"]

_SPELLINGS: Final = MappingProxyType(
    {
        "mmhg": "mm[Hg]",
        "毫米汞柱": "mm[Hg]",
        "kpa": "kPa",
        "千帕": "kPa",
        "℃": "Cel",
        "°c": "Cel",
        "c": "Cel",
        "cel": "Cel",
        "摄氏度": "Cel",
        "°f": "[degF]",
        "℉": "[degF]",
        "次/分": "/min",
        "次/分钟": "/min",
        "bpm": "/min",
        "次/min": "/min",
        "beats/min": "/min",
        "/min": "/min",
        "{beats}/min": "/min",
        "%": "%",
        "％": "%",
        "kg": "kg",
        "公斤": "kg",
        "千克": "kg",
        "斤": "jin",
        "g": "g",
        "克": "g",
        "cm": "cm",
        "厘米": "cm",
        "m": "m",
        "米": "m",
        "kg/m2": "kg/m2",
        "kg/m^2": "kg/m2",
        "kg/m²": "kg/m2",
        "mmol/l": "mmol/L",
        "umol/l": "umol/L",
        "μmol/l": "umol/L",
        "µmol/l": "umol/L",
        "mg/dl": "mg/dL",
        "g/dl": "g/dL",
        "g/l": "g/L",
        "u/l": "U/L",
        "iu/l": "U/L",
        "10*3/ul": "10*3/uL",
        "10^3/ul": "10*3/uL",
        "10*9/l": "10*9/L",
        "10^9/l": "10*9/L",
        "x10^9/l": "10*9/L",
        "×10^9/l": "10*9/L",
    }
)

_GLUCOSE: Final = 18.016
_CHOLESTEROL: Final = 38.67
_CREATININE: Final = 88.42
_URATE: Final = 59.48

_FACTORS: Final = MappingProxyType(
    {
        # (code, from): (times, plus)
        ("8480-6", "kPa"): (7.50062, 0.0),
        ("8462-4", "kPa"): (7.50062, 0.0),
        ("8310-5", "[degF]"): (5 / 9, -160 / 9),
        ("29463-7", "g"): (0.001, 0.0),
        ("29463-7", "jin"): (0.5, 0.0),
        ("8302-2", "m"): (100.0, 0.0),
        ("8280-0", "m"): (100.0, 0.0),
        ("9843-4", "m"): (100.0, 0.0),
        ("14771-0", "mg/dL"): (1 / _GLUCOSE, 0.0),
        ("15074-8", "mg/dL"): (1 / _GLUCOSE, 0.0),
        ("2339-0", "mmol/L"): (_GLUCOSE, 0.0),
        ("2093-3", "mmol/L"): (_CHOLESTEROL, 0.0),
        ("14647-2", "mg/dL"): (1 / _CHOLESTEROL, 0.0),
        ("2085-9", "mmol/L"): (_CHOLESTEROL, 0.0),
        ("13457-7", "mmol/L"): (_CHOLESTEROL, 0.0),
        ("2571-8", "mmol/L"): (88.57, 0.0),
        ("14682-9", "mg/dL"): (_CREATININE, 0.0),
        ("2160-0", "umol/L"): (1 / _CREATININE, 0.0),
        ("14933-6", "mg/dL"): (_URATE, 0.0),
        ("718-7", "g/L"): (0.1, 0.0),
        ("6690-2", "10*9/L"): (1.0, 0.0),
        ("777-3", "10*9/L"): (1.0, 0.0),
    }
)


@lru_cache(maxsize=4096)
def normal_unit(text: str) -> str:
    """A unit in UCUM where its spelling is known; else as it is, trimmed."""
    clean = unicodedata.normalize("NFKC", text).strip().replace(" ", "")
    known = _SPELLINGS.get(text.strip().lower()) or _SPELLINGS.get(clean.lower())
    return known or clean


def convert(code: str, value: float, unit: str, wanted: str) -> float | None:
    """The value in the code's own unit; None if no conversion is known."""
    if unit == wanted:
        return value
    factor = _FACTORS.get((code, unit))
    if factor is None:
        return None
    times, plus = factor
    # Ten significant digits: what is beyond them is the conversion's, not the laboratory's.
    return float(f"{value * times + plus:.10g}")
