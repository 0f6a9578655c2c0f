"""The comparison: every generator judged once, by the same scores, in one table."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.comparison import compare
from synehrgy.comparison.compare import run_comparison
from synehrgy.comparison.generated import Generated
from synehrgy.comparison.headlines import HEADLINES, needs_of
from synehrgy.comparison.results import Results
from synehrgy.comparison.table import NOT_COVERED, latex, markdown, reference_scores, table_of
from synehrgy.errors import UserError
from synehrgy.evaluation.api import evaluate
from synehrgy.evaluation.metrics import all_metrics
from synehrgy.sources import refuse_other_simulation, simulated_cohort
from tests.cohorts import small_cohort, write

DASH = NOT_COVERED
EVERYTHING = frozenset({"stays", "codes", "series"})


def config_of(cohort_folder, place, *more):
    overrides = [
        "data=cohort",
        f"data.path={cohort_folder}",
        f"paths.saved_models={place / 'saved_models'}",
        f"paths.synthetic={place / 'synthetic'}",
        f"paths.results={place / 'Results'}",
        "run_name=some",
        "names=[bootstrap,marginals]",
        "metrics=[codes,series,structure,distances]",
        "preset=quick",
        "device=cpu",
    ]
    return compose("comparison", [*overrides, *more])


@pytest.fixture(scope="module")
def compared(cohort_folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("comparison")
    write(small_cohort(80, seed=3).part(series=False), place / "outside")
    more = [f"others={{codes_only: {place / 'outside'}}}", "methods={bootstrap: {noise: 0.05}}"]
    return place, more, run_comparison(config_of(cohort_folder, place, *more))


def test_headlines_are_scores_of_the_evaluation():
    known = {name for metric in all_metrics() for name in metric.scales}
    assert {headline.score for headline in HEADLINES} <= known


def test_a_comparison_writes_its_table_its_figure_and_every_score(compared):
    _, _, folder = compared
    assert {file.name for file in folder.iterdir()} == {
        *("comparison.csv", "comparison.json", "comparison.md", "comparison.png"),
        *("comparison.svg", "comparison.tex", "scores.csv"),
        *("bootstrap", "marginals", "codes_only"),
    }
    assert len(pd.read_parquet(folder / "bootstrap" / "series_summary.parquet"))
    table = pd.read_csv(folder / "comparison.csv")
    mine = table[~table["is_reference"]]
    assert set(mine["generator"]) == {"bootstrap", "marginals", "codes_only"}
    # The trap and the floor never win.
    assert set(mine.loc[mine["best"] & (mine["group"] == "Codes"), "generator"]) == {"codes_only"}
    value = mine.pivot(index="score", columns="generator", values="value")
    assert np.isnan(value.loc["series/ks", "codes_only"])
    assert value.loc["codes/pairs_error"].notna().all()
    assert value.loc["codes/pairs_error", "bootstrap"] < value.loc["codes/pairs_error", "marginals"]
    # Real patients with noise are the trap: nearer to train than to held-out patients.
    assert value.loc["distances/privacy_loss", "bootstrap"] > 0.1
    assert value.loc["distances/privacy_loss", "marginals"] < 0.1
    assert value.loc["seconds_to_fit"].drop("codes_only").notna().all()
    noted = json.loads((folder / "comparison.json").read_text())
    assert noted["patients"]["train"] == 72
    assert [one["name"] for one in noted["generators"]] == ["bootstrap", "marginals", "codes_only"]


def test_reference_rows_are_measured_once_for_each_set_of_parts(compared):
    _, _, folder = compared
    scores = pd.read_csv(folder / "scores.csv")
    rows = scores.groupby("generator")["row"].unique()
    assert set(rows["bootstrap"]) == {"synthetic", "test", "marginals", "train"}
    assert set(rows["marginals"]) == {"synthetic"}
    assert set(rows["codes_only"]) == {"synthetic", "test", "marginals", "train"}


def test_what_is_done_is_not_done_again(compared, cohort_folder, monkeypatch):
    place, more, folder = compared
    before = pd.read_csv(folder / "scores.csv")

    def again(*_, **__):
        raise AssertionError("done again")

    monkeypatch.setattr(compare, "evaluate", again)
    monkeypatch.setattr(compare, "run_baseline", again)
    run_comparison(config_of(cohort_folder, place, *more))
    pd.testing.assert_frame_equal(pd.read_csv(folder / "scores.csv"), before)
    with pytest.raises(AssertionError, match="done again"):
        run_comparison(config_of(cohort_folder, place, *more, "seed=4", "run_name=other"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("names=[marginal]", "no generator 'marginal'. Did you mean 'marginals'"),
        ("methods={halo: {epochs: 2}}", "settings of 'halo', which is not compared"),
        ("methods={bootstrap: {nois: 2}}", "bootstrap has no setting 'nois'. Did you mean 'noise'"),
        ("others={bootstrap: /nowhere}", "the name of a generator of the toolkit"),
        ("others={mine: /nowhere}", "/nowhere is not a cohort"),
        ("others={a b: /nowhere}", "'a b' is no name"),
        ("metrics=[code]", "Unknown metric 'code'. Did you mean 'codes'"),
        ("others={mine: null}", "others.mine=None is not the folder of a cohort"),
        ("others={mine: 3}", "others.mine=3 is not the folder of a cohort"),
        ("others={mine: '~/nowhere'}", "/somebody/nowhere is not a cohort"),
        ("oracle=/nowhere", "/nowhere is not a cohort"),
        ("methods={bootstrap: {dropped: 1.5}}", "bootstrap: dropped=1.5 must be at most 1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(
    override, says, cohort_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setattr(compare, "run_baseline", lambda _: pytest.fail("fitted"))
    with pytest.raises(UserError, match=says):
        run_comparison(config_of(cohort_folder, tmp_path, override))


def test_simulated_patients_that_are_there_are_not_taken_for_others(tmp_path, capsys):
    places = [f"data.path={tmp_path / 'cohort'}", f"data.raw_dir={tmp_path / 'raw'}"]
    more = ["data=simulated", *places, "names=[marginals]", "metrics=[structure]"]
    first = run_comparison(
        config_of(tmp_path, tmp_path, *more, "data.simulation.n_patients=60", "run_name=first")
    )
    assert (first / "comparison.md").exists()
    asked = config_of(tmp_path, tmp_path, *more, "data.simulation.n_patients=90", "run_name=second")
    with pytest.raises(UserError, match=r"with n_patients=60, not 90.*data\.path=<folder>"):
        run_comparison(asked)
    # Who asks for nothing takes what is there.
    taken = run_comparison(config_of(tmp_path, tmp_path, *more, "run_name=third"))
    assert (taken / "comparison.md").exists()
    assert "patients (profile clinical), " in capsys.readouterr().out


def test_simulated_patients_are_known_without_their_raw_files(tmp_path):
    cohort = simulated_cohort(tmp_path / "cohort", 40, seed=5, progress=False)
    assert read_cohort(cohort).provenance["simulated"] is True
    asked = compose("comparison", ["data=simulated", f"data.path={cohort}"])
    refuse_other_simulation(asked.data)
    asked.data.simulation.seed = 6
    with pytest.raises(UserError, match="with seed=5, not 6"):
        refuse_other_simulation(asked.data)


def scores_of(**values):
    """By the name of a generator or row: its distance of codes and its AUROC of mortality."""
    rows = []
    for name, (distance, auroc) in values.items():
        row, generator = ("synthetic", name) if name in ("a", "b") else (name, "a")
        rows.append(
            (generator, row, "codes/pairs_error", distance, distance - 0.01, distance + 0.01)
        )
        rows.append((generator, row, "utility/outcome/tstr_auroc", auroc, np.nan, np.nan))
    table = pd.DataFrame(rows, columns=["generator", "row", "score", "value", "low", "high"])
    return table.assign(covers=" ".join(sorted(EVERYTHING)))


def test_the_best_generator_is_bold_and_references_are_not():
    made = [Generated(name, name.upper(), None, EVERYTHING, 1.0, 20.0) for name in "ab"]
    table = table_of(scores_of(a=(0.2, 0.9), b=(0.3, 0.8), test=(0.1, 0.95)), made)
    best = table[table["best"]].set_index("score")["generator"]
    assert best["codes/pairs_error"] == "a"
    assert best["utility/outcome/tstr_auroc"] == "a"
    text = markdown(table)
    assert f"| A | {DASH} | **0.200** (0.190{DASH}0.210) |" in text
    assert f"| Ceiling: held-out real patients | {DASH} | 0.100 (0.090{DASH}0.110) |" in text
    assert r"A & -- & \textbf{0.200} (0.190--0.210) &" in latex(table)


def test_what_is_not_covered_is_shown_as_such_and_wins_nothing():
    made = [
        Generated("a", "A", None, EVERYTHING),
        Generated("b", "B", None, frozenset({"series"})),
    ]
    table = table_of(scores_of(a=(0.2, 0.9), b=(0.1, 0.8)), made)
    line = next(line for line in markdown(table).splitlines() if line.startswith("| B |"))
    assert set(line.removeprefix("| B ").strip("| ").split(" | ")) == {NOT_COVERED}
    assert table[table["best"]].set_index("score").loc["codes/pairs_error", "generator"] == "a"


def test_a_notebook_can_look_into_it(compared):
    _, _, folder = compared
    results = Results(folder)
    assert list(results.generators) == ["bootstrap", "marginals", "codes_only"]
    table = results.table({"codes/pairs_error": "codes", "series/ks": "series"})
    scores = results.scores.set_index(["generator", "row", "score"])["value"]
    expected = scores["bootstrap", "synthetic", "codes/pairs_error"]
    assert table.loc["Real patients with noise", "codes"].startswith(f"{expected:.3f} (")
    assert table.loc["codes_only", "series"] == ""
    assert table.index[-1] == "Floor: independent columns"
    assert results.figure("code_prevalence", "bootstrap") is not None
    assert results.figure("series_histograms", "codes_only") is None
    with pytest.raises(UserError, match=r"no figure 'code_prevalense'\. Did you mean"):
        results.figure("code_prevalense", "bootstrap")
    for look in (results.tables, lambda name: results.figure("code_prevalence", name)):
        with pytest.raises(UserError, match=r"no generator 'bootstrp'\. Did you mean 'bootstrap'"):
            look("bootstrp")
    with pytest.raises(UserError, match=r"no score 'series/kz'\. Did you mean 'series/ks'"):
        results.table({"codes/pairs_error": "codes", "series/kz": "series"})
    # Not measured here, but a score.
    assert results.table({"utility/outcome/tstr_auroc": "utility"}).empty
    with pytest.raises(UserError, match="holds no comparison"):
        Results(folder.parent)


def test_patients_of_another_tool_are_checked_before_anything_is_fitted(
    cohort_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(compare, "run_baseline", lambda _: pytest.fail("fitted"))
    write(small_cohort(30, seed=3), tmp_path / "few")
    with pytest.raises(UserError, match=r"others\.mine has 30 patients, the others generate 72"):
        run_comparison(config_of(cohort_folder, tmp_path, f"others={{mine: {tmp_path / 'few'}}}"))


def test_no_more_patients_of_another_tool_or_oracle_are_judged_than_of_the_others(
    cohort_folder, tmp_path, monkeypatch, capsys
):
    judged = []

    def noted(real, synthetic, *, oracle, **more):
        judged.append((synthetic.n_patients, oracle.n_patients))
        return evaluate(real, synthetic, oracle=oracle, **more)

    monkeypatch.setattr(compare, "evaluate", noted)
    write(small_cohort(90, seed=3), tmp_path / "more")
    more = [f"others={{mine: {tmp_path / 'more'}}}", f"oracle={tmp_path / 'more'}"]
    less = ["names=[marginals]", "metrics=[structure]", "n_samples=40"]
    run_comparison(config_of(cohort_folder, tmp_path, *more, *less))
    assert judged == [(40, 40)] * 2
    assert "others.mine: 40 of its 90 patients are judged" in capsys.readouterr().out


def test_a_fault_of_the_last_one_is_found_before_the_first_is_fitted(
    cohort_folder, tmp_path, monkeypatch
):
    run_comparison(config_of(cohort_folder, tmp_path, "names=[marginals]", "metrics=[structure]"))
    monkeypatch.setattr(compare, "run_baseline", lambda _: pytest.fail("fitted"))
    places = [tmp_path / folder / "some-marginals" for folder in ("saved_models", "synthetic")]
    both = f"Remove {places[0]} and {places[1]}, or choose another run_name"
    with pytest.raises(UserError, match=both) as refused:
        run_comparison(config_of(cohort_folder, tmp_path, "seed=4"))
    assert "overwrite" not in str(refused.value)
    # Without its patients, the model is in the way.
    with pytest.raises(UserError, match=f"Remove {places[1]}, or choose another run_name"):
        run_comparison(config_of(cohort_folder, tmp_path, "n_samples=30"))
    shutil.rmtree(places[1])
    with pytest.raises(UserError, match=both):
        run_comparison(config_of(cohort_folder, tmp_path, "seed=4"))
    (tmp_path / "Results" / "mine").mkdir()
    (tmp_path / "Results" / "mine" / "thesis.txt").touch()
    with pytest.raises(UserError, match="Results/mine already exists and was not written by this"):
        run_comparison(config_of(cohort_folder, tmp_path, "run_name=mine"))
    theirs = tmp_path / "synthetic" / "new-bootstrap" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.touch()
    with pytest.raises(UserError, match="new-bootstrap already exists and was not written by"):
        run_comparison(config_of(cohort_folder, tmp_path, "run_name=new"))
    write(small_cohort(60).part(series=False), tmp_path / "codes")
    with pytest.raises(UserError, match="declare other variables"):
        run_comparison(config_of(cohort_folder, tmp_path, f"oracle={tmp_path / 'codes'}"))
    real = small_cohort(60)
    real.stays["split"] = "train"
    write(real, tmp_path / "untested")
    with pytest.raises(UserError, match="0 in its test split"):
        run_comparison(config_of(tmp_path / "untested", tmp_path, "run_name=new"))


def test_references_are_those_of_whoever_covers_what_is_asked():
    rows = [
        ("a", "codes", "test", "codes/pairs_error", 0.1),
        ("b", "series", "test", "codes/pairs_error", 0.2),
        ("c", "codes series stays", "test", "codes/pairs_error", 0.3),
        ("b", "series", "test", "series/ks", 0.4),
    ]
    scores = pd.DataFrame(rows, columns=["generator", "covers", "row", "score", "value"])
    assert reference_scores(scores, "codes/pairs_error", "test")["value"].tolist() == [0.3, 0.1]
    assert reference_scores(scores, "series/ks", "test")["value"].tolist() == [0.4]
    assert not len(reference_scores(scores[:2], "two_sample/all", "test"))
    assert needs_of("published/correlation/difference") == {"series"}
    assert needs_of("membership/density_ratio/auroc") == set()


def test_scores_without_a_headline_are_no_reason_to_fail(cohort_folder, tmp_path):
    folder = run_comparison(config_of(cohort_folder, tmp_path, "metrics=[co_observation]"))
    assert len(pd.read_csv(folder / "scores.csv"))
    assert not (folder / "comparison.png").exists()
