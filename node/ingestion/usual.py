"""What is usual for age and sex: values beyond are kept, with a warning.

Wide on purpose: the warning is for a child's weight in his mother's record, not for a fever. Ages
in years of the calendar (day of care less birth year), so each band reaches a year further than its
name. Bands follow common paediatric tables; they judge data, never a person.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

__all__ = ["usual_range"]

# (code, from age, to age, sex or "" for both, low, high)
_BANDS: Final = (
    ("29463-7", 0, 1, "", 1.5, 18.0),
    ("29463-7", 2, 5, "", 6.0, 40.0),
    ("29463-7", 6, 12, "", 12.0, 100.0),
    ("29463-7", 13, 130, "", 25.0, 200.0),
    ("8302-2", 0, 1, "", 35.0, 100.0),
    ("8302-2", 2, 5, "", 65.0, 135.0),
    ("8302-2", 6, 12, "", 90.0, 190.0),
    ("8302-2", 13, 130, "", 110.0, 215.0),
    ("8867-4", 0, 1, "", 60.0, 220.0),
    ("8867-4", 2, 12, "", 45.0, 190.0),
    ("8867-4", 13, 130, "", 30.0, 180.0),
    ("9279-1", 0, 1, "", 15.0, 80.0),
    ("9279-1", 2, 130, "", 6.0, 50.0),
    ("8480-6", 0, 1, "", 40.0, 130.0),
    ("8480-6", 2, 12, "", 60.0, 170.0),
    ("8480-6", 13, 130, "", 70.0, 240.0),
    ("8462-4", 0, 12, "", 20.0, 110.0),
    ("8462-4", 13, 130, "", 35.0, 140.0),
    ("718-7", 0, 130, "male", 5.0, 22.0),
    ("718-7", 0, 130, "female", 5.0, 20.0),
    ("718-7", 0, 130, "", 5.0, 22.0),
    ("8280-0", 0, 12, "", 25.0, 120.0),
    ("8280-0", 13, 130, "", 45.0, 180.0),
    ("14682-9", 13, 130, "", 15.0, 1500.0),
    ("8310-5", 0, 130, "", 33.0, 42.5),
)


@lru_cache(maxsize=8192)
def usual_range(code: str, age: int, sex: str) -> tuple[float, float] | None:
    """Low and high of the first band that fits; None where nothing is said."""
    for band, low_age, high_age, whose, low, high in _BANDS:
        if band == code and low_age <= age <= high_age and whose in ("", sex):
            return low, high
    return None
