"""Which tokens have what in common."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.settings import BIN_TYPES, CLOCKS, TokenSettings
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.likeness import likeness
from synehrgy.tokenizer.tokenizer import system_kind
from tests.cohorts import cohorts, small_cohort


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.fit(small_cohort(60), TokenSettings(min_code_count=1, n_bins=8))


@pytest.fixture(scope="module")
def dense(tokenizer):
    """[vocabulary, parts]"""
    index, amounts = likeness(tokenizer)
    table = np.zeros((len(index), index.max() + 1))
    np.add.at(table, (np.arange(len(index))[:, None], index), amounts)
    return table


def alike(dense, one, other):
    return float(dense[one] @ dense[other])


def test_bins_of_a_series_are_alike_and_neighbours_most(tokenizer, dense):
    rate, first = tokenizer.first_of_variable("Heart Rate"), tokenizer.first_of_variable("pH")
    n = min(tokenizer.n_of(tokenizer.variable_word(name)) for name in ("Heart Rate", "pH"))
    assert n >= 4
    to_lowest = [alike(dense, rate, rate + i) for i in range(n)]
    assert to_lowest == sorted(to_lowest, reverse=True)
    assert to_lowest[-1] > 0
    # High bins of two series have something in common, less than two bins of one.
    assert 0 < alike(dense, rate, first) < alike(dense, rate, rate + 1)
    assert alike(dense, rate, first + n - 1) == 0


def test_codes_of_a_category_are_alike(tokenizer, dense):
    codes = tokenizer.codes["icd9_diagnosis"]
    start = tokenizer.token(system_kind("icd9_diagnosis"))
    number = {code: start + i for i, code in enumerate(codes)}
    beginnings = {code[:3] for code in codes}
    assert beginnings
    for one in codes:
        for other in codes:
            if one == other:
                continue
            common = sum(one[:end] == other[:end] for end in range(1, len(one) + 1))
            assert alike(dense, number[one], number[other]) == common


def test_what_nobody_shares_is_no_part(tokenizer):
    index, amounts = likeness(tokenizer)
    assert len(index) == len(tokenizer.vocabulary)
    used = np.unique(index[amounts > 0])
    assert used.tolist() == list(range(len(used)))
    holders = [len(np.unique(np.nonzero((index == part) & (amounts > 0))[0])) for part in used]
    assert min(holders) > 1
    # Marks of the record are like nothing else.
    assert not amounts[tokenizer.token("<s>")].any()


@settings(max_examples=40, deadline=None)
@given(cohort=cohorts(), bin_type=st.sampled_from(BIN_TYPES), time=st.sampled_from(CLOCKS))
def test_every_cohort_has_some(cohort, bin_type, time):
    how = TokenSettings(rare_codes="keep", bin_type=bin_type, time=time, covariate_edges={})
    tokenizer = Tokenizer.fit(cohort, how)
    index, amounts = likeness(tokenizer)
    assert index.shape == amounts.shape
    assert len(index) == len(tokenizer.vocabulary)
    assert np.all((amounts >= 0) & (amounts <= 1))
    again, _ = likeness(Tokenizer.fit(cohort, how))
    assert np.array_equal(index, again)
