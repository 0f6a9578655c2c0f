"""Utility: features and scores by their definitions, and cohorts known to be useful or not."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, roc_auc_score

from synehrgy.baselines.marginals import independent_columns
from synehrgy.evaluation import tasks
from synehrgy.evaluation.baseline import window_features
from synehrgy.evaluation.boosting import PARAMETERS, boost
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.judge import combine, judge, weighted
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics import utility
from synehrgy.evaluation.metrics.utility import Utility
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.tasks import (
    OUTCOME,
    PHENOTYPE,
    asked,
    examples,
    frequent_enough,
    learners,
    published_examples,
)
from tests.cohorts import cohorts, small_cohort

EFFORT = Effort(n_resamples=60, n_seeds=3)
MORTALITY, SEPTICEMIA = "in_hospital_mortality", "septicemia"


def bench_of_three(synthetic, train, test, effort=EFFORT, **rows):
    rows = {name: Patients(cohort) for name, cohort in rows.items()}
    learnt = Patients(train)
    rows |= {"synthetic": Patients(synthetic), "test": Patients(test), "train": learnt}
    return Bench(learnt, rows, effort)


def with_stays(cohort, change):
    """The cohort with other stays, as ``change`` makes them in place of a copy."""
    stays = cohort.stays.copy()
    change(stays)
    return replace(cohort, stays=stays)


def shuffled(cohort, share, seed=0):
    """Labels of a share of the stays, dealt out anew among them."""

    def change(stays):
        rng = np.random.default_rng(seed)
        some = np.flatnonzero(rng.random(len(stays)) < share)
        columns = [label.column for label in cohort.schema.labels]
        dealt = stays[columns].to_numpy()[rng.permutation(some)]
        stays.loc[some, columns] = dealt

    return with_stays(cohort, change)


@pytest.fixture(scope="module")
def real():
    return small_cohort(600, seed=1), small_cohort(900, seed=2)


QUICK = replace(EFFORT, quick=True)


def measured(synthetic, real, effort=QUICK):
    return Utility().measure(bench_of_three(synthetic, *real, effort), "synthetic")


# What is known of a stay.


@given(cohorts())
@settings(max_examples=40)
def test_features_are_those_of_the_forecast_baseline(cohort):
    known = examples(Patients(cohort), PHENOTYPE)
    expected = window_features(cohort, cohort.stays["stay_id"], 1e9)
    # Standard deviations of numbers near 1e6, rounded to float32.
    np.testing.assert_allclose(known.features, expected, rtol=1e-4, atol=0.2)
    columns = [label.column for label in cohort.schema.labels_of(PHENOTYPE)]
    np.testing.assert_array_equal(known.labels, cohort.stays[columns])


def test_outcomes_are_asked_of_long_stays_and_their_first_48_hours():
    cohort = small_cohort(80)
    late = cohort.measurements["hours"] > 2
    rows = cohort.measurements.assign(
        hours=cohort.measurements["hours"].where(~late, cohort.measurements["hours"] + 46)
    )
    known = examples(Patients(replace(cohort, measurements=rows)), OUTCOME)
    long = cohort.stays[cohort.stays["los_hours"] >= 48]
    assert 0 < len(long) < len(cohort.stays)
    before = replace(cohort, measurements=rows[rows["hours"] < 48])
    expected = window_features(before, long["stay_id"], 1e9)
    np.testing.assert_allclose(known.features, expected, rtol=1e-5)
    np.testing.assert_array_equal(known.labels[:, 0], long[MORTALITY])
    np.testing.assert_array_equal(known.stay, long.index)


def test_the_published_form_has_first_stays_and_every_label():
    patients = Patients(small_cohort(40))
    known = published_examples(patients)
    first = (patients.stays["stay_index"] == 0).to_numpy()
    np.testing.assert_allclose(known.features, patients.embedding[first], rtol=1e-6)
    columns = [MORTALITY, SEPTICEMIA, "shock"]
    np.testing.assert_array_equal(known.labels, patients.stays.loc[first, columns])


def test_rare_labels_are_left_out_whatever_the_synthetic_patients_have():
    train, test = small_cohort(60), small_cohort(60, seed=5)
    rare = with_stays(test, lambda stays: stays.__setitem__("shock", np.int8(0)))
    found = frequent_enough(*(examples(Patients(c), PHENOTYPE) for c in (train, rare)))
    assert found.tolist() == [True, False]
    left_out = measured(train, (train, rare)).tables["utility_left_out"]
    assert "shock" in left_out["label"].tolist()
    assert SEPTICEMIA not in left_out["label"].tolist()


def test_equally_many_patients_of_every_row_are_learnt_from():
    cohort = small_cohort(90)
    bench = bench_of_three(small_cohort(50, seed=4), cohort, cohort, marginals=small_cohort(70))
    for row in ("synthetic", "marginals", "train"):
        chosen = learners(bench, row)
        assert chosen.shape == (3, len(bench.rows[row]))
        assert set(chosen.sum(axis=1)) == {40}
        assert chosen.any(axis=0).sum() <= 50
        assert len({tuple(mine) for mine in chosen}) == 3
        np.testing.assert_array_equal(chosen, learners(bench, row))


def test_a_large_test_set_is_asked_in_part_and_each_time_the_same(monkeypatch):
    monkeypatch.setattr(tasks, "MOST_ASKED", 30)
    cohort = small_cohort(50)
    bench = bench_of_three(small_cohort(20, seed=4), cohort, cohort)
    some = asked(bench, "test")
    assert len(some) == 30
    assert asked(bench, "test") is some
    assert asked(bench, "synthetic") is bench.rows["synthetic"]
    found = Utility().measure(replace(bench, effort=QUICK), "train").tables["utility_groups"]
    assert found.groupby(["kind", "covariate", "score"])["stays"].sum().max() == len(some.stays)


# Scores by their definitions.


@given(st.data())
@settings(max_examples=60)
def test_weighted_scores_are_those_of_sklearn(data):
    n = data.draw(st.integers(2, 30))
    label = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.int8)
    label[:2] = 0, 1
    predicted = np.array(data.draw(st.lists(st.integers(0, 10), min_size=n, max_size=n))) / 10
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.float32)
    weights[:2] = 1
    found = weighted(label, predicted, predicted > 0.4, np.stack([np.ones_like(weights), weights]))
    for i, w in enumerate((None, weights)):
        expected = {
            "auroc": roc_auc_score(label, predicted, sample_weight=w),
            "auprc": average_precision_score(label, predicted, sample_weight=w),
            "f1": f1_score(label, predicted > 0.4, sample_weight=w),
            "brier": brier_score_loss(label, predicted, sample_weight=w),
        }
        for name, value in expected.items():
            assert found[name][i] == pytest.approx(value, abs=1e-6), name


def test_micro_scores_are_of_all_labels_as_one():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 2, (50, 3)).astype(np.int8), rng.random((1, 50, 3))
    judged = judge(labels, predicted, np.full((1, 3), 0.3), np.arange(50), 20, 0)
    flat = labels.ravel(), predicted[0].ravel()
    assert judged.macro("micro_auroc").value == pytest.approx(roc_auc_score(*flat))
    assert judged.macro("micro_f1").value == pytest.approx(f1_score(flat[0], flat[1] > 0.3))
    by_label = [roc_auc_score(labels[:, i], predicted[0, :, i]) for i in range(3)]
    assert judged.macro("auroc").value == pytest.approx(np.mean(by_label))
    assert judged.macro("auroc", [1]).value == pytest.approx(by_label[1])
    again = judge(labels, predicted, np.full((1, 3), 0.3), np.arange(50), 20, 0)
    assert judged.gain("auroc", again).value == 0


def test_intervals_are_of_other_train_and_other_test_patients():
    """The score is the difference of two means: what is learnt and what is asked."""
    rng = np.random.default_rng(0)
    held, widths = [], []
    for _ in range(300):
        train, test = rng.normal(size=100), rng.normal(size=50)
        learnt = [rng.permutation(train)[:80].mean() for _ in range(10)]
        values = np.array(learnt) - test.mean()
        drawn = np.array([rng.choice(test, 50).mean() for _ in range(100)]).reshape(10, 10)
        found = combine(values, np.array(learnt)[:, None] - drawn, (-9.0, 9.0))
        held.append(found.low <= 0 <= found.high)
        widths.append(found.high - found.low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(1 / 80 + 1 / 50), rel=0.05)
    assert np.mean(held) > 0.93


def test_labels_that_share_bins_are_learnt_as_if_alone():
    every = examples(Patients(small_cohort(150)), PHENOTYPE)
    found = boost(every).predict(every.features)
    for i in range(2):
        alone = LGBMClassifier(**PARAMETERS).fit(every.features, every.labels[:, i])
        np.testing.assert_allclose(found[:, i], alone.predict_proba(every.features)[:, 1])


def test_nobody_can_be_asked_about():
    every = examples(Patients(small_cohort(150)), PHENOTYPE)
    assert boost(every).predict(every.features[:0]).shape == (0, 2)


def test_a_label_of_one_class_is_predicted_as_such():
    every = examples(Patients(small_cohort(30)), PHENOTYPE)
    for value in (0, 1):
        constant = replace(every, labels=np.full_like(every.labels, value))
        assert (boost(constant).predict(every.features) == value).all()


# Cohorts known to be useful or not.

DOSES = (0.0, 0.4, 0.7, 1.0)


@pytest.fixture(scope="module")
def halves(real):
    bench = bench_of_three(small_cohort(600, seed=3), *real)
    return compare(bench, [Utility()], progress=False)


def test_two_halves_pass(halves):
    scores = halves.scores[halves.scores["row"] == "synthetic"].set_index("score")
    assert set(scores["light"].dropna()) == {"good"}
    for name in ("outcome/tstr_auroc", "phenotype/tstr_macro_auroc", "phenotype/trts_macro_auroc"):
        low, high = scores.loc[f"utility/{name}", ["low", "high"]]
        assert low <= halves.value(f"utility/{name}", "train") <= high
    assert halves.value("utility/phenotype/tstr_macro_auroc") > 0.7


def test_the_train_split_is_the_reference_of_itself(halves):
    scores = halves.scores[halves.scores["row"] == "train"]
    assert set(scores["light"].dropna()) == {"good"}
    assert set(halves.tables["utility_scores"].query("row == 'train'")["setting"]) == {"TRTR"}


def test_tables_hold_what_figures_need(halves):
    table = halves.tables["utility_scores"]
    assert set(table["setting"]) == {"TSTR", "TRTS", "TRTR", *(utility.BESIDE, utility.ALONE)}
    one = table.query(
        "row == 'synthetic' and setting == 'TSTR' and kind == 'phenotype' and score == 'auroc'"
    ).set_index("label")["value"]
    assert set(one.index) == {SEPTICEMIA, "shock", "macro", "micro"}
    assert one["macro"] == pytest.approx(one[[SEPTICEMIA, "shock"]].mean())
    assert one["macro"] == halves.value("utility/phenotype/tstr_macro_auroc")

    roc = halves.tables["utility_roc"].query("row == 'synthetic' and setting == 'TSTR'")
    assert roc["label"].unique().tolist() == [MORTALITY]
    assert roc["true_positives"].is_monotonic_increasing
    assert roc[["false_positives", "true_positives"]].iloc[[0, -1]].to_numpy().tolist() == [
        [0, 0],
        [1, 1],
    ]
    area = np.trapezoid(roc["true_positives"], roc["false_positives"])
    assert area == pytest.approx(halves.value("utility/outcome/tstr_auroc"), abs=0.02)

    groups = halves.tables["utility_groups"]
    assert set(groups["covariate"]) == {"age", "gender"}
    mine = groups.query(
        "row == 'synthetic' and kind == 'phenotype' and score == 'auroc' and covariate == 'gender'"
    )
    worst = halves.value("utility/phenotype/group_auroc")
    assert worst >= np.ptp(mine["value"]) - 1e-9


def test_what_labels_do_not_have_to_do_with_series_is_seen(real):
    found = [measured(shuffled(real[0], dose), real).scores for dose in DOSES]
    for name in ("outcome/tstr_auroc", "phenotype/tstr_macro_auroc", "phenotype/trts_macro_auroc"):
        values = [scores[f"utility/{name}"].value for scores in found]
        assert (np.diff(values) < 0.01).all(), name
        assert values[0] > values[-1] + 0.15, name
    assert found[-1]["utility/phenotype/tstr_macro_auroc"].value < 0.6


def test_other_probabilities_are_seen(real):
    """Labels are added to stays that do not have them."""

    def added(share):
        def change(stays):
            more = np.random.default_rng(0).random(len(stays)) < share
            stays[SEPTICEMIA] = (stays[SEPTICEMIA] | more).astype(np.int8)

        return with_stays(real[0], change)

    found = [measured(added(dose), real).scores for dose in (0.0, 0.2, 0.4, 0.6)]
    for name in ("ece", "brier"):
        values = [scores[f"utility/phenotype/tstr_macro_{name}"].value for scores in found]
        assert (np.diff(values) > 0.01).all()


def opposite(cohort, share):
    """Septicemia shows the other way round in a share of the women."""

    def change(stays):
        some = np.random.default_rng(0).random(len(stays)) < share
        some &= (stays["gender"] == "F").to_numpy()
        stays[SEPTICEMIA] = stays[SEPTICEMIA].where(~some, 1 - stays[SEPTICEMIA])

    return with_stays(cohort, change)


def test_patients_who_are_wrong_for_one_sex_are_seen(real):
    found = [measured(opposite(real[0], dose), real).scores for dose in (0.0, 0.5, 1.0)]
    values = [scores["utility/phenotype/group_auroc"].value for scores in found]
    assert (np.diff(values) > 0.05).all()


def test_a_sex_of_which_nothing_is_known_is_seen(real):
    """Women, who are unlike men, are removed from the synthetic patients."""
    train, test = (opposite(cohort, 1.0) for cohort in real)
    women = train.stays.loc[train.stays["gender"] == "F", "subject_id"].unique().tolist()
    men = set(train.stays["subject_id"]) - set(women)
    found = [
        measured(train.select(subjects={*men, *women[:n]}), (train, test)).scores
        for n in (len(women), 40, 0)
    ]
    for name in ("group_auroc", "group_calibration"):
        values = [scores[f"utility/phenotype/{name}"].value for scores in found]
        assert values[2] > values[1] + 0.05
        assert values[2] > values[0] + 0.1
        assert values[1] > values[0] - 0.02


def test_patients_that_are_too_simple_are_seen(real):
    """What is chance in real patients follows from the series in these."""

    def simpler(share):
        def change(stays):
            some = np.random.default_rng(0).random(len(stays)) < share
            stays["shock"] = stays["shock"].where(~some, stays[SEPTICEMIA])

        return with_stays(real[0], change)

    def odd(train):
        def change(stays):
            chance = np.random.default_rng(1).random(len(stays)) < 0.25
            stays["shock"] = stays["shock"].where(chance, stays[SEPTICEMIA])

        return with_stays(train, change)

    pair = odd(real[0]), odd(real[1])
    values = [
        measured(simpler(dose), pair).scores["utility/phenotype/trts_macro_auroc"].value
        for dose in (0.0, 0.5, 1.0)
    ]
    assert (np.diff(values) > 0.01).all()


def test_useful_patients_add_to_few_real_ones(real):
    full = replace(EFFORT, quick=False)
    useful = measured(small_cohort(600, seed=3), real, full).scores
    useless = measured(shuffled(small_cohort(600, seed=3), 1.0), real, full).scores
    name = "utility/phenotype/gain_10"
    assert useful[name].value > 0
    assert useful[name].value > useless[name].value + 0.02
    assert abs(useful["utility/phenotype/gain_100"].value) < useful[name].value


def test_the_same_seed_has_the_same_result(real):
    first, second = (measured(small_cohort(200, seed=3), real) for _ in range(2))
    assert first.scores.keys() == second.scores.keys()
    for name, score in first.scores.items():
        np.testing.assert_equal(
            (score.value, score.low, score.high),
            (second.scores[name].value, second.scores[name].low, second.scores[name].high),
        )


@given(cohorts(), st.booleans())
@settings(max_examples=25)
def test_any_cohort_can_be_measured(cohort, quick):
    effort = Effort(n_resamples=4, n_seeds=2, quick=quick)
    bench = bench_of_three(independent_columns(cohort, 5, 0), cohort, cohort, effort)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in (tasks, utility):
            patch.setattr(module, "MIN_STAYS", 1)
        if Utility().lacks(bench):
            return
        found = compare(bench, [Utility()], progress=False)
    expected = {name for name in Utility.scales if not (quick and "gain" in name)}
    expected -= {name for name in expected if quick and name.startswith("published/")}
    assert set(found.scores.query("row == 'synthetic'")["score"]) == expected
    for name, scale in Utility.scales.items():
        value = found.value(name)
        assert np.isnan(value) or scale.bounds[0] <= value <= scale.bounds[1]
