"""Whether released stays are nearer to train patients than to held-out ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from synehrgy.evaluation.closeness import (
    Points,
    Scaler,
    first_stays,
    nearest,
    nearest_codes,
    space_of,
    vocabulary_of,
)
from synehrgy.evaluation.metric import (
    MARGINALS,
    NAN,
    ORACLE,
    SYNTHETIC,
    TEST,
    TRAIN,
    Bench,
    Found,
    Metric,
    Scale,
    Score,
    bootstrapped,
    patient_weights,
)
from synehrgy.evaluation.patients import Patients

Floats = NDArray[np.float64]
T = TypeVar("T", Points, csr_matrix)

# Of patients, to leave out one after the other without looking for neighbours again.
_GROUPS = 10

_LOSS = (
    "How much better the release is told from held-out patients than from train patients by its "
    "nearest neighbours: above 0 is a leak, below 0 is none."
)
_WARNING = "For comparison only: it misses leaks, as a few copies hide among many distant records."
_SCALES = {
    "distances/privacy_loss": Scale(
        "Privacy loss of nearest neighbours", _LOSS, "low", (-1.0, 1.0), 0.0, 0.05, 0.1
    ),
    "distances/nearer_to_train": Scale(
        "Released patients nearer to train",
        "The share of released patients whose nearest real patient is of the train split rather "
        "than held out, of equally many: 0.5 if nothing is memorised.",
        "low",
        (0.0, 1.0),
        0.5,
        0.08,
        0.15,
    ),
    "distances/code_gain": Scale(
        "Codes nearer to train",
        "By which share fewer codes tell a released stay from the nearest train stay than from the "
        "nearest held-out one: 0 if nothing is memorised, 1 if all are copies.",
        "low",
        (-float("inf"), 1.0),
        0.0,
        0.05,
        0.15,
    ),
    "distances/adversarial_accuracy_train": Scale(
        "Adversarial accuracy, train",
        "How often nearest neighbours tell released from train patients: 0.5 is ideal, 0 is a "
        "copy, 1 is far away.",
        "near",
        (0.0, 1.0),
        0.5,
    ),
    "distances/adversarial_accuracy_test": Scale(
        "Adversarial accuracy, held out",
        "How often nearest neighbours tell released from held-out patients: 0.5 is ideal.",
        "near",
        (0.0, 1.0),
        0.5,
    ),
    "distances/closest_record": Scale(
        "Distance to closest record",
        "The median distance of a released patient to the nearest train patient, in units of that "
        f"of a held-out one. {_WARNING}",
        "high",
        (0.0, float("inf")),
        1.0,
    ),
    "published/distances/privacy_loss": Scale(
        "Privacy loss of series, as published", _LOSS, "low", (-1.0, 1.0), 0.0
    ),
    "published/distances/code_js": Scale(
        "Code distances, Jensen-Shannon, as published",
        "How different the distances of released stays to the nearest train and to the nearest "
        "held-out stay are distributed; it does not say which are nearer.",
        "low",
        (0.0, 1.0),
        0.0,
    ),
    "published/distances/code_wasserstein": Scale(
        "Code distances, Wasserstein, as published",
        "How far apart the heights of the two histograms of distances are, whatever distance they "
        "stand for: a number that shifted distances need not change.",
        "low",
        (0.0, 1.0),
        0.0,
    ),
}


class Distances(Metric):
    """Nearest neighbours of equally many released, train and held-out patients.

    Adversarial accuracy (Yale et al., "Generation and evaluation of privacy preserving synthetic
    health data", Neurocomputing 416, 2020): AA(A, B) is the mean of the share of A that is further
    from B than from the rest of A, and of the share of B that is further from A than from the rest
    of B. The privacy loss is AA(test, released) - AA(train, released).
    """

    name = "distances"
    title = "Distances to train and held-out patients"
    group = "privacy"
    rows = (SYNTHETIC, ORACLE, MARGINALS, TRAIN)
    needs = frozenset({"splits"})
    scales = _SCALES

    def measure(self, bench: Bench, row: str) -> Found:
        """Compare the first stays of one row with those of train and test."""
        groups = (bench.train, bench.rows[TEST], bench.rows[row])
        n = min(len(patients) for patients in groups)
        chosen = [_first_stays(patients, n, bench.seed) for patients in groups]
        weights = _Weights(*(_weights(n, bench, i) for i in range(3)))
        space = space_of(bench)
        points = [space.locate(p).whole[mine] for p, mine in zip(groups, chosen, strict=True)]
        whole = _Near.of(*points)
        scores = {
            f"distances/{name}": self._score(f"distances/{name}", values)
            for name, values in _of_points(whole, weights).items()
        }
        tables = [_histogram("whole record", whole.to_train, whole.to_test, 40)]
        to_real = [_by_group(points[2], x, _to_points) for x in points[:2]]
        name = "distances/nearer_to_train"
        scores[name] = _jackknifed(_nearer, to_real, self.scales[name].bounds)
        if bench.train.schema.variables_of("continuous"):
            scaler = Scaler(bench.train.embedding)
            series = _Near.of(
                *(
                    scaler(p.embedding[mine], clip=False).astype(np.float32)
                    for p, mine in zip(groups, chosen, strict=True)
                )
            )
            name = "published/distances/privacy_loss"
            scores[name] = self._score(name, series.losses(weights))
        if bench.train.schema.code_systems:
            vocabulary = vocabulary_of(list(groups))
            train, test, there = (
                p.presence(vocabulary)[mine] for p, mine in zip(groups, chosen, strict=True)
            )
            to_real = [_by_group(there, x, _to_codes) for x in (train, test)]
            name = "distances/code_gain"
            scores[name] = _jackknifed(_code_gain, to_real, self.scales[name].bounds)
            to_train, to_test = (x.min(axis=0) for x in to_real)
            scores |= _published_codes(to_train, to_test)
            tables.append(_histogram("codes", to_train, to_test, None))
        return Found(scores, {"distances_closest": pd.concat(tables, ignore_index=True)})

    def _score(self, name: str, values: Floats) -> Score:
        """The first value is of the sample, the others of resamples."""
        return bootstrapped(float(values[0]), values[1:], self.scales[name].bounds)


def _first_stays(patients: Patients, n: int, seed: int) -> NDArray[np.int64]:
    """The first stay of each of n patients by chance; of equally many patients, the same ones."""
    first = first_stays(patients)
    chosen = np.random.default_rng(seed).choice(len(first), size=n, replace=False)
    return first[np.sort(chosen)]


def _weights(n: int, bench: Bench, which: int) -> Floats:
    """How often each of n patients counts: the sample itself, then resamples."""
    drawn = patient_weights(n, bench.effort.n_resamples, bench.seed + which)
    return np.concatenate([np.ones((1, n)), drawn]) / n


@dataclass(frozen=True)
class _Weights:
    """Weights of train, test and released patients: [1 + resamples, patients] each."""

    train: Floats
    test: Floats
    released: Floats


@dataclass(frozen=True)
class _Near:
    """Distances to the nearest other patient: float64 [patients] each.

    Attributes:
        to_train, to_test, to_released: of released patients.
        train, test: of train and test patients to their own kind.
        from_train, from_test: of these to released patients.
    """

    to_train: Floats
    to_test: Floats
    to_released: Floats
    train: Floats
    test: Floats
    from_train: Floats
    from_test: Floats

    @classmethod
    def of(cls, train: Points, test: Points, released: Points) -> "_Near":
        pairs = (
            *((released, train), (released, test), (released, None)),
            *((train, None), (test, None), (train, released), (test, released)),
        )
        return cls(*(nearest(points, pool)[0] for points, pool in pairs))

    def accuracies(self, weights: _Weights) -> tuple[Floats, Floats]:
        """Adversarial accuracy against train and against test: [1 + resamples] each."""

        def accuracy(real: Floats, own: Floats, to_real: Floats, of_real: Floats) -> Floats:
            far = of_real @ (real > own) + weights.released @ (to_real > self.to_released)
            return np.asarray(far / 2)

        return (
            accuracy(self.from_train, self.train, self.to_train, weights.train),
            accuracy(self.from_test, self.test, self.to_test, weights.test),
        )

    def losses(self, weights: _Weights) -> Floats:
        """The privacy loss: positive is a leak."""
        train, test = self.accuracies(weights)
        return test - train


def _of_points(near: _Near, weights: _Weights) -> dict[str, Floats]:
    """Scores of the sample and its resamples."""
    train, test = near.accuracies(weights)
    held_out = np.median(near.to_test)
    closest = np.median(near.to_train) / held_out if 0 < held_out < np.inf else np.nan
    return {
        "privacy_loss": test - train,
        "adversarial_accuracy_train": train,
        "adversarial_accuracy_test": test,
        "closest_record": np.array([closest]),
    }


def _to_points(released: Points, real: Points) -> Floats:
    return nearest(released, real)[0]


def _to_codes(released: csr_matrix, real: csr_matrix) -> Floats:
    return nearest_codes(released, real).difference


def _by_group(released: T, real: T, distance: Callable[[T, T], Floats]) -> Floats:
    """Distances to the nearest of each of some groups of real patients: [groups, released]."""
    n_groups = min(_GROUPS, real.shape[0])
    return np.stack([distance(released, real[g::n_groups]) for g in range(n_groups)])


def _jackknifed(
    score: Callable[[Floats, Floats], float], to_real: list[Floats], bounds: tuple[float, float]
) -> Score:
    """A score with the interval of the grouped jackknife over train, test and released patients.

    Which real patients there happen to be moves the distances of all released ones at once, so
    that an interval over the released patients alone would be too narrow. A nearest neighbour
    cannot be drawn twice, so that the bootstrap would not do (Wolter, Introduction to Variance
    Estimation, 2007, chapter 4).

    Args:
        score: of distances to train and to test, [released] each.
        to_real: distances to groups of train and of test: [groups, released] each.
        bounds: of the score.
    """
    train, test = (x.min(axis=0) for x in to_real)
    value = score(train, test)
    n_groups = len(to_real[0])
    if n_groups < 2 or np.isnan(value):
        return Score(value)
    left: tuple[list[float], ...] = ([], [], [])
    part = np.arange(len(train)) % n_groups
    for g in range(n_groups):
        left[0].append(score(np.delete(to_real[0], g, axis=0).min(axis=0), test))
        left[1].append(score(train, np.delete(to_real[1], g, axis=0).min(axis=0)))
        left[2].append(score(train[part != g], test[part != g]))
    half = 1.96 * float(np.sqrt(sum((n_groups - 1) * np.nanvar(x) for x in left)))
    return Score(value, max(value - half, bounds[0]), min(value + half, bounds[1]))


def _nearer(to_train: Floats, to_test: Floats) -> float:
    return float(((to_train < to_test) + (to_train == to_test) / 2).mean())


def _code_gain(to_train: Floats, to_test: Floats) -> float:
    expected = float(to_test.mean())
    return 1 - float(to_train.mean()) / expected if expected > 0 else NAN


def _published_codes(to_train: Floats, to_test: Floats) -> dict[str, Score]:
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import wasserstein_distance

    most = int(max(to_train.max(), to_test.max())) + 1
    heights = [
        np.bincount(x.astype(np.int64), minlength=most) / len(x) for x in (to_train, to_test)
    ]
    return {
        "published/distances/code_js": Score(float(jensenshannon(*heights, base=2))),
        "published/distances/code_wasserstein": Score(float(wasserstein_distance(*heights))),
    }


def _histogram(kind: str, to_train: Floats, to_test: Floats, bins: int | None) -> pd.DataFrame:
    """Shares of released patients by distance; None: whole distances each by itself."""
    both = np.concatenate([to_train, to_test])
    both = both[np.isfinite(both)]
    most = float(both.max()) if len(both) else 0.0
    edges = (
        np.arange(int(most) + 2) - 0.5 if bins is None else np.linspace(0, most or 1.0, bins + 1)
    )
    shares = [np.histogram(x, edges)[0] / len(x) for x in (to_train, to_test)]
    middle = (edges[:-1] + edges[1:]) / 2
    columns = {"kind": kind, "distance": middle, "train": shares[0], "test": shares[1]}
    return pd.DataFrame(columns)
