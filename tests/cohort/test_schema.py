"""Declarations that make no sense are refused."""

import dataclasses
import json

import pandas as pd
import pytest
from hypothesis import given, settings

from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable, defines
from synehrgy.errors import UserError
from tests.cohorts import SMALL_SCHEMA, schemas


def schema(**parts):
    return Schema(name="s", source="test", **parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"covariates": [Covariate("age", "number")]}, "covariate 'age' has the unknown kind"),
        ({"variables": [Variable("pH", "continous")]}, "Did you mean 'continuous'?"),
        ({"labels": [Label("died", "Died", "outcomes")]}, "Did you mean 'outcome'?"),
        ({"covariates": [Covariate("sex", "categorical")]}, "declares its levels"),
        (
            {"variables": [Variable("pH", "continuous", levels=["low"])]},
            "a continuous one has none",
        ),
        (
            {"covariates": [Covariate("sex", "categorical", levels=["F", "F"])]},
            "levels of covariate 'sex': declared more than once: F",
        ),
        ({"variables": [Variable("x", "categorical", levels=[""])]}, "non-empty text"),
        ({"variables": [Variable("x", "categorical", levels=[1, 2])]}, "non-empty text"),
        ({"variables": [Variable("x", "categorical", levels="low")]}, "must be a list"),
        ({"variables": [Variable("", "continuous")]}, "non-empty text"),
        ({"code_systems": [CodeSystem("", "Codes")]}, "non-empty text"),
        (
            {"variables": [Variable("pH", "continuous"), Variable("pH", "continuous")]},
            "variables: declared more than once: pH",
        ),
        (
            {"code_systems": [CodeSystem("icd", "A"), CodeSystem("icd", "B")]},
            "code systems: declared more than once: icd",
        ),
        (
            {"covariates": [Covariate("x", "continuous")], "labels": [Label("x", "X", "outcome")]},
            "columns of the stays table: declared more than once: x",
        ),
        *(
            ({"covariates": [Covariate(column, "continuous")]}, f"{column!r} is no name for a")
            for column in ("subject_id", "stay_id", "hadm_id", "stay_index", "split", "los_hours")
        ),
        ({"labels": [Label("split", "Split", "phenotype")]}, "it is reserved for a column"),
        ({"labels": [Label("p", "P", "phenotype", also={"b": ["1"]})]}, "declared together"),
        (
            {"labels": [Label("p", "P", "phenotype", also=None)]},
            "label 'p': also must be codes by their system",
        ),
        (
            {"labels": [Label("p", "P", "phenotype", "a", ["1"], {"b": []})]},
            "declared together",
        ),
        (
            {
                "labels": [Label("p", "P", "phenotype", "a", ["1"], {"b": ["1"]})],
                "code_systems": [CodeSystem("a", "A")],
            },
            "'b' is no declared code system",
        ),
        (
            {
                "labels": [Label("p", "P", "phenotype", "a", ["1"], {"a": ["2"]})],
                "code_systems": [CodeSystem("a", "A")],
            },
            "systems of label 'p': declared more than once: a",
        ),
        (
            {
                "labels": [Label("p", "P", "phenotype", "a", ["1"], {"b": ["2", "2"]})],
                "code_systems": [CodeSystem("a", "A"), CodeSystem("b", "B")],
            },
            "codes of label 'p': declared more than once: 2",
        ),
    ],
)
def test_bad_declaration_is_refused(parts, message):
    with pytest.raises(UserError) as error:
        schema(**parts)
    assert message in str(error.value)


def test_nothing_needs_to_be_declared():
    assert schema().variables_of("continuous") == []
    assert schema().labels_of("outcome") == []


def test_parts_by_kind_keep_their_declared_order():
    assert [v.name for v in SMALL_SCHEMA.variables_of("continuous")] == [
        *("Heart Rate", "Lactate", "pH")
    ]
    assert [x.column for x in SMALL_SCHEMA.labels_of("phenotype")] == ["septicemia", "shock"]


@settings(max_examples=50, deadline=None)
@given(schema=schemas())
def test_declaration_survives_json(schema):
    content = json.loads(json.dumps(schema.to_dict()))
    assert Schema.from_dict(content, "file") == schema


def test_a_label_may_be_defined_in_several_systems():
    one = Label("p", "P", "phenotype", "a", ["1"])
    two = Label("q", "Q", "phenotype", "a", ["1", "2"], also={"b": ["1"]})
    systems = [CodeSystem("a", "A"), CodeSystem("b", "B")]
    declared = schema(labels=[one, two, Label("r", "R", "phenotype")], code_systems=systems)
    assert [label.definition for label in declared.labels] == [
        *({"a": ["1"]}, {"a": ["1", "2"], "b": ["1"]}, {})
    ]
    content = json.loads(json.dumps(declared.to_dict()))
    assert Schema.from_dict(content, "here") == declared
    # Nothing new in the files of cohorts of one system.
    assert ["also" in label for label in content["labels"]] == [False, True, False]
    assert [label.definition for label in declared.part(codes=False).labels] == [{}, {}, {}]
    codes = pd.DataFrame({"system": ["a", "b", "b", "a"], "code": ["1", "1", "2", "3"]})
    assert defines(one, codes).tolist() == [True, False, False, False]
    assert defines(two, codes).tolist() == [True, True, False, False]
    assert not defines(declared.labels[2], codes).any()


def test_keys_of_other_tools_are_ignored():
    content = SMALL_SCHEMA.to_dict() | {"comment": "theirs"}
    assert Schema.from_dict(content, "file") == SMALL_SCHEMA


@pytest.mark.parametrize(
    "change",
    [
        {"covariates": [{"name": "age"}]},
        {"covariates": [{"name": "age", "kind": "continuous", "colour": "red"}]},
        {"covariates": ["age"]},
        {"covariates": None},
        {"variables": [{"name": "x", "kind": "categorical", "levels": None}]},
        {"variables": [{"name": "x", "kind": "categorical", "levels": "FM"}]},
        {"labels": [{"column": "x", "title": "X", "kind": 5}]},
        {"variables": {"x": 1}},
    ],
)
def test_damaged_declaration_names_its_file(change):
    content = SMALL_SCHEMA.to_dict() | change
    with pytest.raises(UserError, match=r"^here/cohort\.json: "):
        Schema.from_dict(content, "here/cohort.json")


def test_declaration_without_a_name_is_refused():
    content = {k: v for k, v in SMALL_SCHEMA.to_dict().items() if k != "name"}
    with pytest.raises(UserError, match="declaration"):
        Schema.from_dict(content, "file")


def test_schema_does_not_change_after_it_was_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL_SCHEMA.name = "other"
