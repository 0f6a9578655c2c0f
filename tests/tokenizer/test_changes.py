"""Ages of later stays follow those before by changes that were seen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from synehrgy.cohort import read_cohort
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode
from synehrgy.tokenizer.changes import FEWEST, Changes, fit_changes
from tests.cohorts import cohorts, small_cohort


def readmitted(n=600, gap=0.3, seed=0):
    """Patients who come back soon, and rarely years later."""
    cohort = small_cohort(n, seed)
    random = np.random.default_rng(seed)
    stays = cohort.stays.copy()
    gaps = random.exponential(gap, len(stays)) * np.where(random.random(len(stays)) < 0.1, 20, 1)
    gaps[stays["stay_index"] == 0] = 0
    first = stays.groupby("subject_id")["age"].transform("first")
    stays["age"] = first + stays.assign(gap=gaps).groupby("subject_id")["gap"].cumsum()
    return replace(cohort, stays=stays)


def gaps_of(cohort):
    return cohort.stays.groupby("subject_id")["age"].diff().dropna().to_numpy()


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("bin_type", ["uniform", "quantile"])
def test_the_time_between_stays_comes_back(bin_type, independent):
    cohort = readmitted()
    tokenizer = Tokenizer.fit(cohort, TokenSettings(bin_type=bin_type))
    records = encode(tokenizer, cohort)
    real = gaps_of(cohort)
    drawn = decode(tokenizer, records, independent=independent)
    assert ks_2samp(gaps_of(drawn), real).statistic < 0.08
    assert (gaps_of(drawn) >= 0).all()
    # The records are those that they were, and the ages have their distribution.
    assert np.array_equal(encode(tokenizer, drawn).tokens, records.tokens)
    assert ks_2samp(drawn.stays["age"], cohort.stays["age"]).statistic < 0.03
    # By bins alone it does not.
    plain = decode(replace(tokenizer, changes={}), records, independent=independent)
    assert ks_2samp(gaps_of(plain), real).statistic > 0.5


def test_on_the_demo(demo_cohort):
    cohort = read_cohort(demo_cohort)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    drawn = decode(tokenizer, records)
    assert np.array_equal(encode(tokenizer, drawn).tokens, records.tokens)
    assert (gaps_of(drawn) >= 0).all()


def test_a_patient_does_not_depend_on_the_others():
    cohort = readmitted(60)
    tokenizer = Tokenizer.fit(cohort)
    assert tokenizer.changes
    records = encode(tokenizer, cohort)
    together = decode(tokenizer, records, independent=True).stays
    for i in (0, 7, 59):
        alone = decode(
            tokenizer, records.part(i, i + 1), numbers=np.array([i]), independent=True
        ).stays
        mine = together[together["subject_id"] == alone["subject_id"].iloc[0]]
        assert alone["age"].tolist() == mine["age"].tolist()


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=40).map(sorted),
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0, 30),
    st.floats(0.001, 0.999),
)
def test_a_draw_lies_between_its_bounds_or_there_is_none(quantiles, before, low, width, u):
    one = [np.array([x]) for x in (before, low, low + width, u)]
    (drawn,) = Changes(quantiles).draw(*one)
    if np.isnan(drawn):
        # Nothing of any probability leads there.
        share = np.linspace(0, 1, len(quantiles))
        least, most = np.interp([low - before, low + width - before], quantiles, share)
        assert least == most
    else:
        assert low <= drawn <= low + width


def test_few_changes_or_none_say_nothing():
    cohort = readmitted(200)
    train = cohort.select(split="train")
    assert list(fit_changes(train, ["age"])) == ["age"]
    once = train.stays["stay_index"] == 0
    assert fit_changes(replace(train, stays=train.stays[once]), ["age"]) == {}
    few = train.stays[train.stays["subject_id"] < 10 + FEWEST // 3]
    assert fit_changes(replace(train, stays=few), ["age"]) == {}
    constant = train.stays.assign(age=50.0)
    assert fit_changes(replace(train, stays=constant), ["age"]) == {}


@given(cohorts())
def test_bins_are_kept_in_any_cohort(cohort):
    if not (cohort.stays["split"] == "train").any():
        return
    tokenizer = Tokenizer.fit(cohort)
    names = [c.name for c in cohort.schema.covariates if c.name in tokenizer.covariate_numbers]
    tokenizer = replace(tokenizer, changes={name: Changes([-5.0, 0.0, 1e5]) for name in names})
    records = encode(tokenizer, cohort)
    assert np.array_equal(encode(tokenizer, decode(tokenizer, records)).tokens, records.tokens)
