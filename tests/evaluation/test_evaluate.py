"""Two folders to a folder of results."""

import json
import shutil

import pandas as pd
import pytest
import torch
import yaml

from synehrgy.cli import compose
from synehrgy.cohort import CodeSystem, Schema
from synehrgy.errors import UserError
from synehrgy.evaluation.evaluate import evaluate_run, summary
from synehrgy.evaluation.metric import GROUPS
from synehrgy.evaluation.report import number
from synehrgy.generation.jobs import real_cohort
from synehrgy.training.checkpoint import load_run
from tests.cohorts import build, small_cohort, write

FEW = "metrics=[consistency,structure,shadow]"
NAME = "run-consistency-structure-shadow"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real cohort with splits, and a synthetic one without."""
    path = tmp_path_factory.mktemp("evaluation")
    write(small_cohort(40), path / "real")
    synthetic = small_cohort(15, seed=1)
    synthetic.stays["split"] = None
    write(synthetic, path / "synthetic" / "run")
    return path


def config_of(folder, *more, results="results"):
    paths = [f"paths.{name}={folder / name}" for name in ("synthetic", "saved_models")]
    results = f"paths.results={folder / results}"
    return compose("evaluate", [*paths, results, FEW, "preset=quick", *more])


def both(folder):
    return f"synthetic={folder / 'synthetic/run'}", f"real={folder / 'real'}"


@pytest.fixture(scope="module")
def done(folder):
    """The folder of an evaluation and what was found."""
    return evaluate_run(config_of(folder, *both(folder)))


def test_a_split_that_the_real_cohort_lacks(tmp_path):
    only_train = small_cohort(10)
    only_train.stays["split"] = "train"
    write(only_train, tmp_path / "real")
    same = [f"{name}={tmp_path / 'real'}" for name in ("real", "synthetic")]
    with pytest.raises(UserError, match=r"no stay in split 'test'; it has train \(\d+\)"):
        evaluate_run(config_of(tmp_path, *same))


def refuse_nan(name):
    raise AssertionError(f"{name} is not JSON")


def test_results_lie_under_the_name_of_the_cohort(done, folder):
    out, _ = done
    assert out == folder / "results" / NAME
    found = sorted(p.name for p in out.iterdir())
    assert {"metrics.json", "report.html", "tables"} <= set(found)
    # Nothing is left beside them.
    assert [p.name for p in out.parent.iterdir()] == [NAME]


def test_metrics_are_json_and_say_what_was_compared(done, folder):
    out, found = done
    content = json.loads((out / "metrics.json").read_text(), parse_constant=refuse_nan)
    assert content["real"] == str(folder / "real")
    assert content["synthetic"] == str(folder / "synthetic" / "run")
    assert content["versions"]["synehrgy"]
    assert content["config"]["synthetic"] == content["synthetic"]
    assert content["patients"]["synthetic"] == 15
    assert content["skipped"] == found.skipped != {}
    back = pd.DataFrame(content["scores"])
    assert back["score"].tolist() == found.scores["score"].tolist()
    expected = found.scores["value"].tolist()
    assert back["value"].astype(float).tolist() == pytest.approx(expected, nan_ok=True)


def test_tables_come_back_from_csv(done):
    out, found = done
    for name, expected in found.tables.items():
        table = pd.read_csv(out / "tables" / f"{name}.csv", dtype=str, keep_default_na=False)
        assert table.columns.tolist() == expected.columns.tolist()
        assert len(table) == len(expected)


def test_the_split_that_was_held_out_can_be_chosen(folder):
    real = small_cohort(40)
    config = config_of(folder, *both(folder), "split=val", results="val")
    assert evaluate_run(config)[1].patients["test"] == real.select(split="val").n_patients


def test_an_oracle_is_a_row_of_its_own(folder):
    write(small_cohort(12, seed=2), folder / "fresh")
    config = config_of(folder, *both(folder), f"oracle={folder / 'fresh'}", results="oracle")
    found = evaluate_run(config)[1]
    assert found.patients["oracle"] == 12
    assert "oracle" in set(found.scores["row"])


def test_an_interrupted_evaluation_goes_on(folder, monkeypatch):
    from synehrgy.evaluation.metrics.structure import Structure

    config = config_of(folder, *both(folder), results="stopped")
    measure = Structure.measure

    def stop(self, bench, row):
        if row == "marginals":
            raise KeyboardInterrupt
        return measure(self, bench, row)

    monkeypatch.setattr(Structure, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(config)
    results = folder / "stopped"
    assert [p.name for p in results.iterdir()] == [f".{NAME}.parts"]
    asked = []

    def note(self, bench, row):
        asked.append(row)
        return measure(self, bench, row)

    monkeypatch.setattr(Structure, "measure", note)
    evaluate_run(config)
    assert asked == ["marginals", "train"]
    assert [p.name for p in results.iterdir()] == [NAME]


def test_a_run_is_compared_with_what_it_was_trained_on(folder):
    trained = folder / "saved_models" / "run" / "config.yaml"
    trained.parent.mkdir(parents=True, exist_ok=True)
    trained.write_text(f"data:\n  path: {folder / 'real'}\n")
    out, found = evaluate_run(config_of(folder, "model=run", results="by_run"))
    assert out == folder / "by_run" / NAME
    assert found.real == "small"


def test_results_are_replaced_but_nothing_else(folder):
    more = both(folder)
    out, _ = evaluate_run(config_of(folder, *more, results="again"))
    (out / "tables" / "consistency_rules.csv").unlink()
    evaluate_run(config_of(folder, *more, results="again"))
    assert (out / "tables" / "consistency_rules.csv").exists()
    (out / "metrics.json").unlink()
    with pytest.raises(UserError, match="not written by this program"):
        evaluate_run(config_of(folder, *more, results="again"))


@pytest.mark.parametrize("given", [[], ["model=run", "synthetic={folder}/synthetic/run"]])
def test_either_a_run_or_a_folder_is_needed(folder, given):
    given = [text.format(folder=folder) for text in given]
    with pytest.raises(UserError, match=r"Give either model=<run> or synthetic=<folder"):
        evaluate_run(config_of(folder, f"real={folder / 'real'}", *given))


def test_a_run_without_patients_says_what_to_run_first(folder):
    with pytest.raises(UserError, match=r"Run first: python generate\.py model=other"):
        evaluate_run(config_of(folder, "model=other"))


def test_a_folder_needs_a_real_one_beside_it(folder):
    with pytest.raises(UserError, match="real=<folder of the real cohort> is needed"):
        evaluate_run(config_of(folder, f"synthetic={folder / 'synthetic/run'}"))


@pytest.mark.parametrize("missing", ["real", "synthetic", "oracle"])
def test_missing_cohort_is_named_with_its_setting(folder, missing):
    paths = {"real": folder / "real", "synthetic": folder / "synthetic/run", missing: folder / "x"}
    with pytest.raises(UserError, match=rf"x is not a cohort\. Give {missing}=<folder"):
        evaluate_run(config_of(folder, *(f"{k}={v}" for k, v in paths.items()), results="missing"))
    assert not (folder / "missing").exists()


def test_a_real_cohort_that_is_gone_is_asked_for(folder, tmp_path):
    """The model remembers where it was; who moved it says where it is now."""
    (tmp_path / "saved_models" / "run").mkdir(parents=True)
    noted = f"data: {{path: {tmp_path / 'gone'}}}\n"
    (tmp_path / "saved_models" / "run" / "config.yaml").write_text(noted)
    given = ["model=run", f"paths.saved_models={tmp_path / 'saved_models'}"]
    with pytest.raises(UserError) as error:
        evaluate_run(config_of(folder, *given, results="gone"))
    assert str(error.value) == (
        f"run was trained on {tmp_path / 'gone'}, where there is no cohort any more. Give "
        "real=<folder of the real cohort>."
    )
    assert not (folder / "gone").exists()


def test_another_cohort_in_its_place_is_not_taken_for_the_real_one(trained, tmp_path):
    """Who attacks patients that a model never saw would find it safe."""
    run = tmp_path / "saved_models" / "tiny"
    shutil.copytree(trained, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["path"] = str(tmp_path / "real")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write(small_cohort(60, seed=9), tmp_path / "real")
    write(small_cohort(15, seed=1), tmp_path / "synthetic" / "tiny")
    with pytest.raises(UserError, match="another cohort than the one that tiny was trained on"):
        evaluate_run(config_of(tmp_path, "model=tiny"))
    # Who knows what it is may compare with it, but not attack it.
    given = ["model=tiny", f"real={tmp_path / 'real'}", "metrics=[structure,model_attacks]"]
    _, found = evaluate_run(config_of(tmp_path, *given))
    assert "nobody knows which patients it saw" in found.skipped["model_attacks"]
    with pytest.raises(UserError, match=r"does not hold the cohort .* Give data\.path=<cohort>"):
        real_cohort(load_run(run, torch.device("cpu")), None, "train")


def test_other_schema_writes_nothing(folder):
    schema = Schema("other", "test", code_systems=[CodeSystem("x", "X")])
    write(build(schema, [[1, 1, None, 0, None, None]], [], []), folder / "other")
    more = (f"synthetic={folder / 'other'}", f"real={folder / 'real'}")
    with pytest.raises(UserError, match="declare other covariates"):
        evaluate_run(config_of(folder, *more, results="none"))
    assert not (folder / "none").exists()


def test_summary_has_every_score(done):
    text = summary(done[1])
    assert text.startswith("small (synthetic) against small (real)")
    for score in done[1].summary()["score"]:
        assert score in text
    assert GROUPS["validity"] in text
    assert "Left out: shadow, because the model that made the patients is not known" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((23_468.0, "23,468"), (1e6, "1,000,000"), (-1234.5, "-1,234"), (999.96, "1000")),
        *((0.12344, "0.1234"), (7.36, "7.36"), (0.0, "0"), (0.00001234, "1.234e-05")),
    ],
)
def test_numbers_have_four_digits_and_large_ones_all(value, text):
    assert number(value) == text
