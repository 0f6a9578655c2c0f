"""The evaluation sees: every known fault raises the alarm that is meant for it, by its size.

Each fault is put into fresh patients of the same distribution as the real ones, in growing doses.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from synehrgy.cohort import read_cohort
from synehrgy.evaluation.api import chosen_metrics
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.rows import bench_of
from synehrgy.sources import simulated_cohort
from tests.evaluation import corruptions

METRICS = {metric.name: metric for metric in chosen_metrics("all")}
EFFORT = Effort(n_resamples=20, n_seeds=2, quick=True)


@pytest.fixture(scope="module")
def real(simulated_folder):
    """Train and held-out patients, equally many."""
    cohort = read_cohort(simulated_folder)
    train, _ = corruptions.halves(cohort, seed=0)
    is_train = cohort.stays["subject_id"].isin(train.stays["subject_id"])
    return replace(cohort, stays=cohort.stays.assign(split=np.where(is_train, "train", "test")))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    path = tmp_path_factory.mktemp("fresh") / "cohort"
    cohort = read_cohort(simulated_cohort(path, n_patients=1000, seed=4, progress=False))
    return replace(cohort, stays=cohort.stays.assign(split=None))


@pytest.fixture(scope="module")
def bench(real):
    """A comparison with synthetic patients still to come; the real ones are looked at once."""
    train, test = (Patients(real.select(split=split)) for split in ("train", "test"))

    def of(synthetic):
        return Bench(train, {"synthetic": Patients(synthetic), "test": test}, EFFORT)

    return of


def score_of(score, bench, row="synthetic"):
    metric = METRICS[score.split("/")[0]]
    return metric.measure(bench, row).scores[score]


def light_of(score, value, bench):
    scale = METRICS[score.split("/")[0]].scales[score]
    reference = scale.reference
    if isinstance(reference, str):
        reference = score_of(score, bench, reference).value
    return scale.light(value.value, reference, value.low, value.high)


SHIFTED = "Hematocrit"
EXACT = ("memorisation/exact_stays", "memorisation/released_copies")
FAULTS = {
    "values shuffled between patients": (
        *(corruptions.values_shuffled, (0.3, 0.6, 1.0)),
        ("correlation/within", "dynamics/individuality"),
    ),
    "codes of the tail dropped": (
        *(corruptions.tail_codes_dropped, (0.35, 0.5, 1.0)),
        ("codes/missing_tail", "codes/error_tail"),
    ),
    "one laboratory shifted": (
        *(corruptions.one_series_shifted(SHIFTED), (0.2, 0.5, 1.0)),
        ("series/ks_worst", "series/wasserstein_worst"),
    ),
    "time order broken": (
        *(corruptions.time_order_broken, (0.1, 0.4, 1.0)),
        ("dynamics/autocorrelation",),
    ),
    "labels and codes contradicting": (
        *(corruptions.labels_contradicted, (0.02, 0.06, 0.2)),
        ("consistency/labels_codes",),
    ),
    "variance halved": (
        *(corruptions.variance_halved, (0.25, 0.5, 1.0)),
        ("series/spread",),
    ),
    "one sex removed": (
        *(corruptions.one_sex_removed, (0.2, 0.5, 1.0)),
        ("structure/worst",),
    ),
}


@pytest.mark.parametrize(
    ("fault", "score"), [(fault, score) for fault, case in FAULTS.items() for score in case[2]]
)
def test_a_fault_is_seen_by_its_size(bench, fresh, fault, score):
    corrupt, doses, _ = FAULTS[fault]
    found = {}
    for dose in (0.0, *doses):
        corrupted = corrupt(fresh, dose, np.random.default_rng(1))
        found[dose] = score_of(score, bench(corrupted))
    values = [one.value for one in found.values()]
    assert all(a < b for a, b in pairwise(values)), found
    sound = bench(fresh)
    assert light_of(score, found[0.0], sound) == "good", found
    assert light_of(score, found[doses[-1]], sound) == "poor", found


@pytest.mark.parametrize(
    "score",
    [
        *("memorisation/exact_stays", "memorisation/released_copies", "memorisation/run/auroc"),
        "membership/nearest/tpr_at_1",
        *("membership/nearest/auroc", "distances/privacy_loss"),
    ],
)
def test_memorised_patients_are_seen(bench, real, fresh, score):
    corrupt = corruptions.memorised(real.select(split="train"))
    found = {
        dose: score_of(score, bench(corrupt(fresh, dose, np.random.default_rng(2))))
        for dose in (0.0, 0.01, 0.05, 0.2, 1.0)
    }
    assert light_of(score, found[0.0], bench(fresh)) == "good", found
    assert light_of(score, found[1.0], bench(fresh)) == "poor", found
    values = [one.value for one in found.values()]
    # One patient in a hundred is within the noise of what is no exact comparison.
    smallest = 1 if score in EXACT else 2
    shown = [values[0], *values[smallest:]]
    assert all(a < b for a, b in pairwise(shown)), found


def test_two_samples_of_one_population_pass_everything(real, fresh):
    found = compare(bench_of(real, fresh, effort=EFFORT), chosen_metrics("quick"), progress=False)
    lights = found.scores.loc[found.scores["row"] == "synthetic", ["score", "value", "light"]]
    poor = lights[lights["light"] == "poor"]
    assert poor.empty, poor
    assert (lights["light"] == "good").sum() > 0.9 * lights["light"].notna().sum(), lights[
        lights["light"] == "fair"
    ]
