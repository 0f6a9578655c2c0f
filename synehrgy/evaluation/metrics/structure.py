"""The shape of records: how many stays, codes and time points, how long, of whom, with what labels.

Each quantity is compared by the greatest difference of distribution functions (Kolmogorov-Smirnov)
or, if it has levels, by the total variation: both are the largest difference between the shares of
any threshold or any set of levels, from 0 to 1, and so can be put side by side. A missing value
counts as a level, or as greater than every number, so that other missing rates are seen, too.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.clinical import age_of
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import (
    TEST,
    Bench,
    Found,
    Metric,
    Scale,
    bootstrapped,
    patient_weights,
)
from synehrgy.evaluation.patients import Floats, Patients

# Bars of a histogram, and steps of the distribution functions that are resampled.
_BARS = 30
_STEPS = 200

# With fewer values on either side a distance is chance, and left out: such as times between stays
# where hardly anybody has two, which the number of stays shows.
_MIN_VALUES = 20

_COVARIATE = "covariate: "


@dataclass(frozen=True)
class Quantity:
    """Something that is counted or measured once per patient, stay or time point.

    Attributes:
        title: for people.
        unit: of its values.
        patient: of each value, the place of its patient.
        values: NaN where there is none. With levels: their numbers.
        levels: names of the levels; none: a number.
    """

    title: str
    unit: str
    patient: NDArray[np.int64]
    values: Floats
    levels: tuple[str, ...] = ()

    @cached_property
    def distinct(self) -> tuple[Floats, Floats]:
        """The different values in ascending order, NaN last, and how often each is there."""
        values, counts = np.unique(self.values, return_counts=True)
        return values, counts.astype(np.float64)

    @cached_property
    def known(self) -> tuple[Floats, Floats]:
        """The same without the missing ones."""
        values, counts = self.distinct
        return values[~np.isnan(values)], counts[~np.isnan(values)]

    @property
    def n_known(self) -> int:
        """Values that are not missing."""
        return int(self.known[1].sum())

    @property
    def missing(self) -> float:
        """Share of missing values."""
        return 1 - self.n_known / len(self.values) if len(self.values) else np.nan

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of numbers."""
        values, counts = self.known
        if self.levels or not len(values):
            return np.nan, np.nan
        mean = float(np.average(values, weights=counts))
        return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))


@kept
def quantities(patients: Patients) -> dict[str, Quantity]:
    """All that is compared, by name."""
    stays, schema, whose = patients.stays, patients.schema, patients.patient
    n = len(stays)
    everybody = np.arange(len(patients))
    per_patient = np.bincount(whose, minlength=len(patients)).astype(np.float64)
    found = {"stays": Quantity("Stays of a patient", "stays", everybody, per_patient)}
    for system in schema.code_systems:
        mine = (patients.cohort.codes["system"] == system.name).to_numpy()
        count = np.bincount(patients.coded["stay"].to_numpy()[mine], minlength=n)
        title = f"Codes of a stay: {system.title}"
        found[f"codes: {system.name}"] = Quantity(title, "codes", whose, count.astype(np.float64))
    if schema.variables:
        grid = patients.grid
        points = np.bincount(grid.stay, minlength=n).astype(np.float64)
        values = grid.observed.sum(axis=1).astype(np.float64)
        found["points"] = Quantity("Time points of a stay", "time points", whose, points)
        title = "Values at a time point"
        found["values"] = Quantity(title, "values", whose[grid.stay], values)
    los = stays["los_hours"].to_numpy(np.float64)
    found["length"] = Quantity("Length of stay", "hours", whose, los)
    age = age_of(schema)
    if age is not None:
        # The only time between stays that a cohort tells.
        years = stays[age].to_numpy(np.float64)
        later = np.flatnonzero(np.diff(whose) == 0) + 1
        gap = years[later] - years[later - 1]
        found["gap"] = Quantity("Time between stays", "years", whose[later], gap)
    for covariate in schema.covariates:
        name, title = f"{_COVARIATE}{covariate.name}", f"Covariate: {covariate.name}"
        if covariate.kind == "continuous":
            values = stays[covariate.name].to_numpy(np.float64)
            found[name] = Quantity(title, covariate.unit or "", whose, values)
        else:
            place = pd.Index(covariate.levels).get_indexer(pd.Index(stays[covariate.name]))
            numbers = np.where(place < 0, np.nan, place.astype(np.float64))
            levels = tuple(covariate.levels)
            found[name] = Quantity(title, "", whose, numbers, levels)
    return found


def distances(real: Quantity, here: Quantity) -> tuple[float, float]:
    """How far two distributions are apart.

    Returns:
        Kolmogorov-Smirnov or, of levels, total variation: from 0 to 1, missing values included.
        And the Wasserstein distance of known numbers: by how many standard deviations of the real
        ones they would have to move on average. NaN if there are too few values; the second also
        if the real ones do not vary.
    """
    ends = _ends(real, here)
    shares = []
    for quantity in (real, here):
        values, counts = quantity.distinct
        # NaN has its place after the last end.
        bars = np.bincount(np.searchsorted(ends, values), counts, minlength=len(ends) + 1)
        shares.append(bars[None] / max(counts.sum(), 1))
    far, moved = (float(x[0]) for x in _apart(real, ends, *shares))
    if min(real.n_known, here.n_known) < _MIN_VALUES:
        moved = np.nan
    return (np.nan if min(len(real.values), len(here.values)) < _MIN_VALUES else far), moved


def _ends(real: Quantity, here: Quantity) -> Floats:
    """All values that are there, which are the upper ends of bins."""
    return np.unique(np.concatenate([real.known[0], here.known[0]]))


def _apart(real: Quantity, ends: Floats, one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """``distances`` of shares of bins, the missing in the last: from [many, bins], [many]."""
    if real.levels:
        return np.abs(one - other).sum(axis=1) / 2, np.full(len(one), np.nan)
    far = np.abs(np.cumsum(one - other, axis=1)).max(axis=1)
    if not real.moments[1] > 0:
        return far, np.full(len(one), np.nan)
    known = [x[:, :-1] / np.where(x[:, -1:] < 1, 1 - x[:, -1:], np.nan) for x in (one, other)]
    gap = np.abs(np.cumsum(known[0] - known[1], axis=1))[:, :-1]
    return far, gap @ np.diff(ends) / real.moments[1]


def _resampled(
    real: Quantity, here: Quantity, weights: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """``distances`` of each resample; of many values in steps."""
    ends = _ends(real, here)
    if len(ends) > _STEPS:
        ends = ends[np.linspace(0, len(ends) - 1, _STEPS).round().astype(np.int64)]
    bins = len(ends) + 1
    shares = []
    for quantity, weight in zip((real, here), weights, strict=True):
        n = weight.shape[1]
        place = quantity.patient * bins + np.searchsorted(ends, quantity.values)
        total = weight @ np.bincount(place, minlength=n * bins).reshape(n, bins).astype(np.float64)
        whole = total.sum(axis=1, keepdims=True)
        shares.append(np.divide(total, whole, out=np.full(total.shape, np.nan), where=whole > 0))
    return _apart(real, ends, *shares)


def _histogram(real: Quantity, here: Quantity) -> pd.DataFrame:
    """Shares of all values by bar; the first and the last hold all beyond, the missing none."""
    values, counts = real.known
    if real.levels:
        edges = np.arange(len(real.levels) + 1) - 0.5
    elif not len(values):
        edges = np.zeros(1)
    else:
        below = np.cumsum(counts) / counts.sum()
        low, high = values[np.searchsorted(below, [0.005, 0.995])]
        whole = bool((values == np.round(values)).all()) and high - low < 2 * _BARS
        edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high, _BARS + 1)
        if low == high:
            edges = np.array([low - 0.5, high + 0.5])
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:]})
    table["level"] = pd.Series(real.levels if real.levels else None, table.index, dtype=object)
    for name, quantity in (("share_real", real), ("share", here)):
        if len(table):
            values, counts = quantity.known
            bars = np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=counts)[0]
            table[name] = bars / max(len(quantity.values), 1)
    return table


@dataclass(frozen=True)
class _Prevalences:
    """Shares of stays with each label, [labels], and of resamples, [resamples, labels]."""

    real: Floats
    here: Floats
    reals: Floats
    heres: Floats


def _labels(real: Patients, here: Patients, weights: tuple[Floats, Floats]) -> _Prevalences:
    columns = [label.column for label in real.schema.labels]
    shares, resampled = [], []
    for patients, weight in zip((real, here), weights, strict=True):
        stated = patients.stays[columns].to_numpy(np.float64)
        # Stays of a patient stand together.
        starts = np.flatnonzero(np.diff(patients.patient, prepend=-1))
        per_patient, stays = np.add.reduceat(stated, starts), np.bincount(patients.patient)
        shares.append(stated.mean(axis=0))
        resampled.append((weight @ per_patient) / (weight @ stays)[:, None])
    return _Prevalences(*shares, *resampled)


def _described(
    known: dict[str, Quantity],
    found: dict[str, Quantity],
    far: Floats,
    fars: Floats,
    moved: Floats,
) -> pd.DataFrame:
    """One row per quantity."""
    ends = [bootstrapped(x, of, (0.0, 1.0)) for x, of in zip(far, fars, strict=True)]
    table = pd.DataFrame(
        {
            "quantity": list(known),
            "title": [q.title for q in known.values()],
            "unit": [q.unit for q in known.values()],
            "measure": ["total variation" if q.levels else "KS" for q in known.values()],
            "distance": far,
            "low": [score.low for score in ends],
            "high": [score.high for score in ends],
            "wasserstein": moved,
        }
    )
    for name, side in (("real", known), ("here", found)):
        table[f"n_{name}"] = [len(q.values) for q in side.values()]
        table[f"missing_{name}"] = [q.missing for q in side.values()]
        table[f"mean_{name}"] = [q.moments[0] for q in side.values()]
        table[f"sd_{name}"] = [q.moments[1] for q in side.values()]
    return table


def _at_level(i: int, real: Quantity, here: Quantity) -> tuple[float, float]:
    return float((real.values == i).mean()), float((here.values == i).mean())


def _covariates(known: dict[str, Quantity], found: dict[str, Quantity]) -> pd.DataFrame:
    """Of each covariate: share missing; share of each level, or mean and standard deviation."""
    rows = []
    for name, real in known.items():
        if not name.startswith(_COVARIATE):
            continue
        here = found[name]
        facts = [("missing", real.missing, here.missing)]
        if real.levels:
            for i, level in enumerate(real.levels):
                facts.append((level, *_at_level(i, real, here)))
        else:
            pairs = zip(("mean", "sd"), real.moments, here.moments, strict=True)
            facts += list(pairs)
        rows += [(name.removeprefix(_COVARIATE), *fact) for fact in facts]
    return pd.DataFrame(rows, columns=["covariate", "what", "real", "here"])


def _histograms(known: dict[str, Quantity], found: dict[str, Quantity]) -> pd.DataFrame:
    tables = [_histogram(real, found[name]).assign(quantity=name) for name, real in known.items()]
    table = pd.concat([part for part in tables if len(part)], ignore_index=True)
    return table[["quantity", "level", "low", "high", "share_real", "share"]]


def _label_table(real: Patients, stated: _Prevalences) -> pd.DataFrame:
    labels = real.schema.labels
    ends = [
        bootstrapped(x, of, (0.0, 1.0)) for x, of in zip(stated.here, stated.heres.T, strict=True)
    ]
    return pd.DataFrame(
        {
            "label": [label.column for label in labels],
            "title": [label.title for label in labels],
            "kind": [label.kind for label in labels],
            "real": stated.real,
            "here": stated.here,
            "low": [score.low for score in ends],
            "high": [score.high for score in ends],
            "error": stated.here - stated.real,
        }
    )


def _mean(values: Floats) -> Floats:
    """Mean over the first axis of what is defined; NaN if nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _worst(values: Floats) -> Floats:
    """Greatest over the first axis of what is defined; NaN if nothing is."""
    found = np.fmax.reduce(values, axis=0, initial=-np.inf)
    return np.where(np.isinf(found), np.nan, found)


class Structure(Metric):
    """Distributions of how much there is in records, of whom they are, and label prevalences."""

    name = "structure"
    title = "Structure of records"
    group = "fidelity"
    scales = {
        "structure/mean": Scale(
            "Structure, all quantities",
            "Mean distance of the distributions of stays, codes, time points, lengths and "
            "covariates: 0 is the same, 1 is nothing in common.",
            "low",
            (0.0, 1.0),
            TEST,
            0.02,
            0.07,
        ),
        "structure/worst": Scale(
            "Structure, worst quantity",
            "The distance of the distribution that is furthest off.",
            "low",
            (0.0, 1.0),
            TEST,
            0.05,
            0.15,
        ),
        "structure/wasserstein": Scale(
            "Structure, how far off",
            "How far values of a quantity have to move to be distributed as real ones, in standard "
            "deviations, on average over the quantities.",
            "low",
            (0.0, np.inf),
            TEST,
            0.05,
            0.2,
        ),
        "structure/labels": Scale(
            "Label prevalence",
            "Mean absolute error of the share of stays with a label.",
            "low",
            (0.0, 1.0),
            TEST,
            0.01,
            0.03,
        ),
        "structure/labels_worst": Scale(
            "Label prevalence, worst label",
            "The greatest error of the share of stays with a label.",
            "low",
            (0.0, 1.0),
            TEST,
            0.03,
            0.1,
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Compare equally many patients of each row with all of train."""
        here, real = bench.equal[row], bench.train
        n_resamples, seed = bench.effort.n_resamples, bench.seed
        weights = (
            patient_weights(len(real), n_resamples, seed + 1),
            patient_weights(len(here), n_resamples, seed),
        )
        known, found = quantities(real), quantities(here)
        apart = np.array([distances(known[name], found[name]) for name in known])
        far, moved = apart[:, 0], apart[:, 1]
        resampled = [_resampled(known[name], found[name], weights) for name in known]
        fars, moves = (np.stack(each) for each in zip(*resampled, strict=True))
        # What is left out of the scores is left out of their resamples.
        fars[np.isnan(far)], moves[np.isnan(moved)] = np.nan, np.nan
        stated = _labels(real, here, weights)
        error, errors = np.abs(stated.here - stated.real), np.abs(stated.heres - stated.reals).T
        scores = {}
        for name, of, value, replicates in (
            ("mean", _mean, far, fars),
            ("worst", _worst, far, fars),
            ("wasserstein", _mean, moved, moves),
            ("labels", _mean, error, errors),
            ("labels_worst", _worst, error, errors),
        ):
            full = f"structure/{name}"
            bounds = self.scales[full].bounds
            scores[full] = bootstrapped(float(of(value)), of(replicates), bounds)
        tables = {
            "structure_quantities": _described(known, found, far, fars, moved),
            "structure_covariates": _covariates(known, found),
            "structure_histograms": _histograms(known, found),
        }
        if real.schema.labels:
            tables["structure_labels"] = _label_table(real, stated)
        return Found(scores, tables)
