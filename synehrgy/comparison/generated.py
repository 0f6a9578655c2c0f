"""A generator of a comparison and its patients."""

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Generated:
    """A generator's patients.

    Attributes:
        name: of the generator.
        title: for people.
        folder: of the cohort.
        covers: parts of a cohort that it generates.
        competes: whether it can be the best.
        seconds_to_fit, seconds_per_1000: that it took; NaN if nobody knows.
    """

    name: str
    title: str
    folder: Path
    covers: frozenset[str]
    competes: bool = True
    seconds_to_fit: float = math.nan
    seconds_per_1000: float = math.nan
