"""Scores of predicted labels by several repetitions, with intervals over both sets of patients.

A repetition learns from other patients, and each replicate of a repetition's score has other test
patients: replicates spread as if train and test patients had both been drawn anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synehrgy.evaluation import scores
from synehrgy.evaluation.metric import NAN, Score, bootstrapped
from synehrgy.evaluation.tasks import SUBSAMPLE

Floats = NDArray[np.float64]

BY_STAY = ("auroc", "auprc", "f1", "brier")
MICRO = ("micro_auroc", "micro_auprc", "micro_f1")
ALL = (*BY_STAY, "ece", *MICRO)

# Repetitions share most of their patients, so that they differ too little: what the spread of means
# of patients has to be multiplied with (finite population correction; Cochran, "Sampling
# Techniques", 1977, chapter 2).
SPREAD = 1 / np.sqrt(1 - SUBSAMPLE)


@dataclass(frozen=True)
class Judged:
    """Scores of the predictions of some labels.

    Attributes:
        values: by score [seeds, labels]; of a micro score, which is of all labels at once,
            [seeds, 1].
        replicates: by score, of resamples of the stays' patients: [resamples, labels] (or 1);
            the first are of the first seed, and so on, equally many of each. There are none of the
            expected calibration error, which is biased upwards in resamples.
    """

    values: dict[str, Floats]
    replicates: dict[str, Floats]

    def macro(self, score: str, columns: Sequence[int] | None = None) -> Score:
        """The mean over labels for which it is defined, and its interval.

        Args:
            score: one of ``ALL``.
            columns: the labels; None: all.
        """
        return combine(*self._macro(score, columns))

    def gain(self, score: str, other: "Judged") -> Score:
        """By how much the mean over labels is above that of another, on the same patients."""
        mine, theirs = self._macro(score, None), other._macro(score, None)
        return combine(mine[0] - theirs[0], mine[1] - theirs[1], bounds=(-1.0, 1.0))

    def _macro(self, score: str, columns: Sequence[int] | None) -> tuple[Floats, Floats]:
        n_seeds = len(self.values[score])
        found = self.replicates.get(score, np.zeros((0, self.values[score].shape[1])))
        chosen = slice(None) if columns is None else columns
        values = nan_mean(self.values[score][:, chosen], axis=1)
        replicates = nan_mean(found[:, chosen], axis=1)
        return values, replicates.reshape(n_seeds, -1)


def combine(values: Floats, replicates: Floats, bounds: tuple[float, float] = (0.0, 1.0)) -> Score:
    """The mean of repetitions, and an interval for other train and other test patients.

    Args:
        values: of each repetition [seeds].
        replicates: of each, with resampled test patients [seeds, resamples]; without any, the
            interval is for other train patients alone.
        bounds: that the interval may not cross.
    """
    mean = float(nan_mean(values, axis=0))
    if len(values) < 2:
        return bootstrapped(mean, replicates.ravel(), bounds)
    off = SPREAD * (values - mean)
    if not replicates.shape[1]:
        return bootstrapped(mean, mean + off, bounds)
    # Repetitions come many times each here, which their mean deviation takes for more of them.
    off = off * np.sqrt(len(values) / (len(values) - 1))
    test = replicates - values[:, None]
    return bootstrapped(mean, (mean + off[:, None] + test).ravel(), bounds)


def nan_mean(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN; NaN if nothing is, without a warning."""
    there = ~np.isnan(values)
    n = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.divide(total, n, out=np.full(np.shape(n), NAN), where=n > 0)


def judge(
    labels: NDArray[np.int8],
    predicted: Floats,
    thresholds: Floats,
    patient: NDArray[np.int64],
    n_resamples: int,
    seed: int,
) -> Judged:
    """Score predictions.

    Args:
        labels: [stays, labels] of 0 and 1.
        predicted: [seeds, stays, labels].
        thresholds: [seeds, labels]; a prediction above it counts as a 1 in the F1 score.
        patient: [stays], numbers of the patients, which are resampled with all of their stays.
        n_resamples: in all.
        seed: of the bootstrap.
    """
    n_seeds, n_stays, n_labels = predicted.shape
    each = n_resamples // n_seeds
    n_patients = int(patient.max(initial=-1)) + 1
    values: dict[str, list[Floats]] = {name: [] for name in ALL}
    replicates: dict[str, list[Floats]] = {name: [] for name in (*BY_STAY, *MICRO)}
    counts = scores.resamples(n_patients, each * n_seeds, seed).astype(np.float32)
    whole = np.ones((1, n_stays), dtype=np.float32)
    whole_numbers = labels.T.astype(np.int64)
    for s in range(n_seeds):
        weights = np.vstack([whole, counts[s * each : (s + 1) * each][:, patient]])
        decided = predicted[s] > thresholds[s]
        columns = [
            weighted(labels[:, i], predicted[s, :, i], decided[:, i], weights)
            for i in range(n_labels)
        ]
        for name in BY_STAY:
            found = np.column_stack([column[name] for column in columns])
            values[name].append(found[0])
            replicates[name].append(found[1:])
        values["ece"].append(
            np.array(
                [scores.ece(label, predicted[s, :, i]) for i, label in enumerate(whole_numbers)]
            )
        )
        every = weighted(
            labels.ravel(), predicted[s].ravel(), decided.ravel(), weights.repeat(n_labels, axis=1)
        )
        for name in MICRO:
            values[name].append(every[name.removeprefix("micro_")][:1])
            replicates[name].append(every[name.removeprefix("micro_")][1:, None])
    return Judged(
        {name: np.vstack(found) for name, found in values.items()},
        {name: np.vstack(found) for name, found in replicates.items()},
    )


def weighted(
    label: NDArray[np.int8],
    predicted: Floats,
    decided: NDArray[np.bool_],
    weights: NDArray[np.float32],
) -> dict[str, Floats]:
    """AUROC, AUPRC (average precision), F1 and Brier score, each of many weightings.

    Args:
        label: 0 or 1 of each item [n].
        predicted: [n].
        decided: which count as a 1 in F1 [n].
        weights: whole numbers, how often each item is there [weightings, n].

    Returns:
        By the names of ``BY_STAY``: [weightings]; NaN where not defined.
    """
    order = np.argsort(-predicted, kind="stable")
    # Equal predictions come as one: a threshold is between them or not at all.
    ends = np.flatnonzero(np.diff(predicted[order], append=np.nan) != 0)
    weights, label, decided = weights[:, order], label[order] == 1, decided[order]
    # Sums of whole numbers: exact in float32 up to 16 million.
    above = np.cumsum(weights, axis=1)[:, ends].astype(np.float64)
    ones = np.cumsum(weights * label, axis=1)[:, ends].astype(np.float64)
    n = weights.sum(axis=1).astype(np.float64)
    n_ones = (weights @ label.astype(np.float32)).astype(np.float64)
    new_ones = np.diff(ones, axis=1, prepend=0.0)
    new_zeros = np.diff(above - ones, axis=1, prepend=0.0)
    hits = (weights @ (decided & label).astype(np.float32)).astype(np.float64)
    n_decided = (weights @ decided.astype(np.float32)).astype(np.float64)
    error = (predicted[order] - label) ** 2

    def ratio(top: Floats, bottom: Floats) -> Floats:
        return np.divide(top, bottom, out=np.full(np.shape(top), NAN), where=bottom > 0)

    precision = np.nan_to_num(ratio(ones, above))
    return {
        "auroc": ratio((new_zeros * (ones - new_ones / 2)).sum(axis=1), n_ones * (n - n_ones)),
        "auprc": ratio((new_ones * precision).sum(axis=1), n_ones),
        "f1": ratio(2 * hits, n_decided + n_ones),
        "brier": ratio((weights @ error.astype(np.float32)).astype(np.float64), n),
    }
