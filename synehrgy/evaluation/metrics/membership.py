"""Membership inference from samples: who was in the training data, told by the release alone."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.attacks import attack_scales, attack_scores, roc_table
from synehrgy.evaluation.closeness import (
    Scaler,
    first_stays,
    nearest,
    nearest_codes,
    of_patients,
    space_of,
    vocabulary_of,
)
from synehrgy.evaluation.metric import (
    MARGINALS,
    ORACLE,
    SYNTHETIC,
    TEST,
    TRAIN,
    Bench,
    Found,
    Metric,
    Scale,
    Score,
)
from synehrgy.evaluation.patients import Patients

Floats = NDArray[np.float64]
# An attack's numbers of members and of non-members.
Sides = tuple[Floats, Floats]

_ATTACKS = {
    "nearest": (
        "Nearest released stay",
        "takes patients for members whose record is close to a released one",
    ),
    "density_ratio": (
        "Density ratio",
        "takes patients for members who are closer to the release than to other real patients",
    ),
}
_PUBLISHED = {
    "series": (
        "Nearest series, as published",
        "takes patients for members whose summaries of series are close to released ones",
    ),
    "codes": (
        "Nearest codes, as published",
        "takes patients for members whose codes differ in few from those of a released stay",
    ),
}

# Distances are to four digits; equal records are this far apart.
_EQUAL = 1e-4


def _scales() -> dict[str, Scale]:
    scales: dict[str, Scale] = {}
    for name, (title, how) in _ATTACKS.items():
        scales |= attack_scales(f"membership/{name}", title, how)
    for name, (title, how) in _PUBLISHED.items():
        scales |= attack_scales(f"published/membership/{name}", title, how, published=True)
    return scales


class Membership(Metric):
    """Attacks train patients against test patients, with nothing but the released patients.

    The density ratio is that of DOMIAS (van Breugel et al., "Membership Inference Attacks against
    Synthetic Data through Overfitting Detection", AISTATS 2023): a record is given away where the
    release is denser than it should be. What it should be is told by real patients of neither kind:
    one half of the test patients, while the other half is attacked, and the other way round.
    """

    name = "membership"
    title = "Membership inference from samples"
    group = "privacy"
    rows = (SYNTHETIC, ORACLE, MARGINALS, TRAIN)
    needs = frozenset({"splits"})
    scales = _scales()

    def measure(self, bench: Bench, row: str) -> Found:
        """Attack all train and all test patients with the released row."""
        released = bench.rows[row]
        attacks = {f"membership/{name}": x for name, x in _calibrated(bench, released).items()}
        if bench.train.schema.variables_of("continuous"):
            attacks["published/membership/series"] = _published_series(bench, released)
        if bench.train.schema.code_systems:
            attacks["published/membership/codes"] = _published_codes(bench, released)
        scores: dict[str, Score] = {}
        curves = []
        for name, (members, non_members) in attacks.items():
            scores |= attack_scores(
                name, members, non_members, bench.seed, bench.effort.n_resamples
            )
            curves.append(roc_table(name, members, non_members))
        return Found(scores, {"membership_roc": pd.concat(curves, ignore_index=True)})


def _calibrated(bench: Bench, released: Patients) -> dict[str, Sides]:
    space = space_of(bench)
    there = space.locate(released).whole
    sides = (bench.train, bench.rows[TEST])
    points = [space.locate(patients).whole for patients in sides]
    half = [_halves(patients, bench.seed) for patients in sides]
    distance = [nearest(x, there)[0] for x in points]
    expected = [np.zeros(len(x)) for x in points]
    for which in (False, True):
        reference = points[1][half[1] != which]
        for i, x in enumerate(points):
            mine = half[i] == which
            expected[i][mine] = nearest(x[mine], reference)[0]
    ratio = [
        np.log(e + _EQUAL) - np.log(d + _EQUAL) for e, d in zip(expected, distance, strict=True)
    ]
    return {
        "nearest": _sides(bench, *(-d for d in distance)),
        "density_ratio": _sides(bench, *ratio),
    }


def _sides(bench: Bench, of_train: Floats, of_test: Floats) -> Sides:
    """Numbers of patients from those of stays: a patient is given away by any stay."""
    return of_patients(bench.train, of_train), of_patients(bench.rows[TEST], of_test)


def _halves(patients: Patients, seed: int) -> NDArray[np.bool_]:
    """Of each stay, whether its patient is in the second of two halves by chance."""
    second = np.arange(len(patients)) % 2 == 1
    return np.asarray(np.random.default_rng(seed).permutation(second)[patients.patient])


def _published_series(bench: Bench, released: Patients) -> Sides:
    """Of first stays, minus the distance of summaries of the first 48 hours, in train sd."""
    groups = (released, bench.train, bench.rows[TEST])
    summaries = [p.embedding[first_stays(p)] for p in groups]
    scaler = Scaler(summaries[1])
    there, train, test = (scaler(x, clip=False).astype(np.float32) for x in summaries)
    return -nearest(train, there)[0], -nearest(test, there)[0]


def _published_codes(bench: Bench, released: Patients) -> Sides:
    """Of first stays, minus the codes by which the nearest differs."""
    groups = (released, bench.train, bench.rows[TEST])
    vocabulary = vocabulary_of(list(groups))
    there, train, test = (p.presence(vocabulary)[first_stays(p)] for p in groups)
    return -nearest_codes(train, there).difference, -nearest_codes(test, there).difference
