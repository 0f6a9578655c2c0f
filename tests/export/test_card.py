"""The card states what is known of a run, and says what is not."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
import yaml

from synehrgy.cli import compose
from synehrgy.comparison.headlines import HEADLINES
from synehrgy.errors import UserError
from synehrgy.evaluation.evaluate import METRICS_FILE, evaluate_run
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.export.architectures import GPT2, OWN
from synehrgy.export.card import FROM_MODEL, FROM_PATIENTS, card_of
from synehrgy.export.facts import EVALUATION_FILE, Facts
from synehrgy.training.checkpoint import load_run
from tests.cohorts import small_cohort, write


@pytest.fixture(scope="module")
def run(trained):
    return load_run(trained, torch.device("cpu"))


def card(run, results=None, architecture=OWN, values=True, **config):
    """The card of a run, some of whose settings are changed."""
    run = replace(run, config=run.config | config)
    return card_of(Facts.of(run, architecture, results, values))


def section(text, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def with_source(run, source):
    """The same run on a cohort that states another source."""
    schema = replace(run.tokenizer.schema, source=source)
    return replace(run, tokenizer=replace(run.tokenizer, schema=schema))


def test_its_head_is_yaml_that_the_hub_knows(run):
    head, text = card(run).removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(head) == {
        "library_name": "transformers",
        "license": "other",
        "tags": ["synehrgy", "electronic-health-records", "synthetic-data", "medical"],
    }
    assert text.startswith("\n# tiny\n")


def test_what_it_was_made_of(run, trained):
    text = card(run)
    data = section(text, "Data")
    # Of 120 patients two in three are train.
    assert "| train | 72 | " in data
    assert "| val | 24 | " in data
    assert "2 covariates, 3 labels, 4 series and 2 code systems" in data
    tokens = section(text, "Tokens")
    assert "| `bin_type` | uniform |" in tokens
    assert f"A vocabulary of {len(run.tokenizer.vocabulary):,} tokens" in tokens
    assert "6 of `icd9_diagnosis`" in tokens
    model = section(text, "Model")
    assert "| `positions` | rotary |" in model
    assert "| `n_kv_head` | 1 |" in model
    about = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    training = section(text, "Training")
    assert f"{about['epochs']}, of which number {about['best_epoch']} is kept" in training
    assert f"{about['val_loss']:.4f} nats per token" in training
    assert "| seed | 0 |" in training
    assert f"torch {about['versions']['torch']}" in training
    assert "| codes | " in training


def test_every_section_says_what_is_not_known(run, tmp_path):
    gone = run.config["data"] | {"path": str(tmp_path)}
    text = card(run, tmp_path, data=gone)
    assert "**The size of the training data is not stated**" in section(text, "Data")
    assert "**Not evaluated.**" in section(text, "Evaluation")
    assert "**No privacy was measured.** Neither membership nor memorisation" in section(
        text, "Privacy"
    )
    # Nor is that of another cohort in its place.
    write(small_cohort(60), tmp_path / "cohort")
    other = run.config["data"] | {"path": str(tmp_path / "cohort")}
    assert "is not stated" in section(card(run, data=other), "Data")


def test_use(run):
    own, gpt2 = section(card(run), "Use"), section(card(run, architecture=GPT2), "Use")
    for text in (own, gpt2):
        assert "**Warning: `generate` of transformers knows no grammar.**" in text
        assert "python generate.py model=my-model n_samples=1000" in text
    assert own.count("trust_remote_code=True") == 3
    assert "trust_remote_code" not in gpt2
    forecaster = card(run, mode="fcast")
    assert "mode=forecast data.path=<a cohort>" in section(forecaster, "Use")
    assert "trained to forecast" in section(forecaster, "Use")
    assert "| asked | futures of stays |" in section(forecaster, "Training")


def test_terms_follow_the_data(run, trained, tmp_path):
    def terms(run, source="cohort", before=None):
        # Not the name in the configuration decides, but what the cohort said of itself.
        shutil.copytree(trained, tmp_path / source, dirs_exist_ok=True)
        about = json.loads((trained / "run.json").read_text())
        assert about["simulated"] is False
        about["simulated"] = source == "simulated"
        (tmp_path / source / "run.json").write_text(json.dumps(about))
        data = run.config["data"] | {"source": "simulated"}
        told = card(replace(run, path=tmp_path / source), data=data, use_pretrained=before)
        return section(told, "Before you share or use it")

    mimic = with_source(run, "mimic3")
    for source in ("mimic3", "cohort"):
        assert "PhysioNet Credentialed Health Data Use Agreement" in terms(mimic, source)
        assert "Do not publish it without permission" in terms(mimic, source)
    assert "MIMIC" not in terms(run)
    assert "The terms of the hospital" in terms(run)
    simulated = terms(mimic, "simulated")
    assert "nobody in its training data ever lived" in simulated
    assert "Do not publish" not in simulated
    # What it began with may have seen real patients.
    tuned = terms(mimic, "simulated", before="synehrgy-mimic")
    assert "Do not publish it without permission" in tuned
    assert "another run, `synehrgy-mimic`" in tuned
    assert "Credentialed" in terms(with_source(run, "eicu"))
    assert "Johnson et al." in section(card(mimic), "Cite")
    assert "Johnson et al." not in section(card(run), "Cite")


def test_what_else_the_vocabulary_tells(run):
    assert "keeps quantiles" in card(run)
    assert "and quantiles of its values" in card(run)
    without = card(run, values=False)
    assert "without quantiles" in without
    assert "and quantiles of its values" not in without
    kept = replace(run.tokenizer, settings=replace(run.tokenizer.settings, rare_codes="keep"))
    assert "rarer than `min_code_count` are named" in card(replace(run, tokenizer=kept))
    assert "rarer than `min_code_count`" not in card(run)


def test_runs_for_audits_and_parts_of_the_data(run):
    train = run.config["train"]
    text = card(run, train=train | {"canaries": 200, "ratio": 0.25})
    assert "**200 made-up patients (canaries)" in section(text, "Training")
    assert "a share of 0.25 was used" in section(text, "Data")


def test_a_training_that_was_stopped(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "tiny")
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for key in ("epochs", "best_epoch", "val_loss", "val_perplexity", "seconds"):
        del about[key]
    (folder / "run.json").write_text(json.dumps(about | {"finished": None}))
    run = load_run(folder, torch.device("cpu"))
    assert "| ended | stopped before its end |" in card(run)
    (folder / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        card(run)
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="no epoch of the training is known"):
        card(run)


def test_the_metrics_of_privacy_are_all_known():
    mine = [metric for metric in all_metrics() if metric.group == "privacy"]
    assert {metric.name for metric in mine} == {*FROM_PATIENTS, *FROM_MODEL}
    assert {metric.name for metric in mine if "model" in metric.needs} == set(FROM_MODEL)
    assert EVALUATION_FILE == METRICS_FILE


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    """An evaluation of the run, of patients that somebody else made."""
    place = tmp_path_factory.mktemp("evaluated")
    write(small_cohort(30, seed=5), place / "synthetic" / "tiny")
    paths = [f"paths.{name}={place / name}" for name in ("synthetic", "results")]
    given = ["model=tiny", "preset=quick", f"paths.saved_models={trained.parent}", *paths]
    # Less to wait for; such a part of an evaluation has a name of its own.
    part = "metrics=[codes,series,consistency,membership,memorisation,model_attacks]"
    folder, _ = evaluate_run(compose("evaluate", [*given, part]))
    folder.rename(folder.with_name("tiny"))
    return place / "results"


def changed(results, tmp_path, change):
    """The same evaluation with something changed in it."""
    content = json.loads((results / "tiny" / METRICS_FILE).read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / METRICS_FILE).write_text(json.dumps(content))
    return tmp_path


def test_its_evaluation(run, results):
    text = card(run, results)
    scores = json.loads((results / "tiny" / METRICS_FILE).read_text(encoding="utf-8"))["scores"]
    value = {(s["score"], s["row"]): s["value"] for s in scores}
    evaluation = section(text, "Evaluation")
    assert "30 patients from the sampler" in evaluation
    wanted = ("codes/pairs_error", "series/ks", "consistency/any")
    assert set(wanted) <= {headline.score for headline in HEADLINES}
    for score in wanted:
        line = next(line for line in evaluation.splitlines() if f"`{score}`" in line)
        assert f"| {value[score, 'synthetic']:.3f} |" in line
        assert line.endswith(f"| {value[score, 'test']:.3f} |")
    privacy = section(text, "Privacy")
    for score in ("membership/nearest/auroc", "memorisation/run/auroc", "model_attacks/loss/auroc"):
        assert f"| `{score}` | {value[score, 'synthetic']:.3f} |" in privacy
    assert not re.search(r"\bnan\b|None", text)
    assert "- `shadow`: " in privacy
    assert "- `membership`: " not in privacy
    assert "No attack that knows the model was tried" not in privacy


def test_attacks_that_are_missing_are_missed(run, results, tmp_path):
    def drop(content):
        content["scores"] = [s for s in content["scores"] if s["metric"] != "model_attacks"]

    privacy = section(card(run, changed(results, tmp_path, drop)), "Privacy")
    assert "**No attack that knows the model was tried**" in privacy
    assert "- `model_attacks`: " in privacy
    assert "`membership/nearest/auroc`" in privacy


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(made="2001-01-01T00:00:00+00:00"),
        lambda content: content["config"].update(run_name=None),
    ],
    ids=["of an earlier run", "of another cohort"],
)
def test_an_evaluation_of_something_else_is_not_taken(change, run, results, tmp_path):
    text = card(run, changed(results, tmp_path, change))
    assert "**Not evaluated.**" in text
    assert "**No privacy was measured.**" in text


def test_an_evaluation_of_forecasts(run, results, tmp_path):
    def forecasts(content):
        del content["scores"]
        content |= {"split": "test", "metrics": {"labels/auroc": 0.75, "labels/brier": None}}

    folder = changed(results, tmp_path, forecasts)
    assert "**Not evaluated.**" in card(run, folder, mode="fcast")
    # Under the name that futures have.
    (folder / "tiny").rename(folder / "tiny-24h")
    text = card(run, folder, mode="fcast")
    assert "Forecasts of stays of test." in section(text, "Evaluation")
    assert "| `labels/auroc` | 0.750 |" in section(text, "Evaluation")
    assert "**No privacy was measured.**" in text
