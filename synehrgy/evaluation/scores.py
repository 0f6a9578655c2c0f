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
    return float(_Ranked(label, predicted).scores(np.ones((1, len(label))))[0, 0])


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
    return float(_Ranked(label, predicted).scores(np.ones((1, len(label))))[1, 0])


def ece_by_chance(predicted: Floats, seed: int, n_draws: int = 200) -> float:
    """The mean ``ece`` if these predictions were the true probabilities.

    What an ECE has above it is miscalibration. By consistency resampling (Broecker and Smith,
    Weather and Forecasting 22, 2007).
    """
    if not len(predicted):
        return float("nan")
    rng = np.random.default_rng(seed)
    bins = bins_of(predicted)
    drawn = rng.random((n_draws, len(predicted))) < predicted
    gaps = [(drawn[:, bins == b] - predicted[bins == b]).sum(axis=1) for b in np.unique(bins)]
    return float(np.abs(gaps).sum(axis=0).mean() / len(predicted))


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
    out. The ECE of a resample is too high by about as much again as that of the sample, so its
    interval is the basic one: the quantiles turned round the estimate, and not below 0.

    Args:
        label, predicted: [n].
        counts: of ``resamples``.
        level: of confidence.

    Returns:
        By the name of the score: (low, high).
    """
    ranked = _Ranked(label, predicted)
    parts = [counts[i : i + _SIDE_BY_SIDE] for i in range(0, len(counts), _SIDE_BY_SIDE)]
    found = np.concatenate([ranked.scores(part.astype(np.float64)) for part in parts], axis=1)

    def ends(scores: Floats) -> tuple[float, float]:
        defined = scores[~np.isnan(scores)]
        if not len(defined):
            return float("nan"), float("nan")
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    low, high = ends(found[1])
    twice = 2 * ece(label, predicted)
    # In this order, NaN stays NaN.
    return {"auroc": ends(found[0]), "ece": (max(twice - high, 0.0), max(twice - low, 0.0))}


class _Ranked:
    """Predictions in ascending order, equal ones as one group; scores many weightings at once."""

    def __init__(self, label: NDArray[np.int_], predicted: Floats) -> None:
        self.order = np.argsort(predicted, kind="stable")
        self.label = label[self.order].astype(np.float64)
        self.value, self.start = np.unique(predicted[self.order], return_index=True)

    def scores(self, counts: Floats) -> Floats:
        """AUROC and ECE of each weighting: [2, weightings] from [weightings, n]."""
        if not len(self.order):
            return np.full((2, len(counts)), np.nan)
        counts = counts[:, self.order]
        items = np.add.reduceat(counts, self.start, axis=1)
        ones = np.add.reduceat(counts * self.label, self.start, axis=1)
        zeros = items - ones
        pairs = ones.sum(axis=1) * zeros.sum(axis=1)
        right = (ones * (np.cumsum(zeros, axis=1) - zeros / 2)).sum(axis=1)
        auroc = np.divide(right, pairs, out=np.full(len(items), np.nan), where=pairs > 0)

        n = items.sum(axis=1)
        less = np.cumsum(items, axis=1) - items
        # A group that a weighting lacks may stand beyond its last bin, with nothing to add.
        bins = np.minimum(less * N_BINS // n[:, None], N_BINS - 1).astype(np.int64)
        place = np.arange(len(items))[:, None] * N_BINS + bins
        gap = np.bincount(
            place.ravel(), (ones - items * self.value).ravel(), minlength=len(items) * N_BINS
        )
        return np.stack([auroc, np.abs(gap.reshape(len(items), N_BINS)).sum(axis=1) / n])


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
