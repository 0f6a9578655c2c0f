"""What is wanted of patients, as it is typed."""

import json

import pytest

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.errors import UserError
from synehrgy.generation.generate import generate
from tests.cli.test_road import run


def condition_of(*settings):
    return compose("generate", ["model=x", *settings]).condition


@pytest.mark.parametrize(
    ("settings", "covariates"),
    [
        (["condition.gender=F"], {"gender": "F"}),
        (["condition.age=70-80", "condition.gender=[F,M]"], {"age": "70-80", "gender": ["F", "M"]}),
        (["condition.age=70-"], {"age": "70-"}),
        (["condition.age=-5--2"], {"age": "-5--2"}),
        (["condition.covariates.age=72"], {"age": 72}),
        (["generate.condition.age=72"], {"age": 72}),
    ],
)
def test_covariates_stand_by_their_names(settings, covariates):
    assert condition_of(*settings).covariates == covariates


@pytest.mark.parametrize(
    "codes", ["[428*]", "[icd9_procedure:3893]", "[0389,E8788]", "[4280]", "['4280']"]
)
def test_codes_are_text(codes):
    expected = codes.strip("[]").replace("'", "").split(",")
    assert condition_of(f"condition.codes_any={codes}").codes_any == expected


@pytest.mark.parametrize("part", ["codes_any=[{}]", "codes_all=[{}]", "balance={}"])
def test_codes_that_look_like_numbers_are_text_too(part):
    """As 3E03317 does: a procedure of ICD-10, and three times ten to the power of 3317."""
    found = condition_of("condition." + part.format("3E03317"))
    assert "3E03317" in (*found.codes_any, *found.codes_all, found.balance)


def test_one_code_needs_no_brackets():
    assert condition_of("condition.codes_any=4280").codes_any == ["4280"]
    assert condition_of("condition.labels=shock").labels == ["shock"]


def test_changes_are_a_mapping():
    expected = {"gender": "F", "shock": 1}
    assert condition_of("condition.counterfactual={gender: F, shock: 1}").counterfactual == expected
    settings = ["condition.counterfactual.gender=F", "condition.counterfactual.shock=1"]
    assert condition_of(*settings).counterfactual == expected


@pytest.mark.parametrize(("typed", "meant"), [("label=[shock]", "labels"), ("agee=70", "age")])
def test_a_mistyped_part_names_the_right_one(trained, tmp_path, typed, meant):
    folders = [f"paths.saved_models={trained.parent}", f"paths.synthetic={tmp_path}"]
    settings = compose("generate", ["model=tiny", *folders, "device=cpu", f"condition.{typed}"])
    with pytest.raises(UserError, match=rf"Did you mean '(condition\.)?{meant}'"):
        generate(settings)
    assert list(tmp_path.iterdir()) == []


def test_patients_as_they_are_asked_for(trained, tmp_path):
    arguments = ["generate.py", "model=tiny", f"paths.saved_models={trained.parent}", "device=cpu"]
    wanted = ["condition.age=50-", "condition.gender=F", "condition.labels=[septicemia]"]
    said = run(
        *(*arguments, *wanted, "paths.synthetic=out", "n_samples=6", "format=csv"), cwd=tmp_path
    )
    assert "probability of the condition under the model" in said
    assert "Next: python evaluate.py model=tiny" in said
    stays = read_cohort(tmp_path / "out" / "tiny").stays
    first = stays[stays["stay_index"] == 0]
    assert (first["age"] > 50).all()
    assert (first["gender"] == "F").all()
    assert (first["septicemia"] == 1).all()
    report = json.loads((tmp_path / "out" / "tiny" / "generation.json").read_text())
    assert report["config"]["condition"]["labels"] == ["septicemia"]
    refused = run(
        *(*arguments, "condition.gender=X", "paths.synthetic=other"), cwd=tmp_path, code=1
    )
    assert "Error: condition.gender=X: gender is one of F, M." in refused
    assert not (tmp_path / "other").exists()


def test_futures_as_they_are_asked_for(forecaster, tmp_path):
    folders = [f"paths.saved_models={forecaster.parent}", "paths.synthetic=out"]
    settings = ["mode=forecast", "condition.hours=2", "n_resample=2", "n_samples=4", "device=cpu"]
    said = run("generate.py", "model=forecaster", *folders, *settings, cwd=tmp_path)
    assert f"Futures: {tmp_path}/out/forecaster-2h" in said
    command = said.split("Next: python ")[1].splitlines()[0].split()
    assert "Results: " in run(*command, "paths.results=results", cwd=tmp_path)
