"""The tokenizer on real patients and on simulated ones: what is lost, and what is not."""

import numpy as np
import pytest

from benchmarks.tokenizer import ks, round_trip, speed, usual_encode
from synehrgy.cohort import read_cohort
from synehrgy.settings import BIN_TYPES, CLOCKS, TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults, label_contradictions
from synehrgy.tokenizer.clock import to_minutes
from synehrgy.tokenizer.segments import cut_records
from tests.tokenizer.test_round_trip import assert_same_up_to_bins


@pytest.fixture(scope="module", params=["demo_cohort", "simulated_folder"])
def cohort(request):
    return read_cohort(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def demo(demo_cohort):
    return read_cohort(demo_cohort)


@pytest.mark.parametrize("bin_type", ["uniform", "quantile"])
def test_empirical_decoding_keeps_every_distribution(cohort, bin_type):
    """Every series with at least 1,000 values, the gaps and, where there are so many, ages."""
    train = cohort.select(split="train")
    table = round_trip(train, TokenSettings(bin_type=bin_type, time="gap"))
    assert len(table) >= 9
    assert "gaps" in table
    assert ("age" in table) == (len(train.stays) >= 1000)
    for name, row in table.items():
        assert row["values"] >= 1000
        assert row["empirical"] <= 0.01, name
        assert row["empirical"] < row["uniform"], name
        assert row["empirical"] < row["center"], name
    assert max(row["uniform"] for row in table.values()) > 0.1


def test_the_clock_is_exact_to_the_minute(cohort):
    train = cohort.select(split="train")
    tokenizer = Tokenizer.fit(cohort)
    back = decode(tokenizer, encode(tokenizer, train))
    hours = [c.measurements["hours"].to_numpy() for c in (train, back)]
    assert np.array_equal(*map(to_minutes, hours))
    assert np.abs(hours[0] - hours[1]).max() < 1 / 60
    los = [c.stays["los_hours"].to_numpy() for c in (train, back)]
    assert np.abs(los[0] - los[1]).max() < 1 / 60 + 1e-6
    gaps = [
        np.round(c.measurements.groupby("stay_id")["hours"].diff().dropna().to_numpy(), 6)
        for c in (train, back)
    ]
    assert ks(*gaps) == 0.0


def test_the_clock_costs_little(cohort):
    published, finer = (
        len(encode(Tokenizer.fit(cohort, TokenSettings(time=time)), cohort).tokens)
        for time in ("gap", "clock")
    )
    assert finer < 1.02 * published


@pytest.mark.parametrize("bin_type", BIN_TYPES)
@pytest.mark.parametrize("time", CLOCKS)
def test_real_patients_come_back(demo, bin_type, time):
    tokenizer = Tokenizer.fit(demo, TokenSettings(bin_type=bin_type, time=time))
    records = encode(tokenizer, demo)
    assert find_faults(tokenizer, records) == []
    back = decode(tokenizer, records, seed=2)
    assert_same_up_to_bins(tokenizer, demo, back)
    assert np.array_equal(encode(tokenizer, back).tokens, records.tokens)


def test_digits_return_real_values_as_charted(demo):
    tokenizer = Tokenizer.fit(demo, TokenSettings(bin_type="raw"))
    train = demo.select(split="train")
    back = decode(tokenizer, encode(tokenizer, train)).measurements
    for name, rows in train.measurements.dropna(subset="value").groupby("variable", observed=True):
        digits = tokenizer.variable_numbers[name]
        mine = back.loc[back["variable"] == name, "value"].to_numpy()
        assert np.array_equal(mine, np.round(rows["value"], digits.decimals)), name
        # All but two series, which the extraction calculates, are charted in decimals.
        if name not in ("Temperature", "Mean blood pressure"):
            assert np.mean(np.abs(mine - rows["value"]) < 1e-5) >= 0.99, name


def test_the_tokens_are_those_of_a_plain_loop(demo):
    tokenizer = Tokenizer.fit(demo)
    expected = [token for sequence in usual_encode(tokenizer, demo) for token in sequence]
    assert encode(tokenizer, demo).tokens.tolist() == expected


def test_much_faster_than_a_plain_loop(demo):
    found = speed(Tokenizer.fit(demo), demo, usual_patients=15)
    assert found["encode_times_faster"] > 50
    assert found["decode_times_faster"] > 4


def test_phenotypes_follow_from_the_codes_that_the_schema_names(cohort):
    """With every code in the vocabulary, real labels and codes never contradict each other."""
    tokenizer = Tokenizer.fit(cohort, TokenSettings(rare_codes="keep", count_codes_in="all"))
    records = encode(tokenizer, cohort)
    assert records.dropped["codes not in the vocabulary"] == 0
    counts = label_contradictions(tokenizer, records)
    assert counts == {
        "stays": len(cohort.stays),
        "codes_without_label": 0,
        "label_without_codes": 0,
    }
    assert len(tokenizer.defined_labels.tokens) == 25


@pytest.mark.parametrize("n_ctx", [256, 1024])
def test_no_token_of_a_real_patient_is_lost(cohort, n_ctx):
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    segments = cut_records(tokenizer, records, np.arange(len(records)), n_ctx)
    assert segments.lengths.max() <= n_ctx
    order = np.lexsort((segments.start, segments.record))
    start, stop = (
        (records.offsets[segments.record] + part)[order] for part in (segments.start, segments.stop)
    )
    assert start[0] == 0
    assert stop[-1] == len(records.tokens)
    assert np.array_equal(start[1:], stop[:-1])
    cut = np.minimum(records.lengths, n_ctx).sum() / len(records.tokens)
    assert cut < 0.7
