"""Tokens at rest are never stale and never half."""

import dataclasses
import json

import numpy as np
import pytest

from synehrgy.cohort import read_cohort
from synehrgy.errors import UserError
from synehrgy.settings import PreprocessSettings, TokenOverrides, TokenSettings, VariableSettings
from synehrgy.tokenizer import (
    TOKENIZER_FILE,
    Records,
    Tokenizer,
    TokenStore,
    as_preprocessed,
    encode,
    preprocess_tokens,
    tokenise,
    tokens_report,
)
from tests.cohorts import small_cohort, write

SETTINGS = TokenSettings(min_code_count=1)
ARRAYS = ("tokens", "offsets", "subject_ids", "splits")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cohort"
    write(small_cohort(20), path)
    return path


def files_of(store):
    return {file.name: file.stat().st_mtime_ns for file in store.path.iterdir()}


def test_tokens_at_rest_are_those_of_the_encoder(folder):
    store = tokenise(folder, SETTINGS)
    cohort = read_cohort(folder)
    expected = encode(Tokenizer.fit(cohort, SETTINGS), cohort)
    for name in ARRAYS:
        found = getattr(store.records, name)
        assert np.array_equal(found, getattr(expected, name))
        assert found.dtype == getattr(expected, name).dtype
    assert store.records.dropped == expected.dropped
    splits = {s: expected.splits.tolist().count(i) for i, s in enumerate(("train", "val", "test"))}
    assert {name: len(store.of_split(name)) for name in splits} == splits


def test_tokens_stay_on_disk_until_they_are_used(folder):
    store = tokenise(folder, SETTINGS)
    assert isinstance(store.records.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.records.tokens[0] = 1


def test_tokens_at_hand_are_used_again(folder, monkeypatch):
    before = tokenise(folder, SETTINGS)
    mtimes = files_of(before)
    # Reading the tables again would be work for nothing.
    monkeypatch.setattr("synehrgy.tokenizer.store.read_cohort", None)
    again = tokenise(folder, SETTINGS)
    assert (again.fingerprint, again.path) == (before.fingerprint, before.path)
    assert files_of(again) == mtimes


@pytest.mark.parametrize(
    "change",
    [
        {"bin_type": "quantile"},
        {"n_bins": 3},
        {"outlier_rule": False},
        {"min_code_count": 2},
        {"gap_edges": [0.0, 1.0, 100.0]},
        {"covariate_edges": {}},
        {"time": "gap"},
        {"long_records": "truncate"},
        {"rare_codes": "parent"},
        {"variables": {"pH": VariableSettings(n_bins=2)}},
    ],
)
def test_other_settings_have_tokens_of_their_own(folder, change):
    one = tokenise(folder, SETTINGS)
    other = tokenise(folder, dataclasses.replace(SETTINGS, **change))
    assert one.fingerprint != other.fingerprint
    assert one.path != other.path
    assert tokenise(folder, SETTINGS).fingerprint == one.fingerprint
    # Both are kept side by side, and each has the tokenizer that made it.
    assert other.tokenizer.settings == dataclasses.replace(SETTINGS, **change)


def test_settings_of_other_stages_make_no_difference(folder):
    one = tokenise(folder, TokenSettings())
    other = tokenise(folder, PreprocessSettings(memory_limit="1GB", profile="clinical"))
    assert one.fingerprint == other.fingerprint
    assert type(other.tokenizer.settings) is TokenSettings


@pytest.mark.parametrize("name", ["cohort.json", *(f"{t}.parquet" for t in ("stays", "codes"))])
def test_any_change_of_the_cohort_changes_the_fingerprint(folder, tmp_path, name):
    before = tokenise(folder, SETTINGS)
    write(small_cohort(20, seed=9), tmp_path / "other")
    if name == "cohort.json":
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('"source": "test"', '"source": "elsewhere"'))
    else:
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    # A damaged table is another cohort too: it is read anew, which says what is wrong with it.
    if name == "cohort.json":
        assert tokenise(folder, SETTINGS).fingerprint != before.fingerprint
    else:
        with pytest.raises(UserError, match="cannot be read"):
            tokenise(folder, SETTINGS)


def test_another_cohort_in_the_same_place_is_tokenised_anew(folder):
    before = tokenise(folder, SETTINGS)
    stale = before.fingerprint, before.records.tokens.tolist()
    write(small_cohort(20, seed=1), folder)
    after = tokenise(folder, SETTINGS)
    assert after.fingerprint != stale[0]
    assert after.records.tokens.tolist() != stale[1]


def test_the_same_cohort_written_again_has_the_same_fingerprint(folder, tmp_path):
    write(small_cohort(20), tmp_path / "again")
    assert (
        tokenise(folder, SETTINGS).fingerprint == tokenise(tmp_path / "again", SETTINGS).fingerprint
    )


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "missing"])
def test_damaged_arrays_are_named(folder, name, damage):
    file = tokenise(folder, SETTINGS).path / f"{name}.npy"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": whole[:-8], "empty": b"", "garbage": b"x" * 400}[damage])
    with pytest.raises(UserError, match=rf"{name}\.npy cannot be read .*Delete") as error:
        tokenise(folder, SETTINGS)
    assert str(file.parent) in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"fingerprint": "other"}'])
def test_damaged_description_is_never_taken_for_whole(folder, text):
    store = tokenise(folder, SETTINGS)
    (store.path / "meta.json").write_text(text)
    if text == "{":
        with pytest.raises(UserError, match=r"meta\.json is damaged"):
            tokenise(folder, SETTINGS)
    else:
        again = tokenise(folder, SETTINGS)
        assert (
            json.loads((again.path / "meta.json").read_text())["fingerprint"] == store.fingerprint
        )


def test_interrupted_tokens_leave_nothing(folder, monkeypatch):
    def interrupt(self, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(Tokenizer, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tokenise(folder, SETTINGS)
    assert list((folder / "tokens").iterdir()) == []


def test_missing_table_is_named(folder):
    (folder / "codes.parquet").unlink()
    with pytest.raises(UserError, match=r"codes\.parquet does not exist"):
        tokenise(folder, SETTINGS)


def test_what_is_no_cohort_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a cohort"):
        tokenise(tmp_path, SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_says_which_tokens_training_takes(folder):
    assert as_preprocessed(folder, TokenOverrides()) == TokenSettings()
    chosen = dataclasses.replace(SETTINGS, bin_type="quantile", n_bins=4)
    preprocess_tokens(folder, chosen)
    # Tokens for another purpose do not change that.
    tokenise(folder, SETTINGS)
    assert as_preprocessed(folder, TokenOverrides()) == chosen
    assert Tokenizer.load(folder / TOKENIZER_FILE).settings == chosen


def test_overrides_of_training_win_where_they_are_given(folder):
    chosen = dataclasses.replace(SETTINGS, bin_type="quantile", n_bins=4)
    preprocess_tokens(folder, chosen)
    exceptions = {"pH": VariableSettings(bin_type="raw")}
    asked = TokenOverrides(n_bins=7, outlier_rule=False, variables=exceptions)
    expected = dataclasses.replace(chosen, n_bins=7, outlier_rule=False, variables=exceptions)
    assert as_preprocessed(folder, asked) == expected


def report_of(lengths, settings=SETTINGS, **counts):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n = len(lengths)
    tokens = np.zeros(int(offsets[-1]), dtype=np.uint16)
    records = Records(tokens, offsets, np.arange(n), np.zeros(n), **counts)
    return tokens_report(TokenStore(None, "", Tokenizer.fit(small_cohort(20), settings), records))


def test_report_of_tokens_has_the_right_numbers():
    report = report_of(
        [100, 612, 1024, 9000], dropped={"codes": 1234, "values": 0}, changed={"numbers": 5}
    )
    total = 100 + 612 + 1024 + 9000
    assert f"{total:,} tokens in 4 records, {total / 4:,.0f} on average" in report
    assert "codes: icd9_diagnosis 6, icd9_procedure 3" in report
    assert "50%: 818" in report
    assert "100%: 9,000" in report
    beyond = {512: 100 + 512 + 8488, 1024: 7976, 2048: 6952, 4096: 4904, 8192: 808}
    for n, tokens in beyond.items():
        assert f"{n}: {tokens / total:.1%}" in report
    assert "fit into a context: 512: 25.0%  1024: 75.0%" in report
    assert "beyond it (continued)" in report
    assert "no token: 1,234 codes" in report
    assert "less exact: 5 numbers" in report
    assert "values" not in report
    cut = dataclasses.replace(SETTINGS, long_records="truncate")
    assert "beyond it (cut off)" in report_of([9000], cut)


def test_report_says_which_rule_the_data_break():
    rules = {"age": "constant", "gender": "constant"}
    report = report_of([50], dataclasses.replace(SETTINGS, within_patient=rules))
    assert "age is not constant in every patient" in report
    assert "gender" not in report
    in_digits = {"age": VariableSettings(bin_type="raw")}
    report = report_of([50], dataclasses.replace(SETTINGS, variables=in_digits))
    assert "age is written in digits, so records are not asked for rising age" in report


def test_report_of_nothing_says_so():
    assert report_of([]) == "0 tokens"
