"""The shipped list of observations: code, names, canonical unit, plausible range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import yaml

__all__ = ["ObservationCode", "observation_codes"]

_FILE: Final = Path(__file__).parent / "codes" / "observations.yaml"


@dataclass(frozen=True, slots=True)
class ObservationCode:
    """One LOINC code. The value is in `unit` (UCUM); outside the range it is a slip of the pen.

    `data_element` is the national data element (WS/T 363), None where no source was at hand.
    """

    code: str
    name_en: str
    name_zh: str
    unit: str
    plausible_min: float
    plausible_max: float
    data_element: str | None


@cache
def observation_codes() -> Mapping[str, ObservationCode]:
    """Return the list by code, read once."""
    found: dict[str, ObservationCode] = {}
    for code, row in yaml.safe_load(_FILE.read_text(encoding="utf-8")).items():
        low, high = row["range"]
        found[code] = ObservationCode(
            code=code,
            name_en=row["en"],
            name_zh=row["zh"],
            unit=row["unit"],
            plausible_min=float(low),
            plausible_max=float(high),
            data_element=row.get("de"),
        )
    return MappingProxyType(found)
