"""What utility is measured on: the labels of a schema as tasks, and what is known of each stay.

Outcomes are predicted from the first 48 hours of stays that are at least as long (Harutyunyan et
al., "Multitask learning and benchmarking with clinical time series data", Scientific Data 6, 2019),
phenotypes from the series of the whole stay. Codes are never known: phenotypes are made of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synehrgy.cohort import Label
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import MARGINALS, ORACLE, SYNTHETIC, TRAIN, Bench
from synehrgy.evaluation.patients import FIRST_HOURS, Grid, Patients

OUTCOME, PHENOTYPE = "outcome", "phenotype"
KINDS = {
    OUTCOME: "Outcomes from the first 48 hours",
    PHENOTYPE: "Phenotypes from the whole stay",
}
# Real test patients are for testing, so nothing is trained on them.
TRAINED_ON = (SYNTHETIC, ORACLE, MARGINALS, TRAIN)

# A label needs so many stays with it, and without it, in the real train and in the test patients.
MIN_STAYS = 10

# Patients of each row that are learnt from, and that models are asked about, at most: more take
# long and change no comparison.
MOST_LEARNERS, _MOST_QUICK = 1000, 750
MOST_ASKED = 2500
# The share of a training set that each repetition learns from.
SUBSAMPLE = 0.8

# Of fewer patients in a row nothing is learnt, so that all rows would look alike.
_FEWEST_LEARNERS = 100

SUMMARIES = ("min", "max", "mean", "sd", "last", "count")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """Stays to learn from, or to be asked about.

    Attributes:
        features: float32 [stays, features]; NaN where nothing is known.
        labels: int8 [stays, labels] of 0 and 1.
        patient: int64 [stays], the place of each stay's patient in ``Patients.subjects``.
        stay: int64 [stays], their rows in ``Patients.stays``.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int8]
    patient: NDArray[np.int64]
    stay: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stay)

    def where(self, keep: NDArray[np.bool_]) -> "Examples":
        """Some of the stays."""
        return Examples(self.features[keep], self.labels[keep], self.patient[keep], self.stay[keep])

    def __add__(self, other: "Examples") -> "Examples":
        """The stays of both, to learn from; patients keep the places that they had."""
        return Examples(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.patient, other.patient]),
            np.concatenate([self.stay, other.stay]),
        )

    def of_labels(self, columns: NDArray[np.int64]) -> "Examples":
        """All stays with some of the labels."""
        return replace(self, labels=self.labels[:, columns])


def examples(patients: Patients, kind: str) -> Examples:
    """The stays of one kind of task, with what is known of them.

    Known are the covariates (levels one-hot) and the number of the stay; of each continuous series
    ``SUMMARIES``; of each categorical one the last level, numbered as declared, and the count of
    each level. Neither codes, labels nor the length of the stay.

    Args:
        patients: whose stays.
        kind: of labels, one of ``KINDS``.
    """
    return _of_outcomes(patients) if kind == OUTCOME else _of_phenotypes(patients)


@kept
def _of_outcomes(patients: Patients) -> Examples:
    known = np.hstack([facts(patients), _series(patients, patients.grid.first(FIRST_HOURS))])
    found = _examples(patients, known, patients.schema.labels_of(OUTCOME))
    return found.where(long_enough(patients))


@kept
def _of_phenotypes(patients: Patients) -> Examples:
    known = np.hstack([facts(patients), _series(patients, patients.grid)])
    return _examples(patients, known, patients.schema.labels_of(PHENOTYPE))


def long_enough(patients: Patients) -> NDArray[np.bool_]:
    """Which stays have the hours that outcomes are predicted from; not if nobody knows."""
    return np.asarray(patients.stays["los_hours"].to_numpy(np.float64) >= FIRST_HOURS)


def published_examples(patients: Patients) -> Examples:
    """First stays with the embedding of their first 48 hours and all labels, as published."""
    known = patients.embedding.astype(np.float32)
    labels = [label for kind in KINDS for label in patients.schema.labels_of(kind)]
    first = patients.stays["stay_index"].to_numpy() == 0
    return _examples(patients, known, labels).where(first)


def _examples(patients: Patients, known: NDArray[np.float32], labels: Sequence[Label]) -> Examples:
    columns = [label.column for label in labels]
    values = patients.stays[columns].to_numpy(np.int8).reshape(len(patients.stays), len(labels))
    return Examples(known, values, patients.patient, np.arange(len(patients.stays)))


def facts(patients: Patients) -> NDArray[np.float32]:
    """What is known at admission: [stays, facts]."""
    stays = patients.stays
    columns = [stays["stay_index"].to_numpy(np.float32)]
    for covariate in patients.schema.covariates:
        if covariate.kind == "continuous":
            columns.append(stays[covariate.name].to_numpy(np.float32))
        of_stay = stays[covariate.name].to_numpy(object)
        columns += [(of_stay == level).astype(np.float32) for level in covariate.levels]
    return np.column_stack(columns).astype(np.float32)


def _series(patients: Patients, grid: Grid) -> NDArray[np.float32]:
    n = len(patients.stays)
    parts = []
    for i, variable in enumerate(patients.schema.variables):
        there = ~np.isnan(grid.values[:, i])
        stay, value = grid.stay[there], grid.values[there, i].astype(np.float64)
        if variable.kind == "continuous":
            parts.append(_summaries(stay, value, n))
        else:
            parts.append(_level_counts(stay, value.astype(np.int64), n, len(variable.levels)))
    return np.hstack(parts, dtype=np.float32) if parts else np.zeros((n, 0), dtype=np.float32)


def _summaries(stay: NDArray[np.int64], value: Floats, n: int) -> Floats:
    """``SUMMARIES`` of values that are in the order of stays: [n, summaries]."""
    found = np.full((n, len(SUMMARIES)), np.nan)
    found[:, -1] = 0
    if not len(stay):
        return found
    first = np.flatnonzero(np.diff(stay, prepend=-1))
    count = np.diff(first, append=len(stay))
    mean = np.add.reduceat(value, first) / count
    squares = np.add.reduceat((value - np.repeat(mean, count)) ** 2, first)
    deviation = np.sqrt(
        np.divide(squares, count - 1, out=np.full(len(first), np.nan), where=count > 1)
    )
    lowest, highest = np.minimum.reduceat(value, first), np.maximum.reduceat(value, first)
    last = value[first + count - 1]
    found[stay[first]] = np.column_stack([lowest, highest, mean, deviation, last, count])
    return found


def _level_counts(
    stay: NDArray[np.int64], level: NDArray[np.int64], n: int, n_levels: int
) -> Floats:
    """The last level and the count of each: [n, 1 + levels]."""
    last = np.full(n, np.nan)
    ends = np.flatnonzero(np.diff(stay, append=-1))
    last[stay[ends]] = level[ends]
    counts = np.bincount(stay * n_levels + level, minlength=n * n_levels).reshape(n, n_levels)
    return np.column_stack([last, counts])


def frequent_enough(train: Examples, test: Examples) -> NDArray[np.bool_]:
    """Which labels can be learnt and tested: [labels].

    Decided on real patients alone: a label that synthetic patients lack counts against them.
    """
    enough = np.ones(train.labels.shape[1], dtype=bool)
    for part in (train, test):
        ones = part.labels.sum(axis=0, dtype=np.int64)
        enough &= (ones >= MIN_STAYS) & (len(part) - ones >= MIN_STAYS)
    return enough


def too_few(bench: Bench) -> str | None:
    """Why nothing can be learnt of these patients, in words; None if it can."""
    smallest = min(len(bench.rows[row]) for row in TRAINED_ON if row in bench.rows)
    if smallest >= _FEWEST_LEARNERS:
        return None
    return f"a cohort of {smallest} patients is too small to learn from ({_FEWEST_LEARNERS})"


def asked(bench: Bench, row: str) -> Patients:
    """The patients of a row that models are asked about."""
    return bench.rows[row].sample(MOST_ASKED, bench.seed)


def learners(bench: Bench, row: str) -> NDArray[np.bool_]:
    """Which patients of a row each repetition learns from: equally many of every row.

    Returns:
        [seeds, patients]; each has ``SUBSAMPLE`` of the same patients, who are as many as the
        smallest row that is trained on has, and at most ``MOST_LEARNERS``.
    """
    patients = len(bench.rows[row])
    smallest = min(len(bench.rows[name]) for name in TRAINED_ON if name in bench.rows)
    n = min(smallest, _MOST_QUICK if bench.effort.quick else MOST_LEARNERS)
    mixed = np.random.default_rng(bench.seed).permutation(patients)[:n]
    chosen = np.zeros((bench.effort.n_seeds, patients), dtype=bool)
    for seed, mine in enumerate(chosen):
        drawn = np.random.default_rng([bench.seed, seed]).permutation(mixed)
        mine[drawn[: max(int(n * SUBSAMPLE), 1)]] = True
    return chosen
