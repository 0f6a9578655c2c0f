"""Every setting of the tokens, typed as a user types it, from raw tables to the report."""

import json

import numpy as np
import pytest

from synehrgy.cohort import Covariate, Schema, Variable, read_cohort
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.quantities import Digits
from tests.cli.test_road import raw_patients, run
from tests.cohorts import build, write
from tests.sources.raw_database import write_database

PATHS = [f"paths.{name}=results/{name}" for name in ("saved_models", "synthetic", "results")]
SMALL = [
    *("model=gpt_tiny", "hparams.n_ctx=96", "hparams.mini_batch=16", "hparams.n_accum=1"),
    *("hparams.lr=3e-3", "train.epochs=3", "device=cpu"),
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw")
    write_database(raw_patients(), path)
    return path


def travel(here, raw, preprocess=(), train=(), generate=()):
    """All four commands; the tokenizer of the run, what was generated, and what was said."""
    data = ["data=mimic3", "data.path=cohort"]
    said = [
        run("preprocess.py", *data, f"data.raw_dir={raw}", *preprocess, cwd=here),
        run("train.py", *data, "run_name=r", *SMALL, *PATHS, *train, cwd=here),
        run("generate.py", "model=r", "n_samples=30", *PATHS, *generate, cwd=here),
        run("evaluate.py", "model=r", "preset=quick", *PATHS, cwd=here),
    ]
    assert (here / "results" / "results" / "r" / "report.html").exists()
    tokenizer = Tokenizer.load(here / "results" / "saved_models" / "r" / "tokenizer.json")
    out = here / "results" / "synthetic" / "r"
    cohort = read_cohort(out)
    assert cohort.n_patients == 30
    return tokenizer, cohort, json.loads((out / "generation.json").read_text()), said


def test_digits_every_code_and_no_series_shuffled(tmp_path, raw):
    tokenizer, cohort, report, said = travel(
        tmp_path,
        raw,
        ["preprocess.bin_type=raw", "preprocess.rare_codes=keep", "preprocess.count_codes_in=all"],
        ["label_shuffle=True", "code_shuffle=True", "ts_shuffle=True", "mask_prob=0.1"],
        ["bin_type=raw", "label_contradictions=count"],
    )
    digits = tokenizer.variable_numbers["Creatinine"]
    assert digits == Digits(decimals=1, places=2, negative=False)
    assert tokenizer.free_order == ["labels", "series"]
    values = cohort.measurements.query("variable == 'Creatinine'")["value"]
    assert len(values) > 0
    assert values.equals(values.round(1))
    # Records go on beyond the context of 96 tokens.
    assert report["segments"] > report["records"]
    assert report["config"]["label_contradictions"] == "count"
    assert "vocabulary of" in said[0]


def test_as_published(tmp_path, raw):
    tokenizer, cohort, report, said = travel(
        tmp_path,
        raw,
        [
            *("preprocess.bin_type=quantile", "preprocess.n_bins=4", "preprocess.time=gap"),
            *("preprocess.outlier_rule=False", "preprocess.long_records=truncate"),
            *("preprocess.min_code_count=2", "preprocess.within_patient.age=free"),
            "preprocess.gap_edges=[0,2,4,24]",
        ],
        ["soft_labels=True"],
        ["generate.value_decoding=uniform", "bin_type=quantile", "max_segments=5"],
    )
    settings = tokenizer.settings
    assert (settings.time, settings.long_records, settings.n_bins) == ("gap", "truncate", 4)
    assert (settings.outlier_rule, settings.min_code_count) == (False, 2)
    assert tokenizer.rules == {"gender": "constant"}
    gaps = [text for text in tokenizer.vocabulary if text.startswith("gap")]
    assert gaps == ["gap=(0, 2] h", "gap=(2, 4] h", "gap=(4, 24] h"]
    assert "<history>" in tokenizer.vocabulary
    assert not any(text.startswith(("elapsed", "discharge")) for text in tokenizer.vocabulary)
    # Cut off at the context, and closed there.
    assert report["segments"] == 30
    assert "cut off" in said[0]
    last = cohort.measurements.groupby("stay_id")["hours"].max()
    assert len(last) > 0
    assert cohort.stays["los_hours"].dropna().tolist() == last.tolist()


def test_mistakes_are_found_before_the_events_are_read(tmp_path, raw):
    data = ["data=mimic3", "data.path=cohort", f"data.raw_dir={raw}"]
    for override, message in (
        ("preprocess.variables.Glucos.n_bins=3", "Did you mean 'Glucose'"),
        ("preprocess.within_patient.age=falling", "is none of rising, constant, free"),
        ("preprocess.gap_edges=[0,5,2]", "ascending"),
    ):
        said = run("preprocess.py", *data, override, cwd=tmp_path, code=1)
        assert message in said
        assert "CHARTEVENTS" not in said
        assert list(tmp_path.iterdir()) == []


def test_training_says_what_other_tokens_lose(tmp_path, raw):
    data = ["data=mimic3", "data.path=cohort"]
    run("preprocess.py", *data, f"data.raw_dir={raw}", cwd=tmp_path)
    rarer = ["preprocess.min_code_count=50", "train.epochs=1"]
    said = run("train.py", *data, "run_name=r", *SMALL, *PATHS, *rarer, cwd=tmp_path)
    assert "codes not in the vocabulary" in said


def test_exceptions_parents_and_training_that_asks_for_other_tokens(tmp_path, raw):
    tokenizer, cohort, report, _ = travel(
        tmp_path,
        raw,
        [
            "preprocess.variables={Heart Rate: {edges: [0.0, 80.0, 200.0]}}",
            *("preprocess.rare_codes=parent", "preprocess.min_code_count=10"),
            "preprocess.covariate_edges.age=[18,50,90]",
        ],
        ["preprocess.variables.Creatinine.bin_type=raw", "ignore_ts=True", "seed=3"],
        ["value_decoding=center", "max_segments=1"],
    )
    edges = Tokenizer.load(tmp_path / "cohort" / "tokenizer.json").variable_numbers["Heart Rate"]
    assert edges.edges.tolist() == [0.0, 80.0, 200.0]
    # What training asks for replaces the exceptions, not the rest.
    assert list(tokenizer.settings.variables) == ["Creatinine"]
    assert tokenizer.settings.rare_codes == "parent"
    assert tokenizer.covariate_numbers["age"].edges.tolist() == [18.0, 50.0, 90.0]
    assert report["config"]["max_segments"] == 1
    assert report["segments"] == 30
    # Trained without series, so none are drawn.
    assert tokenizer.no_series
    assert len(cohort.measurements) == 0
    assert cohort.stays["age"].isin([34.0, 70.0]).all()


def test_a_cohort_of_another_hospital(tmp_path):
    """Seven series, no codes, no labels, covariates that are missing, no length of stay."""
    names = [f"series {i}" for i in range(7)]
    schema = Schema(
        "elsewhere",
        "own",
        covariates=[
            Covariate("bmi", "continuous", unit="kg/m2"),
            Covariate("ward", "categorical", levels=["A", "B", "C"]),
        ],
        variables=[Variable(name, "continuous") for name in names],
    )
    rng = np.random.default_rng(0)
    stays, rows = [], []
    for i in range(60):
        bmi = None if i % 7 == 0 else round(float(rng.normal(26, 4)), 1)
        ward = None if i % 5 == 0 else "ABC"[i % 3]
        stays.append((i, i, None, 0, ("train", "train", "val", "test")[i % 4], bmi, ward, None))
        for hours in range(6):
            measured = sorted(rng.choice(names, 3, replace=False))
            rows += [
                (i, float(hours), n, round(float(rng.normal(5, 1)), 2), None) for n in measured
            ]
    write(build(schema, stays, [], rows), tmp_path / "own")
    data = ["data=cohort", "data.path=own"]
    edges = "preprocess.covariate_edges.bmi=[15,20,25,30,60]"
    said = run("preprocess.py", *data, edges, "preprocess.n_bins=4", cwd=tmp_path)
    assert "data=cohort" in said
    run("train.py", *data, "run_name=r", *SMALL, *PATHS, cwd=tmp_path)
    said = run("generate.py", "model=r", "n_samples=20", *PATHS, cwd=tmp_path)
    assert "20 patients" in said
    run("evaluate.py", "model=r", "preset=quick", *PATHS, cwd=tmp_path)
    cohort = read_cohort(tmp_path / "results" / "synthetic" / "r")
    assert cohort.schema.variables == schema.variables
    assert cohort.stays["los_hours"].isna().all()
    tokenizer = Tokenizer.load(tmp_path / "results" / "saved_models" / "r" / "tokenizer.json")
    assert "ward=missing" in tokenizer.vocabulary
    assert tokenizer.covariate_numbers["bmi"].edges.tolist() == [15.0, 20.0, 25.0, 30.0, 60.0]
