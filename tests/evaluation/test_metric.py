"""How scores are read, and their intervals."""

import numpy as np
import pytest

from synehrgy.evaluation.metric import (
    GROUPS,
    ROWS,
    Bench,
    Effort,
    Scale,
    Score,
    bootstrapped,
    over_seeds,
    patient_weights,
)
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.evaluation.rows import bench_of
from tests.cohorts import small_cohort


@pytest.mark.parametrize(
    ("goal", "value", "light"),
    [
        *(("high", 0.95, "good"), ("high", 0.70, "good"), ("high", 0.65, "fair")),
        *(("high", 0.4, "poor"), ("low", 0.7, "good"), ("low", 0.85, "fair"), ("low", 1.1, "poor")),
        *(("near", 0.9, "fair"), ("near", 0.65, "fair"), ("near", 0.75, "good")),
        *(("near", 0.4, "poor"), ("near", float("nan"), None)),
    ],
)
def test_lights(goal, value, light):
    scale = Scale("x", "x", goal, (0, 1), 0.75, good=0.05, poor=0.2)
    assert scale.light(value, 0.75) == light
    assert scale.light(value, float("nan")) is None
    assert Scale("x", "x", goal, (0, 1), 0.75).light(value, 0.75) is None


@pytest.mark.parametrize(
    ("goal", "score", "light"),
    [
        *(("low", Score(0.9, 0.6, 1.0), "poor"), ("low", Score(0.9, 0.54, 1.0), "fair")),
        *(("high", Score(0.1, 0.0, 0.4), "poor"), ("high", Score(0.1, 0.0, 0.46), "fair")),
        *(("near", Score(0.9, 0.6, 1.0), "poor"), ("near", Score(0.9, 0.4, 1.0), "fair")),
        ("near", Score(0.1, 0.0, 0.47), "fair"),
        ("low", Score(0.54, 0.2, 0.9), "good"),
    ],
)
def test_few_patients_are_no_proof_of_a_fault(goal, score, light):
    scale = Scale("x", "x", goal, (0, 1), 0.5, good=0.05, poor=0.2)
    assert scale.light(score.value, 0.5, score.low, score.high) == light


def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        sample = rng.normal(0.5, 0.1, size=80)
        weights = patient_weights(80, 200, trial)
        score = bootstrapped(sample.mean(), weights @ sample / 80, (0, 1))
        covered += score.low <= 0.5 <= score.high
    assert 0.91 <= covered / 300 <= 0.98


def test_intervals_keep_to_the_bounds_and_to_what_is_defined():
    score = bootstrapped(0.99, [0.9, 1.0, 0.95, float("nan")], (0, 1))
    assert score.high == 1
    assert score.low == pytest.approx(0.99 - 1.96 * 0.05)
    assert np.isnan(bootstrapped(0.5, [0.5], (0, 1)).low)
    assert np.isnan(bootstrapped(float("nan"), [0.5, 0.6], (0, 1)).low)
    assert over_seeds([0.4, 0.6], (0, 1)).value == pytest.approx(0.5)
    assert over_seeds([0.4, 0.6], (0, 1)).low == 0
    assert np.isnan(over_seeds([], (0, 1)).value)
    assert over_seeds([0.3], (0, 1)).value == 0.3


def test_every_metric_says_how_to_read_it():
    metrics = all_metrics()
    names = [metric.name for metric in metrics]
    assert len(set(names)) == len(names)
    seen = set()
    for metric in metrics:
        assert type(metric).__module__.endswith(f".{metric.name}")
        assert metric.group in GROUPS
        assert metric.rows
        assert set(metric.rows) <= set(ROWS)
        for name, scale in metric.scales.items():
            assert name not in seen
            seen.add(name)
            assert name.removeprefix("published/").startswith(f"{metric.name}/")
            assert scale.goal in ("high", "low", "near")
            assert scale.title
            assert scale.meaning.endswith(".")
            assert scale.bounds[0] < scale.bounds[1]
            if isinstance(scale.reference, str):
                assert scale.reference in metric.rows
            assert (scale.good is None) == (scale.poor is None)
            if scale.good is not None:
                assert not name.startswith("published/")
                assert 0 <= scale.good < scale.poor


def test_what_a_metric_needs():
    bench = bench_of(small_cohort(200), small_cohort(120), effort=Effort())
    without = Bench(bench.train, bench.rows, has_splits=False)
    for metric in all_metrics():
        assert (metric.lacks(bench) is None) == ("model" not in metric.needs)
        if "splits" in metric.needs:
            assert "no splits" in metric.lacks(without)
