"""Scores of predicted probabilities and distributions. Arrays in, numbers out.

A score that is not defined is NaN.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_BINS = 10

# Resamples whose scores are computed side by side: bounds the memory.
_SIDE_BY_SIDE = 100


def auroc(label: NDArray[np.int_], predicted: Floats) -> float:
    """Area under the ROC curve: the share of pairs of a 1 and a 0 in the right order, ties half."""
    return float(_Ranked(label, predicted).auroc(np.ones((1, len(label))))[0])


def auprc(label: NDArray[np.int_], predicted: Floats) -> float:
    """Average precision; NaN if there is one class only."""
    from sklearn.metrics import average_precision_score

    if len(np.unique(label)) < 2:
        return float("nan")
    return float(average_precision_score(label, predicted))


def brier(label: NDArray[np.int_], predicted: Floats) -> float:
    """Mean squared difference (Brier, Monthly Weather Review 78, 1950)."""
    return float(np.mean((predicted - label) ** 2)) if len(label) else float("nan")


def bins_of(predicted: Floats, n_bins: int = N_BINS) -> NDArray[np.int64]:
    """The bin of each prediction: bins of equal count, as far as equal predictions allow.

    A prediction is in bin floor(n_bins * r), r being the share of predictions that are less than
    it. So equal ones, of which shares of futures have many, are never torn apart.
    """
    less = np.searchsorted(np.sort(predicted), predicted, side="left")
    bins: NDArray[np.int64] = less * n_bins // max(len(predicted), 1)
    return bins


def ece(label: NDArray[np.int_], predicted: Floats) -> float:
    """Expected calibration error.

    The mean over ``bins_of``, each weighing as much as it has predictions, of the absolute
    difference between the share of 1 and the mean prediction (Naeini, Cooper and Hauskrecht, AAAI
    2015, with bins of equal count as by Nixon et al., "Measuring Calibration in Deep Learning",
    CVPR Workshops 2019). Chance alone puts it above 0: see ``ece_by_chance``.
    """
    return float(np.abs(_gaps(label, predicted).mean(axis=0)).sum()) if len(label) else np.nan


def _gaps(label: NDArray[np.int_], predicted: Floats) -> Floats:
    """By how much each label differs from its prediction, in the column of its bin: [n, bins]."""
    in_bin = bins_of(predicted)[:, None] == np.arange(N_BINS)
    return np.where(in_bin, (label - predicted)[:, None], 0.0)


def ece_by_chance(
    predicted: Floats, seed: int, futures: NDArray[np.int64] | None = None, n_draws: int = 200
) -> float:
    """The mean ``ece`` if these predictions were the true probabilities.

    What an ECE has above it is miscalibration. By consistency resampling (Broecker and Smith,
    Weather and Forecasting 22, 2007).

    Args:
        predicted: [n].
        seed: of the draws.
        futures: if the predictions are shares of futures, of how many each: a share of few is off
            by chance itself, so they are drawn anew, too.
        n_draws: to take the mean over.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_draws):
        happened = (rng.random(len(predicted)) < predicted).astype(np.int64)
        drawn = predicted if futures is None else rng.binomial(futures, predicted) / futures
        found.append(ece(happened, drawn))
    return float(np.mean(found))


def resamples(n: int, n_resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each of n items is in each resample of a bootstrap: [n_resamples, n]."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_resamples, n), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return counts


def intervals(
    label: NDArray[np.int_], predicted: Floats, counts: NDArray[np.uint16], level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Confidence intervals of ``auroc`` and ``ece`` by the bootstrap (Efron and Tibshirani, 1993).

    That of the AUROC has the quantiles of its resamples; those of one class have none and are left
    out.

    Quantiles of resampled ECEs would never hold the 0 of a calibrated forecaster, as each is too
    high by chance twice over. So the differences of the bins are resampled instead, which have no
    such bias: the ECE is a sum of their absolute values, and as such no further from the true one
    than the absolute errors of the differences add up to. That sum, at its quantile ``level``, is
    the half width. The interval holds the truth at least as often as it says, more often for
    forecasters that are off in many bins; it is above 0 for one calibrated forecaster in 20. Shares
    of few futures are not calibrated, however good the model that drew them.

    Args:
        label, predicted: [n].
        counts: of ``resamples``.
        level: of confidence.

    Returns:
        By the name of the score: (low, high).
    """
    ranked = _Ranked(label, predicted)
    gaps = _gaps(label, predicted)
    mean_gap = gaps.mean(axis=0)
    areas, errors = [], []
    for first in range(0, len(counts), _SIDE_BY_SIDE):
        part = counts[first : first + _SIDE_BY_SIDE].astype(np.float64)
        areas.append(ranked.auroc(part))
        errors.append(np.abs(part @ gaps / len(label) - mean_gap).sum(axis=1))
    area = np.concatenate(areas)
    area = area[~np.isnan(area)]
    # Without any, that of the quantiles is not defined either.
    tails = np.quantile(area if len(area) else [np.nan], [(1 - level) / 2, (1 + level) / 2])
    middle = float(np.abs(mean_gap).sum())
    half = float(np.quantile(np.concatenate(errors), level))
    return {
        "auroc": (float(tails[0]), float(tails[1])),
        "ece": (max(middle - half, 0.0), min(middle + half, 1.0)),
    }


class _Ranked:
    """Predictions in ascending order, equal ones as one group; many weightings at once."""

    def __init__(self, label: NDArray[np.int_], predicted: Floats) -> None:
        self.order = np.argsort(predicted, kind="stable")
        self.label = label[self.order].astype(np.float64)
        _, self.start = np.unique(predicted[self.order], return_index=True)

    def auroc(self, counts: Floats) -> Floats:
        """Of each weighting: [weightings] from [weightings, n]."""
        if not len(self.start):
            return np.full(len(counts), np.nan)
        counts = counts[:, self.order]
        items = np.add.reduceat(counts, self.start, axis=1)
        ones = np.add.reduceat(counts * self.label, self.start, axis=1)
        zeros = items - ones
        pairs = ones.sum(axis=1) * zeros.sum(axis=1)
        right = (ones * (np.cumsum(zeros, axis=1) - zeros / 2)).sum(axis=1)
        return np.divide(right, pairs, out=np.full(len(items), np.nan), where=pairs > 0)


def fair_crps(values: Floats, counts: NDArray[np.integer], observed: Floats) -> Floats:
    """Continuous ranked probability score of samples, unbiased in their number.

    mean |x_i - y| - sum over i, j of |x_i - x_j| / (2 m (m - 1)) for m draws x_i and an observation
    y: its expectation is the score of the distribution that the draws are from, so that a few draws
    are not worse than many (the fair score of Ferro, Quarterly Journal of the Royal Meteorological
    Society 140, 2014). Of a single case it may be below 0.

    Args:
        values: the draws, case by case, in ascending order within a case.
        counts: draws of each case.
        observed: of each case.

    Returns:
        The score of each case, in the unit of the values; NaN of fewer than 2 draws.
    """
    case = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    rank = np.arange(len(values)) - start[case] + 1

    def per_case(terms: Floats) -> Floats:
        return np.bincount(case, terms, minlength=len(counts)).astype(np.float64)

    with np.errstate(invalid="ignore", divide="ignore"):
        error = per_case(np.abs(values - observed[case])) / counts
        # In ascending order, the sum of |x_i - x_j| over all pairs is one over ranks.
        spread = per_case((2 * rank - counts[case] - 1) * values) / (counts * (counts - 1))
    return np.where(counts >= 2, error - spread, np.nan)
