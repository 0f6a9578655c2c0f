"""Which series are measured together."""

from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd

from synehrgy.evaluation.blocks import (
    FEWEST_PAIRS,
    block_weights,
    blocks_of_pairs,
    divide,
    early,
    mean_of,
    point_blocks,
    resampled,
    scored,
    shown,
)
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import TEST, Bench, Found, Metric, Scale
from synehrgy.evaluation.patients import Floats, Patients

_PUBLISHED = "published/co_observation/mse"


class CoObservation(Metric):
    """The share of time points at which two series both have a value."""

    name = "co_observation"
    title = "Series measured together"
    group = "fidelity"
    needs = frozenset({"series"})
    scales = {
        "co_observation/joint": Scale(
            "Measured together",
            "By how much the share of time points at which two series both have a value is off: "
            "mean over pairs of series.",
            "low",
            (0.0, 1.0),
            TEST,
            0.003,
            0.01,
        ),
        "co_observation/conditional": Scale(
            "Measured together, if one is",
            "By how much the share is off to which one series has a value where another has: mean "
            "over ordered pairs of series.",
            "low",
            (0.0, 1.0),
            TEST,
            0.03,
            0.1,
        ),
        _PUBLISHED: Scale(
            "Co-observation, published form",
            "Mean squared difference of the shares of time points at which two continuous series "
            "both have a value; first admission, first 48 hours.",
            "low",
            (0.0, 1.0),
            TEST,
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Measure one row against the train patients."""
        patients = bench.equal[row]
        real = _real(bench.train)
        blocks = _count(patients)
        weights = block_weights(patients, bench, blocks_of_pairs(patients))
        every = [_off(real, _Counts(*sums)) for sums in resampled(weights, *astuple(blocks))]
        scores = {
            name: scored(values, scale)
            for (name, scale), values in zip(self.scales.items(), np.array(every).T, strict=True)
        }
        found = _Counts(*(x.sum(axis=0) for x in astuple(blocks)))
        return Found(scores, {"co_observation_matrix": _table(bench.train, real, found)})


@dataclass(frozen=True)
class _Counts:
    """Time points at which two series both have a value; on the diagonal: at which one has.

    Attributes:
        pairs, points: of all time points: [series, series], a number.
        early_pairs, early_points: of the continuous series in the first hours of first stays.
    """

    pairs: Floats
    points: Floats
    early_pairs: Floats
    early_points: Floats

    @property
    def joint(self) -> Floats:
        """The share of time points at which both have a value: [series, series]."""
        return divide(self.pairs, self.points)

    @property
    def early_joint(self) -> Floats:
        """The same in the first hours of first stays."""
        return divide(self.early_pairs, self.early_points)

    @property
    def conditional(self) -> Floats:
        """The share of the time points with a value of the first at which the second has one."""
        return divide(self.pairs, np.diag(self.pairs)[:, None])


@kept
def _real(train: Patients) -> _Counts:
    return _Counts(*(x.sum(axis=0) for x in astuple(_count(train))))


def _count(patients: Patients) -> _Counts:
    """The counts of each block, which is the first axis."""
    observed, begun = patients.grid.observed, early(patients)
    found = []
    for part in point_blocks(patients, blocks_of_pairs(patients)):
        # Whole numbers of this size are exact in float32.
        there = observed[part].astype(np.float32)
        first = there[begun[part]][:, patients.continuous]
        found.append((there.T @ there, len(there), first.T @ first, len(first)))
    return _Counts(*(np.array(x, dtype=np.float64) for x in zip(*found, strict=True)))


def _off(real: _Counts, found: _Counts) -> tuple[Floats, ...]:
    """The scores, in their order."""
    n = len(real.pairs)
    below, other = np.tril(np.ones((n, n), dtype=bool), -1), ~np.eye(n, dtype=bool)
    enough = np.diag(real.pairs) >= FEWEST_PAIRS
    # What the row never measures is never measured together.
    joint = np.abs(real.joint - np.nan_to_num(found.joint))
    conditional = np.abs(real.conditional - np.nan_to_num(found.conditional))
    squared = (real.early_joint - np.nan_to_num(found.early_joint)) ** 2
    return (
        mean_of(joint[below]),
        mean_of(conditional[other & enough[:, None]]),
        mean_of(squared.ravel()),
    )


def _table(train: Patients, real: _Counts, found: _Counts) -> pd.DataFrame:
    """One row per ordered pair of series, and per series with itself."""
    chosen = shown(train)
    names = np.array([v.name for v in train.schema.variables], dtype=object)[chosen]
    columns = {
        "real": real.joint,
        "found": found.joint,
        "conditional_real": real.conditional,
        "conditional_found": found.conditional,
    }
    square = np.ix_(chosen, chosen)
    return pd.DataFrame(
        {"series_a": np.repeat(names, len(names)), "series_b": np.tile(names, len(names))}
        | {name: matrix[square].ravel() for name, matrix in columns.items()}
    )
