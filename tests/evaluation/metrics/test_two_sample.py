"""The classifier two-sample test: at chance where there is nothing to see, above it elsewhere."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from sklearn.metrics import roc_auc_score

from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.two_sample import Sides, TwoSample, tables_of
from synehrgy.evaluation.patients import Patients
from tests.cohorts import cohorts, small_cohort
from tests.evaluation.metrics.zipf import bench_for, lights, zipf_cohort

PARTS = ("codes", "series", "all")


@pytest.fixture(scope="module")
def train():
    return zipf_cohort(400, 1)


@pytest.fixture(scope="module")
def other():
    return zipf_cohort(400, 2)


def measure(train, synthetic, **effort):
    return TwoSample().measure(bench_for(train, synthetic, **effort), "synthetic")


def values(train, synthetic):
    found = measure(train, synthetic, quick=True)
    return {part: found.scores[f"two_sample/{part}"].value for part in PARTS}


def test_two_samples_of_one_population_pass(train, other):
    bench = bench_for(train, other)
    assert set(lights(TwoSample(), bench).values()) == {"good", None}
    for part in PARTS:
        score = TwoSample().measure(bench, "synthetic").scores[f"two_sample/{part}"]
        assert score.low <= 0.5 <= score.high


def shifted(cohort, by):
    rows = cohort.measurements
    heart = (rows["variable"] == "Heart Rate").to_numpy()
    return replace(cohort, measurements=rows.assign(value=rows["value"] + by * heart))


def test_a_shifted_series_is_found_and_named(train, other):
    found = [values(train, shifted(other, by)) for by in (0.0, 5.0, 10.0, 20.0)]
    for part in ("series", "all"):
        assert np.all(np.diff([x[part] for x in found]) > 0)
    assert len({x["codes"] for x in found}) == 1
    table = measure(train, shifted(other, 20.0), quick=True).tables["two_sample_features"]
    best = table[table["part"] == "all"].iloc[0]
    assert best["feature"].startswith("Heart Rate, m")
    assert best["measured"] - best["train"] == pytest.approx(20, abs=3)
    assert (table.groupby("part")["gain"].sum() <= 1 + 1e-9).all()


def test_fewer_rare_codes(train, other):
    rank = other.codes["code"].astype(int)
    kept = [replace(other, codes=other.codes[rank < n].reset_index(drop=True)) for n in (120, 25)]
    kept += [replace(other, codes=other.codes[rank < n].reset_index(drop=True)) for n in (12, 5)]
    found = [values(train, cohort)["codes"] for cohort in kept]
    assert np.all(np.diff(found) > 0)


def test_what_hangs_together_is_seen_by_everything_only(train, other):
    """Codes of other patients, for a share of them: codes and series are each as they were."""
    big, more = zipf_cohort(1500, 1), zipf_cohort(1500, 2)
    stays = more.stays["stay_id"].to_numpy()

    def exchanged(share):
        chosen = stays[: int(share * len(stays))]
        to = dict(zip(chosen, np.roll(chosen, 7), strict=True))
        codes = more.codes.assign(stay_id=more.codes["stay_id"].map(lambda x: to.get(x, x)))
        codes = codes.sort_values(["stay_id", "position"], ignore_index=True)
        return values(big, replace(more, codes=codes))

    found = [exchanged(share) for share in (0.0, 1.0)]
    assert found[1]["all"] > found[0]["all"] + 0.03
    assert abs(found[1]["series"] - found[0]["series"]) < 0.01


def test_copies_of_train_patients_are_below_chance(train):
    """The classifier has learnt that the patient, in the other fold, is of the other side."""
    assert values(train, train)["all"] < 0.45


def test_each_patient_is_held_out_once_with_all_stays(train, other):
    real, synthetic = Patients(train), Patients(other)
    sides = Sides.of(real, synthetic, 5, 0)
    assert sides.label.tolist() == [1] * 400 + [0] * 400
    for label in (0, 1):
        assert np.bincount(sides.fold[sides.label == label]).tolist() == [80] * 5
    assert sides.patient[: len(real.stays)].tolist() == real.patient.tolist()
    assert sides.patient[len(real.stays) :].tolist() == (400 + synthetic.patient).tolist()


def test_the_score_is_that_of_patients_who_were_not_learnt_from(train, other):
    """A number by which a patient could be recognised does not help; one of the side does."""
    sides = Sides.of(Patients(train), Patients(other), 5, 0)
    label = sides.label[sides.patient]
    own = np.random.default_rng(0).random(800)[sides.patient, None].astype(np.float32)
    margin, _ = sides.held_out(own, 0)
    assert roc_auc_score(sides.label, sides.rank_in_fold(margin)) == pytest.approx(0.5, abs=0.08)
    seen = np.hstack([own, label[:, None]]).astype(np.float32)
    margin, gain = sides.held_out(seen, 0)
    assert roc_auc_score(sides.label, sides.rank_in_fold(margin)) == 1
    assert gain[1] > 0.9


def test_ranks_are_within_folds():
    sides = Sides(np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1]), np.arange(4))
    assert sides.rank_in_fold(np.array([1.0, 9.0, 0.0, 8.0])).tolist() == [1.0, 1.0, 0.5, 0.5]


def test_the_curve_belongs_to_the_score(train, other):
    found = measure(train, shifted(other, 10.0), quick=True)
    curve = found.tables["two_sample_roc"]
    curve = curve[curve["part"] == "series"]
    area = np.trapezoid(curve["tpr"], curve["fpr"])
    assert area == pytest.approx(found.scores["two_sample/series"].value, abs=0.01)


def test_what_the_classifier_sees():
    cohort = small_cohort(8, 0)
    patients = Patients(cohort)
    tables = tables_of(patients, patients)
    assert {name: len(table) for name, table in tables.items()} == dict.fromkeys(
        PARTS, 2 * len(cohort.stays)
    )
    seen = tables["all"].iloc[0]
    stay = cohort.stays.iloc[0]
    codes = cohort.codes[cohort.codes["stay_id"] == stay["stay_id"]]
    assert seen["number of icd9_diagnosis"] == (codes["system"] == "icd9_diagnosis").sum()
    have = set(codes["system"].astype(str) + ":" + codes["code"].astype(str))
    assert {c for c in seen.index if c.startswith("icd9_") and seen[c] == 1} == have
    rows = cohort.measurements[cohort.measurements["stay_id"] == stay["stay_id"]]
    assert seen["pH, number"] == (rows["variable"] == "pH").sum()
    heart = rows.loc[rows["variable"] == "Heart Rate", "value"]
    assert seen["Heart Rate, max"] == pytest.approx(heart.max())
    assert seen["Glasgow coma scale total = 15, number"] == (rows["level"] == "15").sum()
    assert seen["time points"] == rows["hours"].nunique()
    assert seen["last hour"] == rows["hours"].max()
    assert seen["age"] == stay["age"]
    assert seen["gender = F"] == (stay["gender"] == "F")
    assert seen["septicemia"] == stay["septicemia"]
    assert seen["length of stay, hours"] == stay["los_hours"]
    stays = (cohort.stays["subject_id"] == stay["subject_id"]).sum()
    assert seen["stays of the patient"] == stays
    assert not any("_id" in name or "split" in name for name in tables["all"])


def test_the_same_seed_gives_the_same(train, other):
    one, two = (measure(train, other, quick=True) for _ in range(2))
    assert one.scores == two.scores
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, two.tables[name])


@settings(max_examples=25)
@given(cohort=cohorts())
def test_any_cohort_can_be_measured(cohort):
    patients = Patients(cohort)
    half = patients.sample(max(len(patients) // 2, 1), 0)
    effort = Effort(n_resamples=5, quick=True)
    metric = TwoSample()
    for row in (half, patients):
        bench = Bench(patients, {"synthetic": row, "test": row}, effort)
        found = metric.measure(bench, "synthetic")
        assert set(found.scores) == set(metric.scales)
        for name, score in found.scores.items():
            low, high = metric.scales[name].bounds
            assert np.isnan(score.value) or low <= score.value <= high
