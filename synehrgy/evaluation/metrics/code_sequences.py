"""Sequences of codes: which follow each other in a list, and from one stay to the next.

The published form (SynEHRgy, arXiv 2411.13428) correlates frequencies over the n-grams that both
cohorts have, so that those that are never generated, or made up, cost nothing; and its conditional
frequencies give an n-gram whose beginning was seen once the weight of the most frequent one. The
corrected form takes the share of all n-grams, over the union, in all stays.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from synehrgy.evaluation import agreement
from synehrgy.evaluation.metric import (
    Bench,
    Found,
    Metric,
    Scale,
    bootstrapped,
    patient_weights,
)
from synehrgy.evaluation.metrics.codes import vocabulary_of
from synehrgy.evaluation.patients import Patients

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BIGRAM, TRIGRAM, SEQUENTIAL = "bigram", "trigram", "sequential_bigram"
_KINDS = (BIGRAM, TRIGRAM, SEQUENTIAL)
_TITLES = {
    "unigram": "codes",
    BIGRAM: "pairs of codes in a row",
    TRIGRAM: "three codes in a row",
    SEQUENTIAL: "pairs of a code and one of the next stay",
}

# How far the overlap may be below 1; that of three codes in a row is less certain.
_LIMITS = {BIGRAM: (0.1, 0.25), TRIGRAM: (0.25, 0.5), SEQUENTIAL: (0.1, 0.25)}

# There are up to a few 100,000 n-grams: the standard deviation of this many resamples is off by a
# tenth, which is enough for an interval.
_MOST_RESAMPLES = 50
# Pairs of an n-gram in two patients, on either side, of which an overlap can be told.
_FEWEST_REPEATED = 50
_SIDE_BY_SIDE = 10
_MOST_SHOWN = 300


@dataclass(frozen=True)
class Grams:
    """The n-grams of some patients, each as often as it occurs.

    Attributes:
        patient: int64 [occurrences].
        key: int64 [occurrences], a number of the n-gram: that of its beginning, times the size of
            the vocabulary, plus that of its last code.
    """

    patient: Ints
    key: Ints


def _scales() -> dict[str, Scale]:
    scales = {}
    for kind, what in _TITLES.items():
        scales[f"published/code_sequences/{kind}_r"] = Scale(
            f"Correlation of {what}, as published",
            f"Correlation of the frequencies of {what} over those that both cohorts have.",
            *("high", (-1.0, 1.0), 1.0),
        )
    for kind in _KINDS:
        what = _TITLES[kind]
        scales[f"code_sequences/{kind}_overlap"] = Scale(
            f"Overlap of {what}",
            f"How often one of the {what} is the same in a real patient and in one of these, beside"
            " how often in two patients of one kind: 1 is equally often.",
            *("high", (0.0, inf), 1.0, *_LIMITS[kind]),
        )
        scales[f"code_sequences/{kind}_js"] = Scale(
            f"Distance of {what}",
            f"How far apart the distributions of {what} are: 1 has none in common.",
            *("low", (0.0, 1.0), "test", 0.03, 0.1),
        )
        # Without a light: of small cohorts both say how much of the frequencies is chance.
        scales[f"code_sequences/{kind}_r"] = Scale(
            f"Correlation of {what}",
            f"Whether the {what} that are frequent in real patients are frequent here.",
            *("high", (-1.0, 1.0), "test"),
        )
        scales[f"code_sequences/{kind}_r2"] = Scale(
            f"R² of {what}",
            f"How much of the differences between {what} is met exactly.",
            *("high", (-inf, 1.0), "test"),
        )
    scales["code_sequences/recurrence"] = Scale(
        "Codes that come again",
        "The share of the codes of a stay that the next stay of the patient has again.",
        *("near", (0.0, 1.0), "test", 0.04, 0.08),
    )
    return scales


class CodeSequences(Metric):
    """n-grams of codes within a list and across stays."""

    name = "code_sequences"
    title = "Sequences of codes"
    group = "fidelity"
    needs = frozenset({"codes"})
    scales = _scales()

    def measure(self, bench: Bench, row: str) -> Found:
        """Compare one row with the train split."""
        real, other = bench.train, bench.equal[row]
        vocabulary = vocabulary_of(real, other)
        n_resamples = min(bench.effort.n_resamples, _MOST_RESAMPLES)
        weights = patient_weights(len(other), n_resamples, bench.seed)
        # The first weighting is the sample itself, the others are its resamples.
        weights = np.vstack([np.ones(len(other)), weights])
        replicates: dict[str, Floats] = {}
        tables = []
        for kind in _KINDS:
            counts = Counts.of(real, other, vocabulary, kind)
            tables.append(_most_frequent(counts, vocabulary, kind))
            for name, found in _over_union(counts, weights).items():
                replicates[f"code_sequences/{kind}_{name}"] = found
        for kind in _TITLES:
            # The next stay is beyond the first.
            parts = (real, other) if kind == SEQUENTIAL else (real.first, other.first)
            counts = Counts.of(*parts, vocabulary, kind)
            replicates[f"published/code_sequences/{kind}_r"] = _as_published(counts, weights)
        replicates["code_sequences/recurrence"] = _recurrence(other, vocabulary, weights)
        scores = {
            name: bootstrapped(found[0], found[1:], self.scales[name].bounds)
            for name, found in replicates.items()
        }
        return Found(scores, {"code_sequences_ngrams": pd.concat(tables, ignore_index=True)})


def grams_of(patients: Patients, vocabulary: pd.Index, kind: str) -> Grams:
    """The n-grams of a kind: of ``unigram``, ``bigram``, ``trigram`` or ``sequential_bigram``.

    Codes follow each other as listed, whatever their system. A sequential bigram is a code and one
    of the patient's next stay: every pair of these.
    """
    stay = patients.coded["stay"].to_numpy(np.int64)
    code = vocabulary.get_indexer(pd.Index(patients.coded["code"])).astype(np.int64)
    size = len(vocabulary)
    if kind == SEQUENTIAL:
        return _sequential(patients, stay, code, size)
    n = {"unigram": 1, BIGRAM: 2, TRIGRAM: 3}[kind]
    last = len(code) - n + 1
    if last < 1:
        return Grams(np.zeros(0, np.int64), np.zeros(0, np.int64))
    key = code[:last]
    for following in range(1, n):
        key = key * size + code[following : last + following]
    inside = stay[:last] == stay[n - 1 :]
    return Grams(patients.patient[stay[:last]][inside], key[inside])


def _sequential(patients: Patients, stay: Ints, code: Ints, size: int) -> Grams:
    n_codes = np.bincount(stay, minlength=len(patients.stays))
    start = np.cumsum(n_codes) - n_codes
    # Stays are in order of time, patient by patient.
    same = np.append(patients.patient[1:] == patients.patient[:-1], False)
    in_next = np.where(same, np.append(n_codes[1:], 0), 0)[stay]
    before = np.repeat(np.arange(len(code)), in_next)
    nth = np.arange(len(before)) - np.repeat(np.cumsum(in_next) - in_next, in_next)
    after = start[stay[before] + 1] + nth if len(before) else before
    return Grams(patients.patient[stay[before]], code[before] * size + code[after])


@dataclass(frozen=True)
class Counts:
    """How often each patient of two cohorts has each n-gram that any of them has.

    Attributes:
        keys: int64 [n-grams], ascending, as in ``Grams``.
        start: where the n-grams of one beginning start: all but the last code.
        real, other: float64 [patients, n-grams].
    """

    keys: Ints
    start: Ints
    real: sparse.csr_matrix
    other: sparse.csr_matrix

    @classmethod
    def of(cls, real: Patients, other: Patients, vocabulary: pd.Index, kind: str) -> "Counts":
        """Count those of one kind."""
        grams = [grams_of(patients, vocabulary, kind) for patients in (real, other)]
        keys = np.unique(np.concatenate([g.key for g in grams]))
        # Single codes have no beginning: all have the same.
        start = np.flatnonzero(np.diff(keys // max(len(vocabulary), 1), prepend=-1))
        counts = [
            sparse.csr_matrix(
                (np.ones(len(g.key)), (g.patient, np.searchsorted(keys, g.key))),
                shape=(len(patients), len(keys)),
            )
            for g, patients in zip(grams, (real, other), strict=True)
        ]
        return cls(keys, start, *counts)

    @property
    def totals(self) -> Floats:
        """Of all real patients: [n-grams]."""
        return np.asarray(self.real.sum(axis=0), dtype=np.float64).ravel()


def _as_published(counts: Counts, weights: Floats) -> Floats:
    """Correlation of conditional frequencies over the n-grams that both have: [weightings]."""
    start, n_grams = counts.start, len(counts.keys)
    length = np.diff(np.append(start, n_grams))

    def conditional(found: Floats) -> Floats:
        if not n_grams:
            return found
        of_beginning = np.repeat(np.add.reduceat(found, start, axis=1), length, axis=1)
        return np.divide(found, of_beginning, out=np.zeros_like(found), where=of_beginning > 0)

    train = conditional(counts.totals[None])[0]
    correlations = []
    for part in _parts(weights):
        for found in conditional(part @ counts.other):
            both = (train > 0) & (found > 0)
            correlations.append(agreement.pearson(train[both], found[None, both])[0])
    return np.array(correlations)


def _over_union(counts: Counts, weights: Floats) -> dict[str, Floats]:
    """Scores of the share of each n-gram among all: [weightings] each.

    ``overlap`` is Morisita's index (Memoirs of the Faculty of Science, Kyushu University, Series E,
    3, 1959): how likely an n-gram of a real patient and one of another are the same, over the mean
    of how likely two of different real patients, and two of different others, are. As no patient is
    paired with itself, few patients do not make it smaller.
    """
    train = counts.totals
    size = counts.real.sum(axis=1), counts.other.sum(axis=1)
    n_real, n_other = (np.asarray(n, dtype=np.float64).ravel() for n in size)
    same_real, same_other = (_squares(matrix) for matrix in (counts.real, counts.other))
    scores: dict[str, list[Floats]] = {"overlap": [], "js": [], "r": [], "r2": []}
    with np.errstate(invalid="ignore", divide="ignore"):
        repeated = train @ train - same_real.sum()
        of_real = repeated / (n_real.sum() ** 2 - n_real @ n_real)
        shares = np.nan_to_num(train / train.sum())
        for part in _parts(weights):
            found = part @ counts.other
            total = part @ n_other
            pairs = total**2 - part**2 @ n_other**2
            repeated_here = np.einsum("ij,ij->i", found, found) - part**2 @ same_other
            of_other = repeated_here / pairs
            between = found @ train / (total * n_real.sum())
            enough = np.minimum(repeated, repeated_here) >= _FEWEST_REPEATED
            scores["overlap"].append(np.where(enough, 2 * between / (of_real + of_other), np.nan))
            scores["js"].append(agreement.js_distance(train, found))
            found = np.nan_to_num(found / total[:, None])
            nothing = np.where((total > 0) & (train.sum() > 0), 0.0, np.nan)
            scores["r"].append(agreement.pearson(shares, found) + nothing)
            scores["r2"].append(agreement.r_squared(shares, found) + nothing)
    finite = {name: np.concatenate(found) for name, found in scores.items()}
    return {name: np.where(np.isfinite(found), found, np.nan) for name, found in finite.items()}


def _recurrence(patients: Patients, vocabulary: pd.Index, weights: Floats) -> Floats:
    """The share of codes that the next stay has again, among stays that have one: [weightings]."""
    has = patients.presence(vocabulary)
    followed = np.flatnonzero(patients.patient[1:] == patients.patient[:-1])
    again = np.asarray(has[followed].multiply(has[followed + 1]).sum(axis=1)).ravel()
    of_all = np.asarray(has[followed].sum(axis=1)).ravel()
    patient = patients.patient[followed]
    found, total = (
        weights @ np.bincount(patient, x, minlength=weights.shape[1]) for x in (again, of_all)
    )
    return np.divide(found, total, out=np.full(len(weights), np.nan), where=total > 0)


def _parts(weights: Floats) -> list[Floats]:
    """A few weightings at a time: bounds the memory."""
    return np.split(weights, range(_SIDE_BY_SIDE, len(weights), _SIDE_BY_SIDE))


def _squares(matrix: sparse.csr_matrix) -> Floats:
    """The sum of the squares of each row."""
    return np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float64).ravel()


def _most_frequent(counts: Counts, vocabulary: pd.Index, kind: str) -> pd.DataFrame:
    """Shares of the n-grams that are most frequent in either: one row each."""
    size = max(len(vocabulary), 1)
    real, other = (np.asarray(x.sum(axis=0)).ravel() for x in (counts.real, counts.other))
    train, measured = real / (real.sum() or 1.0), other / (other.sum() or 1.0)
    shown = np.argsort(-np.maximum(train, measured), kind="stable")[:_MOST_SHOWN]
    key = counts.keys[shown]
    parts: list[NDArray[np.object_]] = []
    for _ in range(3 if kind == TRIGRAM else 2):
        parts.insert(0, vocabulary[key % size].to_numpy(object))
        key = key // size
    joint = " | " if kind == SEQUENTIAL else " > "
    return pd.DataFrame(
        {
            "kind": kind,
            "ngram": [joint.join(codes) for codes in zip(*parts, strict=True)],
            "train": train[shown],
            "measured": measured[shown],
        }
    )
