"""decode(encode(x)) gives x back up to its bins, whatever the cohort."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.cohort import Cohort, read_cohort
from synehrgy.settings import BIN_TYPES, CLOCKS, RARE_CODES, VALUE_DECODINGS, TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults
from synehrgy.tokenizer.clock import to_minutes
from synehrgy.tokenizer.quantities import Bins, Digits
from tests.cohorts import cohorts, small_cohort, write

EVERY_CODE = TokenSettings(rare_codes="keep", covariate_edges={})

any_settings = st.builds(
    TokenSettings,
    bin_type=st.sampled_from(BIN_TYPES),
    n_bins=st.integers(1, 12),
    outlier_rule=st.booleans(),
    time=st.sampled_from(CLOCKS),
    long_records=st.sampled_from(["continue", "truncate"]),
    rare_codes=st.sampled_from(RARE_CODES),
    min_code_count=st.integers(1, 3),
    covariate_edges=st.just({}),
)


def same_number(numbers: Bins | Digits, got: float, expected: float) -> bool:
    """The same bin, or the same digits as far as there are places for them."""
    if isinstance(numbers, Bins):
        return bool(numbers.encode([got])[0] == numbers.encode([expected])[0])
    (scaled,) = numbers.scaled([expected])
    return got == scaled / 10.0**numbers.decimals


def listed(tokenizer: Tokenizer, cohort: Cohort) -> list[list[tuple[str, str]]]:
    """Codes that are in the vocabulary, stay by stay in record order, each once."""
    order = list(tokenizer.codes)
    found: dict[int, dict[tuple[str, str], None]] = {s: {} for s in cohort.stays["stay_id"]}
    for stay, system, code in cohort.codes[["stay_id", "system", "code"]].itertuples(index=False):
        if code in tokenizer.codes[system]:
            found[stay].setdefault((system, code))
    return [sorted(codes, key=lambda c: order.index(c[0])) for codes in found.values()]


def assert_same_up_to_bins(tokenizer: Tokenizer, real: Cohort, back: Cohort) -> None:
    """Every fact is the same, every number in the same bin."""
    assert len(back.stays) == len(real.stays)
    assert back.stays["stay_index"].tolist() == real.stays["stay_index"].tolist()
    assert back.stays["subject_id"].tolist() == real.stays["subject_id"].tolist()
    assert back.stays["split"].fillna("").tolist() == real.stays["split"].fillna("").tolist()
    for label in real.schema.labels:
        assert back.stays[label.column].tolist() == real.stays[label.column].tolist()
    for covariate in real.schema.covariates:
        got, expected = back.stays[covariate.name], real.stays[covariate.name]
        numbers = tokenizer.covariate_numbers.get(covariate.name)
        if covariate.kind == "continuous" and numbers is None:
            assert got.isna().all()
            continue
        assert got.isna().tolist() == expected.isna().tolist()
        for one, other in zip(got.dropna(), expected.dropna(), strict=True):
            assert one == other if numbers is None else same_number(numbers, one, other)
    if tokenizer.settings.rare_codes != "parent":
        assert listed(tokenizer, back) == listed(tokenizer, real)

    rows = real.measurements
    numbers = tokenizer.variable_numbers
    known = [
        (level == level and level is not None) or name in numbers
        for name, level in rows[["variable", "level"]].astype(object).itertuples(index=False)
    ]
    rows = rows[np.array(known, dtype=bool)].reset_index(drop=True)
    again = back.measurements
    assert again["variable"].astype(str).tolist() == rows["variable"].astype(str).tolist()
    for name, value, one, level, other in zip(
        *(rows["variable"], rows["value"], again["value"]),
        *(rows["level"].astype(object), again["level"].astype(object)),
        strict=True,
    ):
        if name in numbers:
            assert same_number(numbers[name], one, value)
        else:
            assert level == other
    if tokenizer.has_clock:
        minutes = [to_minutes(frame["hours"].to_numpy()).tolist() for frame in (rows, again)]
        assert minutes[0] == minutes[1]
        stays = [frame["los_hours"].to_numpy(dtype=float) for frame in (real.stays, back.stays)]
        assert np.isnan(stays[0]).tolist() == np.isnan(stays[1]).tolist()
        # A stay does not end before its last time point.
        last = rows.groupby("stay_id")["hours"].max().reindex(real.stays["stay_id"]).fillna(0)
        ends = np.fmax(stays[0], last.to_numpy())
        at = ~np.isnan(stays[0])
        assert np.all(np.abs(ends - stays[1])[at] <= 1 / 60 + 1e-6)


@settings(max_examples=150, deadline=None)
@given(cohort=cohorts(), how=any_settings, decoding=st.sampled_from(VALUE_DECODINGS))
def test_any_cohort_comes_back_up_to_its_bins(cohort, how, decoding):
    tokenizer = Tokenizer.fit(cohort, how)
    records = encode(tokenizer, cohort)
    assert find_faults(tokenizer, records) == []
    back = decode(tokenizer, records, seed=5, value_decoding=decoding)
    assert_same_up_to_bins(tokenizer, cohort, back)
    # All that is left is numbers, and these are the same tokens.
    assert np.array_equal(encode(tokenizer, back).tokens, records.tokens)


@settings(max_examples=40, deadline=None)
@given(cohort=cohorts(), how=any_settings)
def test_decoded_cohort_is_valid_on_disk(cohort, how, tmp_path_factory):
    tokenizer = Tokenizer.fit(cohort, how)
    back = decode(tokenizer, encode(tokenizer, cohort), seed=1)
    path = tmp_path_factory.mktemp("cohorts") / "back"
    write(back, path)
    again = read_cohort(path)
    assert np.array_equal(encode(tokenizer, again).tokens, encode(tokenizer, back).tokens)


@settings(max_examples=40, deadline=None)
@given(cohort=cohorts(), how=any_settings)
def test_tokenizer_file_holds_everything(cohort, how, tmp_path_factory):
    tokenizer = Tokenizer.fit(cohort, how)
    file = tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"
    tokenizer.save(file)
    loaded = Tokenizer.load(file)
    assert loaded.to_json() == tokenizer.to_json()
    records = encode(tokenizer, cohort)
    assert np.array_equal(encode(loaded, cohort).tokens, records.tokens)
    one, other = decode(loaded, records), decode(tokenizer, records)
    assert one.stays.equals(other.stays)
    assert one.measurements.equals(other.measurements)


@pytest.mark.parametrize("bin_type", BIN_TYPES)
@pytest.mark.parametrize("time", CLOCKS)
def test_a_small_hospital_comes_back(bin_type, time):
    cohort = small_cohort()
    tokenizer = Tokenizer.fit(cohort, TokenSettings(bin_type=bin_type, time=time))
    records = encode(tokenizer, cohort)
    assert_same_up_to_bins(tokenizer, cohort, decode(tokenizer, records))


def test_digits_give_every_number_back_exactly():
    cohort = small_cohort()
    tokenizer = Tokenizer.fit(cohort, TokenSettings(bin_type="raw"))
    train = cohort.select(split="train")
    back = decode(tokenizer, encode(tokenizer, train), value_decoding="uniform")
    assert back.measurements["value"].equals(train.measurements["value"])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunks_change_nothing(size, monkeypatch):
    cohort = small_cohort(25)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1))
    records = encode(tokenizer, cohort)
    whole = decode(tokenizer, records, seed=3, independent=True)
    for module, name in (("encode", "ROWS"), ("decode", "TOKENS"), ("validate", "TOKENS")):
        # By its full name, because the package has functions of the same names.
        owner = sys.modules[f"synehrgy.tokenizer.{module}"]
        monkeypatch.setattr(owner, f"CHUNK_{name}", size)
    again = encode(tokenizer, cohort)
    for field in dataclasses.fields(records):
        assert np.array_equal(getattr(again, field.name), getattr(records, field.name))
    parts = decode(tokenizer, records, seed=3, independent=True)
    for table in ("stays", "codes", "measurements"):
        assert whole.table(table).equals(parts.table(table))
