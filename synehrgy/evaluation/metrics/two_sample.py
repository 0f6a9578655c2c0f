"""Whether a classifier tells real patients from the others, and by what."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.boosting import in_parallel
from synehrgy.evaluation.metric import (
    MARGINALS,
    NAN,
    ORACLE,
    SYNTHETIC,
    TEST,
    Bench,
    Found,
    Metric,
    Scale,
    Score,
    bootstrapped,
)
from synehrgy.evaluation.metrics.codes import vocabulary_of
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.scores import auroc, intervals, resamples

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What the classifier sees.
CODES, SERIES, ALL = "codes", "series", "all"
_SEES = {CODES: "their codes", SERIES: "their series", ALL: "everything that is recorded of them"}

_N_FOLDS, _N_FOLDS_QUICK = 5, 2
_MOST_CODES = 300
_N_SHOWN = 20
# Patients a side, at most: more take longer and are told apart hardly better.
_MOST = 2500
# Of fewer patients a side the classifier learns nothing, whatever they are.
_FEWEST = 50
_ROC_POINTS = 101
_ACCURACY = "published/two_sample/accuracy"

# LightGBM's own but for what makes it fast: values in fewer bins, a part of the columns per tree.
# The same result on each call; folds are learnt side by side, with a thread each.
_BOOSTING = {
    "objective": "binary",
    "max_bin": 63,
    "feature_fraction": 0.3,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
_N_TREES = 100


class TwoSample(Metric):
    """Classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017), with LightGBM.

    The copy of the train split is left out: it would be told from itself.
    """

    name = "two_sample"
    title = "Telling real from synthetic"
    group = "fidelity"
    rows = (SYNTHETIC, TEST, ORACLE, MARGINALS)
    scales = {
        **{
            f"two_sample/{part}": Scale(
                f"AUROC of telling apart by {'everything' if part == ALL else part}",
                f"How often a classifier that sees {sees} tells which of two patients is the real "
                "one: 0.5 is by chance, 1 is always.",
                *("low", (0.0, 1.0), 0.5, 0.1, 0.25),
            )
            for part, sees in _SEES.items()
        },
        _ACCURACY: Scale(
            "Accuracy of telling apart, as published",
            "The share of patients that the classifier takes for what they are: 0.5 is by chance.",
            *("low", (0.0, 1.0), 0.5),
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Tell equally many train patients and patients of the row apart."""
        real = bench.train.sample(min(bench.n_equal, _MOST), bench.seed)
        other = bench.equal[row].sample(len(real), bench.seed)
        n_folds = min(_N_FOLDS_QUICK if bench.effort.quick else _N_FOLDS, len(real))
        sides = Sides.of(real, other, n_folds, bench.seed)
        counts = resamples(len(sides.label), bench.effort.n_resamples, bench.seed)
        scores = {name: Score(NAN) for name in self.scales}
        curves, features = [], []
        for part, seen in tables_of(real, other).items():
            if not seen.shape[1] or len(real) < _FEWEST:
                continue
            margin, gain = sides.held_out(seen.to_numpy(np.float32), bench.seed)
            rank = sides.rank_in_fold(margin)
            low, high = intervals(sides.label, rank, counts)["auroc"]
            scores[f"two_sample/{part}"] = Score(auroc(sides.label, rank), low, high)
            curves.append(_roc(sides.label, rank).assign(part=part))
            features.append(sides.explained(seen, gain).assign(part=part))
            if part == ALL:
                right = ((margin > 0) == (sides.label == 1)).astype(np.float64)
                replicates = counts @ right / len(right)
                scores[_ACCURACY] = bootstrapped(float(right.mean()), replicates, (0.0, 1.0))
        shown = {
            "two_sample_roc": (curves, ["part", "fpr", "tpr"]),
            "two_sample_features": (features, ["part", "feature", "gain", "train", "measured"]),
        }
        return Found(scores, {name: _joined(*table) for name, table in shown.items()})


@dataclass(frozen=True)
class Sides:
    """The patients of both sides, one after the other, real ones first.

    Attributes:
        label: 1 of real patients, 0 of the others: [patients].
        fold: in which each patient is held out: [patients].
        patient: of each stay of both sides: [stays].
    """

    label: Ints
    fold: Ints
    patient: Ints

    @classmethod
    def of(cls, real: Patients, other: Patients, n_folds: int, seed: int) -> "Sides":
        """Folds of patients by chance, with equally many of either side."""
        rng = np.random.default_rng(seed)
        sides = (real, other)
        return cls(
            np.repeat([1, 0], [len(side) for side in sides]),
            np.concatenate([rng.permutation(len(side)) % max(n_folds, 1) for side in sides]),
            np.concatenate([real.patient, other.patient + len(real)]),
        )

    def held_out(self, seen: NDArray[np.float32], seed: int) -> tuple[Floats, Floats]:
        """Cross-validation by patient.

        Args:
            seen: what the classifier sees of each stay: [stays, features].
            seed: of the classifier.

        Returns:
            The log odds that a patient is real, by a classifier that learnt from other patients,
            as the mean over the stays: [patients]; the gain of each feature as a share of all.
        """
        import lightgbm

        label, fold = self.label[self.patient], self.fold[self.patient]
        margin, gain = np.zeros(len(label)), np.zeros(seen.shape[1])
        params = _BOOSTING | {"seed": seed}
        whole = lightgbm.Dataset(seen, label, params=params, free_raw_data=False).construct()
        held = np.unique(fold)
        learnt = [whole.subset(np.flatnonzero(fold != k).tolist()).construct() for k in held]
        boosters = in_parallel(lambda part: lightgbm.train(params, part, _N_TREES), learnt)
        for k, booster in zip(held, boosters, strict=True):
            mine = fold == k
            margin[mine] = booster.predict(seen[mine], raw_score=True)
            gain += booster.feature_importance("gain")
        n_stays = np.bincount(self.patient, minlength=len(self.label))
        of_patient = np.bincount(self.patient, margin, minlength=len(self.label)) / n_stays
        return of_patient, gain / max(gain.sum(), 1e-12)

    def rank_in_fold(self, margin: Floats) -> Floats:
        """The rank of each patient among those of its fold, between 0 and 1.

        Classifiers of different folds differ in where their odds are in the middle.
        """
        table = pd.DataFrame({"fold": self.fold, "margin": margin})
        return table.groupby("fold")["margin"].rank(pct=True).to_numpy(np.float64)

    def explained(self, seen: pd.DataFrame, gain: Floats) -> pd.DataFrame:
        """The features that gave the patients away most, with their mean on either side."""
        best = np.argsort(-gain, kind="stable")[:_N_SHOWN]
        real = self.label[self.patient] == 1
        values = seen.iloc[:, best]
        return pd.DataFrame(
            {
                "feature": values.columns.astype(str),
                "gain": gain[best],
                "train": values[real].mean().to_numpy(np.float64),
                "measured": values[~real].mean().to_numpy(np.float64),
            }
        )


def tables_of(real: Patients, other: Patients) -> dict[str, pd.DataFrame]:
    """What the classifier sees of each stay of both sides, by ``codes``, ``series`` and ``all``.

    Nothing that only names a record (its numbers, its split), and nothing of the order of stays but
    their number.
    """
    sides = (real, other)
    frequent = _frequent_codes(sides)
    codes, series, facts = (
        pd.concat([of(side) for side in sides], ignore_index=True)
        for of in (lambda side: _of_codes(side, frequent), _of_series, _of_facts)
    )
    return {CODES: codes, SERIES: series, ALL: pd.concat([codes, series, facts], axis=1)}


def _frequent_codes(sides: tuple[Patients, Patients]) -> pd.Index:
    vocabulary = vocabulary_of(*sides)
    stays = sum(np.asarray(side.presence(vocabulary).sum(axis=0)).ravel() for side in sides)
    return vocabulary[np.sort(np.argsort(-stays, kind="stable")[:_MOST_CODES])]


def _of_codes(patients: Patients, frequent: pd.Index) -> pd.DataFrame:
    """Which frequent codes a stay has, and how many codes of each system."""
    present = pd.DataFrame(patients.presence(frequent).toarray(), columns=frequent)
    codes = patients.cohort.codes
    numbers = {}
    for system in patients.schema.code_systems:
        stay = patients.stay_rows(codes[codes["system"] == system.name])
        numbers[f"number of {system.name}"] = np.bincount(stay, minlength=len(patients.stays))
    return pd.concat([present, pd.DataFrame(numbers, index=present.index)], axis=1)


def _of_series(patients: Patients) -> pd.DataFrame:
    """Summaries of the first hours; how often each series and level is there; the time points."""
    grid, n_stays = patients.grid, len(patients.stays)
    columns: dict[str, object] = {}
    if len(patients.continuous):
        columns |= dict(zip(patients.embedding_names(), patients.embedding.T, strict=True))
    for i, variable in enumerate(patients.schema.variables):
        stay = grid.stay[grid.observed[:, i]]
        columns[f"{variable.name}, number"] = np.bincount(stay, minlength=n_stays)
        for j, level in enumerate(variable.levels):
            stay = grid.stay[grid.values[:, i] == j]
            columns[f"{variable.name} = {level}, number"] = np.bincount(stay, minlength=n_stays)
    if patients.schema.variables:
        hours = pd.Series(grid.hours).groupby(grid.stay).agg(["min", "max", "count"])
        hours = hours.reindex(range(n_stays))
        columns["time points"] = hours["count"].fillna(0)
        columns["first hour"], columns["last hour"] = hours["min"], hours["max"]
        columns["mean gap, hours"] = (hours["max"] - hours["min"]) / (hours["count"] - 1)
    return pd.DataFrame(columns, index=range(n_stays))


def _of_facts(patients: Patients) -> pd.DataFrame:
    """Covariates, labels, the length of the stay and the number of stays of the patient."""
    stays = patients.stays
    columns: dict[str, object] = {}
    for covariate in patients.schema.covariates:
        column = stays[covariate.name]
        if covariate.kind == "continuous":
            columns[covariate.name] = column.astype(np.float64)
        for level in covariate.levels:
            columns[f"{covariate.name} = {level}"] = (column == level).astype(np.float64)
    for label in patients.schema.labels:
        columns[label.column] = stays[label.column].astype(np.float64)
    columns["length of stay, hours"] = stays["los_hours"].astype(np.float64)
    columns["stays of the patient"] = np.bincount(patients.patient)[patients.patient]
    return pd.DataFrame(columns, index=stays.index).reset_index(drop=True)


def _roc(label: Ints, rank: Floats) -> pd.DataFrame:
    """The share of real patients that are recognised at each share of false alarms."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(label, rank)
    at = np.linspace(0, 1, _ROC_POINTS)
    return pd.DataFrame({"fpr": at, "tpr": np.interp(at, false, true)})


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)[columns]
