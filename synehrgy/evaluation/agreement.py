"""How well frequencies agree with those of a reference. Many resamples side by side.

Each function takes ``real`` [items] and ``found`` [resamples, items] and returns [resamples]; NaN
where a score is not defined.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pearson(real: Floats, found: Floats) -> Floats:
    """Pearson correlation: whether they are proportional, not whether they are equal."""
    if not len(real):
        return np.full(len(found), np.nan)
    x, y = real - real.mean(), found - found.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (y @ x) / np.sqrt((x @ x) * np.einsum("ij,ij->i", y, y))
    # Not by the deviation: that of equal numbers is not exactly 0.
    return np.where((np.ptp(real) > 0) & (np.ptp(found, axis=1) > 0), np.clip(r, -1, 1), np.nan)


def r_squared(real: Floats, found: Floats) -> Floats:
    """1 - SSE / SST: the share of the variance of ``real`` that ``found`` explains as it stands.

    Deviations are from the line y = x, so that it may be below 0; the correlation squared would be
    about the best line.
    """
    if not len(real) or np.ptp(real) == 0:
        return np.full(len(found), np.nan)
    error = found - real
    return 1 - np.einsum("ij,ij->i", error, error) / np.sum((real - real.mean()) ** 2)


def spearman(real: Floats, found: Floats) -> Floats:
    """Rank correlation: each item weighs the same, however rare."""
    from scipy.stats import rankdata

    if not len(real):
        return np.full(len(found), np.nan)
    return pearson(rankdata(real), rankdata(found, axis=1))


def js_distance(real: Floats, found: Floats) -> Floats:
    """Jensen-Shannon distance of two distributions, base 2: 0 is equal, 1 has nothing in common.

    The square root of the divergence (Endres and Schindelin, IEEE Transactions on Information
    Theory 49, 2003). Frequencies need not add up to 1.
    """
    from scipy.special import rel_entr

    with np.errstate(invalid="ignore", divide="ignore"):
        p = real / real.sum()
        q = found / found.sum(axis=1, keepdims=True)
    middle = (p + q) / 2
    divergence = rel_entr(p, middle).sum(axis=1) + rel_entr(q, middle).sum(axis=1)
    # Of nothing it is a sum of nothing.
    defined = (found.sum(axis=1) > 0) & (real.sum() > 0)
    return np.where(defined, np.sqrt(np.maximum(divergence / np.log(4), 0)), np.nan)
