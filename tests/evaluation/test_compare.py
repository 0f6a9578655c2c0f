"""Metrics of rows to one result; what is finished is not computed again."""

import json
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from synehrgy import evaluate
from synehrgy.errors import UserError
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.metric import Effort, Found, Metric, Scale, Score
from synehrgy.evaluation.rows import bench_of
from tests.cohorts import small_cohort


class Women(Metric):
    """Share of stays of women; counts how often it was asked."""

    name, title, group = "women", "Women", "fidelity"
    scales: ClassVar = {
        "women/share": Scale("Share", "As in reality.", "near", (0, 1), "test", 0.1, 0.3),
        "women/undefined": Scale("None", "Never.", "high", (0, 1), 1.0, 0.1, 0.3),
    }
    calls: ClassVar[list[str]] = []

    def measure(self, bench, row):
        self.calls.append(row)
        stays = bench.rows[row].stays
        share = (stays["gender"] == "F").mean()
        table = stays.groupby("gender", observed=True).size().reset_index(name="n")
        scores = {"women/share": Score(share, share - 0.1, share + 0.1)}
        return Found(scores | {"women/undefined": Score(np.nan)}, {"women_counts": table})


class Model(Women):
    name, needs = "of_the_model", frozenset({"model"})


class Wrong(Women):
    name, scales = "wrong", {}


def bench(seed=1, **more):
    return bench_of(small_cohort(40), small_cohort(20, seed), effort=Effort(), **more)


@pytest.fixture(autouse=True)
def _no_calls():
    Women.calls.clear()


def test_every_row_is_measured():
    made = bench()
    found = compare(made, [Women(), Model()], progress=False)
    assert Women.calls == ["synthetic", "test", "marginals", "train"]
    assert found.skipped == {
        "of_the_model": "the model that made the patients is not known (give model=<run>)"
    }
    share = (made.rows["synthetic"].stays["gender"] == "F").mean()
    assert found.value("women/share") == share
    assert np.isnan(found.value("women/share", "oracle"))
    assert found.patients["equal"] == 8
    counts = found.tables["women_counts"]
    assert counts.columns.tolist() == ["row", "gender", "n"]
    assert counts.groupby("row")["n"].sum()["synthetic"] == len(made.rows["synthetic"].stays)
    of_test = found.scores[(found.scores["row"] == "test") & (found.scores["metric"] == "women")]
    assert of_test["light"].iloc[0] == "good"
    assert of_test["light"].isna().tolist() == [False, True]
    summary = found.summary()
    assert summary["score"].tolist() == ["women/share", "women/undefined"]
    assert summary.loc[0, "train"] == found.value("women/share", "train")
    assert "women/share" in found._repr_html_()


def same(first, second):
    pd.testing.assert_frame_equal(first.scores, second.scores)
    assert first.tables.keys() == second.tables.keys()
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, second.tables[name])


def test_what_is_finished_is_not_computed_again(tmp_path):
    keep = tmp_path / "parts"
    first = compare(bench(), [Women()], keep, progress=False)
    Women.calls.clear()
    (keep / "women--test.json").unlink()
    second = compare(bench(), [Women()], keep, progress=False)
    assert Women.calls == ["test"]
    same(first, second)
    assert second.seconds["women"] > 0
    noted = json.loads((keep / "women--synthetic.json").read_text())
    assert noted["scores"]["women/undefined"] == [None, None, None]


@pytest.mark.parametrize(
    "other",
    [
        lambda: bench(seed=2),
        lambda: bench(held_out="val"),
        lambda: bench_of(small_cohort(40), small_cohort(20, 1), effort=Effort(n_resamples=3)),
    ],
)
def test_what_is_finished_of_another_comparison_is_thrown_away(tmp_path, other):
    compare(bench(), [Women()], tmp_path / "parts", progress=False)
    Women.calls.clear()
    found = compare(other(), [Women()], tmp_path / "parts", progress=False)
    assert len(Women.calls) == 4
    same(found, compare(other(), [Women()], progress=False))


def test_a_score_without_a_scale_is_a_mistake():
    with pytest.raises(ValueError, match="women/share"):
        compare(bench(), [Wrong()], progress=False)


def test_from_python():
    real, synthetic = small_cohort(60), small_cohort(20, seed=1)
    found = evaluate(real, synthetic, metrics=["consistency"], preset="quick", progress=False)
    assert set(found.scores["metric"]) == {"consistency"}
    with pytest.raises(UserError, match=r"Unknown metric 'consistensy'.*consistency"):
        evaluate(real, synthetic, metrics=["consistensy"])
    with pytest.raises(UserError, match=r"Unknown preset 'quik'.*quick"):
        evaluate(real, synthetic, preset="quik")


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="was not written by an evaluation"):
        compare(bench(), [Women()], tmp_path, progress=False)
    assert (tmp_path / "thesis.txt").exists()


def test_a_metric_with_other_settings_is_computed_again(tmp_path):
    metric = Women()
    compare(bench(), [metric], tmp_path / "parts", progress=False)
    Women.calls.clear()
    metric.depth = 3
    compare(bench(), [metric], tmp_path / "parts", progress=False)
    assert len(Women.calls) == 4
