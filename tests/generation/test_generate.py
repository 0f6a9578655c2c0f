"""From a run to a cohort on disk."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.errors import UserError
from synehrgy.files import REPOSITORY
from synehrgy.generation import generate as module
from synehrgy.generation import jobs
from synehrgy.generation.generate import generate
from synehrgy.generation.jobs import FIRST_ID, WEIGHTS_FILE, first_openings
from synehrgy.generation.sampler import sample
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode, find_faults
from synehrgy.training.loop import train
from tests.cohorts import small_cohort, write
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
        name: pd.read_csv(
            out / "csv" / f"{name}.csv",
            dtype={"code": str, "level": str},
            float_precision="round_trip",
        )
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
        patch.setattr(jobs, "first_openings", lambda *_: [np.zeros(14, dtype=np.int64)])
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


def watch(monkeypatch, stop_after=None):
    """Note the patients that are asked for; interrupt after so many are drawn."""
    asked = []

    def watched(model, tokenizer, patients, **how):
        patients = [*patients]
        asked.extend(patients)
        for n, one in enumerate(sample(model, tokenizer, patients, **how)):
            if n == stop_after:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(jobs, "sample", watched)
    return asked


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of 8 patients, of which 20 make three."""
    monkeypatch.setattr(jobs.Job, "part_size", 8)


def interrupt(settings, after=14):
    with pytest.MonkeyPatch.context() as patch:
        asked = watch(patch, after)
        with pytest.raises(KeyboardInterrupt):
            generate(settings)
    return asked


TWENTY = ["n_samples=20", "batch_size=4"]


def test_an_interrupted_generation_goes_on(trained, tmp_path, monkeypatch, small_parts, capsys):
    expected = generate(settings_for(trained, tmp_path / "whole", *TWENTY))
    settings = settings_for(trained, tmp_path / "a", *TWENTY)
    assert interrupt(settings) == list(range(20))
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".tiny.parts"]
    there = sorted((tmp_path / "a" / ".tiny.parts").glob("*.parquet"))
    assert 0 < len(there) < 3
    before = [file.stat().st_mtime_ns for file in there]
    capsys.readouterr()
    n_there = sum(8 if int(file.stem) < 2 else 4 for file in there)
    asked = watch(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        generate(settings)
    assert len(asked) == 20 - n_there
    assert [file.stat().st_mtime_ns for file in there] == before
    asked = watch(monkeypatch)
    out = generate(settings)
    assert f"Going on: {n_there} of 20 patients are there already" in capsys.readouterr().out
    assert len(asked) == 20 - n_there
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["tiny"]
    assert same(out, expected)
    reports = [json.loads((path / "generation.json").read_text()) for path in (out, expected)]
    for name in ("records", "tokens", "segments", "records_begun", "stays", "acceptance_rate"):
        assert reports[0][name] == reports[1][name]


def test_all_that_is_drawn_is_decoded_after_an_interruption(trained, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    settings = settings_for(trained, tmp_path / "a", "n_samples=10")
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate(settings)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".tiny.parts"]
    asked = watch(monkeypatch)
    out = generate(settings)
    assert asked == []
    assert same(out, generate(settings_for(trained, tmp_path / "b", "n_samples=10")))


@pytest.mark.parametrize(
    "change", ["seed=3", "condition.gender=F", "temperature=0.9", "n_samples=21", "run_name"]
)
def test_parts_of_other_patients_are_thrown_away(
    trained, tmp_path, monkeypatch, small_parts, change
):
    models = trained.parent
    interrupt(settings_for(trained, tmp_path / "a", *TWENTY))
    if change == "run_name":
        # Another model of the same name.
        models = tmp_path / "models"
        shutil.copytree(trained, models / "tiny")
        file = models / "tiny" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + bytes(4))
    more = [f"paths.saved_models={models}", *([change] if "=" in change else [])]
    asked = watch(monkeypatch)
    out = generate(settings_for(trained, tmp_path / "a", *TWENTY, *more))
    assert asked == list(range(21 if change == "n_samples=21" else 20))
    assert same(out, generate(settings_for(trained, tmp_path / "b", *TWENTY, *more)))


def test_parts_hold_for_any_batch_and_format(trained, tmp_path, monkeypatch, small_parts):
    interrupt(settings_for(trained, tmp_path / "a", *TWENTY))
    asked = watch(monkeypatch)
    generate(settings_for(trained, tmp_path / "a", "n_samples=20", "batch_size=9", "format=csv"))
    assert 0 < len(asked) < 20
    assert (tmp_path / "a" / "tiny" / "csv" / "stays.csv").exists()


def test_a_damaged_part_is_drawn_again(trained, tmp_path, monkeypatch, small_parts):
    interrupt(settings_for(trained, tmp_path / "a", *TWENTY))
    for file in (tmp_path / "a" / ".tiny.parts").glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:50])
    asked = watch(monkeypatch)
    out = generate(settings_for(trained, tmp_path / "a", *TWENTY))
    assert asked == list(range(20))
    assert same(out, generate(settings_for(trained, tmp_path / "b", *TWENTY)))


def test_more_attempts_lose_nothing(trained, tmp_path, monkeypatch, small_parts):
    settings = [*TWENTY, "condition.gender=F"]
    interrupt(settings_for(trained, tmp_path / "a", *settings))
    asked = watch(monkeypatch)
    generate(settings_for(trained, tmp_path / "a", *settings, "condition.max_attempts=20000"))
    assert 0 < len(asked) < 20


def test_an_interruption_says_how_many_are_kept(trained, tmp_path, small_parts, capsys):
    interrupt(settings_for(trained, tmp_path / "a", *TWENTY), after=3)
    said = capsys.readouterr().out
    kept = len(list((tmp_path / "a" / ".tiny.parts").glob("*.parquet")))
    assert kept == 0
    assert "0 patients are kept" in said


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ("condition.hours=12", "mode=forecast"),
        ("n_resample=7", "mode=forecast"),
        ("condition.split=test", "fix_covars=True"),
        ("condition.share=0.3", "condition.balance"),
    ],
)
def test_what_would_have_no_effect_is_refused(trained, tmp_path, given, needs):
    with pytest.raises(UserError, match=f"{given.split('=')[0]} has no effect without {needs}"):
        generate(settings_for(trained, tmp_path, given))


def test_a_format_that_cannot_be_is_refused_before_anything_is_drawn(
    tmp_path_factory, tmp_path, monkeypatch
):
    cohort = small_cohort(30)
    schema = replace(cohort.schema, labels=cohort.schema.labels[1:])
    stays = cohort.stays.drop(columns="in_hospital_mortality")
    folder = tmp_path_factory.mktemp("cohort") / "no_outcome"
    write(replace(cohort, schema=schema, stays=stays), folder)
    overrides = train_overrides(folder, tmp_path / "models", "train.epochs=1")
    run = train(compose("train", overrides))
    asked = watch(monkeypatch)
    with pytest.raises(UserError, match="no label 'in_hospital_mortality'"):
        generate(settings_for(run, tmp_path, "format=benchmark", "n_samples=2"))
    assert asked == []


def torchrun(overrides):
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *(str(REPOSITORY / "generate.py"), *overrides),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        cwd=REPOSITORY,
    )


def overrides_for(trained, synthetic, *more):
    folders = [f"paths.saved_models={trained.parent}", f"paths.synthetic={synthetic}"]
    return ["model=tiny", *folders, "device=cpu", *more]


def assert_same_bytes(first, second):
    for name in ("stays", "codes", "measurements"):
        file = f"{name}.parquet"
        assert (first / file).read_bytes() == (second / file).read_bytes()


@pytest.mark.parametrize(
    "more",
    [
        ["n_samples=270"],
        # Of a single part one process has nothing to do.
        ["n_samples=12", "condition.labels=[shock]"],
        ["n_samples=270", "condition.balance=in_hospital_mortality", "condition.gender=F"],
    ],
)
def test_two_processes_make_what_one_does(trained, tmp_path, more):
    result = torchrun(overrides_for(trained, tmp_path / "two", *more))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Next: python evaluate.py") == 1
    one = generate(settings_for(trained, tmp_path / "one", *more))
    two = tmp_path / "two" / "tiny"
    assert_same_bytes(two, one)
    reports = [json.loads((path / "generation.json").read_text()) for path in (one, two)]
    assert [report["processes"] for report in reports] == [1, 2]
    own = {"config", "seconds", "started", "processes"}
    assert {k: v for k, v in reports[0].items() if k not in own} == {
        k: v for k, v in reports[1].items() if k not in own
    }
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["tiny"]
    if (one / WEIGHTS_FILE).exists():
        assert (one / WEIGHTS_FILE).read_bytes() == (two / WEIGHTS_FILE).read_bytes()


def test_two_processes_that_fail_leave_no_half_cohort(trained, tmp_path):
    more = ["n_samples=300", "condition.codes_all=['4280','4019','E8788']"]
    result = torchrun(
        overrides_for(trained, tmp_path, *more, "condition.max_attempts=1", "batch_size=64")
    )
    assert result.returncode
    assert "condition.max_attempts" in result.stderr
    assert not (tmp_path / "tiny").exists()


def test_tables_do_not_depend_on_the_parts(trained, tmp_path, monkeypatch):
    more = ["n_samples=30", "condition.balance=shock", "condition.share=0.2"]
    expected = generate(settings_for(trained, tmp_path / "a", *more))
    monkeypatch.setattr(jobs.Job, "part_size", 7)
    out = generate(settings_for(trained, tmp_path / "b", *more, "batch_size=5"))
    assert same(out, expected)
    ours, theirs = (pd.read_parquet(path / WEIGHTS_FILE) for path in (out, expected))
    assert ours.equals(theirs)
    assert ours["has"].sum() == 6
    assert ours["weight"].sum() == pytest.approx(30)


def test_conditions_are_counted(trained, tmp_path):
    more = ["condition.gender=F", "condition.age=50-", "condition.codes_any=['4280','99592']"]
    out = generate(settings_for(trained, tmp_path, *more))
    stays = read_cohort(out).stays
    first = stays[stays["stay_index"] == 0]
    assert (first["gender"] == "F").all()
    assert (first["age"] > 50).all()
    codes = read_cohort(out).codes
    found = codes[codes["code"].isin(["4280", "99592"])]["stay_id"]
    assert first["stay_id"].isin(found).all()
    report = json.loads((out / "generation.json").read_text())
    assert report["records"] == 40 < report["records_begun"]
    assert report["acceptance_rate"] == 40 / report["records_begun"]
    assert 0 < report["probability"] < report["acceptance_rate"]
    assert report["config"]["condition"]["covariates"] == {"gender": "F", "age": "50-"}


def test_as_many_patients_as_rows(trained, tmp_path):
    table = tmp_path / "wanted.csv"
    table.write_text("gender,shock\nF,1\nM,\nF,0\n")
    one_each = [f"condition.table={table}", "n_samples=null"]
    stays = read_cohort(generate(settings_for(trained, tmp_path / "a", *one_each))).stays
    first = stays[stays["stay_index"] == 0]
    assert first["gender"].tolist() == ["F", "M", "F"]
    assert first["shock"].tolist()[::2] == [1, 0]
    assert compose("generate", ["model=tiny"]).n_samples is None
    table.write_text("gander\nF\n")
    with pytest.raises(UserError, match=r"wanted\.csv: column 'gander'"):
        generate(settings_for(trained, tmp_path / "b", *one_each))
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read as a table"):
        generate(settings_for(trained, tmp_path / "b", "condition.table=nowhere.csv"))
    assert not (tmp_path / "b").exists()


def test_a_parquet_table_of_other_content_makes_other_patients(
    trained, tmp_path, monkeypatch, small_parts
):
    table = tmp_path / "wanted.parquet"
    pd.DataFrame({"gender": ["F"]}).to_parquet(table)
    settings = settings_for(trained, tmp_path / "a", *TWENTY, f"condition.table={table}")
    interrupt(settings)
    pd.DataFrame({"gender": ["M"]}).to_parquet(table)
    stays = read_cohort(generate(settings)).stays
    assert (stays["gender"] == "M").all()


def test_a_thousand_patients_are_the_default(trained, tmp_path, monkeypatch):
    asked = watch(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        generate(settings_for(trained, tmp_path, "n_samples=null"))
    assert asked == list(range(1000))


@pytest.mark.parametrize("form", ["meds", "benchmark"])
def test_other_formats_stand_beside_the_tables(trained, tmp_path, form):
    out = generate(settings_for(trained, tmp_path, f"format={form}", "n_samples=6"))
    assert any(path.is_file() for path in (out / form).rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    plain = generate(settings_for(trained, tmp_path / "plain", "n_samples=6"))
    assert_same_bytes(out, plain)


def test_a_format_that_fails_leaves_no_half_cohort(trained, tmp_path, monkeypatch):
    def failing(cohort, folder):
        folder.mkdir()
        raise UserError("no such column")

    settings = settings_for(trained, tmp_path, "format=meds", "n_samples=6")
    with monkeypatch.context() as patch:
        patch.setitem(module.EXPORTS, "meds", failing)
        with pytest.raises(UserError, match="no such column"):
            generate(settings)
    assert [path.name for path in tmp_path.iterdir()] == [".tiny.parts"]
    asked = watch(monkeypatch)
    assert (generate(settings) / "meds").is_dir()
    assert asked == []


def test_a_batch_beyond_the_memory_is_made_smaller(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "rows_that_fit", lambda model: 3)
    out = generate(settings_for(trained, tmp_path, "n_samples=10"))
    assert "Sampling 3 patients side by side" in capsys.readouterr().out
    monkeypatch.undo()
    assert same(out, generate(settings_for(trained, tmp_path / "b", "n_samples=10")))


def test_an_unknown_device_is_named(trained, tmp_path):
    with pytest.raises(UserError, match="device=quantum is not available"):
        generate(settings_for(trained, tmp_path, "device=quantum"))
