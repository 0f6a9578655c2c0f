"""The commands of the README, typed as a user types them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synehrgy.cohort import read_cohort
from tests.cohorts import small_cohort, write
from tests.conftest import SHARED
from tests.sources.raw_database import (
    admission,
    chart,
    code,
    lab,
    patient,
    stay,
    write_database,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run a script of the repository from any folder; its output and, after it, its errors."""
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / arguments[0]), *arguments[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == code, result.stdout + result.stderr
    if code:
        assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


def raw_patients(n: int = 60) -> dict:
    """A raw database of patients with one stay each."""
    random = np.random.default_rng(0)
    tables: dict = {
        name: []
        for name in (
            *("PATIENTS", "ADMISSIONS", "ICUSTAYS", "CHARTEVENTS", "LABEVENTS"),
            *("DIAGNOSES_ICD", "PROCEDURES_ICD", "D_ICD_DIAGNOSES"),
        )
    }
    tables["D_ICD_DIAGNOSES"] = [{"icd9_code": c} for c in ("0389", "4019", "78552")]
    for i in range(1, n + 1):
        ids = {"subject_id": i, "hadm_id": 1000 + i}
        in_unit = {**ids, "icustay_id": 2000 + i}
        tables["PATIENTS"].append(patient(i, gender="FM"[i % 2]))
        tables["ADMISSIONS"].append(admission(**ids))
        tables["ICUSTAYS"].append(stay(**in_unit))
        for place, found in enumerate(["0389", "4019", "78552"][: 1 + i % 3], start=1):
            tables["DIAGNOSES_ICD"].append({**code(found, place), **ids})
        for hours in range(1, 8):
            rate = str(int(random.normal(80 + 20 * (i % 2), 5)))
            tables["CHARTEVENTS"].append({**chart(211, rate, hours), **in_unit})
        tables["LABEVENTS"].append({**lab(50912, str(round(random.uniform(0.5, 2), 1))), **ids})
    return tables


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The four commands in order, run from a folder that is not the repository."""
    here = tmp_path_factory.mktemp("road")
    write_database(raw_patients(), here / "raw")
    paths = [f"paths.{name}=results/{name}" for name in ("saved_models", "synthetic", "results")]
    data = ["data=mimic3", "data.path=cohort"]
    said = [
        run("preprocess.py", *data, "data.raw_dir=raw", "preprocess.min_code_count=1", cwd=here),
        run(
            *("train.py", *data, *paths, "run_name=first", "model=gpt_tiny", "train.epochs=3"),
            *("hparams.n_ctx=64", "hparams.mini_batch=8", "hparams.n_accum=1", "device=cpu"),
            cwd=here,
        ),
        run("generate.py", "model=first", *paths, "n_samples=30", "format=csv", cwd=here),
        run("evaluate.py", "model=first", "preset=quick", *paths, cwd=here),
    ]
    return here, said


def test_each_command_says_where_and_what_next(road):
    here, (preprocessed, trained, generated, evaluated) = road
    assert f"Cohort and tokens: {here}/cohort" in preprocessed
    assert "Next: python train.py data=mimic3 run_name=<a name>" in preprocessed
    assert f"data.path={here}/cohort" in preprocessed
    assert "tokens per record by percentile" in preprocessed
    assert f"Model: {here}/results/saved_models/first" in trained
    assert "Next: python generate.py model=first" in trained
    assert "perplexity" in trained
    assert f"Synthetic patients: {here}/results/synthetic/first" in generated
    assert "Next: python evaluate.py model=first" in generated
    assert f"Results: {here}/results/results/first" in evaluated
    for group in ("Validity and clinical consistency", "Fidelity", "Privacy"):
        assert f"{group}: " in evaluated
    assert "Left out: utility, because a cohort of 30 patients is too small" in evaluated
    assert "consistency/any" in evaluated


def test_results_are_where_they_were_asked_for_and_nowhere_else(road):
    here, _ = road
    assert sorted(path.name for path in here.iterdir()) == ["cohort", "raw", "results"]
    assert {path.name for path in (here / "cohort").iterdir()} == {
        *("cohort.json", "stays.parquet", "codes.parquet", "measurements.parquet"),
        *("tokenizer.json", "tokens"),
    }
    assert {path.name for path in (here / "results" / "results" / "first").iterdir()} == {
        "figures",
        *("metrics.json", "report.html", "tables"),
    }


def test_synthetic_patients_open_in_pandas(road):
    here, _ = road
    folder = here / "results" / "synthetic" / "first"
    stays = pd.read_csv(folder / "csv" / "stays.csv")
    assert stays["subject_id"].nunique() == 30
    assert stays["gender"].isin(["F", "M"]).all()
    assert len(read_cohort(folder).stays) == len(stays)


def test_next_command_is_one_that_works(road):
    """What the closing line of generate.py offers can be pasted."""
    here, (_, _, generated, _) = road
    command = generated.split("Next: python ")[1].splitlines()[0].split()
    assert "Results: " in run(*command, cwd=here)


def test_a_run_can_be_evaluated_from_any_folder(road, tmp_path):
    """Paths were relative to the folder of the first command; the run remembers which."""
    here, _ = road
    paths = [f"paths.{name}={here}/results/{name}" for name in ("saved_models", "synthetic")]
    quick = ("preset=quick", "metrics=[structure]")
    said = run("evaluate.py", "model=first", *quick, *paths, "paths.results=~here", cwd=tmp_path)
    assert "structure/worst" in said


def test_a_cohort_of_other_files_is_not_replaced(road):
    here, _ = road
    write_database(raw_patients(40), here / "other (raw)")
    other = ["preprocess.py", "data=mimic3", "data.path=cohort", "data.raw_dir=other (raw)"]
    before = (here / "cohort" / "cohort.json").read_bytes()
    assert f"holds a cohort of {here}/raw, not of {here}/other (raw)" in run(
        *other, cwd=here, code=1
    )
    assert (here / "cohort" / "cohort.json").read_bytes() == before
    elsewhere = [*other[:2], "data.path=cohort (2)", other[3]]
    assert f"data.path='{here}/cohort (2)'" in run(*elsewhere, cwd=here)
    shutil.rmtree(here / "other (raw)")
    shutil.rmtree(here / "cohort (2)")


def test_refusals(road):
    here, _ = road
    paths = ["paths.saved_models=results/saved_models", "paths.synthetic=results/synthetic"]
    generate = ["generate.py", "model=first", *paths]
    assert "already holds synthetic patients" in run(*generate, cwd=here, code=1)
    assert "trained with uniform bins" in run(
        *generate, "bin_type=quantile", "overwrite=True", cwd=here, code=1
    )
    assert "Did you mean 'first'" in run("generate.py", "model=frist", *paths, cwd=here, code=1)
    assert "Did you mean 'n_samples'" in run(*generate, "n_sample=3", cwd=here, code=1)
    assert "batch_size: Value 'many'" in run(*generate, "batch_size=many", cwd=here, code=1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["preprocess.py", "data=mimic3"], "data.raw_dir=<folder of the raw files of mimic3>"),
        (["preprocess.py", "data=mimic3", "data.raw_dir=nowhere"], "nowhere"),
        (["preprocess.py", "data=mimic_3"], "Did you mean 'mimic3'?"),
        (["train.py", "data=mimic3", "data.path=nowhere", "run_name=x"], "Run preprocess.py first"),
        (["train.py", "hparams.nctx=12"], "Did you mean 'hparams.n_ctx'?"),
        (["train.py", "run_name=../x"], "a name has letters"),
        (["generate.py"], "model=... is needed"),
        (["evaluate.py"], "Give either model=<run> or synthetic=<folder of a cohort>"),
        (["evaluate.py", "synthetic=nowhere", "real=nowhere"], "is not a cohort"),
    ],
)
def test_mistakes_are_answered_in_words(arguments, expected, tmp_path):
    assert expected in run(*arguments, cwd=tmp_path, code=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["preprocess", "train", "generate", "evaluate"])
def test_help_reads_well(script, tmp_path):
    said = run(f"{script}.py", "--help", cwd=tmp_path)
    assert said.startswith(f"{script}.py: ")
    assert f"Usage: python {script}.py key=value ..." in said
    assert "paths.results=Results" in said
    assert f"python {script}.py " in said.split("Examples:")[1]


def test_the_whole_configuration_is_printed_as_the_help_says(tmp_path):
    said = run("train.py", "--cfg", "job", "run_name=x", "hparams.n_ctx=77", cwd=tmp_path)
    assert "n_ctx: 77" in said
    assert "Print the whole configuration with --cfg job" in run("train.py", "-h", cwd=tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    """Also in a sweep: words, not a traceback."""
    write(small_cohort(20), tmp_path / "cohort")
    (tmp_path / "file").write_text("not a folder")
    folders = [f"{x}={tmp_path / 'cohort'}" for x in ("real", "synthetic")]
    wrong = [*folders, f"paths.results={tmp_path / 'file'}"]
    assert "file" in run("evaluate.py", *wrong, cwd=tmp_path, code=1)
    models = f"paths.saved_models={tmp_path / 'file'}"
    data = f"data.path={tmp_path / 'cohort'}"
    sweep = ["train.py", "--multirun", "run_name=x", data, models, "model=gpt_tiny"]
    said = run(*sweep, f"paths.results={tmp_path / 'results'}", cwd=tmp_path, code=1)
    assert "Error: " in said


def test_sweeps_run_by_hydra(cohort_folder, tmp_path):
    said = run(
        *("train.py", "--multirun", f"data.path={cohort_folder}", "run_name=s-${seed}"),
        *("seed=1,2", "model=gpt_tiny", "train.epochs=1", "hparams.n_ctx=160", "device=cpu"),
        *(f"paths.saved_models={tmp_path / 'models'}", f"paths.results={tmp_path / 'results'}"),
        cwd=tmp_path,
    )
    assert "Next: python generate.py model=s-2" in said
    seeds = {
        json.loads((tmp_path / "models" / f"s-{n}" / "run.json").read_text())["seed"]
        for n in (1, 2)
    }
    assert seeds == {1, 2}


def test_a_run_that_fails_does_not_end_a_sweep(cohort_folder, tmp_path):
    said = run(
        *("train.py", "--multirun", f"data.path={cohort_folder}", "run_name=n-${hparams.n_ctx}"),
        *("hparams.n_ctx=16,160", "model=gpt_tiny", "train.epochs=1", "device=cpu"),
        *(f"paths.saved_models={tmp_path / 'models'}", f"paths.results={tmp_path / 'results'}"),
        cwd=tmp_path,
        code=1,
    )
    assert "n_ctx=16" in said
    assert "1 of the runs failed" in said
    assert (tmp_path / "models" / "n-160" / "model.safetensors").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the open MIMIC-III demo is not beside the project")
def test_readme_commands_on_the_open_demo(tmp_path):
    """The two published commands, word for word, after preprocess.py of real raw files.

    Only where results go, the number of patients, the length of training and that of records are
    added, so that they take a minute: a model that has hardly begun knows no end.
    """
    data = f"data.path={tmp_path / 'cohort'}"
    paths = [f"paths.{x}={tmp_path / x}" for x in ("saved_models", "synthetic", "results")]
    said = run(
        *("preprocess.py", "data=mimic3", f"data.raw_dir={SHARED / 'data' / 'mimic3-demo'}"),
        *(f"data.split_dir={SHARED / 'data' / 'benchmark-splits'}", data),
        cwd=tmp_path,
    )
    assert "105,775" in said
    run(
        *("train.py", "hparams.n_ctx=1024", "hparams.mini_batch=64", "run_name=synehrgy-mimic"),
        *("data=mimic3", "preprocess.bin_type=uniform", "model=gpt", "soft_labels=False"),
        *(data, *paths, "train.epochs=1"),
        cwd=tmp_path,
    )
    run(
        *("generate.py", 'model="synehrgy-mimic"', "n_samples=30000", "bin_type=uniform"),
        *("fix_covars=False", "batch_size=1024", *paths, "n_samples=4", "format=csv"),
        "max_segments=2",
        cwd=tmp_path,
    )
    said = run("evaluate.py", "model=synehrgy-mimic", "preset=quick", *paths, cwd=tmp_path)
    assert "consistency/any" in said
    results = tmp_path / "results" / "synehrgy-mimic"
    metrics = json.loads((results / "metrics.json").read_text())
    real = read_cohort(tmp_path / "cohort").select(split="test")
    assert len(real.stays) == 18
    assert metrics["patients"]["test"] == real.n_patients
    assert metrics["patients"]["synthetic"] == 4
    # Real patients are people: none is shown.
    shown = (results / "tables" / "examples_facts.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in shown[1:]} == {"synthetic"}
    assert "Heart Rate" in (results / "tables" / "series_summary.csv").read_text()
