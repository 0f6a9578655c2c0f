"""How a covariate changes from one stay of a patient to the next, learnt from the train split.

A bin of an age is several years wide, but most readmissions follow within weeks. Were the age of
each stay drawn inside its bin by itself, the time between stays would be noise of the width of the
bin; so the change is drawn instead, of those that lead into the bin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synehrgy.cohort import Cohort

Floats = NDArray[np.float64]

# Changes that are kept: enough for the shape of a long tail, few enough to name no patient where
# there are many.
N_QUANTILES = 257
# Fewer changes say nothing.
FEWEST = 20


@dataclass(frozen=True)
class Changes:
    """The distribution of the changes of a covariate between consecutive stays.

    Attributes:
        quantiles: ascending, at equal steps of probability from 0 to 1.
    """

    quantiles: list[float]

    def draw(self, before: Floats, low: Floats, high: Floats, uniform: Floats) -> Floats:
        """Values between two bounds that follow others by one of the changes.

        Args:
            before: float64 [n]; the value in the stay before.
            low, high: float64 [n]; bounds of the value.
            uniform: float64 [n]; draws in (0, 1).

        Returns:
            float64 [n]; NaN where no change leads from ``before`` to between the bounds.
        """
        ordered = np.asarray(self.quantiles)
        share = np.linspace(0, 1, len(ordered))
        least, most = (np.interp(bound - before, ordered, share) for bound in (low, high))
        change = np.interp(least + uniform * (most - least), share, ordered)
        found = np.clip(before + change, low, high)
        return np.where(most > least, found, np.nan)


def fit_changes(train: Cohort, names: list[str]) -> dict[str, Changes]:
    """The changes of these covariates, of those that change and are known often enough."""
    stays = train.stays.sort_values(["subject_id", "stay_index"])
    same = stays["subject_id"].eq(stays["subject_id"].shift()).to_numpy()
    found = {}
    for name in names:
        values = stays[name].to_numpy(np.float64)
        changes = np.diff(values, prepend=np.nan)[same]
        changes = changes[np.isfinite(changes)]
        if len(changes) >= FEWEST and changes.any():
            at = np.linspace(0, 1, min(N_QUANTILES, len(changes)))
            found[name] = Changes(np.quantile(changes, at).tolist())
    return found
