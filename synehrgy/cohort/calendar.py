"""Dates for a cohort, which has none: it knows only hours since each stay's admission.

The dates are made up, and chosen so that all that the cohort knows comes out of them again. Every
patient is first admitted at the same moment, in a year in which nobody takes them to be real. A
later stay begins as much later as the patient is older by then; where the ages do not say (they
are missing, cut at 90, or leave too little time for the stay before), a day after the stay before.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from synehrgy.cohort.tables import Cohort
from synehrgy.errors import UserError

FIRST_ADMISSION = np.datetime64("2100-01-01T00:00:00", "us")
HOURS_PER_YEAR = 365.25 * 24
BETWEEN_STAYS = 24.0  # hours
MORTALITY = "in_hospital_mortality"
_LONGEST_STAY = 100 * HOURS_PER_YEAR
_OLDEST = 150.0  # years


@dataclass(frozen=True)
class Calendar:
    """Dates of the stays of a cohort, one entry per stay (``datetime64[us]``).

    Attributes:
        admission: to the second.
        end: discharge, or the last measurement where the length of the stay is unknown or the
            measurement is later.
        birth: of the patient; NaT where no age is known.
    """

    admission: np.ndarray
    end: np.ndarray
    birth: np.ndarray


def microseconds(hours: np.ndarray) -> np.ndarray:
    """Hours as ``timedelta64[us]``, NaT where missing."""
    known = ~np.isnan(hours)
    spans = np.full(len(hours), np.timedelta64("NaT", "us"))
    spans[known] = np.round(hours[known] * 3.6e9).astype("int64").astype("timedelta64[us]")
    return spans


def ages(cohort: Cohort) -> np.ndarray:
    """Age in years at each stay: the continuous covariate "age"; NaN where it makes no sense."""
    for covariate in cohort.schema.covariates:
        is_age = covariate.name.lower() == "age" and covariate.kind == "continuous"
        if is_age and covariate.unit in (None, "years"):
            found = cohort.stays[covariate.name].to_numpy(dtype="float64", na_value=np.nan)
            return np.where((found >= 0) & (found <= _OLDEST), found, np.nan)
    return np.full(len(cohort.stays), np.nan)


def calendar(cohort: Cohort) -> Calendar:
    """Give the stays of whole patients their dates.

    Raises:
        UserError: a stay of more than a hundred years.
    """
    stays = cohort.stays
    last = cohort.measurements.groupby("stay_id")["hours"].max().reindex(stays["stay_id"])
    los = stays["los_hours"].to_numpy(dtype="float64", na_value=np.nan)
    length = np.fmax(np.fmax(los, last.to_numpy()), 0.0)
    if (length > _LONGEST_STAY).any():
        row = int(np.argmax(length > _LONGEST_STAY))
        raise UserError(
            f"Stay {stays['stay_id'].iloc[row]} lasts {length[row]:g} hours, more than a hundred "
            "years, so it has no dates."
        )
    age = ages(cohort) * HOURS_PER_YEAR
    index = stays["stay_index"].to_numpy()
    first = np.flatnonzero(index == 0)
    start = np.zeros(len(stays))  # hours since the patient's first admission
    by_age = age - np.repeat(age[first], np.diff([*first, len(stays)]))
    for i in range(1, int(index.max(initial=0)) + 1):
        rows = np.flatnonzero(index == i)
        free = start[rows - 1] + length[rows - 1]
        fits = by_age[rows] >= free
        start[rows] = np.where(fits, by_age[rows], free + BETWEEN_STAYS)
    admission = FIRST_ADMISSION + np.round(start * 3600).astype("int64").astype("timedelta64[s]")
    birth = pd.Series(admission - microseconds(age))
    # The first known age of the patient; those of later stays may have had to give way.
    birth = birth.groupby(stays["subject_id"].to_numpy()).transform("first")
    return Calendar(admission, admission + microseconds(length), birth.to_numpy("datetime64[us]"))
