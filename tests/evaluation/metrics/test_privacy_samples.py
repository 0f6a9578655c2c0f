"""The metrics of privacy that look at released patients alone, each against known leaks."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synehrgy.baselines.marginals import independent_columns
from synehrgy.cohort import Cohort, read_cohort
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.attributes import Attributes
from synehrgy.evaluation.metrics.distances import Distances
from synehrgy.evaluation.metrics.membership import Membership
from synehrgy.evaluation.metrics.memorisation import Memorisation
from synehrgy.evaluation.metrics.singling_out import SinglingOut
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.rows import bench_of
from tests.cohorts import cohorts, small_cohort
from tests.evaluation.corruptions import memorised, values_shuffled

METRICS = [Membership(), Memorisation(), Distances(), Attributes(), SinglingOut()]
DOSES = (0.0, 0.01, 0.05, 0.2, 1.0)
NAMES = [metric.name for metric in METRICS]


def perturbed(cohort, rng):
    """One in twenty codes and values is another one."""
    cohort = values_shuffled(cohort, 0.05, rng)
    codes = cohort.codes.copy()
    chosen = np.flatnonzero(rng.random(len(codes)) < 0.05)
    mixed = rng.permutation(chosen)
    for column in ("system", "code"):
        values = codes[column].to_numpy(dtype=object, copy=True)
        values[chosen] = codes[column].to_numpy(dtype=object)[mixed]
        codes[column] = pd.Series(values).astype(codes[column].dtype)
    return replace(cohort, codes=codes)


@pytest.fixture(scope="module")
def thirds(simulated_folder):
    """Train, held-out and released patients of one distribution; the first day of their stays."""
    real = read_cohort(simulated_folder)
    real = replace(real, measurements=real.measurements[real.measurements["hours"] < 24])
    subjects = np.random.default_rng(0).permutation(np.unique(real.stays["subject_id"]))
    return [real.select(subjects=part.tolist()) for part in np.array_split(subjects, 3)]


@pytest.fixture(scope="module")
def measured(thirds):
    """All scores by the kind of copies and the dose; the test split is an honest release."""
    train, test, honest = thirds
    sides = Patients(train), Patients(test)
    found = {}
    for kind in ("copied", "perturbed"):
        for dose in DOSES:
            rng = np.random.default_rng(1)
            source = train if kind == "copied" else perturbed(train, rng)
            rows = {"test": sides[1], "train": sides[0]}
            rows["synthetic"] = Patients(memorised(source)(honest, dose, rng))
            bench = Bench(sides[0], rows, Effort(n_resamples=50))
            scores, tables = {}, {}
            for metric in METRICS:
                result = metric.measure(bench, "synthetic")
                scores |= result.scores
                tables |= result.tables
            found[kind, dose] = scores, tables
    return found


def light(scores, name):
    scale = next(m.scales[name] for m in METRICS if name in m.scales)
    one = scores[name]
    return scale.light(one.value, scale.reference, one.low, one.high)


def all_scales():
    return {name: scale for metric in METRICS for name, scale in metric.scales.items()}


def test_honest_patients_pass(measured):
    scores, _ = measured["copied", 0.0]
    lights = {name: light(scores, name) for name in scores}
    assert {name for name, colour in lights.items() if colour not in ("good", None)} == set()
    assert sum(colour == "good" for colour in lights.values()) >= 17
    missed = {
        name
        for name, score in scores.items()
        if all_scales()[name].good is not None
        and not np.isnan(score.low)
        and not score.low <= all_scales()[name].reference <= score.high
    }
    # One interval in 20 may.
    assert len(missed) <= 2


# What a share of copies adds up to, at least, of this share.
EXCESS = {
    "copied": {
        "memorisation/exact_stays": 0.9,
        "memorisation/exact_codes": 0.9,
        "memorisation/exact_series": 0.9,
        "memorisation/near_codes": 0.9,
        "memorisation/near_series": 0.9,
        "memorisation/run/tpr_at_1": 0.9,
        "membership/nearest/tpr_at_1": 0.9,
        "membership/density_ratio/tpr_at_1": 0.9,
        "attributes/linkability": 0.9,
    },
    "perturbed": {
        "memorisation/near_series": 0.6,
        "memorisation/run/tpr_at_1": 0.9,
        "membership/density_ratio/tpr_at_1": 0.6,
    },
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in EXCESS.items() for name in names]
)
def test_memorised_records_are_counted(measured, kind, name):
    """At 1, 5 and 20 % of copies, and no more than there are."""
    found = [measured[kind, dose][0][name] for dose in DOSES]
    chance = all_scales()[name].reference
    for dose, score in zip(DOSES[1:], found[1:], strict=True):
        assert EXCESS[kind][name] * dose - 0.012 <= score.value - chance <= dose + 0.03
    values = [score.value for score in found]
    assert values == sorted(values)
    assert values[1] > values[0]
    # From 5 % on there is no doubt that it is there.
    assert all(score.low > chance for score in found[2:])
    assert light(measured[kind, 0.2][0], name) == "poor"


@pytest.mark.parametrize(
    "name",
    [
        "membership/nearest/auroc",
        "membership/density_ratio/auroc",
        "memorisation/run/auroc",
        "published/membership/series/auroc",
        "published/membership/codes/auroc",
        "distances/privacy_loss",
        "distances/nearer_to_train",
        "distances/code_gain",
        "published/distances/privacy_loss",
        "attributes/codes",
        "attributes/labels",
        "singling_out/one_fact",
        "singling_out/several_facts",
    ],
)
def test_the_dose_makes_the_score(measured, name):
    values = [measured["copied", dose][0][name].value for dose in (0.0, 0.05, 0.2, 1.0)]
    assert values == sorted(set(values))
    published = name.startswith("published/")
    assert light(measured["copied", 1.0][0], name) == (None if published else "poor")


def test_distance_to_closest_record_hides_what_others_find(measured):
    """Five in a hundred patients are given away, and the median distance is as before."""
    honest, leaking = (measured["copied", dose][0] for dose in (0.0, 0.05))
    name = "distances/closest_record"
    assert leaking[name].value == pytest.approx(honest[name].value, abs=0.02)
    assert light(leaking, "memorisation/exact_stays") == "poor"


def test_perturbed_copies_are_not_exact(measured):
    scores, _ = measured["perturbed", 0.2]
    assert scores["memorisation/exact_stays"].value < 0.02
    assert light(scores, "memorisation/near_series") == "poor"


def test_the_worst_cases_are_listed(measured, thirds):
    _, tables = measured["perturbed", 0.05]
    worst = tables["memorisation_worst"]
    assert worst["run"].is_monotonic_decreasing
    train, _, honest = thirds
    assert set(worst["stay"]) <= set(train.stays["stay_id"])
    # Copies have numbers beyond all others.
    copies = worst["released_stay"] > honest.stays["stay_id"].max()
    assert copies[:20].all()
    assert worst["series_shared"][:20].gt(0.5).all()


def test_tables_are_small_and_named_alone(measured):
    _, tables = measured["copied", 0.2]
    assert all(name.split("_")[0] in " ".join(NAMES) for name in tables)
    assert all(0 < len(table) < 2000 for table in tables.values())
    roc = tables["membership_roc"]
    for _, curve in roc.groupby("attack"):
        assert curve["tpr"].is_monotonic_increasing
    shares = tables["distances_closest"].groupby("kind")[["train", "test"]].sum()
    np.testing.assert_allclose(shares, 1.0)
    guesses = tables["attributes_guesses"].set_index("guessed")
    gap = guesses.loc["hidden codes", "train"] - guesses.loc["hidden codes", "test"]
    assert gap == pytest.approx(measured["copied", 0.2][0]["attributes/codes"].value)


def as_splits(train, test):
    """Both as one cohort with splits."""
    tables = []
    for name in ("stays", "codes", "measurements"):
        parts = [train.table(name), test.table(name)]
        if name == "stays":
            parts = [x.assign(split=y) for x, y in zip(parts, ("train", "test"), strict=True)]
        tables.append(pd.concat(parts, ignore_index=True))
    return Cohort(train.schema, *tables)


def test_copies_are_found_however_few_patients_are_measured(thirds):
    train, test, honest = thirds
    real = as_splits(train, test)
    leaking = memorised(train)(honest, 0.05, np.random.default_rng(3))
    for n in (5000, 100):
        bench = bench_of(real, leaking, effort=Effort(max_patients=n, n_resamples=20))
        scores = Memorisation().measure(bench, "synthetic").scores
        assert scores["memorisation/released_copies"].value == pytest.approx(0.05, abs=0.002), n
        # Of the train patients measured, within three standard deviations of chance.
        spread = 3 * np.sqrt(0.05 * 0.95 / min(n, len(bench.train)))
        assert scores["memorisation/exact_stays"].value == pytest.approx(0.05, abs=spread), n
    assert light(scores, "memorisation/released_copies") == "poor"


def test_a_small_release_of_copies_only_is_a_leak(thirds):
    train, test, _ = thirds
    few = train.select(subjects=np.unique(train.stays["subject_id"])[:14].tolist())
    bench = bench_of(as_splits(train, test), few, effort=Effort(n_resamples=20))
    scores = Memorisation().measure(bench, "synthetic").scores
    assert scores["memorisation/released_copies"].value == 1
    assert light(scores, "memorisation/released_copies") == "poor"


def test_real_stays_are_named_only_if_it_was_allowed(thirds):
    train, test, honest = thirds
    bench = bench_of(as_splits(train, test), honest, effort=Effort(n_resamples=20))
    for shown in (False, True):
        worst = (
            Memorisation()
            .measure(replace(bench, show_real=shown), "synthetic")
            .tables["memorisation_worst"]
        )
        assert ("stay" in worst) == shown


def test_privacy_loss_against_a_loop(thirds):
    """On the published summaries, of a few patients."""
    from scipy.spatial.distance import cdist

    groups = [Patients(c.select(subjects=np.unique(c.stays["subject_id"])[:30])) for c in thirds]
    bench = Bench(groups[0], {"test": groups[1], "synthetic": groups[2]}, Effort(n_resamples=5))
    found = Distances().measure(bench, "synthetic").scores["published/distances/privacy_loss"]
    every = groups[0].embedding
    # What varies: all else is in one place.
    varies = (~np.isnan(every)).sum(axis=0) > 1
    mean, sd = np.nanmean(every[:, varies], axis=0), np.nanstd(every[:, varies], axis=0)
    sd[sd == 0] = 1
    first = [np.flatnonzero(p.stays["stay_index"] == 0) for p in groups]
    train, test, released = (
        np.nan_to_num((p.embedding[i][:, varies] - mean) / sd)
        for p, i in zip(groups, first, strict=True)
    )

    def accuracy(a, b):
        def own(x):
            return (cdist(x, x) + np.diag(np.full(len(x), np.inf))).min(axis=1)

        across = cdist(a, b)
        return (np.mean(across.min(axis=1) > own(a)) + np.mean(across.min(axis=0) > own(b))) / 2

    assert found.value == pytest.approx(accuracy(test, released) - accuracy(train, released))


def bench_of_small(train, test, released):
    rows = {"test": Patients(test), "synthetic": Patients(released)}
    return Bench(Patients(train), rows, Effort(n_resamples=10))


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_same_seed_same_result(metric):
    parts = [small_cohort(30, seed) for seed in (1, 2, 3)]
    first, again = (metric.measure(bench_of_small(*parts), "synthetic") for _ in range(2))
    assert repr(first.scores) == repr(again.scores)
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, again.tables[name])


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_marginals_are_no_leak(metric):
    train, test = small_cohort(80, 1), small_cohort(80, 2)
    bench = bench_of_small(train, test, independent_columns(train, 80, 0))
    scores = metric.measure(bench, "synthetic").scores
    assert "poor" not in {light(scores, name) for name in scores}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(cohort=cohorts(), data=st.data())
def test_any_cohort_is_measured(metric, cohort, data):
    """Its patients in any three groups; no score is out of its bounds."""
    subjects = np.unique(cohort.stays["subject_id"]).tolist()
    group = st.lists(st.sampled_from(subjects), min_size=1, unique=True)
    parts = [cohort.select(subjects=data.draw(group)) for _ in range(3)]
    found = metric.measure(bench_of_small(*parts), "synthetic")
    assert set(found.scores) <= set(metric.scales)
    for name, score in found.scores.items():
        low, high = metric.scales[name].bounds
        assert np.isnan(score.value) or low <= score.value <= high
