"""Whether patients lie among the real ones: precision, recall, density, coverage, and a map."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.metric import (
    SYNTHETIC,
    TEST,
    Bench,
    Found,
    Metric,
    Scale,
    Score,
    bootstrapped,
    over_seeds,
    patient_weights,
)
from synehrgy.evaluation.patients import SUMMARIES

Floats = NDArray[np.float64]

K = 5
_MOST = 5000
_SEEDS = 3
_MAPPED, _MAPPED_QUICK = 1000, 500
# t-SNE takes seconds: of two rows, and of so many patients a side.
_TSNE_ROWS, _TSNE_MAPPED, _TSNE_LEAST = (SYNTHETIC, TEST), 500, 30
# Distances by matrix products are off by rounding: what is so near, in standard deviations, is in
# the same place.
_SAME_PLACE = 1e-4
_ROWS_AT_ONCE = 500

_MEANINGS = {
    "precision": "The share of patients that lie where real patients do: low is implausible.",
    "recall": "The share of real patients that lie where these patients do: low is a lost group.",
    "density": "How many real patients' neighbourhoods these patients are in: low is implausible, "
    "more than held-out patients have is crowding in the middle.",
    "coverage": "The share of real patients with one of these nearby: low is a lost group.",
}


def _scales() -> dict[str, Scale]:
    scales = {}
    for name, meaning in _MEANINGS.items():
        bounds = (0.0, float("inf") if name == "density" else 1.0)
        title = name.capitalize()
        how = ("near", bounds, "test", 0.1, 0.3) if name == "density" else ()
        scales[f"manifold/{name}"] = Scale(
            title, meaning, *(how or ("high", bounds, "test", 0.05, 0.15))
        )
        scales[f"published/manifold/{name}"] = Scale(
            f"{title}, as published", meaning, "high", bounds, 1.0
        )
    return scales


class Manifold(Metric):
    """Precision, recall, density and coverage of the first 48 hours of first stays."""

    name = "manifold"
    title = "Place among real patients"
    group = "fidelity"
    needs = frozenset({"continuous"})
    scales = _scales()

    def measure(self, bench: Bench, row: str) -> Found:
        """Compare one row with equally many train patients."""
        real, other = bench.train.first.embedding, bench.equal[row].first.embedding
        n = min(len(real), len(other), _MOST)
        scores: dict[str, Score] = {}

        # Where all patients are compared, every seed would choose the same.
        n_seeds = 1 if bench.effort.quick or len(real) == len(other) == n else _SEEDS
        published = []
        for seed in range(bench.seed, bench.seed + n_seeds):
            one, two = (_some(x, n, seed) for x in (real, other))
            published.append(prdc(Space.of(one).standardised(one), Space.of(two).standardised(two)))
        for name in _MEANINGS:
            score = f"published/manifold/{name}"
            values = [_mean(getattr(found, name)) for found in published]
            scores[score] = over_seeds(values, self.scales[score].bounds)

        space = Space.of(real)
        one, two = (_some(x, n, bench.seed) for x in (real, other))
        found = prdc(space.place(one), space.place(two), slack=_SAME_PLACE)
        weights = patient_weights(n, bench.effort.n_resamples, bench.seed)
        for name in _MEANINGS:
            score, of_patients = f"manifold/{name}", getattr(found, name)
            replicates = weights @ of_patients / n if len(of_patients) else ()
            bounds = self.scales[score].bounds
            scores[score] = bootstrapped(_mean(of_patients), replicates, bounds)

        shown = _MAPPED_QUICK if bench.effort.quick else _MAPPED
        on_map = space.mapped(_some(other, shown, bench.seed))
        tables = {"manifold_map": pd.DataFrame(on_map, columns=["x", "y"])}
        if row in _TSNE_ROWS and not bench.effort.quick:
            one, two = (_some(x, min(n, _TSNE_MAPPED), bench.seed) for x in (real, other))
            tables["manifold_tsne"] = _tsne(space, one, two, bench.seed)
        return Found(scores, tables)


def _tsne(space: "Space", real: Floats, other: Floats, seed: int) -> pd.DataFrame:
    """A map on which neighbours stay neighbours (van der Maaten and Hinton, JMLR 9, 2008).

    Both sides are laid out together, so that the maps of two rows cannot be compared.

    Returns:
        Columns side (``train`` or ``measured``), x, y; empty for very few patients.
    """
    from sklearn.manifold import TSNE

    both = np.vstack([real, other])
    start = space.mapped(both)
    spread = start[:, 0].std()
    if len(both) < _TSNE_LEAST or not spread > 0:
        return pd.DataFrame({"side": [], "x": [], "y": []})
    perplexity = min(30, len(both) // 4)
    layout = TSNE(perplexity=perplexity, init=start / spread * 1e-4, random_state=seed, n_jobs=1)
    at = layout.fit_transform(space.place(both).astype(np.float32))
    side = np.repeat(["train", "measured"], [len(real), len(other)])
    return pd.DataFrame({"side": side, "x": at[:, 0], "y": at[:, 1]})


def _some(items: Floats, n: int, seed: int) -> Floats:
    """So many rows by chance; all if there are not more."""
    if n >= len(items):
        return items
    return items[np.random.default_rng(seed).choice(len(items), size=n, replace=False)]


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


@dataclass(frozen=True)
class Space:
    """Where patients lie, in units of one set of patients.

    Attributes:
        mean, sd: of each summary of the set, NaN where it has no value.
        axes: the two directions in which its patients differ most: [places, 2].
        centre: the mean of their places.
    """

    mean: Floats
    sd: Floats
    axes: Floats
    centre: Floats

    @classmethod
    def of(cls, embedding: Floats) -> "Space":
        """The space of patients given by ``Patients.embedding``."""
        table = pd.DataFrame(embedding)
        # A summary that is always the same has no unit. Not by its deviation, which rounds.
        sd = table.std(ddof=0).where(table.max() > table.min(), 1.0)
        unmapped = cls(table.mean().to_numpy(), sd.to_numpy(), np.zeros((0, 2)), np.zeros(0))
        places = unmapped.place(embedding)
        centre = places.mean(axis=0)
        around = places - centre
        directions = np.linalg.eigh(around.T @ around)[1][:, :-3:-1]
        # Either sign would do: the same one each time.
        greatest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
        return cls(unmapped.mean, unmapped.sd, directions * np.sign(greatest), centre)

    def standardised(self, embedding: Floats) -> Floats:
        """Summaries in standard deviations from the mean; what is missing is put at the mean."""
        return np.nan_to_num((embedding - self.mean) / self.sd)

    def place(self, embedding: Floats) -> Floats:
        """The summaries and, for each series, whether it has no value: [patients, places].

        At the mean alone, a patient without any value would be the most typical one of all. That
        a series is missing counts as much as one standard deviation in one summary: in units of
        its own deviation, a series that is nearly always measured would count for more than all
        its values.
        """
        n_series = embedding.shape[1] // len(SUMMARIES)
        missing = np.isnan(embedding.reshape(len(embedding), n_series, -1)).all(axis=2)
        return np.hstack([self.standardised(embedding), missing])

    def mapped(self, embedding: Floats) -> Floats:
        """The two first principal components of the set: [patients, 2]."""
        return (self.place(embedding) - self.centre) @ self.axes


@dataclass(frozen=True)
class Neighbourhood:
    """Who is near whom, of two sets; the mean of each is the score. Empty if they are too few.

    Attributes:
        precision: whether each of the others is in the neighbourhood of a real patient.
        density: in how many of these it is, over k.
        recall: whether each real patient is in the neighbourhood of one of the others.
        coverage: whether one of the others is in the neighbourhood of each real patient.
    """

    precision: Floats
    density: Floats
    recall: Floats
    coverage: Floats


def prdc(real: Floats, other: Floats, k: int = K, slack: float = 0.0) -> Neighbourhood:
    """Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage.

    Density and coverage are of Naeem et al., "Reliable fidelity and diversity metrics for
    generative models", ICML 2020. The neighbourhood of a point is the ball that reaches to its
    k-th nearest of the same set.

    Args:
        real, other: places [n, places], [m, places].
        k: at most n - 1 and m - 1 are used.
        slack: by how much a point may be outside of a ball.
    """
    k = min(k, len(real) - 1, len(other) - 1)
    if k < 1:
        return Neighbourhood(*np.zeros((4, 0)))
    of_real, of_other = ((_radius(x, k) + slack) ** 2 for x in (real, other))
    hits = np.zeros(len(other))
    recall, coverage = np.zeros(len(real)), np.zeros(len(real))
    squares = np.einsum("ij,ij->i", other, other)
    for first in range(0, len(real), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        own = np.einsum("ij,ij->i", real[part], real[part])
        distance = own[:, None] + squares - 2 * (real[part] @ other.T)
        inside = distance < of_real[part, None]
        hits += inside.sum(axis=0)
        coverage[part] = inside.any(axis=1)
        recall[part] = (distance < of_other).any(axis=1)
    return Neighbourhood((hits > 0).astype(np.float64), hits / k, recall, coverage)


def _radius(points: Floats, k: int) -> Floats:
    """The distance from each point to its k-th nearest other."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
    return np.asarray(nearest.kneighbors()[0][:, -1])
