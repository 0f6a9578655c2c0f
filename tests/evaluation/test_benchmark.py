"""The benchmark of the evaluation: both ways agree, and it is noticed when they do not."""

import math

import numpy as np
import pytest

from benchmarks.evaluation import PARTS, WAYS, bench_of_two, difference, one_way, usual_prdc
from tests.cohorts import small_cohort, write


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """More patients than blocks; the synthetic ones are of another seed."""
    path = tmp_path_factory.mktemp("benchmark")
    write(small_cohort(500), path / "real")
    write(small_cohort(260, seed=1), path / "synthetic")
    return path / "real", path / "synthetic"


@pytest.mark.parametrize("part", PARTS)
def test_both_ways_agree(folders, part):
    ours, usual = (one_way(part, way, *folders, n_resamples=4) for way in WAYS)
    numbers = ours["numbers"]
    assert numbers.keys() == usual["numbers"].keys()
    assert not any(map(math.isnan, numbers.values()))
    difference(part, numbers, usual["numbers"])
    for name, low in numbers.items():
        if name.endswith(" low"):
            middle, high = numbers[name[:-4]], numbers[name[:-4] + " high"]
            assert low <= middle <= high
            assert low < high or middle == 1


@pytest.mark.parametrize("part", PARTS)
def test_other_numbers_are_noticed(folders, part):
    numbers = one_way(part, "usual", *folders, n_resamples=2)["numbers"]
    for name in numbers:
        with pytest.raises(RuntimeError, match=name):
            difference(part, numbers, numbers | {name: numbers[name] + 0.01})
        with pytest.raises(RuntimeError, match=name):
            difference(part, numbers, numbers | {name: math.nan})


def test_usual_prdc_of_points_on_a_line():
    """Three of the others among ten real ones, and three far away."""
    real = np.arange(10.0)[:, None]
    other = np.array([[4.1], [4.2], [4.3], [90.0], [90.1], [90.2]])
    found = usual_prdc((real, other))
    assert found["precision"] == 0.5
    assert found["coverage"] == 1.0


def test_only_the_train_split_is_real():
    real, synthetic = small_cohort(50), small_cohort(20, seed=1)
    bench = bench_of_two(real, synthetic, 2)
    assert set(bench.train.stays["split"]) == {"train"}
    assert len(bench.rows["synthetic"]) == 20
    assert bench.has_splits
