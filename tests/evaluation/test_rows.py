"""What is judged, and what stands beside it."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synehrgy.baselines.marginals import independent_columns
from synehrgy.cohort import Schema, read_cohort
from synehrgy.errors import UserError
from synehrgy.evaluation.metric import Effort
from synehrgy.evaluation.rows import bench_of, fingerprint
from tests.cohorts import build, cohorts, small_cohort, write

EFFORT = Effort(max_patients=50)


def test_rows_of_a_cohort_with_splits():
    real, synthetic = small_cohort(100), small_cohort(30, seed=1)
    bench = bench_of(real, synthetic, effort=EFFORT)
    assert list(bench.rows) == ["synthetic", "test", "marginals", "train"]
    assert set(bench.train.stays["split"]) == {"train"}
    assert set(bench.rows["test"].stays["split"]) == {"test"}
    assert len(bench.train) == 50
    assert len(bench.rows["test"]) == 20
    assert bench.has_splits
    assert bench.n_equal == 20
    assert {len(row) for row in bench.equal.values()} == {20}


def test_the_split_that_was_held_out_can_be_chosen():
    bench = bench_of(small_cohort(50), small_cohort(10), effort=EFFORT, held_out="val")
    assert set(bench.rows["test"].stays["split"]) == {"val"}


def test_without_splits_two_halves_by_chance():
    real = small_cohort(41)
    real.stays["split"] = None
    bench = bench_of(real, small_cohort(10), effort=EFFORT, seed=3)
    train, test = set(bench.train.subjects), set(bench.rows["test"].subjects)
    assert not bench.has_splits
    assert (len(train), len(test)) == (20, 21)
    assert not train & test
    again = bench_of(real, small_cohort(10), effort=EFFORT, seed=3)
    other = bench_of(real, small_cohort(10), effort=EFFORT, seed=4)
    assert set(again.train.subjects) == train != set(other.train.subjects)


def test_the_oracle_is_a_row():
    bench = bench_of(small_cohort(50), small_cohort(10), small_cohort(20, 2), effort=EFFORT)
    assert len(bench.rows["oracle"]) == 20


def test_what_cannot_be_compared_is_refused():
    real = small_cohort(20)
    only_train = small_cohort(20)
    only_train.stays["split"] = "train"
    with pytest.raises(UserError, match=r"no stay in split 'test'; it has train \(\d+\)"):
        bench_of(only_train, real, effort=EFFORT)
    empty = build(real.schema, [], [], [])
    with pytest.raises(UserError, match=r"synthetic cohort 'small' has no stay"):
        bench_of(real, empty, effort=EFFORT)
    other = build(Schema("other", "test"), [[1, 1, None, 0, None, None]], [], [])
    with pytest.raises(UserError, match="declare other covariates"):
        bench_of(real, other, effort=EFFORT)
    one = real.select(subjects=[10])
    one.stays["split"] = None
    with pytest.raises(UserError, match="at least 2 are needed"):
        bench_of(one, real, effort=EFFORT)


def test_independent_columns_keep_the_marginals_and_nothing_else(simulated_folder):
    real = read_cohort(simulated_folder)
    drawn = independent_columns(real, 3000, seed=0)
    labels = [label.column for label in real.schema.labels]
    difference = drawn.stays[labels].mean() - real.stays[labels].mean()
    assert difference.abs().max() < 0.04
    assert drawn.stays["age"].mean() == pytest.approx(real.stays["age"].mean(), abs=1)
    per_stay = [len(c.codes) / len(c.stays) for c in (real, drawn)]
    assert per_stay[0] == pytest.approx(per_stay[1], rel=0.03)

    def of(cohort):
        heart = cohort.measurements[cohort.measurements["variable"] == "Heart Rate"]
        mean = heart.groupby("stay_id")["value"].mean()
        return heart["value"], mean

    for share in (0.1, 0.5, 0.9):
        values = [of(cohort)[0].quantile(share) for cohort in (real, drawn)]
        assert values[0] == pytest.approx(values[1], rel=0.03)
    # Patients differ in reality; drawn ones are all alike on average.
    spread = [of(cohort)[1].quantile([0.1, 0.9]).diff().iloc[-1] for cohort in (real, drawn)]
    assert spread[1] < spread[0] / 2


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(cohort=cohorts(), n=st.integers(1, 5), seed=st.integers(0, 99))
def test_independent_columns_are_a_valid_cohort_of_any_schema(tmp_path_factory, cohort, n, seed):
    drawn = independent_columns(cohort, n, seed)
    assert drawn.n_patients == n
    folder = tmp_path_factory.mktemp("drawn") / "cohort"
    write(drawn, folder)
    back = read_cohort(folder)
    pd.testing.assert_frame_equal(back.stays, drawn.stays)
    assert len(back.measurements) == len(drawn.measurements)


def test_a_fingerprint_is_of_the_content():
    cohort, same, other = small_cohort(20), small_cohort(20), small_cohort(20, seed=1)
    assert fingerprint(cohort) == fingerprint(same) != fingerprint(other)
    same.measurements.loc[3, "value"] = 1e-3
    assert fingerprint(same) != fingerprint(cohort)


def test_what_the_synthetic_patients_do_not_have_is_left_out_of_the_comparison():
    real, synthetic = small_cohort(60), small_cohort(20, seed=1)
    bench = bench_of(real, synthetic.part(codes=False), real, effort=Effort(n_resamples=5))
    for row in bench.rows.values():
        assert not len(row.cohort.codes)
        assert len(row.cohort.measurements)
    bench = bench_of(real, synthetic.part(series=False), effort=Effort(n_resamples=5))
    assert not bench.train.schema.variables
    assert len(bench.train.cohort.codes)
    # What is declared but not there is a fault, not a part that is not covered.
    bench = bench_of(real, replace(synthetic, codes=synthetic.codes.iloc[:0]), effort=Effort())
    assert len(bench.train.cohort.codes)
