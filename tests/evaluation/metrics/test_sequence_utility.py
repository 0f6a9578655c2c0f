"""Utility with recurrent networks: the network by its definition, and what it is told."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from synehrgy.baselines.marginals import independent_columns
from synehrgy.evaluation import gru, tasks
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.gru import Hourly, fit, hourly
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.sequence_utility import SequenceUtility
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.tasks import facts, long_enough
from tests.cohorts import cohorts, small_cohort
from tests.evaluation.metrics.test_utility import bench_of_three, shuffled

EFFORT = Effort(n_resamples=40, n_seeds=2)


def known_of(patients: Patients) -> Hourly:
    return hourly(patients, facts(patients))


def test_the_network_is_a_gated_recurrent_unit():
    networks = gru._Networks(2, 5, 3, 4, torch.Generator().manual_seed(0))
    series, known = torch.randn(7, 6, 5), torch.randn(7, 3)
    found = networks(series, known)
    for i in range(2):
        mine = slice(i * 3 * gru.HIDDEN, (i + 1) * 3 * gru.HIDDEN)
        one = torch.nn.GRU(5, gru.HIDDEN, batch_first=True)
        one.load_state_dict(
            {
                "weight_ih_l0": networks.of_input[:, mine].T,
                "weight_hh_l0": networks.of_state[i].T,
                "bias_ih_l0": networks.of_input_bias[mine],
                "bias_hh_l0": networks.of_state_bias[i, 0],
            }
        )
        last = torch.cat([one(series)[1][0], known], dim=1)
        expected = last @ networks.head[i] + networks.head_bias[i]
        torch.testing.assert_close(found[i], expected)


@given(cohorts())
@settings(max_examples=30)
def test_hours_hold_the_last_value_and_its_age(cohort):
    found = known_of(Patients(cohort))
    rows = cohort.measurements
    for s, stay in enumerate(cohort.stays["stay_id"]):
        for v, variable in enumerate(cohort.schema.variables):
            mine = rows[(rows["stay_id"] == stay) & (rows["variable"] == variable.name)]
            for hour in (0, 1, 20, 47):
                before = mine[mine["hours"] < hour + 1]
                if before.empty:
                    assert np.isnan(found.values[s, hour, v])
                    assert found.since[s, hour, v] == gru.N_STEPS
                    continue
                last = before.iloc[-1]
                value = last["value"]
                if variable.kind == "categorical":
                    value = variable.levels.index(last["level"])
                assert found.values[s, hour, v] == pytest.approx(value, rel=1e-6)
                assert found.since[s, hour, v] == hour - int(last["hours"])


@pytest.fixture(scope="module")
def stays():
    patients = Patients(small_cohort(120))
    columns = [label.column for label in patients.schema.labels]
    labels = patients.stays[columns].to_numpy(np.int8)
    counts = np.ones(labels.shape, dtype=bool)
    counts[:, 0] = long_enough(patients)
    learns = np.random.default_rng(0).random((2, 120)) < 0.7
    return known_of(patients), labels, counts, learns[:, patients.patient]


def test_nothing_is_learnt_of_patients_or_labels_that_do_not_count(stays, monkeypatch):
    monkeypatch.setattr(gru, "N_UPDATES", 20)
    known, labels, counts, learns = stays
    rows = np.arange(len(labels))
    first = fit(known, labels, counts, learns, 0).predict(known, rows)

    hidden = ~(learns[0][:, None] & counts)
    assert hidden.any()
    other = fit(known, np.where(hidden, 1 - labels, labels), counts, learns, 0)
    np.testing.assert_array_equal(other.predict(known, rows)[0], first[0])
    assert np.abs(other.predict(known, rows)[1] - first[1]).max() > 1e-3

    unused = ~learns.any(axis=0)
    assert unused.any()
    strange = replace(known, values=np.where(unused[:, None, None], 1e5, known.values))
    again = fit(strange, labels, counts, learns, 0).predict(known, rows)
    np.testing.assert_array_equal(again, first)


def test_the_global_generator_is_left_alone(stays, monkeypatch):
    monkeypatch.setattr(gru, "N_UPDATES", 2)
    before = torch.random.get_rng_state()
    fit(*stays, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture(scope="module")
def real():
    return small_cohort(400, seed=1), small_cohort(700, seed=2)


@pytest.fixture(autouse=True)
def _few_updates(monkeypatch):
    monkeypatch.setattr(gru, "N_UPDATES", 60)


def test_two_halves_pass(real):
    bench = bench_of_three(small_cohort(400, seed=3), *real, EFFORT)
    found = compare(bench, [SequenceUtility()], progress=False)
    scores = found.scores[found.scores["row"] == "synthetic"].set_index("score")
    assert set(scores["light"].dropna()) == {"good"}
    assert found.value("sequence_utility/phenotype/tstr_macro_auroc") > 0.7
    table = found.tables["sequence_utility_scores"]
    assert set(table["setting"]) == {"TSTR", "TRTS", "TRTR"}
    assert set(table["label"]) == {
        *("in_hospital_mortality", "septicemia", "shock", "macro", "micro")
    }


def test_what_labels_do_not_have_to_do_with_series_is_seen(real):
    found = []
    for dose in (0.0, 0.5, 1.0):
        bench = bench_of_three(shuffled(real[0], dose), *real, EFFORT)
        found.append(SequenceUtility().measure(bench, "synthetic").scores)
    for name in ("outcome/tstr_auroc", "phenotype/tstr_macro_auroc", "phenotype/trts_macro_auroc"):
        values = [scores[f"sequence_utility/{name}"].value for scores in found]
        assert (np.diff(values) < 0.01).all(), name
        assert values[0] > values[-1] + 0.15, name


@given(cohorts())
@settings(max_examples=20)
def test_any_cohort_can_be_measured(cohort):
    patients = Patients(cohort)
    rows = {"synthetic": Patients(independent_columns(cohort, 5, 0)), "test": patients}
    bench = Bench(patients, {**rows, "train": patients}, Effort(n_resamples=4, n_seeds=2))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(tasks, "MIN_STAYS", 1)
        patch.setattr(gru, "N_UPDATES", 4)
        if SequenceUtility().lacks(bench):
            return
        found = compare(bench, [SequenceUtility()], progress=False)
    assert set(found.scores.query("row == 'synthetic'")["score"]) == set(SequenceUtility.scales)
    values = found.scores["value"].dropna()
    assert values.between(0, 1).all()
