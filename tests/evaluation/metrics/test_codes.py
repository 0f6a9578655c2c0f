"""Codes: by their definitions, and what each score sees."""

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.codes import (
    UNKNOWN,
    Codes,
    _pairs,
    _prevalence,
    bands,
    vocabulary_of,
)
from synehrgy.evaluation.patients import Patients
from tests.cohorts import cohorts, small_cohort
from tests.evaluation.metrics.zipf import PREVALENCE, bench_for, lights, zipf_cohort


@pytest.fixture(scope="module")
def train():
    return zipf_cohort(600, 1)


@pytest.fixture(scope="module")
def other():
    return zipf_cohort(600, 2)


@pytest.fixture(scope="module")
def held_out():
    return zipf_cohort(600, 3)


def measure(train, synthetic):
    return Codes().measure(bench_for(train, synthetic), "synthetic")


def values(train, synthetic):
    return {name: score.value for name, score in measure(train, synthetic).scores.items()}


def sets_of(cohort):
    """The codes of each stay, as sets."""
    found = {stay: set() for stay in cohort.stays["stay_id"]}
    for row in cohort.codes.itertuples():
        found[row.stay_id].add(f"{row.system}:{row.code}")
    return list(found.values())


def shares_of(cohort):
    sets = sets_of(cohort)
    counts = Counter(code for codes in sets for code in codes)
    return {code: n / len(sets) for code, n in counts.items()}


def test_prevalences_are_shares_of_stays_over_the_union():
    one, two = small_cohort(12, 0), small_cohort(7, 5)
    two = replace(two, codes=two.codes[two.codes["code"] != "0389"].reset_index(drop=True))
    found = measure(one, two)
    real, synthetic = shares_of(one), shares_of(two)
    table = found.tables["codes_prevalence"]
    shown = table["system"].astype(str) + ":" + table["code"].astype(str)
    assert sorted(shown) == sorted(real | synthetic)
    assert table["train"].tolist() == pytest.approx([real.get(code, 0) for code in shown])
    assert table["measured"].tolist() == pytest.approx([synthetic.get(c, 0) for c in shown])
    lost = [code for code in real if code not in synthetic]
    assert lost == ["icd9_diagnosis:0389"]
    assert found.scores["codes/missing"].value == pytest.approx(len(lost) / len(real))
    expected = np.corrcoef(table["train"], table["measured"])[0, 1]
    assert found.scores["codes/r"].value == pytest.approx(expected)


def test_bands_are_cut_by_the_share_of_all_records():
    frequency = np.array([4.0, 50.0, 0.0, 30.0, 10.0, 6.0])
    assert bands(frequency).tolist() == ["tail", "head", UNKNOWN, "torso", "torso", "tail"]


def test_invented_codes_are_those_that_train_lacks(train):
    codes = train.codes.astype({"code": str})
    invented = codes["code"].isin(["000", "001"])
    codes = codes.assign(code=codes["code"].mask(invented, "new")).astype({"code": "category"})
    found = measure(train, replace(train, codes=codes))
    distinct = sum(map(len, sets_of(train)))
    assert found.scores["codes/invented"].value == pytest.approx(invented.sum() / distinct)
    table = found.tables["codes_prevalence"]
    assert table.loc[table["band"] == UNKNOWN, "code"].tolist() == ["new", "new"]


def test_a_resample_has_the_prevalence_of_its_patients():
    cohort = small_cohort(6, 0)
    patients = Patients(cohort)
    weights = np.array([[2, 0, 1, 0, 3, 0]], dtype=float)
    vocabulary = vocabulary_of(patients)
    subject = cohort.stays["subject_id"].to_numpy()
    times = weights[0, np.searchsorted(patients.subjects, subject)].astype(int)
    repeated = [codes for codes, n in zip(sets_of(cohort), times, strict=True) for _ in range(n)]
    expected = [sum(code in codes for codes in repeated) / len(repeated) for code in vocabulary]
    assert _prevalence(patients, vocabulary, weights)[0][0] == pytest.approx(expected)


def test_the_variance_of_prevalences_is_that_among_samples():
    """Stays of one patient are alike: as if they were independent it would be too small."""
    samples = [Patients(zipf_cohort(100, seed)) for seed in range(60)]
    vocabulary = pd.Index([f"{'dp'[i % 2]}x:{i:03d}" for i in range(10)])
    ones = np.ones((1, 100))
    found = [_prevalence(sample, vocabulary, ones) for sample in samples]
    among = np.var([share[0] for share, _ in found], axis=0, ddof=1)
    estimated = np.mean([variance for _, variance in found], axis=0)
    assert np.mean(among / estimated) == pytest.approx(1, abs=0.2)


def test_co_occurrence_is_that_of_pairs():
    one, two = small_cohort(60, 0), small_cohort(50, 5)
    found = measure(one, two)

    def bonds(cohort):
        sets = sets_of(cohort)
        single, both = Counter(), Counter()
        for codes in sets:
            single.update(codes)
            both.update(combinations(sorted(codes), 2))
        return sets, single, both

    tables, expected = [bonds(one), bonds(two)], defaultdict(list)
    fewest = min(len(sets) for sets, _, _ in tables)
    sets, single, _ = tables[0]
    for a, b in combinations(sorted(single), 2):
        if fewest * single[a] * single[b] / len(sets) ** 2 < 5:
            continue
        for sets_, single_, both in tables:
            chance = single_[a] * single_[b] / len(sets_)
            expected[a, b].append(np.log2((both[a, b] + 0.5) / (chance + 0.5)))
    assert len(expected) > 5
    real, synthetic = np.array(list(expected.values())).T
    scores = found.scores
    assert scores["codes/pairs_r"].value == pytest.approx(np.corrcoef(real, synthetic)[0, 1])
    assert scores["codes/pairs_error"].value == pytest.approx(np.abs(real - synthetic).mean())
    shown = found.tables["codes_pairs"].iloc[0]
    pair = tuple(sorted((shown["a"], shown["b"])))
    assert [shown["bond_train"], shown["bond_measured"]] == pytest.approx(expected[pair])
    gaps = {key: abs(x - y) for key, (x, y) in expected.items()}
    assert gaps[pair] == pytest.approx(max(gaps.values()))


def test_the_number_of_codes_is_compared_by_system():
    one, two = small_cohort(20, 0), small_cohort(20, 5)
    gaps = []
    for system in ("icd9_diagnosis", "icd9_procedure"):
        numbers = [
            np.sort([sum(c.startswith(system) for c in codes) for codes in sets_of(cohort)])
            for cohort in (one, two)
        ]
        at = np.arange(10)
        cumulated = [np.searchsorted(n, at, side="right") / len(n) for n in numbers]
        gaps.append(np.abs(cumulated[0] - cumulated[1]).max())
    assert values(one, two)["codes/per_stay"] == pytest.approx(max(gaps))


def test_two_samples_of_one_population_pass(train, other, held_out):
    bench = bench_for(train, other, held_out)
    shown = lights(Codes(), bench)
    assert set(shown.values()) == {"good", None}
    scores = Codes().measure(bench, "synthetic").scores
    for band in ("head", "torso", "tail"):
        assert scores[f"codes/error_{band}"].low == 0
    assert scores["codes/error_head"].value < 0.05


def test_of_a_small_sample_the_tail_is_not_blamed_for_chance(train):
    """Its rare codes are mostly absent, yet on average it is nearer than nothing at all is."""
    squared = [values(train, zipf_cohort(250, seed))["codes/error_tail"] ** 2 for seed in range(8)]
    assert np.mean(squared) < 0.3
    # Of still fewer nothing is said.
    assert np.isnan(values(train, zipf_cohort(20, 0))["codes/error_tail"])
    rare = train.codes["code"].astype(str) > "030"
    assert values(train, without(train, rare))["codes/error_tail"] > 0.95


def without(cohort, rows):
    return replace(cohort, codes=cohort.codes[~rows].reset_index(drop=True))


def doses(train, corrupt, name):
    return [values(train, corrupt(dose))[name] for dose in (0.0, 0.3, 0.6, 1.0)]


@pytest.mark.parametrize(
    ("name", "rises"),
    [("codes/missing_tail", True), ("codes/error_tail", True), ("codes/mass_tail", False)],
)
def test_dropped_tail_codes(train, other, name, rises):
    rank = other.codes["code"].astype(int)
    tail = np.sort(rank[rank > 60].unique())

    def dropped(share):
        gone = np.random.default_rng(0).permutation(tail)[: int(share * len(tail))]
        return without(other, rank.isin(gone))

    found = doses(train, dropped, name)
    assert np.all(np.diff(found) > 0 if rises else np.diff(found) < 0)
    assert values(train, dropped(1.0))["codes/missing_head"] == 0


@pytest.mark.parametrize(
    ("name", "rises"),
    [
        ("codes/r", False),
        ("codes/r2", False),
        ("codes/js_distance", True),
        ("codes/error_head", True),
    ],
)
def test_codes_taken_for_others(train, other, name, rises):
    """A share of the codes of each stay is replaced by any other."""
    rng = np.random.default_rng(0)
    known = other.codes["code"].cat.categories
    which, swap = rng.random(len(other.codes)), rng.choice(known, len(other.codes))

    def swapped(share):
        codes = other.codes["code"].astype(str).mask(which < share, swap)
        return replace(other, codes=other.codes.assign(code=codes.astype("category")))

    found = doses(train, swapped, name)
    assert np.all(np.diff(found) > 0 if rises else np.diff(found) < 0)


def test_frequent_and_rare_codes_change_places(train, other):
    def turned(share):
        ranks = np.arange(120)
        ranks[: int(share * 120)] = ranks[: int(share * 120)][::-1]
        codes = other.codes["code"].astype(int).map(lambda rank: f"{ranks[rank]:03d}")
        return replace(other, codes=other.codes.assign(code=codes.astype("category")))

    assert np.all(np.diff(doses(train, turned, "codes/spearman")) < 0)


@pytest.mark.parametrize(("name", "rises"), [("codes/pairs_r", False), ("codes/pairs_error", True)])
def test_codes_moved_to_other_stays(train, other, name, rises):
    """Prevalences stay as they are: only what goes together is lost."""
    rng = np.random.default_rng(0)

    def moved(share):
        stay = other.codes["stay_id"].to_numpy().copy()
        chosen = np.flatnonzero(rng.random(len(stay)) < share)
        stay[chosen] = rng.permutation(stay[chosen])
        codes = other.codes.assign(stay_id=stay).drop_duplicates(["stay_id", "system", "code"])
        codes = codes.sort_values(["stay_id", "system", "code"], ignore_index=True)
        return replace(other, codes=codes)

    found = doses(train, moved, name)
    assert np.all(np.diff(found) > 0 if rises else np.diff(found) < 0)
    assert values(train, moved(1.0))["codes/r"] > 0.97


def test_fewer_codes_in_each_stay(train, other):
    rng = np.random.default_rng(0).random(len(other.codes))
    found = doses(train, lambda share: without(other, rng < 0.5 * share), "codes/per_stay")
    assert np.all(np.diff(found) > 0)


def test_the_interval_is_as_wide_as_samples_differ(train):
    found = [measure(train, zipf_cohort(200, seed)).scores["codes/mass_head"] for seed in range(20)]
    half = np.mean([(score.high - score.low) / 2 for score in found])
    spread = np.std([score.value for score in found], ddof=1)
    assert half / (1.96 * spread) == pytest.approx(1, abs=0.35)


def test_the_same_seed_gives_the_same(train, other):
    one, two = (measure(train, other) for _ in range(2))
    assert one.scores == two.scores
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, two.tables[name])


def test_prevalences_of_the_sample_are_those_it_is_made_of():
    share = shares_of(zipf_cohort(3000, 0))
    assert share["dx:000"] == pytest.approx(PREVALENCE[0], abs=0.04)


@settings(max_examples=40)
@given(cohort=cohorts())
def test_any_cohort_can_be_measured(cohort):
    patients = Patients(cohort)
    half = patients.sample(max(len(patients) // 2, 1), 0)
    bench = Bench(patients, {"synthetic": half, "test": patients}, Effort(n_resamples=5))
    metric = Codes()
    found = metric.measure(bench, "synthetic")
    assert set(found.scores) == set(metric.scales)
    for name, score in found.scores.items():
        low, high = metric.scales[name].bounds
        assert np.isnan(score.value) or low - 1e-9 <= score.value <= high + 1e-9
    assert all("row" not in table for table in found.tables.values())


def test_pairs_of_no_codes_are_none(train):
    patients = Patients(without(train, np.ones(len(train.codes), dtype=bool)))
    nothing = pd.Index([], dtype=object)
    ones = np.ones((2, len(patients)))
    worst, of_frequent, scores = _pairs(patients, patients, nothing, np.zeros(0), ones)
    assert not len(worst)
    assert not len(of_frequent)
    assert np.isnan(scores["codes/pairs_error"]).all()
