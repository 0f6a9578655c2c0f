"""What a metric is: a small class that measures one row of a comparison and says how to read it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from synehrgy.evaluation.patients import Patients

GROUPS = {
    "validity": "Validity and clinical consistency",
    "fidelity": "Fidelity",
    "utility": "Utility",
    "privacy": "Privacy",
}

# What is judged beside the synthetic patients, and by the same metrics.
SYNTHETIC, TEST, TRAIN, MARGINALS, ORACLE = "synthetic", "test", "train", "marginals", "oracle"
ROWS = {
    SYNTHETIC: "Synthetic patients",
    TEST: "Real patients that no model was trained on: the best that can be expected",
    ORACLE: "Fresh patients of the true distribution",
    MARGINALS: "Independent columns: every value drawn by itself from the train split",
    TRAIN: "A copy of the train split: looks perfect and gives every patient away",
}

NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """A number and its 95 % confidence interval; NaN where it is not defined."""

    value: float
    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class Scale:
    """How to read a score.

    Attributes:
        title: its name for people.
        meaning: one plain sentence on what it says.
        goal: ``high``, ``low`` or ``near``: better in which direction, seen from ``reference``.
        bounds: the least and the greatest that it can be.
        reference: what it should reach: a number, or the row of ``ROWS`` whose value that is.
        good, poor: how far on the worse side of the reference it may be and still be good, or be
            fair; beyond ``poor`` it is poor, unless its interval reaches what is good: few patients
            are no proof of a fault. None: no light, shown for comparison only.
    """

    title: str
    meaning: str
    goal: str
    bounds: tuple[float, float]
    reference: float | str
    good: float | None = None
    poor: float | None = None

    def off(self, value: float, reference: float) -> float:
        """How far a value is on the worse side of the reference; below 0 on the better side."""
        worse = {"high": reference - value, "low": value - reference}
        return worse.get(self.goal, abs(value - reference))

    def light(
        self, value: float, reference: float, low: float = NAN, high: float = NAN
    ) -> str | None:
        """``good``, ``fair`` or ``poor``; None where there is nothing to compare.

        Args:
            value: of the score.
            reference: what it should reach.
            low, high: its interval, if it has one.
        """
        if self.good is None or self.poor is None or np.isnan(value) or np.isnan(reference):
            return None
        off = self.off(value, reference)
        # The last digits of a float decide nothing.
        if off <= self.good + 1e-9:
            return "good"
        # The value of the interval that is nearest to the reference, or on its better side.
        nearest = {"high": high, "low": low}
        best = nearest.get(self.goal, float(np.clip(reference, low, high)))
        may_be_good = self.off(best, reference) <= self.good + 1e-9
        return "fair" if off <= self.poor + 1e-9 or may_be_good else "poor"


@dataclass(frozen=True)
class Found:
    """What a metric found of one row.

    Attributes:
        scores: by the names of ``Metric.scales``.
        tables: what lies behind them, by a name that no other metric uses. Plain columns.
    """

    scores: dict[str, Score]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Effort:
    """How much is computed.

    Attributes:
        max_patients: of each cohort, at most.
        n_resamples: of a bootstrap.
        n_seeds: of what is trained.
        quick: leave out what takes long.
    """

    max_patients: int = 5000
    n_resamples: int = 200
    n_seeds: int = 5
    quick: bool = False


@dataclass(frozen=True)
class Bench:
    """Everything that metrics may look at.

    Attributes:
        train: real patients that a model was, or could have been, trained on.
        rows: what is judged, by the names of ``ROWS``; always ``synthetic`` and ``test``.
        effort: how much is computed.
        seed: of everything random.
        has_splits: whether the train and test patients are those of the cohort's own splits. If
            not, they are two parts of it by chance, and the synthetic patients may be made from
            both.
        run: the folder of the model that made the synthetic patients, if it is known.
        show_real: whether tables may hold whole real patients, to be looked at.
        uncut: all patients of ``synthetic``, ``test`` and ``train`` that there are, however few of
            them are measured: a copy is to be found wherever it is.
    """

    train: Patients
    rows: dict[str, Patients]
    effort: Effort = Effort()
    seed: int = 0
    has_splits: bool = True
    run: Path | None = None
    show_real: bool = False
    uncut: Mapping[str, Patients] = field(default_factory=dict)

    def may_show(self, row: str) -> bool:
        """Whether tables may name single patients of a row: they never lived, or it was allowed."""
        made_up = self.rows.get(row, self.train).cohort.provenance.get("simulated") is True
        return row in (SYNTHETIC, MARGINALS) or made_up or self.show_real

    def whole(self, row: str) -> Patients:
        """All patients of a row that there are."""
        return self.uncut.get(row, self.rows.get(row, self.train))

    @cached_property
    def n_equal(self) -> int:
        """Patients of the smallest row."""
        return min(len(row) for row in self.rows.values())

    @cached_property
    def equal(self) -> dict[str, Patients]:
        """The rows with equally many patients each: noise of few patients is then that of all."""
        return {name: row.sample(self.n_equal, self.seed) for name, row in self.rows.items()}


class Metric(ABC):
    """Measures one row at a time. A file in ``metrics`` with such a class is all it takes.

    Attributes:
        name: of the metric; the name of its file.
        title: for people.
        group: one of ``GROUPS``.
        scales: how to read each of its scores. A name that begins with ``published/`` is a score
            in the form in which it was published, for comparison with the literature only.
        rows: which rows it measures.
        needs: of ``codes``, ``continuous``, ``series``, ``covariates``, ``labels``, ``splits``,
            ``model``: without these it is left out, and the report says so.
        quick: whether it is part of a quick evaluation.
        costly: whether it is left out unless asked for.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    group: ClassVar[str]
    scales: ClassVar[dict[str, Scale]]
    rows: ClassVar[Sequence[str]] = tuple(ROWS)
    needs: ClassVar[frozenset[str]] = frozenset()
    quick: ClassVar[bool] = True
    costly: ClassVar[bool] = False

    @abstractmethod
    def measure(self, bench: Bench, row: str) -> Found:
        """Measure ``bench.rows[row]``; must not depend on what was measured before."""

    def lacks(self, bench: Bench) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        schema = bench.train.schema
        has = {
            "codes": (bool(schema.code_systems), "there are no codes to compare"),
            "continuous": (
                bool(schema.variables_of("continuous")),
                "there are no continuous series to compare",
            ),
            "series": (bool(schema.variables), "there are no series to compare"),
            "covariates": (bool(schema.covariates), "there are no covariates to compare"),
            "labels": (bool(schema.labels), "there are no labels to compare"),
            "splits": (
                bench.has_splits,
                "the real cohort has no splits, so nobody knows which patients were held out",
            ),
            "model": (
                bench.run is not None,
                "the model that made the patients is not known (give model=<run>)",
            ),
        }
        lacking = (why for need, (met, why) in has.items() if need in self.needs and not met)
        return next(lacking, None)


def bootstrapped(value: float, replicates: ArrayLike, bounds: tuple[float, float]) -> Score:
    """A score with the normal interval of its bootstrap (Efron and Tibshirani, 1993, chapter 13).

    Not the quantiles: distances of resamples are too great, as these are further apart than the
    samples that they are drawn from, and their quantiles may leave the value itself out.

    Args:
        value: of the whole sample.
        replicates: of resamples of patients; NaN are left out.
        bounds: that the interval may not cross.
    """
    found = np.asarray(replicates, dtype=np.float64)
    found = found[~np.isnan(found)]
    if len(found) < 2 or np.isnan(value):
        return Score(float(value))
    half = 1.96 * float(found.std(ddof=1))
    return Score(float(value), max(value - half, bounds[0]), min(value + half, bounds[1]))


def over_seeds(values: ArrayLike, bounds: tuple[float, float]) -> Score:
    """The mean of repetitions and the t interval of a single one of them.

    Repetitions share their patients, so that the interval of their mean would be too narrow.
    """
    from scipy.stats import t

    found = np.asarray(values, dtype=np.float64)
    found = found[~np.isnan(found)]
    if not len(found):
        return Score(NAN)
    mean = float(found.mean())
    if len(found) < 2:
        return Score(mean)
    half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1))
    return Score(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def patient_weights(n: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each of n patients is in each resample of a bootstrap: float64 [resamples, n]."""
    from synehrgy.evaluation.scores import resamples

    return resamples(n, n_resamples, seed).astype(np.float64)
