"""Every setting of the tokens, typed as a user types it, from raw tables to the report."""

import json

import pytest

from synehrgy.cohort import read_cohort
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.quantities import Digits
from tests.cli.test_road import raw_patients, run
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
        run("evaluate.py", "model=r", *PATHS, cwd=here),
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
    assert (values * 10 % 1 < 1e-9).all()
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
        ],
        ["soft_labels=True"],
        ["generate.value_decoding=uniform", "bin_type=quantile", "max_segments=5"],
    )
    settings = tokenizer.settings
    assert (settings.time, settings.long_records, settings.n_bins) == ("gap", "truncate", 4)
    assert (settings.outlier_rule, settings.min_code_count) == (False, 2)
    assert tokenizer.rules == {"gender": "constant"}
    assert any(text.startswith("gap=(") for text in tokenizer.vocabulary)
    assert "<history>" in tokenizer.vocabulary
    assert not any(text.startswith(("elapsed", "discharge")) for text in tokenizer.vocabulary)
    # Cut off at the context, and closed there.
    assert report["segments"] == 30
    assert "cut off" in said[0]
    last = cohort.measurements.groupby("stay_id")["hours"].max()
    assert cohort.stays["los_hours"].dropna().tolist() == last.tolist()


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
