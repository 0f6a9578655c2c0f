"""Fitting, the vocabulary, soft targets and the file."""

import dataclasses
import json

import numpy as np
import pytest

from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable
from synehrgy.errors import UserError
from synehrgy.settings import AGE_EDGES, GAP_EDGES, TokenSettings, VariableSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, label_contradictions
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.quantities import Bins, Digits
from synehrgy.tokenizer.tokenizer import (
    ELAPSED,
    ELAPSED_EDGES,
    GAP,
    STAY,
    _checksum,
    covariate_kind,
    missing_kind,
    system_kind,
    variable_kind,
)
from tests.cohorts import SMALL_SCHEMA, build, small_cohort

PUBLISHED = TokenSettings(min_code_count=1, time="gap", long_records="truncate")


@pytest.fixture(scope="module")
def cohort():
    return small_cohort(40)


@pytest.fixture(scope="module")
def tokenizer(cohort):
    return Tokenizer.fit(cohort, TokenSettings(min_code_count=1))


def texts(tokenizer, kind):
    first, size = tokenizer.token(kind), tokenizer.size[tokenizer.grammar.index(kind)]
    return tokenizer.vocabulary[first : first + size]


def mimic_shaped(n_diagnoses=70, n_procedures=20):
    """A cohort with the declarations of MIMIC-III: 25 phenotypes, 41 series, two code systems."""
    levels = [13, 6, 5, 7]
    schema = Schema(
        name="mimic",
        source="test",
        covariates=[
            Covariate("age", "continuous"),
            Covariate("gender", "categorical", levels=["F", "M"]),
        ],
        labels=[Label("in_hospital_mortality", "Mortality", "outcome")]
        + [Label(f"p{i}", f"P{i}", "phenotype") for i in range(25)],
        variables=[
            Variable(f"scale {i}", "categorical", levels=[str(x) for x in range(n)])
            for i, n in enumerate(levels)
        ]
        + [Variable(f"lab {i:02}", "continuous") for i in range(37)],
        code_systems=[CodeSystem("dx", "Diagnoses"), CodeSystem("px", "Procedures")],
    )
    stays = [[1, 1, None, 0, "train", 50.0, "F", 0, *[0] * 25, 60.0]]
    codes = [[1, i, "dx", f"{i:04}"] for i in range(n_diagnoses)]
    codes += [[1, n_diagnoses + i, "px", f"{i:04}"] for i in range(n_procedures)]
    # Series i has as many distinct values as make (i % 10) + 1 bins.
    rows = [
        [1, float(hour), f"lab {i:02}", float(hour), None]
        for hour in range(50)
        for i in range(37)
        if hour < 5 * (i % 10 + 1)
    ]
    return build(schema, stays, codes, rows)


def test_vocabulary_of_a_mimic_shaped_cohort_adds_up():
    tokenizer = Tokenizer.fit(mimic_shaped(), PUBLISHED)
    bins = sum(i % 10 + 1 for i in range(37))
    special, ages, genders, gaps = 11, 15, 2, 15
    assert len(tokenizer.vocabulary) == (
        70 + 20 + (31 + bins) + ages + genders + gaps + 25 + 2 + special
    )
    assert len(set(tokenizer.vocabulary)) == len(tokenizer.vocabulary)
    assert tokenizer.size.sum() == len(tokenizer.vocabulary)
    finer = Tokenizer.fit(mimic_shaped(), TokenSettings(min_code_count=1))
    # A time is 0, 7 days, 1-6 days, 1-23 hours or 1-59 minutes, between points and to the end.
    times = 1 + 1 + 6 + 23 + 59
    more = 2 * times - gaps + len(ELAPSED_EDGES) - 1
    assert len(finer.vocabulary) == len(tokenizer.vocabulary) + more
    for kind in (GAP, STAY):
        texts_of = [texts(finer, f"{kind}:{unit}") for unit in ("week", "day", "hour", "minute")]
        assert [*map(len, texts_of)] == [1, 6, 23, 59]
    assert len(texts(finer, ELAPSED)) == len(ELAPSED_EDGES) - 1


def test_ages_and_gaps_have_the_15_published_bins(cohort):
    tokenizer = Tokenizer.fit(cohort, PUBLISHED)
    ages, gaps = texts(tokenizer, covariate_kind("age")), texts(tokenizer, GAP)
    assert (len(ages), len(gaps)) == (15, 15)
    assert (ages[0], ages[1], ages[-1]) == ("age=(18, 20]", "age=(20, 25]", "age=(85, 90]")
    assert (gaps[0], gaps[9], gaps[-1]) == (
        "gap=(0, 0.5] h",
        "gap=(48, 48.1] h",
        "gap=(150.1, 200.1] h",
    )
    assert len(AGE_EDGES) == len(GAP_EDGES) == 16


def test_tokens_of_a_kind_stand_together_in_order(tokenizer):
    assert tokenizer.vocabulary[:11] == [
        *("<s>", "</covar>", "</label>", "</code>", "</ts>", "</adm>", "</s>", "<pad>"),
        *("<history>", "<forecast>", "</forecast>"),
    ]
    assert texts(tokenizer, covariate_kind("gender")) == ["gender=F", "gender=M"]
    assert texts(tokenizer, system_kind("icd9_procedure")) == [
        f"icd9_procedure:{code}" for code in ("0066", "3893", "9604")
    ]
    levels = texts(tokenizer, variable_kind("Glasgow coma scale total"))
    # In the declared order, not the alphabetical one.
    assert levels == [f"Glasgow coma scale total={i}" for i in range(3, 16)]
    for i, kind in enumerate(tokenizer.grammar.kinds):
        assert np.all(np.diff(np.flatnonzero(tokenizer.kind_of == i)) == 1)
        assert tokenizer.first[i] == tokenizer.token(kind)


def test_series_stand_categorical_first_then_alphabetically():
    names = [("b", "continuous"), ("z", "categorical"), ("B", "continuous"), ("a", "categorical")]
    schema = Schema(
        "s",
        "test",
        variables=[Variable(n, k, levels=["x"] if k == "categorical" else []) for n, k in names],
    )
    cohort = build(schema, [[1, 1, None, 0, "train", None]], [], [])
    assert Tokenizer.fit(cohort).variables == ["a", "z", "B", "b"]


def test_only_the_train_split_is_learned_from(cohort):
    train = cohort.select(split="train")
    one, other = (Tokenizer.fit(c, TokenSettings(min_code_count=1)) for c in (cohort, train))
    assert one.to_json() == other.to_json()


@pytest.mark.parametrize("count", [1, 5, 6, 7])
def test_codes_rarer_than_asked_for_have_no_token(cohort, count):
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=count))
    train = cohort.select(split="train").codes
    for system in SMALL_SCHEMA.code_systems:
        counts = train.loc[train["system"] == system.name, "code"].astype(str).value_counts()
        assert tokenizer.codes[system.name] == sorted(counts.index[counts >= count])


def test_the_same_code_of_two_systems_is_two_tokens():
    schema = Schema("s", "test", code_systems=[CodeSystem("dx", "D"), CodeSystem("px", "P")])
    rows = [[1, 0, "dx", "0066"], [1, 1, "px", "0066"], [1, 2, "px", "0066"]]
    cohort = build(schema, [[1, 1, None, 0, "train", None]], rows, [])
    both = Tokenizer.fit(cohort, TokenSettings(min_code_count=1))
    assert both.codes == {"dx": ["0066"], "px": ["0066"]}
    assert Tokenizer.fit(cohort, TokenSettings(min_code_count=2)).codes == {
        "dx": [],
        "px": ["0066"],
    }


def test_edges_of_covariates_are_given_or_fitted(cohort):
    given = Tokenizer.fit(cohort, TokenSettings(covariate_edges={"age": [0.0, 50.0, 120.0]}))
    assert given.covariate_numbers["age"].edges.tolist() == [0.0, 50.0, 120.0]
    fitted = Tokenizer.fit(cohort, TokenSettings(covariate_edges={}, n_bins=4))
    ages = cohort.select(split="train").stays["age"]
    edges = fitted.covariate_numbers["age"].edges
    assert len(edges) == 5
    assert edges[[0, -1]].tolist() == [ages.min(), ages.max()]


def test_only_covariates_that_may_be_missing_have_a_token_for_it(cohort):
    stays = cohort.stays.copy()
    # Missing in the test split only: every stay must be encodable all the same.
    stays.loc[stays["split"] == "test", "gender"] = None
    tokenizer = Tokenizer.fit(dataclasses.replace(cohort, stays=stays))
    assert tokenizer.nullable == ["gender"]
    assert texts(tokenizer, covariate_kind("gender")) == ["gender=F", "gender=M"]
    assert texts(tokenizer, missing_kind("gender")) == ["gender=missing"]
    assert missing_kind("age") not in tokenizer.grammar.kinds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TokenSettings(gap_edges=[0.0]), "preprocess.gap_edges must be at least two ascending"),
        (TokenSettings(gap_edges=[0.0, 2.0, 2.0]), "preprocess.gap_edges must be"),
        (TokenSettings(gap_edges=[0.0, float("inf")]), "preprocess.gap_edges must be"),
        (TokenSettings(gap_edges=[0.0, float("nan")]), "preprocess.gap_edges must be"),
        (TokenSettings(gap_edges=[-1.0, 2.0]), "preprocess.gap_edges begin below 0"),
        (TokenSettings(covariate_edges={"age": [90.0, 18.0]}), "covariate_edges.age must be"),
    ],
)
def test_edges_that_do_not_ascend_are_refused(cohort, settings, message):
    with pytest.raises(UserError) as error:
        Tokenizer.fit(cohort, settings)
    assert message in str(error.value)


def test_without_a_train_split_there_is_nothing_to_fit_on(cohort):
    with pytest.raises(UserError, match="has no stay in the train split to fit on"):
        Tokenizer.fit(cohort.select(split="test"))


def test_tokens_take_the_smallest_type(tokenizer):
    assert tokenizer.dtype == np.uint16
    many = dataclasses.replace(tokenizer, codes={"icd9_diagnosis": [str(i) for i in range(70_000)]})
    assert many.dtype == np.uint32


def test_allowed_tokens_are_those_of_the_allowed_kinds(tokenizer):
    grammar = tokenizer.grammar
    assert tokenizer.allowed.shape == (len(grammar.kinds), len(tokenizer.vocabulary))
    after_start = np.flatnonzero(tokenizer.allowed[grammar.index(g.START)])
    names = [tokenizer.vocabulary[i] for i in after_start]
    assert names == texts(tokenizer, covariate_kind("age"))


def dense_targets(tokenizer):
    """The dense construction: a Gaussian over the bins of the same series, three to each side."""
    size = len(tokenizer.vocabulary)
    dense = np.eye(size)
    for name in tokenizer.variable_numbers:
        mine = [i for i, t in enumerate(tokenizer.vocabulary) if t.startswith(f"{name}=(")]
        for i in mine:
            dense[i] = 0
            for j in mine:
                if abs(i - j) <= 3:
                    dense[i, j] = np.exp(-((i - j) ** 2) / 2)
            dense[i] /= dense[i].sum()
    return dense


@pytest.mark.parametrize("n_bins", [1, 2, 10, 25])
def test_soft_targets_are_a_gaussian_cut_at_the_ends_of_the_series(cohort, n_bins):
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1, n_bins=n_bins))
    tokens, weights = tokenizer.soft_targets()
    size = len(tokenizer.vocabulary)
    assert tokens.shape == weights.shape == (size, 7)
    assert weights.dtype == np.float32
    assert np.all((tokens >= 0) & (tokens < size))
    assert weights.sum(axis=1) == pytest.approx(np.ones(size), abs=1e-6)
    banded = np.zeros((size, size))
    np.add.at(banded, (np.arange(size)[:, None], tokens), weights)
    assert banded == pytest.approx(dense_targets(tokenizer), abs=1e-7)


def test_soft_targets_of_other_tokens_are_themselves(tokenizer):
    tokens, weights = tokenizer.soft_targets()
    continuous = {variable_kind(name) for name in tokenizer.variable_numbers}
    for i in range(len(tokenizer.vocabulary)):
        if tokenizer.grammar.kinds[tokenizer.kind_of[i]] not in continuous:
            assert tokens[i][weights[i] > 0].tolist() == [i]


def test_the_file_does_not_depend_on_how_the_tables_came_to_be(cohort):
    settings = TokenSettings(min_code_count=1)
    stays = cohort.stays.copy()
    codes = cohort.codes.assign(
        code=cohort.codes["code"].cat.reorder_categories(cohort.codes["code"].cat.categories[::-1]),
        system=cohort.codes["system"].astype(object),
    )
    measurements = cohort.measurements.astype({"variable": object, "level": object})
    other = dataclasses.replace(cohort, stays=stays, codes=codes, measurements=measurements)
    assert Tokenizer.fit(other, settings).to_json() == Tokenizer.fit(cohort, settings).to_json()


def test_the_file_is_readable_and_gives_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.to_json() == tokenizer.to_json()
    assert (loaded.schema, loaded.settings) == (tokenizer.schema, tokenizer.settings)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    assert content["tokenizer_version"] == 4
    assert "Heart Rate" in content["variable_numbers"]
    assert content["vocabulary"] == tokenizer.vocabulary


def without(key):
    return lambda content: content.pop(key)


DAMAGES = [
    *((without(key), "is damaged") for key in ("settings", "codes", "nullable", "vocabulary")),
    *((without(key), "is damaged") for key in ("schema", "gaps", "rules", "free_order")),
    (lambda c: c.update(codes=[]), "is damaged"),
    (lambda c: c.update(nullable=5), "is damaged"),
    (lambda c: c["settings"].update(colour="red"), "is damaged"),
    (lambda c: c["variable_numbers"]["pH"].update(edges=["a", "b"]), "is damaged"),
    (lambda c: c["variable_numbers"]["pH"]["edges"].pop(), "is damaged"),
    (lambda c: c["variable_numbers"].pop("pH"), "does not follow from its bins"),
    (lambda c: c["codes"]["icd9_diagnosis"].append("1234"), "does not follow from its bins"),
    (lambda c: c["codes"].pop("icd9_procedure"), "does not follow from its bins"),
    (lambda c: c["nullable"].append("age"), "does not follow from its bins"),
    (lambda c: c["vocabulary"].reverse(), "does not follow from its bins"),
    (lambda c: c["schema"]["labels"].pop(), "does not follow from its bins"),
    (lambda c: c["schema"]["variables"][0].update(kind="x"), "unknown kind"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_or_edited_file_is_refused(tokenizer, tmp_path, damage, message):
    file = tmp_path / "tokenizer.json"
    content = json.loads(tokenizer.to_json())
    damage(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged: its content is not what was written") as error:
        Tokenizer.load(file)
    assert str(file) in str(error.value)
    # Somebody who edits the checksum, too, is told what does not fit.
    del content["checksum"]
    content["checksum"] = _checksum(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        Tokenizer.load(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("version", "message"),
    [(5, "Update synehrgy"), (3, "Run preprocess.py again"), (None, "is not a tokenizer")],
)
def test_files_of_other_versions_are_refused(tokenizer, tmp_path, version, message):
    content = json.loads(tokenizer.to_json()) | {"tokenizer_version": version}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_changed_quantile_is_damage(tokenizer, tmp_path):
    """Nothing else in the file follows from it; the checksum does."""
    content = json.loads(tokenizer.to_json())
    quantiles = content["variable_numbers"]["pH"]["quantiles"]
    next(q for q in quantiles if q)[0] += 0.01
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_the_file_has_a_line_per_token_and_per_bin(tokenizer):
    lines = [line.strip() for line in tokenizer.to_json().splitlines()]
    for text in tokenizer.vocabulary:
        assert f"{json.dumps(text)}," in lines or json.dumps(text) in lines
    numbers = tokenizer.variable_numbers["pH"]
    assert isinstance(numbers, Bins)
    for quantiles in numbers.quantiles:
        assert f"{json.dumps(quantiles)}," in lines or json.dumps(quantiles) in lines
    assert max(map(len, lines)) < 4000


@pytest.mark.parametrize("text", ["[]", "{}", "5", '{"tokenizer_version": "1"}'])
def test_other_files_are_no_tokenizer(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(UserError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path / "file.json")


def test_half_a_file_is_damaged(tokenizer, tmp_path):
    text = tokenizer.to_json()
    (tmp_path / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="is damaged"):
        Tokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TokenSettings(variables={"Lactat": VariableSettings()}), "Lactat: .* mean 'Lactate'"),
        (
            TokenSettings(variables={"pH": VariableSettings(edges=[7.0, 6.0])}),
            "variables.pH.edges must be",
        ),
        (
            TokenSettings(variables={"pH": VariableSettings(edges=[1.0, 2.0], n_bins=3)}),
            "variables.pH: give either edges, or bin_type",
        ),
        (TokenSettings(within_patient={"weight": "rising"}), "within_patient.weight: no covariate"),
        (TokenSettings(within_patient={"age": "falling"}), "age=falling is none of rising"),
        (TokenSettings(within_patient={"gender": "rising"}), "gender=rising, but it is no number"),
    ],
)
def test_exceptions_that_do_not_fit_the_cohort_are_refused(cohort, settings, message):
    with pytest.raises(UserError, match=message):
        Tokenizer.fit(cohort, settings)


def test_exceptions_of_single_series(cohort):
    exceptions = {
        "pH": VariableSettings(edges=[6.8, 7.3, 7.5, 8.0]),
        "Lactate": VariableSettings(bin_type="raw"),
        "Heart Rate": VariableSettings(bin_type="quantile", n_bins=3, outlier_rule=False),
    }
    numbers = Tokenizer.fit(cohort, TokenSettings(variables=exceptions)).variable_numbers
    assert numbers["pH"].edges.tolist() == [6.8, 7.3, 7.5, 8.0]
    assert (numbers["Lactate"].decimals, numbers["Lactate"].places) == (2, 3)
    rates = cohort.select(split="train").measurements.query("variable == 'Heart Rate'")["value"]
    expected = np.quantile(rates, [0, 1 / 3, 2 / 3, 1])
    assert numbers["Heart Rate"].edges == pytest.approx(expected)
    alone = Tokenizer.fit(cohort).variable_numbers
    assert isinstance(alone["Lactate"], Bins)


def test_soft_targets_of_digits_are_themselves(cohort):
    tokenizer = Tokenizer.fit(cohort, TokenSettings(bin_type="raw"))
    tokens, weights = tokenizer.soft_targets()
    assert np.array_equal(tokens[weights > 0], np.arange(len(tokenizer.vocabulary)))


def test_hundreds_of_series_and_nothing_else():
    names = [f"series {i:03}" for i in range(400)]
    schema = Schema("wide", "test", variables=[Variable(name, "continuous") for name in names])
    rows = [[1, 1.0, name, float(i), None] for i, name in enumerate(names)]
    cohort = build(schema, [[1, 1, None, 0, "train", None]], [], rows)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(bin_type="raw"))
    assert tokenizer.variables == names
    back = decode(tokenizer, encode(tokenizer, cohort)).measurements
    assert back["value"].tolist() == [float(i) for i in range(400)]


def test_a_covariate_can_be_an_exception_too(cohort):
    in_digits = TokenSettings(variables={"age": VariableSettings(bin_type="raw")})
    tokenizer = Tokenizer.fit(cohort, in_digits)
    assert isinstance(tokenizer.covariate_numbers["age"], Digits)
    # Its order over admissions is then not asked for, which the summary says.
    assert tokenizer.rules == {"gender": "constant"}
    back = decode(tokenizer, encode(tokenizer, cohort)).stays["age"]
    decimals = tokenizer.covariate_numbers["age"].decimals
    assert back.tolist() == np.round(cohort.stays["age"], decimals).tolist()
    fitted = Tokenizer.fit(cohort, TokenSettings(covariate_edges={"age": None}, n_bins=3))
    assert len(fitted.covariate_numbers["age"].edges) == 4


@pytest.mark.parametrize("how", ["drop", "parent", "keep"])
def test_a_parent_defines_a_label_only_if_all_that_it_stands_for_do(how):
    """4282 defines the label; 42820 and 42821 are rare, and only the first defines it, too."""
    label = Label("p", "P", "phenotype", system="icd9_diagnosis", codes=["4282", "42820", "4019"])
    schema = Schema("s", "test", labels=[label], code_systems=[CodeSystem("icd9_diagnosis", "D")])
    listed = [["4282"], ["4282"], ["42820"], ["42821"], ["4019"], ["4019"], ["25000"], ["25000"]]
    stays = [
        [i, i, None, 0, "train", int(bool({*codes} & {*label.codes})), None]
        for i, codes in enumerate(listed)
    ]
    codes = [[i, 0, "icd9_diagnosis", code] for i, (code,) in enumerate(listed)]
    cohort = build(schema, stays, codes, [])
    tokenizer = Tokenizer.fit(cohort, TokenSettings(rare_codes=how, min_code_count=2))
    defined = tokenizer.defined_labels

    def of(matrix):
        return {tokenizer.vocabulary[i].split(":")[1] for i in np.flatnonzero(matrix[0])}

    every = {"4282", "4019"} | ({"42820"} if how == "keep" else set())
    assert of(defined.supported_by) == every
    assert of(defined.implied_by) == (every if how != "parent" else {"4019"})
    assert tokenizer.stands_for["icd9_diagnosis"] == (
        {"4282": ["42820", "42821"]} if how == "parent" else {}
    )
    # One of the five stays with the label has only a code that was dropped.
    assert tokenizer.explained == ([] if how == "drop" else ["p"])
    counts = label_contradictions(tokenizer, encode(tokenizer, cohort))
    assert counts["codes_without_label"] == 0
    assert counts["label_without_codes"] == (1 if how == "drop" else 0)


def test_a_label_of_two_systems_follows_from_the_codes_of_either():
    """The same text means something else in another system."""
    label = Label("p", "P", "phenotype", "icd9_diagnosis", ["0389"], {"icd10_diagnosis": ["A419"]})
    systems = [CodeSystem("icd9_diagnosis", "D9"), CodeSystem("icd10_diagnosis", "D10")]
    schema = Schema("s", "test", labels=[label], code_systems=systems)
    listed = [("icd9_diagnosis", "0389"), ("icd10_diagnosis", "A419"), ("icd9_diagnosis", "A419")]
    stays = [[i, i, None, 0, "train", int(i < 2), None] for i in range(3)]
    codes = [[i, 0, system, code] for i, (system, code) in enumerate(listed)]
    tokenizer = Tokenizer.fit(build(schema, stays, codes, []), TokenSettings(min_code_count=1))
    defined = tokenizer.defined_labels
    words = {"icd9_diagnosis:0389", "icd10_diagnosis:A419"}
    for matrix in (defined.implied_by, defined.supported_by):
        assert {tokenizer.vocabulary[i] for i in np.flatnonzero(matrix[0])} == words
    assert tokenizer.explained == ["p"]
    cohort = build(schema, stays, codes, [])
    counts = label_contradictions(tokenizer, encode(tokenizer, cohort))
    assert counts["codes_without_label"] == counts["label_without_codes"] == 0
    without = build(schema, [[*row[:5], 0, None] for row in stays], codes, [])
    counts = label_contradictions(tokenizer, encode(tokenizer, without))
    assert counts["codes_without_label"] == 2
    assert '"also": {' in tokenizer.to_json()
