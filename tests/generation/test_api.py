"""From Python the same patients come as from the command line."""

from dataclasses import replace

import pandas as pd
import pytest

from synehrgy import SynEHRgy
from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.cohort.futures import NEXT_VALUES_FILE, PREDICTIONS_FILE, QUESTIONS_FILE
from synehrgy.errors import UserError
from synehrgy.generation.conditions import Condition
from synehrgy.generation.generate import generate
from synehrgy.generation.jobs import FIRST_ID, PAIRS_FILE, WEIGHTS_FILE
from tests.cohorts import write

N = 24
TABLE = pd.DataFrame({"gender": ["F", "M", None], "shock": [1, 0, 1]})


@pytest.fixture(scope="module")
def model(trained):
    return SynEHRgy.load(trained, device="cpu")


def command(run, synthetic, *more):
    """The folder that the command makes."""
    return generate(
        compose(
            "generate",
            [
                *(f"model={run.name}", f"paths.saved_models={run.parent}", "device=cpu"),
                *(f"paths.synthetic={synthetic}", *more),
            ],
        )
    )


def assert_same_tables(cohort, folder):
    """Also once it is written, which is what the command has done."""
    assert cohort.schema == read_cohort(folder).schema
    ours = folder.with_name("ours")
    write(cohort, ours)
    for name in ("stays", "codes", "measurements"):
        pd.testing.assert_frame_equal(
            read_cohort(ours).table(name), read_cohort(folder).table(name)
        )


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, []),
        ({"seed": 3, "batch_size": 5}, ["seed=3"]),
        ({"temperature": 0.8, "top_k": 20}, ["temperature=0.8", "top_k=20"]),
        (
            {"top_p": 0.9, "repetition_penalty": 1.2, "label_contradictions": "count"},
            ["top_p=0.9", "repetition_penalty=1.2", "label_contradictions=count"],
        ),
        (
            {"value_decoding": "center", "max_segments": 1},
            ["value_decoding=center", "max_segments=1"],
        ),
        (
            {"condition": {"age": "50-", "gender": "F", "labels": ["septicemia"]}},
            ["condition.age=50-", "condition.gender=F", "condition.labels=[septicemia]"],
        ),
        (
            {"condition": Condition({"gender": ["M"]}, codes_any=["4280"], min_stays=2)},
            ["condition.gender=[M]", "condition.codes_any=['4280']", "condition.min_stays=2"],
        ),
    ],
)
def test_patients_are_those_of_the_command(model, trained, tmp_path, arguments, settings):
    cohort = model.generate(N, **arguments, progress=False)
    folder = command(trained, tmp_path, f"n_samples={N}", *settings)
    assert_same_tables(cohort, folder)
    assert cohort.report["records"] == N
    assert cohort.weights is None
    assert cohort.pairs is None
    assert ("probability" in cohort.report) == ("condition" in arguments)
    assert cohort.stays["subject_id"].min() == FIRST_ID


def test_balanced_patients_and_their_weights(model, trained, tmp_path):
    cohort = model.generate(N, balance="shock", share=0.25, progress=False)
    more = [f"n_samples={N}", "condition.balance=shock", "condition.share=0.25"]
    folder = command(trained, tmp_path, *more)
    assert_same_tables(cohort, folder)
    pd.testing.assert_frame_equal(cohort.weights, pd.read_parquet(folder / WEIGHTS_FILE))
    assert cohort.weights.columns.tolist() == ["subject_id", "has", "weight"]
    first = cohort.stays[cohort.stays["stay_index"] == 0]
    assert cohort.weights["subject_id"].tolist() == first["subject_id"].tolist()
    assert cohort.weights["has"].tolist() == (first["shock"] == 1).tolist()
    assert cohort.weights["has"].sum() == N / 4
    assert 0 < cohort.report["share_without_balance"] < 1


def test_counterfactual_patients_and_their_pairs(model, trained, tmp_path):
    cohort = model.generate(N, counterfactual={"gender": "F"}, progress=False)
    folder = command(trained, tmp_path, f"n_samples={N}", "condition.counterfactual={gender: F}")
    assert_same_tables(cohort, folder)
    pd.testing.assert_frame_equal(cohort.pairs, pd.read_parquet(folder / PAIRS_FILE))
    first = cohort.stays[cohort.stays["stay_index"] == 0].set_index("subject_id")
    ours = first.loc[cohort.pairs["subject_id"]].reset_index(drop=True)
    theirs = first.loc[cohort.pairs["counterfactual_id"]].reset_index(drop=True)
    assert len(cohort.pairs) == N // 2
    assert set(ours["gender"]) == {"F", "M"}
    assert set(theirs["gender"]) == {"F"}
    # What is not changed is not only of the same bin.
    assert ours["age"].tolist() == theirs["age"].tolist()
    unchanged = cohort.pairs[(ours["gender"] == "F").to_numpy()]
    for pair in unchanged.itertuples():
        ids = [
            cohort.stays.loc[cohort.stays["subject_id"] == subject, "stay_id"]
            for subject in (pair.subject_id, pair.counterfactual_id)
        ]
        rows = [
            cohort.measurements[cohort.measurements["stay_id"].isin(one)]
            .drop(columns="stay_id")
            .reset_index(drop=True)
            for one in ids
        ]
        pd.testing.assert_frame_equal(*rows)


def test_rows_of_a_table(model, trained, tmp_path):
    TABLE.to_csv(tmp_path / "wanted.csv", index=False)
    cohort = model.generate(table=TABLE, progress=False)
    folder = command(trained, tmp_path, f"condition.table={tmp_path / 'wanted.csv'}")
    assert_same_tables(cohort, folder)
    first = cohort.stays[cohort.stays["stay_index"] == 0]
    assert first["gender"].tolist()[:2] == ["F", "M"]
    assert first["shock"].tolist() == [1, 0, 1]


def test_openings_of_real_patients(model, trained, cohort_folder, tmp_path):
    real = read_cohort(cohort_folder).select(split="val")
    cohort = model.generate(N, {"gender": "F"}, real=real, progress=False)
    more = ["fix_covars=True", "condition.split=val", "condition.gender=F"]
    folder = command(trained, tmp_path, f"n_samples={N}", *more)
    assert_same_tables(cohort, folder)
    assert cohort.stays["gender"].tolist() == ["F"] * len(cohort.stays)


def test_futures_and_predictions(forecaster, cohort_folder, tmp_path):
    model = SynEHRgy.load(forecaster, device="cpu")
    real = read_cohort(cohort_folder).select(split="test")
    futures = model.forecast(real, 2, n_resample=3, n_stays=6, seed=2, progress=False)
    folder = command(
        *(forecaster, tmp_path, "mode=forecast", "condition.hours=2", "n_resample=3"),
        *("n_samples=6", "seed=2"),
    )
    assert_same_tables(replace(futures, schema=replace(futures.schema, name=folder.name)), folder)
    for name, table in (
        (QUESTIONS_FILE, futures.questions),
        (PREDICTIONS_FILE, futures.predictions),
        (NEXT_VALUES_FILE, futures.next_values),
    ):
        pd.testing.assert_frame_equal(table, pd.read_parquet(folder / name))
    assert futures.predictions["futures"].tolist() == [3] * 6
    assert len(futures.questions) == 18
    assert futures.report["records"] == 18


def test_mistakes_are_named(model, tmp_path):
    with pytest.raises(UserError, match="'gander' is neither a covariate nor"):
        model.generate(5, {"gander": "F"}, progress=False)
    with pytest.raises(UserError, match=r"condition\.gender=X"):
        model.generate(5, {"gender": "X"}, progress=False)
    with pytest.raises(UserError, match="There is no trained run 'none'"):
        SynEHRgy.load(tmp_path / "none")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"temperature": 0.0}, {"top_p": 1.5}, {"label_contradictions": "ruled_out"}),
        *({"value_decoding": "middle"}, {"n": 0}, {"seed": -1}, {"batch_size": 0}),
    ],
)
def test_arguments_that_the_command_would_refuse(model, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        model.generate(**{"n": 2, "progress": False, **wrong})
