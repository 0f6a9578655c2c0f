"""Two folders to a folder of results."""

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from synehrgy.cli import compose
from synehrgy.cohort import CodeSystem, Schema
from synehrgy.errors import UserError
from synehrgy.evaluation.evaluate import evaluate, summary
from synehrgy.evaluation.report import number
from tests.cohorts import build, small_cohort, write

TABLES = ("codes", "counts", "labels", "levels", "series", "validity")


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
    return compose("evaluate", [*paths, f"paths.results={folder / results}", *more])


@pytest.fixture(scope="module")
def done(folder):
    """The folder of an evaluation and what was found."""
    return evaluate(
        config_of(folder, f"synthetic={folder / 'synthetic/run'}", f"real={folder / 'real'}")
    )


def test_a_split_that_the_real_cohort_lacks(tmp_path):
    only_train = small_cohort(10)
    only_train.stays["split"] = "train"
    write(only_train, tmp_path / "real")
    both = [f"{name}={tmp_path / 'real'}" for name in ("real", "synthetic")]
    with pytest.raises(UserError, match=r"no stay in split 'test'; it has train \(\d+\)"):
        evaluate(config_of(tmp_path, *both))


def refuse_nan(name):
    raise AssertionError(f"{name} is not JSON")


def test_results_lie_under_the_name_of_the_cohort(done, folder):
    out, _ = done
    assert out == folder / "results" / "run"
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "report.html", "tables"]
    assert sorted(p.stem for p in (out / "tables").iterdir()) == list(TABLES)


def test_metrics_are_json_and_say_what_was_compared(done, folder):
    out, found = done
    content = json.loads((out / "metrics.json").read_text(), parse_constant=refuse_nan)
    assert content["metrics"] == found.metrics
    assert content["split"] == "test"
    assert content["real"] == str(folder / "real")
    assert content["synthetic"] == str(folder / "synthetic" / "run")
    assert content["versions"]["synehrgy"]
    assert content["config"]["synthetic"] == content["synthetic"]
    # What has no value is null: the Glasgow coma scale has no mean.
    series = {row["variable"]: row for row in content["tables"]["series"]}
    assert series["Glasgow coma scale total"]["mean, real"] is None
    assert series["pH"]["mean, real"] == pytest.approx(
        found.tables["series"].set_index("variable").loc["pH", "mean, real"]
    )


@pytest.mark.parametrize("name", TABLES)
def test_tables_come_back_from_csv(done, name):
    out, found = done
    table = pd.read_csv(out / "tables" / f"{name}.csv", dtype={"code": str, "level": str})
    expected = found.tables[name]
    assert table.columns.tolist() == expected.columns.tolist()
    assert len(table) == len(expected)
    for column in expected.select_dtypes("number"):
        assert table[column].tolist() == pytest.approx(expected[column].tolist(), nan_ok=True)
    if name == "codes":
        assert set(table["code"]) == set(expected["code"])


class Resources(HTMLParser):
    """Collects what a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            fetched = name in ("src", "srcset", "data", "poster", "action")
            fetched |= name in ("href", "xlink:href") and not (value or "").startswith("#")
            fetched |= "url(" in (value or "") and "url(#" not in value
            if fetched:
                self.found.append((tag, name, value))


def test_report_opens_without_network(done):
    text = (done[0] / "report.html").read_text(encoding="utf-8")
    parser = Resources()
    parser.feed(text)
    assert parser.found == []
    assert parser.tags.count("svg") == 2
    assert not {"script", "link", "iframe", "img", "object"} & set(parser.tags)
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)


def test_report_shows_every_series_and_label(done):
    text = (done[0] / "report.html").read_text(encoding="utf-8")
    for word in ("Heart Rate", "Lactate", "In-hospital mortality", "gender = F", "no code", "0389"):
        assert f"<td>{word}</td>" in text
    assert "test split" in text


def test_only_the_split_asked_for_is_compared(folder):
    real = small_cohort(40)
    for split in ("train", "val"):
        config = config_of(
            folder,
            *(f"synthetic={folder / 'synthetic/run'}", f"real={folder / 'real'}"),
            f"split={split}",
            results=split,
        )
        counts = evaluate(config)[1].tables["counts"].set_index("quantity")["real"]
        assert counts["patients"] == real.select(split=split).n_patients


def test_real_cohort_without_splits_is_taken_whole(folder):
    path = folder / "synthetic" / "run"
    found = evaluate(config_of(folder, f"synthetic={path}", f"real={path}", results="whole"))[1]
    assert found.split == "all"
    assert found.tables["counts"]["real"].iloc[0] == 15


def test_a_run_is_compared_with_what_it_was_trained_on(folder):
    trained = folder / "saved_models" / "run" / "config.yaml"
    trained.parent.mkdir(parents=True, exist_ok=True)
    trained.write_text(f"data:\n  path: {folder / 'real'}\n")
    out, found = evaluate(config_of(folder, "model=run", results="by_run"))
    assert out == folder / "by_run" / "run"
    assert (found.real, found.split) == ("small", "test")


def test_results_are_replaced_but_nothing_else(folder):
    more = (f"synthetic={folder / 'synthetic/run'}", f"real={folder / 'real'}")
    out, _ = evaluate(config_of(folder, *more, results="again"))
    (out / "tables" / "codes.csv").unlink()
    evaluate(config_of(folder, *more, results="again"))
    assert (out / "tables" / "codes.csv").exists()
    (out / "metrics.json").unlink()
    with pytest.raises(UserError, match="not written by this program"):
        evaluate(config_of(folder, *more, results="again"))


@pytest.mark.parametrize("given", [[], ["model=run", "synthetic={folder}/synthetic/run"]])
def test_either_a_run_or_a_folder_is_needed(folder, given):
    given = [text.format(folder=folder) for text in given]
    with pytest.raises(UserError, match=r"Give either model=<run> or synthetic=<folder"):
        evaluate(config_of(folder, f"real={folder / 'real'}", *given))


def test_a_run_without_patients_says_what_to_run_first(folder):
    with pytest.raises(UserError, match=r"Run first: python generate\.py model=other"):
        evaluate(config_of(folder, "model=other"))


def test_a_folder_needs_a_real_one_beside_it(folder):
    with pytest.raises(UserError, match="real=<folder of the real cohort> is needed"):
        evaluate(config_of(folder, f"synthetic={folder / 'synthetic/run'}"))


@pytest.mark.parametrize("missing", ["real", "synthetic"])
def test_missing_cohort_is_named(folder, missing):
    paths = {"real": folder / "real", "synthetic": folder / "synthetic/run", missing: folder / "x"}
    with pytest.raises(UserError, match=r"x is not a cohort"):
        evaluate(config_of(folder, *(f"{k}={v}" for k, v in paths.items()), results="missing"))
    assert not (folder / "missing").exists()


def test_other_schema_writes_nothing(folder):
    schema = Schema("other", "test", code_systems=[CodeSystem("x", "X")])
    write(build(schema, [[1, 1, None, 0, None, None]], [], []), folder / "other")
    more = (f"synthetic={folder / 'other'}", f"real={folder / 'real'}")
    with pytest.raises(UserError, match="declare other covariates"):
        evaluate(config_of(folder, *more, results="none"))
    assert not (folder / "none").exists()


def test_summary_has_every_metric(done):
    text = summary(done[1])
    assert text.startswith("small (synthetic) against small, test (real)")
    for metric in done[1].metrics:
        assert f"{metric} = " in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((23_468.0, "23,468"), (1e6, "1,000,000"), (-1234.5, "-1,234"), (999.96, "1000")),
        *((0.12344, "0.1234"), (7.36, "7.36"), (0.0, "0"), (0.00001234, "1.234e-05")),
    ],
)
def test_numbers_have_four_digits_and_large_ones_all(value, text):
    assert number(value) == text
