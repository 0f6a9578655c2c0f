"""Conditioned patients are those that filtering would find; shares, rows and pairs are exact."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from synehrgy.errors import UserError
from synehrgy.generation import requests as module
from synehrgy.generation.conditions import Condition, wanted
from synehrgy.generation.jobs import Options, first_openings, patients_job, real_openings
from synehrgy.generation.requests import (
    Acceptance,
    Conditioned,
    Planner,
    Variant,
    chances,
    weights,
)
from synehrgy.generation.sampler import Requests, Sampling, TooRareError
from synehrgy.settings import TokenSettings, VariableSettings
from synehrgy.tokenizer import encode
from synehrgy.tokenizer.grammar import END_CODES
from synehrgy.training.checkpoint import load_run
from tests.cohorts import small_cohort
from tests.generation.runs import assert_alike, drawn_of, noisy_run
from tests.generation.test_sampler import labelled
from tests.tokens import words

N = 2000
DEATH, CODE = "in_hospital_mortality", "icd9_diagnosis:4280"


@pytest.fixture(scope="module")
def run():
    """Codes and further stays hang together with age and gender, and are not too rare."""
    return noisy_run(scale=9.0, seed=1, **{"</code>": 6.0, CODE: 5.0})


@pytest.fixture(scope="module")
def free(run):
    return drawn_of(run, Requests(run.tokenizer), N, seed=11)


def planner(run, seed=0, rule_out=False, real=None, how=None):
    return Planner(run, how or Sampling(), seed, rule_out, real=real)


def counts_of(run, drawn):
    """How many first stays have each token of covariates, labels and codes."""
    counts = np.zeros(len(run.tokenizer.vocabulary))
    end = run.tokenizer.token(END_CODES)
    for one in drawn:
        counts[np.unique(one.tokens[: int(np.flatnonzero(one.tokens == end)[0])])] += 1
    return counts


def texts_of(run, one):
    return words(run.tokenizer, one.tokens)


@pytest.fixture(scope="module")
def entangled():
    """A run in which the opening says much about what comes later, and many of its patients."""
    run = noisy_run(scale=9.0, seed=3, **{"</code>": 5.4, CODE: 3.6})
    return run, drawn_of(run, Requests(run.tokenizer), 6000, seed=11)


@pytest.mark.parametrize(
    ("condition", "opening"),
    [
        (Condition({"gender": "F"}), None),
        (Condition({"age": "40-"}, labels=[DEATH], codes_any=["4280", "4019"]), None),
        (Condition({"gender": "F"}, min_stays=2), Condition({"gender": "F"})),
        (Condition(codes_all=["4280"], max_stays=1), Condition()),
    ],
)
def test_conditioned_patients_are_those_that_filtering_finds(entangled, condition, opening):
    """Also where only what comes later tells: the opening is drawn anew with each attempt."""
    run, free = entangled
    asked = wanted(run.tokenizer, condition)
    filtered = [one for one in free if asked.verdict(one.tokens)]
    assert 300 < len(filtered) < 0.8 * len(free)
    theirs = counts_of(run, filtered)
    if opening is not None:
        # An opening that was kept from attempt to attempt would have another distribution.
        begun = wanted(run.tokenizer, opening)
        among = [one for one in free if begun.verdict(one.tokens)]
        apart = theirs / len(filtered) - counts_of(run, among) / len(among)
        of_openings = [run.tokenizer.vocabulary.index(f"{DEATH}={state}") for state in (0, 1)]
        start = run.tokenizer.first_of_covariate("age")
        assert np.abs(apart[start : max(of_openings) + 1]).max() > 0.1
    requests = planner(run).alike(condition)
    n = 3000
    drawn = drawn_of(run, requests, n, seed=5)
    assert all(asked.verdict(one.tokens) for one in drawn)
    assert_alike(counts_of(run, drawn), theirs, n, len(filtered))
    lengths = [np.array([len(one.tokens) for one in part]) for part in (drawn, filtered)]
    for length in np.quantile(lengths[1], [0.25, 0.5, 0.75]):
        short = [np.array([(part <= length).sum()]) for part in lengths]
        assert_alike(*short, n, len(filtered))
    # Its probability is how often filtering finds it.
    acceptance = Acceptance()
    for one in drawn:
        acceptance.add(0, one)
    chance = chances(requests, acceptance)
    assert_alike(chance * n, np.array([len(filtered)]), n, len(free))


def test_no_condition_asks_for_nothing(run, free):
    requests = planner(run).alike(Condition())
    assert not requests.judges
    assert [one.tokens.tolist() for one in drawn_of(run, requests, 40, seed=11)] == [
        one.tokens.tolist() for one in free[:40]
    ]


def test_what_openings_state_is_never_refused_later(run):
    requests = planner(run).alike(Condition({"gender": "M", "age": "60-"}, labels=[DEATH]))
    drawn = drawn_of(run, requests, 200)
    assert {one.n_attempts for one in drawn} == {1}
    assert len({one.tokens[1] for one in drawn}) > 2


def test_conditions_hold_without_openings_too(run, free, monkeypatch):
    """Where openings are too many to be told, all is resampled, to the same effect."""
    monkeypatch.setattr("synehrgy.generation.openings.MOST_OPENINGS", 3)
    condition = Condition({"gender": "F"}, labels=[DEATH])
    requests = planner(run).alike(condition)
    assert requests.variants[0].openings is None
    drawn = drawn_of(run, requests, 500, seed=2)
    asked = wanted(run.tokenizer, condition)
    assert max(one.n_attempts for one in drawn) > 1
    filtered = [one for one in free if asked.verdict(one.tokens)]
    assert all(asked.verdict(one.tokens) for one in drawn)
    assert_alike(counts_of(run, drawn), counts_of(run, filtered), 500, len(filtered))


def test_numbers_in_digits_are_resampled():
    how = TokenSettings(min_code_count=1, variables={"age": VariableSettings(bin_type="raw")})
    run = noisy_run(how=how)
    requests = planner(run).alike(Condition({"age": "30-60", "gender": "F"}))
    asked = requests.variants[0].wanted
    drawn = drawn_of(run, requests, 40)
    assert all(asked.verdict(one.tokens) for one in drawn)
    assert all("gender=F" in texts_of(run, one) for one in drawn)


def test_patients_do_not_depend_on_the_batch(run):
    requests = planner(run).balanced(Condition(codes_any=["4280", "4019"]), DEATH, 0.5)
    expected = [one.tokens.tolist() for one in drawn_of(run, requests, 60)]
    for size in (1, 7):
        drawn = drawn_of(run, requests, 60, batch_size=size)
        assert [one.tokens.tolist() for one in drawn] == expected


def test_attempts_run_out(run):
    requests = planner(run).alike(Condition(codes_all=["4280", "4019"], min_stays=2))
    with pytest.raises(TooRareError):
        drawn_of(run, requests, 50, max_attempts=1)


@pytest.mark.parametrize("share", [0.5, 0.29, 0.07, 0.9, 1 / 3])
@pytest.mark.parametrize("n", [100, 10, 7])
def test_shares_are_exact_and_evenly_spread(run, share, n):
    free_ = wanted(run.tokenizer, Condition())
    pair = [Variant(free_, None, share), Variant(free_, None, 1 - share)]
    requests = Conditioned(run.tokenizer, pair, 0)
    first = np.array([requests.variant(i) == 0 for i in range(n)])
    # As many as fit in whole patients; 0.29 of 100 are 29, though not in floating point.
    assert first.sum() == int(round(n * share, 9))
    until = np.cumsum(first) - share * np.arange(1, n + 1)
    assert np.abs(until).max() <= 1 + 1e-9


@pytest.mark.parametrize("by", [DEATH, "shock", "4280"])
def test_balanced_cohorts_weigh_what_unconditional_ones_do(run, free, by):
    requests = planner(run).balanced(Condition(), by, 0.5)
    n = 1000
    drawn = drawn_of(run, requests, n, seed=3)
    labels = {"labels": [by]} if by != "4280" else {"codes_all": [by]}
    asked = wanted(run.tokenizer, Condition(**labels))
    has = np.array([asked.verdict(one.tokens) for one in drawn])
    assert has.sum() == n / 2
    acceptance = Acceptance()
    for one in drawn:
        acceptance.add(requests.variant(one.patient), one)
    table = weights(requests, acceptance, np.arange(n))
    assert table["has"].tolist() == has.tolist()
    assert table["weight"].sum() == pytest.approx(n)
    assert (table["weight"] > 0).all()
    share = table["weight"][has].sum() / n
    among_free = np.array([asked.verdict(one.tokens) for one in free])
    assert_alike(np.array([share * n]), np.array([among_free.sum()]), n, N)
    # Any other share, weighted, is that of the population, too.
    gender = run.tokenizer.vocabulary.index("gender=F")
    weighted = sum(table["weight"][[gender in one.tokens[:5] for one in drawn]])
    plain = sum(gender in one.tokens[:5] for one in free)
    # Of weighted patients fewer count.
    effective = n**2 / (table["weight"] ** 2).sum()
    assert_alike(np.array([weighted / n * effective]), np.array([plain * 1.0]), effective, N)


def test_balance_within_a_condition(run):
    requests = planner(run).balanced(Condition({"gender": "F"}), "shock", 0.25)
    drawn = drawn_of(run, requests, 80)
    assert all("gender=F" in texts_of(run, one)[:3] for one in drawn)
    assert sum("shock" in texts_of(run, one) for one in drawn) >= 20
    with pytest.raises(UserError, match="asks for shock and excludes it"):
        planner(run).balanced(Condition(not_labels=["shock"]), "shock", 0.5)
    with pytest.raises(UserError, match=r"no such label or code\. Did you mean 'shock'"):
        planner(run).balanced(Condition(), "shok", 0.5)


def test_a_phenotype_cannot_be_what_pairs_differ_in():
    with pytest.raises(UserError, match="shock is stated after the beginning"):
        planner(noisy_run()).pairs(Condition(), {"shock": 1})


TABLE = pd.DataFrame(
    {
        "gender": ["F", None, "M"],
        "age": ["70-80", None, 42],
        "shock": [1, 0, np.nan],
        DEATH: [np.nan, 1, 0],
    }
)


def test_rows_by_turns(run):
    requests = planner(run).by_row(Condition(codes_none=["4019"]), TABLE, "wanted.csv")
    drawn = drawn_of(run, requests, 15)
    for one in drawn:
        texts = texts_of(run, one)
        first = texts[: texts.index("</code>")]
        assert "icd9_diagnosis:4019" not in first
        if one.patient % 3 == 0:
            assert {"gender=F", "shock"} <= {*first}
            assert {"age=(70, 75]", "age=(75, 80]"} & {*first}
        elif one.patient % 3 == 1:
            assert "shock" not in first
            assert f"{DEATH}=1" in first
        else:
            assert {"gender=M", "age=(40, 45]", f"{DEATH}=0"} <= {*first}
    assert {texts_of(run, drawn[i])[1] for i in range(1, 15, 3)} > {texts_of(run, drawn[1])[1]}


def test_a_row_goes_before_the_condition_of_all(run):
    requests = planner(run).by_row(Condition({"gender": "F", "age": "20-30"}), TABLE, "t")
    drawn = drawn_of(run, requests, 6)
    assert [texts_of(run, one)[2] for one in drawn] == ["gender=F", "gender=F", "gender=M"] * 2


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("gander", ["F"], r"w\.csv: column 'gander' is neither a covariate nor a label"),
        ("4280", [1], r"w\.csv: column '4280' is neither"),
        ("gender", ["F", "X"], r"w\.csv, row 2: condition\.gender=X"),
        ("age", ["70-80", 71, "71-80"], r"w\.csv, row 3: condition\.age=71-80"),
        ("shock", [0, 1, 2], r"w\.csv, row 3: shock=2: a label is 0 or 1, or empty"),
        ("shock", [0.5], r"w\.csv, row 1: shock=0\.5"),
        ("shock", [], r"w\.csv has no row"),
    ],
)
def test_mistakes_in_a_table_name_file_and_row(run, column, values, message):
    with pytest.raises(UserError, match=message):
        planner(run).by_row(Condition(), pd.DataFrame({column: values}), "w.csv")


def test_rows_that_contradict_the_condition_are_refused_by_row(run):
    with pytest.raises(UserError, match=r"t, row 1: .* asks for shock and excludes it"):
        planner(run).by_row(Condition(not_labels=["shock"]), TABLE, "t")


def numbered(column, levels):
    """A cohort whose gender is written in numbers, as many files do."""
    cohort = small_cohort()
    covariates = [cohort.schema.covariates[0], replace(cohort.schema.covariates[1], levels=levels)]
    stays = cohort.stays.assign(
        gender=pd.Categorical(
            np.where(cohort.stays["gender"] == "F", levels[0], levels[1]), categories=levels
        )
    )
    return replace(cohort, schema=replace(cohort.schema, covariates=covariates), stays=stays)


def test_levels_that_look_like_numbers_can_stand_in_a_table_with_empty_cells():
    """Pandas reads a column of 1, 2 and nothing as 1.0, 2.0 and nan."""
    run = noisy_run(numbered("gender", ["1", "2"]))
    table = pd.DataFrame({"gender": [1, None, 2]})
    requests = planner(run).by_row(Condition(), table, "t")
    drawn = drawn_of(run, requests, 6)
    assert [texts_of(run, one)[2] for one in drawn][::3] == ["gender=1"] * 2
    assert [texts_of(run, one)[2] for one in drawn][2::3] == ["gender=2"] * 2


@pytest.mark.parametrize("change", [{"gender": "M"}, {DEATH: 1}, {"age": 62, DEATH: 0}])
def test_pairs_are_equal_but_for_the_change(run, change):
    requests = planner(run).pairs(Condition(), change)
    drawn = drawn_of(run, requests, 200)
    asked = wanted(
        run.tokenizer,
        Condition(
            {k: v for k, v in change.items() if k != DEATH},
            labels=[DEATH] if change.get(DEATH) == 1 else [],
            not_labels=[DEATH] if change.get(DEATH) == 0 else [],
        ),
    )
    n_opening = len(requests.variants[0].openings.tokens[0])
    same = 0
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        before, after = first.tokens[:n_opening], second.tokens[:n_opening]
        assert not asked.forbidden[after].any()
        changed = np.flatnonzero(before != after)
        assert asked.forbidden[before[changed]].all()
        if not len(changed):
            assert first.tokens.tolist() == second.tokens.tolist()
            same += 1
    # Some are what they would become already, though of an age hardly any.
    assert same < 100
    assert same > 0 or "age" in change
    assert {one.n_attempts for one in drawn} == {1}


def test_the_first_of_each_pair_is_drawn_as_ever(run, free):
    """Its opening has the distribution of the model, and the condition holds for it."""
    requests = planner(run).pairs(Condition({"age": "40-"}), {"gender": "F"})
    drawn = drawn_of(run, requests, 1600, seed=4)[::2]
    asked = wanted(run.tokenizer, Condition({"age": "40-"}))
    filtered = [one for one in free if asked.verdict(one.tokens)]
    assert all(asked.verdict(one.tokens) for one in drawn)
    assert_alike(counts_of(run, drawn), counts_of(run, filtered), len(drawn), len(filtered))


def test_a_pair_may_leave_its_condition(run):
    requests = planner(run).pairs(Condition({"gender": "F"}), {"gender": "M"})
    drawn = drawn_of(run, requests, 40)
    assert [texts_of(run, one)[2] for one in drawn] == ["gender=F", "gender=M"] * 20


@pytest.mark.parametrize(
    ("condition", "change", "message"),
    [
        (Condition(), {"gender": ["F", "M"]}, r"counterfactual: gender=.* single value"),
        (Condition(), {"age": "60-70"}, r"counterfactual: age=60-70 must be a single value"),
        (Condition(), {"gander": "F"}, r"no covariate 'gander'.*'gender'"),
        (Condition(), {"shock": 1}, "shock"),
        (Condition(codes_any=["4280"]), {"gender": "F"}, "only be on covariates and outcomes"),
        (Condition(labels=["shock"]), {"gender": "F"}, "only be on covariates and outcomes"),
        (Condition(min_stays=2), {"gender": "F"}, "only be on covariates and outcomes"),
        (Condition(), {DEATH: 2}, DEATH),
    ],
)
def test_changes_that_no_pair_can_have_are_refused(run, condition, change, message):
    with pytest.raises(UserError, match=message):
        planner(run).pairs(condition, change)


def test_pairs_that_cannot_be_changed_are_refused():
    """Behind a number in digits the opening ends, before what is to be changed."""
    how = TokenSettings(min_code_count=1, variables={"age": VariableSettings(bin_type="raw")})
    with pytest.raises(UserError, match=r"counterfactual needs covariates that .* in a token"):
        planner(noisy_run(how=how)).pairs(Condition(), {"gender": "M"})


def test_pairs_of_too_many_openings_are_refused(run, monkeypatch):
    monkeypatch.setattr("synehrgy.generation.openings.MOST_OPENINGS", 3)
    with pytest.raises(UserError, match=r"counterfactual needs .* at most"):
        planner(run).pairs(Condition(), {"gender": "M"})


def test_real_openings_on_a_condition(run):
    cohort = small_cohort(60)
    real = real_openings(run, cohort)
    assert real.total == pytest.approx(1)
    asked = Condition({"gender": "F"}, labels=["septicemia"], codes_any=["4280", "4019"])
    requests = planner(run, real=real).alike(asked)
    begins = {
        tuple(opening.tolist())
        for opening in first_openings(run.tokenizer, cohort)
        if {"gender=F", "septicemia"} <= {*words(run.tokenizer, opening)}
    }
    drawn = drawn_of(run, requests, 120)
    n_known = {tuple(one.tokens[: len(b)].tolist()) for one in drawn for b in begins} & begins
    assert len(n_known) > 0.7 * len(begins) > 2
    for one in drawn:
        assert any(one.tokens[: len(b)].tolist() == [*b] for b in begins)
        assert {CODE, "icd9_diagnosis:4019"} & {*texts_of(run, one)}
    assert real.among([tuple(t.tolist()) in begins for t in real.tokens]).total == pytest.approx(
        requests.variants[0].openings.total
    )
    shock = planner(run, real=real).pairs(Condition(labels=["shock"]), {"gender": "M"})
    assert all("shock" in texts_of(run, one) for one in drawn_of(run, shock, 10))


def refusing(run, how=None, **parts):
    with pytest.raises(UserError) as refusal:
        patients_job(run, Options(how=how or Sampling()), 5, **parts)
    return str(refusal.value)


def test_what_the_model_never_draws_is_refused_before_any_sampling(run, monkeypatch):
    def sampled(*args, **kwargs):
        raise AssertionError("nothing is to be sampled")

    monkeypatch.setattr("synehrgy.generation.jobs.sample", sampled)
    # Of the likeliest only, one gender comes after each age and one age after <s>.
    for gender in ("F", "M"):
        for age in ("20-50", "50-90"):
            likeliest = Sampling(top_k=1)
            asked = Condition({"gender": gender, "age": age})
            found = module.Planner(run, likeliest, 0, False)._openings
            (only,) = (words(run.tokenizer, tokens) for tokens in found.tokens)
            inside = not wanted(run.tokenizer, asked).forbidden[found.tokens[0]].any()
            assert f"gender={gender}" in only or not inside
            if not inside:
                said = refusing(run, likeliest, condition=asked)
                assert "has a probability of 0.0e+00 under the model" in said
    real = small_cohort(30)
    women = replace(real, stays=real.stays.assign(gender=pd.Categorical(["F"] * len(real.stays))))
    said = refusing(run, condition=Condition({"gender": "M"}), real=women)
    assert said == "No real patient begins as the condition asks for."


def test_parts_that_do_not_go_together_are_refused(run):
    change, both = {"gender": "F"}, "do not go together"
    assert both in refusing(run, table=TABLE, balance=DEATH)
    assert both in refusing(run, balance=DEATH, counterfactual=change)
    assert both in refusing(run, table=TABLE, counterfactual=change)
    assert "n_samples=5: counterfactual patients come in pairs" in refusing(
        run, counterfactual=change
    )
    assert "condition.share=0.1: both kinds" in refusing(run, balance=DEATH, share=0.1)
    assert "condition.share=1: both kinds" in refusing(run, balance=DEATH, share=1.0)
    forecaster = replace(run, config={"mode": "fcast"})
    assert "was trained to forecast" in refusing(forecaster)


def test_labels_and_codes_that_define_each_other_are_sampled_together():
    run = noisy_run(labelled(), scale=6.0)
    requests = planner(run, rule_out=True).alike(
        Condition(labels=["septicemia"], codes_none=["0389"])
    )
    drawn = drawn_of(run, requests, 30, rule_out_contradictions=True)
    assert all("icd9_diagnosis:99592" in texts_of(run, one) for one in drawn)


def test_a_trained_model_on_a_condition(trained):
    run = load_run(trained, torch.device("cpu"))
    requests = planner(run).alike(Condition({"age": "70-80", "gender": "F"}, labels=[DEATH]))
    drawn = drawn_of(run, requests, 30)
    for one in drawn:
        texts = texts_of(run, one)
        assert texts[1] in ("age=(70, 75]", "age=(75, 80]")
        assert texts[2:5] == ["gender=F", "</covar>", f"{DEATH}=1"]
    assert 0 < requests.variants[0].openings.total < 0.5
    assert len(encode(run.tokenizer, small_cohort(3))) == 3
