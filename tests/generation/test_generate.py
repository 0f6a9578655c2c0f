"""From a run to a cohort on disk."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.errors import UserError
from synehrgy.generation import generate as module
from synehrgy.generation.generate import FIRST_ID, first_openings, generate
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode, find_faults
from synehrgy.training.loop import train
from tests.cohorts import small_cohort
from tests.conftest import train_overrides


def settings_for(trained, synthetic, *more):
    return compose(
        "generate",
        [
            "model=tiny",
            f"paths.saved_models={trained.parent}",
            f"paths.synthetic={synthetic}",
            "n_samples=40",
            "device=cpu",
            *more,
        ],
    )


def tables(path):
    cohort = read_cohort(path)
    return [cohort.table(name) for name in ("stays", "codes", "measurements")]


def same(first, second):
    return all(a.equals(b) for a, b in zip(tables(first), tables(second), strict=True))


def test_a_valid_cohort_with_its_report(trained, tmp_path):
    out = generate(settings_for(trained, tmp_path, "seed=5"))
    cohort = read_cohort(out)
    assert cohort.n_patients == 40
    assert cohort.stays["subject_id"].unique().tolist() == list(range(FIRST_ID, FIRST_ID + 40))
    assert cohort.stays["stay_id"].is_unique
    assert cohort.stays["split"].isna().all()
    assert cohort.stays["hadm_id"].isna().all()
    tokenizer = Tokenizer.load(trained / "tokenizer.json")
    records = encode(tokenizer, cohort)
    assert find_faults(tokenizer, records) == []
    report = json.loads((out / "generation.json").read_text())
    assert report["seed"] == 5
    assert report["records"] == 40
    assert report["tokens"] == len(records.tokens)
    assert report["config"]["n_samples"] == 40
    assert report["versions"]["synehrgy"]
    assert report["seconds"] >= 0


def test_values_lie_inside_their_bins(trained, tmp_path):
    cohort = read_cohort(generate(settings_for(trained, tmp_path)))
    numbers = Tokenizer.load(trained / "tokenizer.json").variable_numbers
    for name, rows in cohort.measurements.dropna(subset="value").groupby("variable", observed=True):
        known = [*np.concatenate(numbers[name].quantiles), *numbers[name].edges]
        assert rows["value"].between(min(known), max(known)).all()
        assert rows["value"].nunique() > len(numbers[name].edges)


@pytest.mark.parametrize("how", ["uniform", "center"])
def test_values_are_decoded_as_asked_for(trained, tmp_path, how):
    settings = settings_for(trained, tmp_path, f"generate.value_decoding={how}")
    out = generate(settings)
    assert json.loads((out / "generation.json").read_text())["config"]["value_decoding"] == how
    numbers = Tokenizer.load(trained / "tokenizer.json").variable_numbers
    cohort = read_cohort(out)
    for name, rows in cohort.measurements.dropna(subset="value").groupby("variable", observed=True):
        edges = numbers[name].edges
        middles = (edges[:-1] + edges[1:]) / 2
        assert rows["value"].between(edges[0], edges[-1]).all()
        assert rows["value"].isin(middles).all() == (how == "center")


def test_long_records_take_several_contexts(cohort_folder, tmp_path):
    more = ["hparams.n_ctx=64", "train.epochs=2"]
    folder = train(compose("train", train_overrides(cohort_folder, tmp_path, *more)))
    out = generate(settings_for(folder, tmp_path / "out"))
    report = json.loads((out / "generation.json").read_text())
    assert report["segments"] > report["records"] == 40
    assert report["tokens"] > 40 * 64 / 2
    capped = generate(settings_for(folder, tmp_path / "capped", "max_segments=1"))
    report = json.loads((capped / "generation.json").read_text())
    assert report["segments"] == 40
    assert report["records_closed_by_limit"] > 0


def test_seed_decides_and_batch_size_does_not(trained, tmp_path):
    first = generate(settings_for(trained, tmp_path / "a", "seed=1"))
    again = generate(settings_for(trained, tmp_path / "b", "seed=1", "batch_size=7"))
    other = generate(settings_for(trained, tmp_path / "c", "seed=2"))
    assert same(first, again)
    assert not same(first, other)


def test_csv_holds_the_same(trained, tmp_path):
    out = generate(settings_for(trained, tmp_path, "format=csv"))
    stays, codes, measurements = tables(out)
    read = {
        name: pd.read_csv(out / "csv" / f"{name}.csv", dtype={"code": str, "level": str})
        for name in ("stays", "codes", "measurements")
    }
    assert read["stays"]["age"].tolist() == stays["age"].tolist()
    assert read["codes"]["code"].tolist() == codes["code"].tolist()
    assert np.array_equal(read["measurements"]["value"], measurements["value"], equal_nan=True)
    assert read["measurements"]["level"].fillna("").tolist() == (
        measurements["level"].astype(object).fillna("").tolist()
    )


def test_usable_without_the_data_it_was_trained_on(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "models" / "tiny")
    alone = tmp_path / "models" / "tiny"
    out = generate(settings_for(alone, tmp_path / "out"))
    assert same(out, generate(settings_for(trained, tmp_path / "other")))


def test_fixed_covariates_are_those_of_real_patients(trained, cohort_folder, tmp_path):
    out = generate(settings_for(trained, tmp_path, "fix_covars=True", "n_samples=300"))
    tokenizer = Tokenizer.load(trained / "tokenizer.json")
    openings = {
        tuple(opening)
        for opening in first_openings(tokenizer, read_cohort(cohort_folder).select(split="train"))
    }
    made = {tuple(opening) for opening in first_openings(tokenizer, read_cohort(out))}
    assert made <= openings
    assert len(made) > len(openings) / 3
    free = generate(settings_for(trained, tmp_path / "free", "n_samples=300"))
    assert not {tuple(o) for o in first_openings(tokenizer, read_cohort(free))} <= openings


def test_fixed_covariates_that_leave_no_room_are_refused(cohort_folder, tmp_path):
    cut = "preprocess.long_records=truncate"
    overrides = train_overrides(cohort_folder, tmp_path, "hparams.n_ctx=16", "train.epochs=1", cut)
    folder = train(compose("train", overrides))
    openings = first_openings(
        Tokenizer.load(folder / "tokenizer.json"), read_cohort(cohort_folder).select(split="train")
    )
    longest = max(map(len, openings))
    generate(settings_for(folder, tmp_path / "out", "fix_covars=True"))
    module_room = longest + 3
    assert module_room <= 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "first_openings", lambda *_: [np.zeros(14, dtype=np.int64)])
        with pytest.raises(UserError, match="leave room for a record"):
            generate(settings_for(folder, tmp_path / "none", "fix_covars=True"))


def test_openings_end_with_the_labels():
    cohort = small_cohort(10)
    tokenizer = Tokenizer.fit(cohort, TokenSettings())
    for i, opening in enumerate(first_openings(tokenizer, cohort)):
        texts = [tokenizer.vocabulary[token] for token in opening]
        assert texts[0] == "<s>"
        assert texts[-1] == "</label>"
        assert np.array_equal(opening, encode(tokenizer, cohort)[i][: len(opening)])


def test_other_bins_than_the_model_s_are_refused(trained, tmp_path):
    generate(settings_for(trained, tmp_path / "same", "bin_type=uniform"))
    with pytest.raises(UserError, match=r"bin_type=quantile, but the run 'tiny' .* uniform bins"):
        generate(settings_for(trained, tmp_path / "other", "bin_type=quantile"))
    assert not (tmp_path / "other").exists()


def test_patients_made_before_are_not_overwritten(trained, tmp_path):
    generate(settings_for(trained, tmp_path))
    with pytest.raises(UserError, match=r"already holds synthetic patients.*overwrite=True"):
        generate(settings_for(trained, tmp_path, "n_samples=3"))
    assert read_cohort(tmp_path / "tiny").n_patients == 40
    generate(settings_for(trained, tmp_path, "n_samples=3", "overwrite=True"))
    assert read_cohort(tmp_path / "tiny").n_patients == 3


def test_an_interruption_leaves_nothing_behind(trained, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(settings_for(trained, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_batch_beyond_the_memory_is_made_smaller(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_rows_that_fit", lambda model, device: 3)
    out = generate(settings_for(trained, tmp_path, "n_samples=10"))
    assert "Sampling 3 patients side by side" in capsys.readouterr().out
    assert same(out, generate(settings_for(trained, tmp_path / "b", "n_samples=10")))


def test_an_unknown_device_is_named(trained, tmp_path):
    with pytest.raises(UserError, match="device=quantum is not available"):
        generate(settings_for(trained, tmp_path, "device=quantum"))
