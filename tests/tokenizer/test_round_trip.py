"""decode(encode(x)) gives x back up to its bins, whatever the cohort."""

import numpy as np
import pytest
from hypothesis import given, settings

from synehrgy.cohort import Cohort, read_cohort
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults
from tests.cohorts import cohorts, small_cohort, write

EVERY_CODE = TokenSettings(min_code_count=1, covariate_edges={})


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
        if covariate.kind == "continuous" and covariate.name not in tokenizer.covariate_edges:
            assert got.isna().all()
            continue
        assert got.isna().tolist() == expected.isna().tolist()
        if covariate.kind == "categorical":
            assert got.dropna().tolist() == expected.dropna().tolist()
    for code in (real.codes, back.codes):
        assert code["stay_id"].is_monotonic_increasing
    known = {(s, c) for s, kept in tokenizer.codes.items() for c in kept}
    order = {system: i for i, system in enumerate(tokenizer.codes)}

    def listed(cohort: Cohort) -> list[tuple[int, str, str]]:
        rank = {stay: i for i, stay in enumerate(cohort.stays["stay_id"])}
        rows = cohort.codes[["stay_id", "system", "code"]].itertuples(index=False)
        kept = [(rank[stay], s, c) for stay, s, c in rows if (s, c) in known]
        return sorted(kept, key=lambda row: (row[0], order[row[1]]))

    assert listed(back) == listed(real)
    levels = real.measurements["level"].dropna().tolist()
    assert back.measurements["level"].dropna().tolist() == levels
    # All that is left is numbers, and these are the same tokens.
    assert np.array_equal(encode(tokenizer, back).tokens, encode(tokenizer, real).tokens)


@settings(max_examples=150, deadline=None)
@given(cohort=cohorts())
def test_any_cohort_comes_back_up_to_its_bins(cohort):
    tokenizer = Tokenizer.fit(cohort, EVERY_CODE)
    records = encode(tokenizer, cohort)
    assert find_faults(tokenizer, records) == []
    assert_same_up_to_bins(tokenizer, cohort, decode(tokenizer, records, seed=5))


@settings(max_examples=40, deadline=None)
@given(cohort=cohorts())
def test_decoded_cohort_is_valid_on_disk(cohort, tmp_path_factory):
    tokenizer = Tokenizer.fit(cohort, EVERY_CODE)
    back = decode(tokenizer, encode(tokenizer, cohort), seed=1)
    path = tmp_path_factory.mktemp("cohorts") / "back"
    write(back, path)
    again = read_cohort(path)
    assert np.array_equal(encode(tokenizer, again).tokens, encode(tokenizer, back).tokens)


@settings(max_examples=40, deadline=None)
@given(cohort=cohorts())
def test_tokenizer_file_holds_everything(cohort, tmp_path_factory):
    tokenizer = Tokenizer.fit(cohort, EVERY_CODE)
    file = tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"
    tokenizer.save(file)
    loaded = Tokenizer.load(file)
    assert loaded.to_json() == tokenizer.to_json()
    records = encode(tokenizer, cohort)
    assert np.array_equal(encode(loaded, cohort).tokens, records.tokens)
    assert decode(loaded, records).stays.equals(decode(tokenizer, records).stays)


@pytest.mark.parametrize("bin_type", ["uniform", "quantile"])
def test_values_stay_in_their_bin(bin_type):
    cohort = small_cohort()
    tokenizer = Tokenizer.fit(cohort, TokenSettings(bin_type=bin_type, min_code_count=1))
    back = decode(tokenizer, encode(tokenizer, cohort))
    assert_same_up_to_bins(tokenizer, cohort, back)
    for name, edges in tokenizer.variable_edges.items():
        real = cohort.measurements.loc[cohort.measurements["variable"] == name, "value"].to_numpy()
        got = back.measurements.loc[back.measurements["variable"] == name, "value"].to_numpy()
        widest = np.diff(edges).max()
        beyond = np.maximum(0, np.maximum(edges[0] - real, real - edges[-1]))
        assert np.all(np.abs(got - real) <= widest + beyond)
