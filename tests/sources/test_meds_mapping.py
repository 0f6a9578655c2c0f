"""Templates of codes, and what is said when a mapping is wrong."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from synehrgy.cohort.meds_mapping import literal
from synehrgy.errors import UserError
from synehrgy.sources.extraction.resources import PROFILES
from synehrgy.sources.meds.mapping import SHIPPED, find_mapping, read_mapping
from synehrgy.sources.meds.templates import Template, first_match

_codes = st.text("ab1/*{}[]", min_size=1, max_size=6)


@given(_codes, _codes)
def test_a_literal_means_one_code(code: str, other: str) -> None:
    template = Template(literal(code))
    assert template.match(code) == {}
    assert (template.match(other) == {}) == (other == code)


@pytest.mark.parametrize(
    ("template", "code", "expected"),
    [
        ("LAB//{item}//{unit}", "LAB//50912//mg/dL", {"item": "50912", "unit": "mg/dL"}),
        ("LAB//{item}//{unit}", "LAB//RESULT//50912//mg/dL", None),
        ("LAB//{item}//{unit}", "LAB//1//a//b", {"item": "1", "unit": "a//b"}),
        ("ICU_ADMISSION//*", "ICU_ADMISSION//MICU", {}),
        ("ICU_ADMISSION", "ICU_ADMISSION//MICU", None),
        ("*", "any\nthing", {}),
        ("GENDER//{level}", "GENDER//", {"level": ""}),
        ("a[*]b", "a*b", {}),
        ("a[*]b", "axb", None),
        ("a+b", "a+b", {}),
        ("a+b", "aab", None),
    ],
)
def test_what_a_template_means(template: str, code: str, expected: dict[str, str] | None) -> None:
    assert Template(template).match(code) == expected


@pytest.mark.parametrize("text", ["", "{}", "{a}{a}", "x{1}"])
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(UserError, match="is no template of codes"):
        Template(text)


_templates = st.lists(
    st.text("ab/", max_size=3).flatmap(
        lambda text: st.sampled_from([text + "*", text + "{x}", "*" + text, text + "a"])
    ),
    max_size=5,
)


@given(_templates, st.lists(st.text("ab/", max_size=4), max_size=8))
def test_the_first_template_counts(texts: list[str], codes: list[str]) -> None:
    templates = [Template(text) for text in texts]
    expected = {}
    for code in codes:
        for place, template in reversed(list(enumerate(templates))):
            found = template.match(code)
            if found is not None:
                expected[code] = place, found
    assert first_match(templates, codes) == expected


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("profile", PROFILES)
def test_shipped_mappings(name: str, profile: str, tmp_path: Path) -> None:
    mapping = find_mapping(name, tmp_path, profile)
    schema = mapping.schema("x", {})
    assert schema.source == name
    assert len(schema.labels) == 26
    # MIMIC-IV has no items of the total of the coma scale, nor of the published capillary refill.
    n_series = {"mimic3": {"paper": 41, "clinical": 42}, "mimic4": {"paper": 39, "clinical": 41}}
    assert len(schema.variables) == n_series[name][profile]
    assert mapping.columns[:2] == [
        "icustay_id",
        *(["seq_num"] if name == "mimic3" else ["hadm_id"]),
    ]


MAPPING: dict[str, Any] = {
    "source": "ward",
    "stays": {
        "begin": "IN//{bed}",
        "end": "OUT//{bed}",
        "id": "stay",
        "admission": {"id": "case", "begin": "A", "end": "B"},
        "keep": {"min_age": 18},
    },
    "covariates": [{"name": "age", "kind": "continuous", "birth": {}}],
    "codes": {"systems": [{"name": "atc", "code": "DRUG//{code}"}]},
    "labels": [{"column": "died", "kind": "outcome", "death": "admission"}],
    "series": [{"name": "T", "kind": "continuous", "codes": ["T"]}],
}


DIED = {"column": "died", "kind": "outcome"}


def test_this_mapping_is_right() -> None:
    found = read_mapping(copy.deepcopy(MAPPING), "mine.yaml", "paper", "")
    assert found.columns == ["stay", "case"]
    assert found.splits == {"train": "train", "tuning": "val", "held_out": "test"}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("sources", "x", "the mapping has no key 'sources'. Did you mean 'source'?"),
        ("source", None, "the mapping: source is missing"),
        ("stays", "IN", "stays: expected keys with values, found 'IN'"),
        ("stays.begin", None, "stays: begin is missing"),
        ("stays.begins", "IN", "stays has no key 'begins'. Did you mean 'begin'?"),
        ("stays.begin", "{x}{x}", "is no template of codes"),
        ("stays.events", "ids", "stays.events: 'ids' is not known. Did you mean 'id'?"),
        ("stays.length", "weeks", "stays.length: 'weeks' is not known"),
        ("stays.id", None, None),
        ("stays.keep.min_age", "old", "stays.keep: min_age is a number, not 'old'"),
        ("stays.keep.with_series", 1, "stays.keep: with_series is true or false, not 1"),
        ("stays.keep.same", ["bed"], None),
        ("stays.end", None, None),
        ("covariates", [], "stays.keep.min_age needs one covariate with birth"),
        ("covariates.0.kind", "number", "covariate 'age' has the unknown kind 'number'"),
        ("covariates.0.code", "AGE", "has a code, or counts from birth"),
        ("covariates.0.birth.highest", True, "highest is a number, not True"),
        ("codes.systems.0.code", "DRUG//*", "code system 'atc': 'DRUG//*' needs {code}"),
        ("labels.0.death", None, "label 'died' needs one of code, death, codes of systems"),
        ("labels.0.death", "hospital", "label 'died': death: 'hospital' is not known"),
        ("labels.0.systems", ["act"], "label 'died': systems: 'act' is not known. Did you mean"),
        ("labels.0", {**DIED, "codes": {"atc": ["x"], "ops": ["y"]}}, "'ops' is not known"),
        ("labels.0", {**DIED, "codes": {"atc": ["x"]}}, None),
        ("labels.0", {**DIED, "codes": ["x"]}, "label 'died': codes, and ccs, need systems"),
        ("labels.0", {**DIED, "codes": {"atc": "B01"}}, "codes: a list of texts is needed"),
        ("labels.0", {**DIED, "codes": {"atc": [31]}}, "codes: a list of texts is needed"),
        ("labels.0", {**DIED, "ccs": "sepsis", "systems": ["atc"]}, "ccs is the number of"),
        ("labels.0.ccs", 2, "label 'died' needs one of code, death, codes of systems, and ccs"),
        ("series.0.codes", "HR", "series 'T': codes: a list is needed, not 'HR'"),
        ("series.0.levels", [True, False], "series 'T': levels: a list of texts is needed"),
        ("blank", "___", "blank: a list of texts is needed"),
        ("labels.0.column", "age", "columns of the stays table: declared more than once: age"),
        ("stays.admission.end", None, "death: admission needs stays.admission with begin and end"),
        ("series.0.clean", "numbers", "series 'T': clean: 'numbers' is not known. Did you mean"),
        ("series.0.duplicates", "mean", "series 'T': duplicates: 'mean' is not known"),
        ("series.0.codes", [{"multiply": 2}], "series 'T': codes: code is missing"),
        ("series.0.codes", [{"code": "T", "multiply": "2"}], "multiply is a number, not '2'"),
        ("series", {"items_of": "mimic3", "codes": ["LAB//*"]}, "'LAB//*' needs {item}"),
        ("series", {"items_of": "eicu", "codes": []}, "series.items_of: 'eicu' is not known"),
        ("splits", {"x": "validation"}, "splits: 'validation' is not known"),
        ("codes.systems", 3, "is no mapping"),
    ],
)
def test_a_wrong_mapping_is_answered_in_words(path: str, value: Any, says: str | None) -> None:
    content = copy.deepcopy(MAPPING)
    *groups, name = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = content
    for group in groups:
        place = place[group]
    if value is None:
        del place[name]
    else:
        place[name] = value
    if says is None:
        read_mapping(content, "mine.yaml", "paper", "")
        return
    with pytest.raises(UserError, match=re.escape(says)) as refusal:
        read_mapping(content, "mine.yaml", "paper", "")
    assert str(refusal.value).startswith("mine.yaml")


@pytest.mark.parametrize(
    ("stays", "says"),
    [
        ({"begin": "IN", "events": "id"}, "stays.events: id needs stays.id"),
        ({"begin": "IN", "id": "s", "events": "admission"}, "need stays.admission.id"),
        ({"begin": "IN", "keep": {"same": ["ward"]}}, "compares with stays.end, which is missing"),
        ({"begin": "IN", "length": "days"}, "is the value of stays.end, which is missing"),
        (
            {"begin": "IN//{bed}", "end": "OUT", "keep": {"same": ["bed"]}},
            "{bed} stands in stays.begin, but not in end",
        ),
    ],
)
def test_rules_of_stays_that_do_not_go_together(stays: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        read_mapping({"source": "x", "stays": stays}, "mine.yaml", "paper", "")


def test_where_a_mapping_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no mapping of its own"):
        find_mapping(None, tmp_path, "paper")
    with pytest.raises(UserError, match="no such file, and none of the mappings that there are"):
        find_mapping("mimic5", tmp_path, "paper")
    file = tmp_path / "metadata" / "mapping.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(MAPPING))
    assert find_mapping(None, tmp_path, "paper") == find_mapping(str(file), tmp_path, "clinical")
    file.write_text("stays: [")
    with pytest.raises(UserError, match="is damaged"):
        find_mapping(None, tmp_path, "paper")
