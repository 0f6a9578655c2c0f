"""Sequences of codes: by their definitions, and what each score sees."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.code_sequences import CodeSequences
from synehrgy.evaluation.patients import Patients
from tests.cohorts import cohorts, small_cohort
from tests.evaluation.metrics.zipf import bench_for, lights, zipf_cohort

KINDS = ("bigram", "trigram", "sequential_bigram")


@pytest.fixture(scope="module")
def train():
    return zipf_cohort(600, 1)


@pytest.fixture(scope="module")
def other():
    return zipf_cohort(600, 2)


def values(train, synthetic):
    found = CodeSequences().measure(bench_for(train, synthetic, n_resamples=2), "synthetic")
    return {name: score.value for name, score in found.scores.items()}


def lists_of(cohort):
    """For each patient, the list of codes of each stay."""
    lists = {stay: [] for stay in cohort.stays["stay_id"]}
    for row in cohort.codes.itertuples():
        lists[row.stay_id].append(f"{row.system}:{row.code}")
    patients = {}
    for row in cohort.stays.itertuples():
        patients.setdefault(row.subject_id, []).append(lists[row.stay_id])
    return list(patients.values())


def grams(patients, kind):
    """The n-grams of each patient."""
    found = []
    for stays in patients:
        if kind == "sequential_bigram":
            pairs = pairwise(stays)
            found.append([(a, b) for now, after in pairs for a in now for b in after])
        else:
            n = {"unigram": 1, "bigram": 2, "trigram": 3}[kind]
            found.append(
                [tuple(codes[i : i + n]) for codes in stays for i in range(len(codes) - n + 1)]
            )
    return found


def counted(patients, kind):
    return Counter(gram for of_patient in grams(patients, kind) for gram in of_patient)


@pytest.fixture(scope="module")
def small():
    return small_cohort(40, 0), small_cohort(25, 5)


@pytest.mark.parametrize("kind", ["unigram", *KINDS])
def test_the_published_correlation_is_over_what_both_have(small, kind):
    frequencies = []
    for cohort in small:
        patients = lists_of(cohort)
        if kind != "sequential_bigram":
            patients = [stays[:1] for stays in patients]
        counts = counted(patients, kind)
        of_beginning = Counter()
        for gram, n in counts.items():
            of_beginning[gram[:-1]] += n
        frequencies.append({gram: n / of_beginning[gram[:-1]] for gram, n in counts.items()})
    real, other = frequencies
    both = sorted(set(real) & set(other))
    expected = np.corrcoef([real[g] for g in both], [other[g] for g in both])[0, 1]
    found = values(*small)[f"published/code_sequences/{kind}_r"]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_others_are_over_what_either_has(small, kind):
    counts = [counted(lists_of(cohort), kind) for cohort in small]
    union = sorted(set(counts[0]) | set(counts[1]))
    real, other = (np.array([c[g] for g in union]) / sum(c.values()) for c in counts)
    found = values(*small)
    name = f"code_sequences/{kind}"
    assert found[f"{name}_r"] == pytest.approx(np.corrcoef(real, other)[0, 1])
    explained = 1 - np.sum((real - other) ** 2) / np.sum((real - real.mean()) ** 2)
    assert found[f"{name}_r2"] == pytest.approx(explained)


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_is_the_chance_that_two_patients_share_an_ngram(small, kind):
    one, two = (grams(lists_of(cohort), kind) for cohort in small)

    def chance(these, those, same):
        equal = pairs = 0
        for i, first in enumerate(these):
            for j, second in enumerate(those):
                if same and i == j:
                    continue
                pairs += len(first) * len(second)
                counts = Counter(second)
                equal += sum(counts[gram] for gram in first)
        return equal / pairs

    expected = 2 * chance(one, two, False) / (chance(one, one, True) + chance(two, two, True))
    assert values(*small)[f"code_sequences/{kind}_overlap"] == pytest.approx(expected)


def test_recurrence_is_the_share_of_codes_that_come_again(small):
    again = total = 0
    for stays in lists_of(small[1]):
        for now, after in pairwise(stays):
            total += len(set(now))
            again += len(set(now) & set(after))
    assert values(*small)["code_sequences/recurrence"] == pytest.approx(again / total)


def test_shown_ngrams_are_shares_of_all(small):
    found = CodeSequences().measure(bench_for(*small), "synthetic")
    table = found.tables["code_sequences_ngrams"].set_index(["kind", "ngram"])
    counts = counted(lists_of(small[1]), "trigram")
    gram, n = counts.most_common(1)[0]
    shown = table.loc[("trigram", " > ".join(gram)), "measured"]
    assert shown == pytest.approx(n / sum(counts.values()))
    assert table.loc["sequential_bigram"].index.str.contains(" | ", regex=False).all()


def test_overlap_does_not_depend_on_how_many_patients_there_are(train):
    few = [values(train, zipf_cohort(60, seed)) for seed in range(6)]
    many = values(train, zipf_cohort(600, 7))
    name = "code_sequences/bigram_overlap"
    assert np.mean([found[name] for found in few]) == pytest.approx(1, abs=0.08)
    assert many[name] == pytest.approx(1, abs=0.08)
    # The distance does.
    assert (
        min(found["code_sequences/bigram_js"] for found in few)
        > 0.1 + (many["code_sequences/bigram_js"])
    )


def test_two_samples_of_one_population_pass(train):
    bench = bench_for(train, zipf_cohort(1500, 2), zipf_cohort(1500, 3))
    assert set(lights(CodeSequences(), bench).values()) == {"good", None}
    scores = CodeSequences().measure(bench, "synthetic").scores
    for kind in KINDS:
        overlap = scores[f"code_sequences/{kind}_overlap"]
        assert overlap.low <= 1 <= overlap.high


@pytest.mark.parametrize(
    ("name", "rises"),
    [
        ("code_sequences/bigram_overlap", False),
        ("code_sequences/trigram_overlap", False),
        ("code_sequences/bigram_js", True),
        ("code_sequences/bigram_r", False),
    ],
)
def test_lists_in_any_order(train, other, name, rises):
    """The codes of a share of the stays are shuffled: no prevalence changes."""
    rng = np.random.default_rng(0)
    stays = other.stays["stay_id"].to_numpy()

    def shuffled(share):
        chosen = other.codes["stay_id"].isin(rng.permutation(stays)[: int(share * len(stays))])
        at = np.where(chosen, rng.random(len(chosen)), other.codes["position"])
        order = np.lexsort((at, other.codes["stay_id"]))
        return replace(other, codes=other.codes.iloc[order].reset_index(drop=True))

    found = [values(train, shuffled(share))[name] for share in (0.0, 0.3, 0.6, 1.0)]
    assert np.all(np.diff(found) > 0 if rises else np.diff(found) < 0)


def test_stays_of_other_patients(train, other):
    """A share of the second stays is that of somebody else: chronic diseases are lost."""
    rng = np.random.default_rng(0)
    second = other.stays.loc[other.stays["stay_index"] == 1, "stay_id"].to_numpy()

    def exchanged(share):
        chosen = rng.permutation(second)[: int(share * len(second))]
        to = dict(zip(chosen, np.roll(chosen, 1), strict=True))
        codes = other.codes.assign(stay_id=other.codes["stay_id"].replace(to))
        codes = codes.sort_values(["stay_id", "position"], ignore_index=True)
        return replace(other, codes=codes)

    found = [values(train, exchanged(s))["code_sequences/recurrence"] for s in (0.0, 0.3, 0.6, 1.0)]
    assert np.all(np.diff(found) < 0)


def test_lost_ngrams_cost_nothing_in_the_published_form(train, other):
    """Every patient has the codes of one of ten patients: most n-grams are gone."""
    few = other.stays["subject_id"].unique()[:10]
    kept = Patients(other.select(subjects=few.tolist())).cohort
    times = 60
    width = int(other.stays["subject_id"].max()) + 1
    tables = {}
    for name in ("stays", "codes", "measurements"):
        copies = []
        for i in range(times):
            copy = kept.table(name).copy()
            copy["stay_id"] += i * 10_000
            if name == "stays":
                copy["subject_id"] += i * width
            copies.append(copy)
        tables[name] = (
            copies[0]
            .__class__(
                {c: np.concatenate([x[c].astype(object) for x in copies]) for c in copies[0]}
            )
            .astype(kept.table(name).dtypes)
        )
    repeated = replace(kept, **tables)
    found, sound = values(train, repeated), values(train, other)
    assert found["code_sequences/bigram_js"] > sound["code_sequences/bigram_js"] + 0.2
    assert found["code_sequences/bigram_overlap"] < 0.6
    assert found["published/code_sequences/bigram_r"] > 0


@settings(max_examples=40)
@given(cohort=cohorts())
def test_any_cohort_can_be_measured(cohort):
    patients = Patients(cohort)
    half = patients.sample(max(len(patients) // 2, 1), 0)
    bench = Bench(patients, {"synthetic": half, "test": patients}, Effort(n_resamples=5))
    metric = CodeSequences()
    found = metric.measure(bench, "synthetic")
    assert set(found.scores) == set(metric.scales)
    for name, score in found.scores.items():
        low, high = metric.scales[name].bounds
        assert np.isnan(score.value) or low - 1e-9 <= score.value <= high + 1e-9
